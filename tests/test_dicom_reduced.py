"""Large compressed pictures are decoded small where a model needs no more, and show the same."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from dicom_objects import picture, rendered, save
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from medkit.errors import DataError
from medkit.readers import Record, get_reader
from medkit.readers.dicom import reduced
from medkit.readers.dicom.decode import decode, describe
from medkit.readers.dicom.reasons import REASONS, Refused
from medkit.readers.dicom.reduced import fit_small
from medkit.readers.slices import shrink

J2K, J2K_LOSSY, HTJ2K, JPEG = (
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.50",
)
# Greys of 255 between a small decode and a whole one that is shrunk: the two low-pass filters differ.
U8 = np.uint8
NEAR_MEAN, NEAR_MOST = 1.5, 16


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets small pictures be decoded small, so that tests are quick."""
    monkeypatch.setattr(reduced, "LEAST_PIXELS", 0)


def chest(rows: int, columns: int, bits: int = 12, seed: int = 0) -> np.ndarray:
    """Gives an invented radiograph: soft fields, sharp ribs, a bright marker and a little noise."""
    y, x = np.mgrid[:rows, :columns] / min(rows, columns)
    field = 0.55 - 0.3 * np.exp(-((x - 0.5) ** 2 + (y - 0.6) ** 2) * 6)
    field += 0.12 * (np.sin(y * 40 + x * 4) > 0.7)
    field[rows // 16 : rows // 8, columns // 16 : columns // 6] = 0.95
    field += np.random.default_rng(seed).normal(0, 0.005, field.shape)
    return np.rint(np.clip(field, 0, 1) * (2**bits - 1)).astype(np.uint16 if bits > 8 else np.uint8)


def j2k(values: np.ndarray, bits: int, **options: Any) -> bytes:
    given = {"codecformat": "j2k", "reversible": True, "bitspersample": bits} | options
    return imagecodecs.jpeg2k_encode(values, **given)


def compressed(values: np.ndarray, syntax: str, bits: int, data: bytes, **attributes: Any) -> Dataset:
    """Gives a radiograph with a window and its frame compressed."""
    half = 2 ** (bits - 1)
    window = {"WindowCenter": half, "WindowWidth": 2 * half, "BitsStored": bits, "HighBit": bits - 1}
    return picture(values, syntax, encapsulate([data]), **(window | attributes))


def both(made: Dataset, side: int, profile: Any = "window") -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Gives the picture of a small decode and of a whole one, both shrunk, and the small decode's shape."""
    small = decode(made, side=side).values.shape[1:]
    whole = shrink(rendered(made, profile).pictures[0], side)
    less = fit_small(rendered(made, profile, side).pictures[0], small[:2], describe(made), side)
    return less, whole, small


def assert_near(less: np.ndarray, whole: np.ndarray, times: float = 1.0) -> None:
    assert less.shape == whole.shape
    apart = np.abs(less.astype(int) - whole.astype(int))
    assert apart.mean() <= NEAR_MEAN * times
    assert np.percentile(apart, 99) <= NEAR_MOST * times


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize(
    ("profile", "times"),
    # An equalised histogram stretches the differences with the contrast.
    [("window", 1.0), ("cxr-equalised", 2.0), ({"*": {"percentiles": [0.5, 99.5]}}, 1.0)],
)
def test_a_radiograph_decoded_small_looks_like_a_whole_one_that_is_shrunk(profile: Any, times: float) -> None:
    values = chest(803, 645)  # sides that no power of two divides
    made = compressed(values, J2K, 12, j2k(values, 12))
    less, whole, shape = both(made, 160, profile)
    assert shape == (201, 162)
    assert_near(less, whole, times)


@pytest.mark.usefixtures("any_size")
def test_everything_lies_where_it_does_in_the_whole_picture() -> None:
    values = chest(512, 512)
    made = compressed(values, J2K, 12, j2k(values, 12))
    less, whole, _ = both(made, 100)
    unplaced = shrink(rendered(made, "window", 100).pictures[0], 100)
    apart = [np.abs(one.astype(int) - whole).mean() for one in (less, unplaced)]
    assert apart[1] > 1.5 * apart[0]


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_lossy_stream_and_an_inverted_one(photometric: str) -> None:
    values = chest(512, 640)
    data = j2k(values, 12, reversible=False, level=70)
    less, whole, shape = both(
        compressed(values, J2K_LOSSY, 12, data, PhotometricInterpretation=photometric), 128
    )
    assert shape == (128, 160)
    assert_near(less, whole)


@pytest.mark.usefixtures("any_size")
def test_signed_values_keep_their_sign() -> None:
    values = (chest(512, 512).astype(np.int16) - 2048).astype(np.int16)
    made = compressed(values, J2K, 12, j2k(values, 12), WindowCenter=0)
    small = decode(made, side=128).values[0]
    assert (small.dtype, small.shape) == (np.int16, (128, 128))
    assert abs(small.mean() - values.mean()) < 5
    assert_near(*both(made, 128)[:2])


@pytest.mark.usefixtures("any_size")
def test_high_throughput_and_grey_jpeg_pictures_come_small_too() -> None:
    values = chest(515, 643)
    made = compressed(
        values, HTJ2K, 16, imagecodecs.htj2k_encode(values), WindowCenter=2048, WindowWidth=4096
    )
    less, whole, shape = both(made, 128)
    assert shape == (129, 161)
    assert_near(less, whole)
    values = chest(515, 643, 8)
    made = compressed(values, JPEG, 8, imagecodecs.jpeg8_encode(values, level=95))
    less, whole, shape = both(made, 128)
    assert shape == (129, 161)
    assert_near(less, whole)


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("syntax", [J2K, HTJ2K])
@pytest.mark.parametrize("bits", [8, 16])
def test_black_beside_white_stays_black(syntax: str, bits: int) -> None:
    # The low-pass of an edge falls below 0 and beyond the greatest value; a decoder that wraps shows the opposite.
    values = np.zeros((256, 256), U8 if bits == 8 else np.uint16)
    values[60:190, 75:181] = 2**bits - 1
    values[::7] //= 3
    data = imagecodecs.htj2k_encode(values) if syntax == HTJ2K else j2k(values, bits)
    window = {"WindowCenter": 2 ** (bits - 1), "WindowWidth": 2**bits}
    less, whole, shape = both(compressed(values, syntax, bits, data, **window), 64)
    assert shape == (64, 64)
    assert np.abs(less.astype(int) - whole.astype(int)).max() < 100


@pytest.mark.usefixtures("any_size")
def test_colours_stay_colours() -> None:
    values = np.stack([chest(256, 256, 8, seed) for seed in range(3)], axis=-1)
    values[..., 1] //= 2
    made = compressed(values, J2K, 8, j2k(values, 8, mct=True), PhotometricInterpretation="YBR_RCT")
    less, whole, shape = both(made, 100)
    assert shape == (128, 128, 3)
    assert_near(less, whole)


def whole_size(made: Dataset, side: int = 64) -> bool:
    return decode(made, side=side).values.shape[1:3] == (made.Rows, made.Columns)


@pytest.mark.usefixtures("any_size")
def test_only_what_shows_the_same_is_decoded_small() -> None:
    values = chest(256, 256)
    data = j2k(values, 12)
    assert not whole_size(compressed(values, J2K, 12, data))
    assert whole_size(compressed(values, J2K, 12, data), side=200)  # half of it would be too small
    assert whole_size(compressed(values, J2K, 12, data, PixelPaddingValue=0))
    assert whole_size(compressed(values, J2K, 12, data, PhotometricInterpretation="PALETTE COLOR"))
    # Signed in the header alone: values wrap, and a mean over a wrapped edge is none.
    assert whole_size(compressed(values.astype(np.int16), J2K, 12, data))
    # Nothing to halve in the stream.
    assert whole_size(compressed(values, J2K, 12, j2k(values, 12, resolutions=1)))
    assert decode(compressed(values, J2K, 12, data)).values.shape == (1, 256, 256)


def test_what_is_not_large_is_decoded_whole() -> None:
    values = chest(512, 512)
    assert whole_size(compressed(values, J2K, 12, j2k(values, 12)))


@pytest.mark.usefixtures("any_size")
def test_a_stream_that_ends_early_meets_the_whole_decoder() -> None:
    values = chest(256, 256)
    data = j2k(values, 12)
    assert whole_size_or_refused(compressed(values, J2K, 12, data[: len(data) // 2]))


def whole_size_or_refused(made: Dataset) -> bool:
    try:
        return whole_size(made)
    except DataError:
        return True


def test_the_card_asks_for_the_size(tmp_path: Path) -> None:
    values = chest(1024, 1280)
    save(compressed(values, J2K, 12, j2k(values, 12)), tmp_path / "in" / "a")
    save(picture(values, WindowCenter=2048, WindowWidth=4096), tmp_path / "in" / "b")
    records = list(get_reader("dicom")(tmp_path / "in", {"side_px": 128}))
    pictures = []
    for record in records:
        assert isinstance(record, Record) and callable(record.image)
        pictures.append(np.asarray(record.image().images[0]))
    assert [one.shape for one in pictures] == [(128, 160), (128, 160)]
    assert_near(*pictures)
    for wrong in (0, "large", True, 100_000):
        with pytest.raises(DataError, match=r"side_px .* is no whole number from 16 to 16384"):
            list(get_reader("dicom")(tmp_path / "in", {"side_px": wrong}))


def test_regions_and_extreme_values_need_the_whole_picture(tmp_path: Path) -> None:
    values = chest(1024, 1024)
    values[300, 300] = 4095
    made = compressed(values, J2K, 12, j2k(values, 12), WindowCenter=None, WindowWidth=None)
    save(made, tmp_path / "a")
    for profile, same in (("mr-minmax", True), ("cxr-equalised", False)):
        (record,) = get_reader("dicom")(tmp_path, {"side_px": 128, "profiles": profile})
        assert isinstance(record, Record) and callable(record.image)
        picture_made = np.asarray(record.image().images[0])
        expected = shrink(rendered(made, profile).pictures[0], 128)
        assert np.array_equal(picture_made, expected) is same


def test_the_worker_decodes_small_pictures_within_its_limits(tmp_path: Path) -> None:
    from medkit.readers.dicom.worker import Worker

    values = chest(1024, 1024)
    path = save(compressed(values, J2K, 12, j2k(values, 12)), tmp_path / "a")
    worker = Worker()
    try:
        assert worker.decode(path, None, side=64).values.shape == (1, 64, 64)
        assert worker.decode(path, None).values.shape == (1, 1024, 1024)
    finally:
        worker.stop()


@pytest.mark.usefixtures("any_size")
def test_pillow_still_gives_the_sizes_of_the_standard() -> None:
    # The small decode sets the size that Pillow computes; a Pillow that computes otherwise must be noticed.
    values = chest(101, 2049)
    with Image.open(io.BytesIO(j2k(values, 12))) as image:
        assert image.size == (2049, 101)
    small = decode(compressed(values, J2K, 12, j2k(values, 12)), side=20).values
    assert small.shape == (1, 26, 513)


def test_damaged_streams_end_with_a_picture_or_a_reason(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = chest(1024, 1024)
    grey = chest(1024, 1024, 8)
    sources = [
        compressed(values, J2K, 12, j2k(values, 12)),
        compressed(values, HTJ2K, 16, imagecodecs.htj2k_encode(values)),
        compressed(grey, JPEG, 8, imagecodecs.jpeg8_encode(grey, level=80)),
    ]
    for number in range(30):
        made = sources[number % 3]
        data = bytearray(save(made, tmp_path / "source").read_bytes())
        start = len(data) - len(made.PixelData)
        for place in random.integers(start, len(data), random.integers(1, 17)):
            data[place] = random.integers(256)
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number:03d}").write_bytes(data)
    fates = []
    for record in get_reader("dicom")(tmp_path / "in", {"side_px": 64, "seconds": 20}):
        if not isinstance(record, Record):
            fates.append(record.reason)
            continue
        assert callable(record.image)
        try:
            fates.append(np.asarray(record.image().images[0]).shape)
        except Refused as refused:
            fates.append(refused.reason)
    assert len(fates) == 30
    assert all(fate in REASONS or fate == (64, 64) for fate in fates)
    assert fates.count((64, 64)) >= 6
