"""The mistakes that loaders of medical pictures make: docs/dicom.md names the test of each, and these are the rest.

Every test here also makes the mistake, to show that it would be seen.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from dicom_objects import CAPTURE, MR, NATIVE, PET, ct, item, picture, rendered, save, shown
from PIL import Image
from pydicom.encaps import encapsulate

from medkit.images import decode as decode_image
from medkit.images import read_limited
from medkit.plain_pictures import without_metadata
from medkit.readers import Record, get_reader
from medkit.readers.dicom import series
from medkit.readers.dicom.decode import decode
from medkit.readers.dicom.files import read_file
from medkit.readers.dicom.reasons import Refused
from medkit.readers.dicom.render import modality_transform
from medkit.readers.dicom.series import load_values, order_slices, runs_of, slices_of
from medkit.store import DatasetWriter, open_dataset

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "dicom.md"
U8, U16 = np.uint8, np.uint16
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
MISTAKES = 38


def test_the_page_names_a_test_of_every_mistake() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("<!-- mistakes -->")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.strip().splitlines()[2:]]
    assert [int(number) for number, *_ in rows] == list(range(1, MISTAKES + 1))
    written = {path.name: path.read_text(encoding="utf-8") for path in TESTS.glob("test_*.py")}
    missing = []
    for _, _, named in rows:
        for name in re.findall(r"`(\w+\.py::\w+)`", named) or ["no test"]:
            file, _, test = name.partition("::")
            if not re.search(rf"^def {test}\(", written.get(file, ""), re.MULTILINE):
                missing.append(name)
    assert missing == []


def test_per_picture_spread_is_no_window() -> None:
    values = np.array([[1024, 1064, 1264, 4000]], U16)
    spread = (values - values.min()) / np.ptp(values) * 255
    right = shown(ct(values), "ct-abdomen")[0]
    assert right == [102, 128, 255, 255]
    assert np.abs(spread[0] - right).mean() > 90


def test_one_bit_pixels_are_unpacked() -> None:
    bits = (np.indices((3, 8)).sum(axis=0) % 3 == 0).astype(U8)
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes() + b"\0"
    made = picture(np.zeros((3, 8), U8), data=packed, BitsAllocated=1, BitsStored=1, HighBit=0)
    assert decode(made).values[0].tolist() == bits.tolist()
    assert len(np.frombuffer(packed, U8)) != bits.size  # bytes are no pixels


def test_colours_of_32_bits_show_their_upper_byte() -> None:
    values = np.array([[[0xFF000000, 0x80000000, 0xFF]]], np.uint32)
    assert shown(picture(values)) == [[[255, 128, 0]]]
    assert values.astype(U8).tolist() == [[[0, 0, 255]]]  # the mistake


def test_odd_sizes_and_bytes_behind_the_pixels() -> None:
    values = np.arange(27, dtype=U8).reshape(3, 3, 3)
    made = picture(values)
    assert len(made.PixelData) == 28  # an even number of bytes
    assert shown(made) == values.tolist()
    padded = picture(
        np.arange(9, dtype=U16).reshape(3, 3), data=np.arange(9, dtype="<u2").tobytes() + bytes(40)
    )
    assert decode(padded).values.shape == (1, 3, 3)
    with pytest.raises(ValueError):
        np.frombuffer(padded.PixelData, U16).reshape(3, 3)


def without_prefix(made: pydicom.Dataset, meta: bool) -> bytes:
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    data = file.getvalue()[132:]
    if meta:
        return data
    length = int.from_bytes(data[8:12], "little")  # group length of the meta header
    return data[12 + length :]


def test_a_file_without_prefix_is_read_and_one_without_encoding_is_refused(tmp_path: Path) -> None:
    values = np.arange(64, dtype=U16).reshape(8, 8)
    (tmp_path / "a").write_bytes(without_prefix(picture(values), meta=True))
    (tmp_path / "b").write_bytes(without_prefix(picture(values), meta=False))
    with pytest.raises(pydicom.errors.InvalidDicomError):
        pydicom.dcmread(tmp_path / "a")
    assert np.array_equal(decode(read_file(tmp_path / "a")).values[0], values)
    with pytest.raises(Refused, match="no transfer syntax"):
        decode(read_file(tmp_path / "b"))


@pytest.mark.parametrize("whole", [True, False])
def test_a_deflated_file_gives_its_pixels_or_its_reason(tmp_path: Path, whole: bool) -> None:
    values = np.arange(64, dtype=U16).reshape(8, 8)
    made = picture(values)
    made.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    path = save(made, tmp_path / "a")
    if not whole:
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(Refused, match="truncated pixel data"):
            read_file(path)
        return
    assert np.array_equal(decode(read_file(path)).values[0], values)
    # Read as it lies there, the picture would be compressed bytes.
    assert values.tobytes() not in path.read_bytes()


def test_red_green_and_blue_without_a_marker_stay_what_they_are() -> None:
    colour = np.zeros((16, 16, 3), U8)
    colour[:] = (200, 30, 60)
    codes = imagecodecs.jpeg8_encode(
        colour, level=98, colorspace="RGB", outcolorspace="RGB", subsampling="444"
    )
    at = codes.find(
        b"\xff\xee"
    )  # without Adobe's marker Pillow takes the channels for YCbCr unless named R, G, B
    if at > 0:
        codes = codes[:at] + codes[at + 2 + int.from_bytes(codes[at + 2 : at + 4], "big") :]
    frame = bytearray(codes)
    start = frame.index(b"\xff\xc0")
    for index in range(3):
        frame[start + 10 + 3 * index] = index + 1
    scan = frame.index(b"\xff\xda")
    for index in range(3):
        frame[scan + 5 + 2 * index] = index + 1
    made = picture(colour, "1.2.840.10008.1.2.4.50", encapsulate([bytes(frame)]))
    assert np.abs(rendered(made).pictures[0].astype(int) - colour).max() <= 3
    naive = np.asarray(Image.open(io.BytesIO(bytes(frame))).convert("RGB")).astype(int)
    assert np.abs(naive - colour).max() > 40


def enhanced_mr() -> pydicom.Dataset:
    """Gives four frames of an enhanced MR, stored out of order, each with its own rescale."""
    places = [6.0, 0.0, 4.0, 2.0]
    groups = [
        item(
            PixelValueTransformationSequence=[
                item(RescaleSlope=1 + index, RescaleIntercept=0, RescaleType="US")
            ],
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, place])],
        )
        for index, place in enumerate(places)
    ]
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.5], SliceThickness=2.0)],
    )
    values = np.full((4, 8, 8), 100, U16)
    values[:, :4] = 0
    return picture(
        values,
        NumberOfFrames=4,
        SOPClassUID=ENHANCED_MR,
        Modality="MR",
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=groups,
    )


def test_the_frames_of_an_enhanced_mr_are_ordered_and_rescaled_each_by_its_own(tmp_path: Path) -> None:
    made = enhanced_mr()
    path = save(made, tmp_path / "a")
    volume = order_slices(slices_of(path, read_file(path)))
    assert [one.frame for one in volume.slices] == [1, 3, 2, 0]
    assert volume.spacing_mm == (2.0, 0.5, 0.5)
    assert load_values(volume)[:, 7, 7].tolist() == [200, 400, 300, 100]
    assert decode(made).values[:, 7, 7].tolist() == [
        100,
        100,
        100,
        100,
    ]  # what top-level attributes alone give
    record = next(iter(get_reader("dicom")(tmp_path, {"series": True, "profiles": "mr-minmax", "slices": 4})))
    assert isinstance(record, Record) and callable(record.image)
    assert [int(one[7, 7]) for one in record.image().images] == [128, 255, 191, 64]


def test_a_file_of_many_frames_is_not_read_once_a_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(enhanced_mr(), tmp_path / "a")
    volume = order_slices(slices_of(path, read_file(path)))
    assert list(runs_of(volume.slices, most=3)) == [(path, (1, 3, 2)), (path, (0,))]
    opened: list[Path] = []
    real = series.read_file
    monkeypatch.setattr(series, "read_file", lambda path, limits: opened.append(path) or real(path, limits))
    load_values(volume)
    assert opened == [path]
    record = next(iter(get_reader("dicom")(tmp_path, {"series": True, "profiles": "mr-minmax"})))
    assert isinstance(record, Record) and callable(record.image)
    opened.clear()
    assert len(record.image().images) == 4
    assert opened == [path] * 2  # once for the volume's percentiles, once for the pictures


def test_a_pet_series_is_rescaled_slice_by_slice(tmp_path: Path) -> None:
    for index in range(3):
        about = {
            "SOPClassUID": PET, "Modality": "PT", "RescaleSlope": 0.5 * (index + 1), "RescaleIntercept": 0,
            "ImagePositionPatient": [0, 0, 3.0 * index], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [4, 4], "SOPInstanceUID": f"1.2.{index + 1}",
        }  # fmt: skip
        save(picture(np.full((4, 4), 200, U16), **about), tmp_path / f"{index}")
    files = sorted(tmp_path.iterdir())
    values = load_values(order_slices([one for path in files for one in slices_of(path, read_file(path))]))
    assert values[:, 0, 0].tolist() == [100.0, 200.0, 300.0]
    first = modality_transform(read_file(files[0]), 0, False)
    naive = [first.apply(decode(read_file(path)).values)[0, 0, 0] for path in files]
    assert naive == [100.0, 100.0, 100.0]  # one slope for the series


@pytest.mark.parametrize("attributes", [{"SOPClassUID": CAPTURE}, {"RescaleType": "US"}])
def test_a_screenshot_in_a_ct_series_is_not_shown_in_hounsfield_units(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    values = np.array([[0, 1024], [2000, 3000]], U16)
    save(ct(values, **attributes), tmp_path / "a")
    (found,) = get_reader("dicom")(tmp_path, {"burned_in": "keep"})
    assert isinstance(found, Record) and callable(found.image)
    with pytest.raises(Refused, match="values are not Hounsfield units"):
        found.image()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_photographs_author_and_place_stay_outside(tmp_path: Path, form: str) -> None:
    exif = Image.Exif()
    exif[0x013B] = "Dr Quimby"  # artist
    exif.get_ifd(0x8825)[1] = "N"  # latitude
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=U8)
    options: dict[str, Any] = {"JPEG": {"quality": 95, "comment": b"ward seven"}, "WEBP": {"lossless": True}}
    (tmp_path / "a").write_bytes(
        saved(noise, form, exif=exif.tobytes(), **options.get(form, {})) + b"tail of Quimby"
    )
    for number, given in enumerate(((tmp_path / "a").read_bytes(), read_limited(tmp_path / "a"))):
        with DatasetWriter(tmp_path / f"{number}", name="photos") as to:
            ref = to.add_image(given)
        stored = (tmp_path / f"{number}" / "images.arrow").read_bytes()
        assert not any(word in stored for word in (b"Quimby", b"ward seven", b"Exif\0\0"))
        kept = np.asarray(open_dataset(tmp_path / f"{number}").image(ref))
        assert np.array_equal(kept, np.asarray(Image.open(tmp_path / "a").convert("RGB")))
    assert b"Quimby" in (tmp_path / "a").read_bytes()
    # Without its metadata a file stays as it is and isn't encoded again.
    assert decode_image(read_limited(tmp_path / "a")).plain
    if form != "WEBP":  # whose extended header stays
        options = {"JPEG": {"quality": 95}}.get(form, {})
        assert read_limited(tmp_path / "a") == saved(noise, form, **options)


def saved(values: np.ndarray, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, form, **options)
    return file.getvalue()


def test_a_turned_photograph_is_turned_before_its_orientation_goes(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.zeros((8, 20, 3), U8)
    values[:, :10] = 255
    (tmp_path / "a").write_bytes(saved(values, "JPEG", exif=exif.tobytes(), quality=95))
    data = read_limited(tmp_path / "a")
    upright = decode_image(data)
    assert upright.image.size == (8, 20) and not upright.plain
    assert np.asarray(upright.image)[2, 4].tolist() == [255, 255, 255]


def test_metadata_of_damaged_files_are_never_kept() -> None:
    whole = saved(np.full((8, 8, 3), 90, U8), "JPEG", comment=b"ward seven")
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(2, len(data), 3):
            data[place] = rng.integers(256)
        plain = without_metadata(bytes(data))
        assert plain is None or len(plain) <= len(data)
    assert without_metadata(whole[:-2]) is None
    assert without_metadata(b"BM not one of them") is None


def test_deep_greys_are_not_saturated() -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([[100, 300], [2000, 4095]], U16)).save(file, "PNG")
    right = np.asarray(decode_image(file.getvalue()).image)[..., 0]
    assert len(set(right.ravel().tolist())) == 4
    naive = np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("L"))
    assert naive.ravel().tolist() == [100, 255, 255, 255]


def test_nothing_is_read_beyond_the_native_frames_that_are_there() -> None:
    made = picture(np.zeros((2, 4, 4), U16), NumberOfFrames=2)
    made.NumberOfFrames = 2_000_000
    with pytest.raises(Refused, match="too many pixels"):
        decode(made)
    made.NumberOfFrames = 90_000
    with pytest.raises(Refused, match="truncated pixel data"):
        decode(made)


def test_a_magnetic_resonance_is_no_ct() -> None:
    made = picture(
        np.arange(4, dtype=U16).reshape(2, 2), NATIVE, SOPClassUID=MR, Modality="MR", RescaleSlope=1
    )
    with pytest.raises(Refused, match="values are not Hounsfield units"):
        shown(made, "ct-abdomen")
