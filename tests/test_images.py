"""Decoding: every bit depth becomes RGB uint8 without clamping, limits hold before pixels are touched."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from medkit.errors import DataError
from medkit.images import Limits, array_to_rgb, decode, encode_lossless, read_limited, to_eight_bits


def _saved(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _rgb(data: bytes, **options) -> np.ndarray:
    decoded = decode(data, **options)
    assert decoded.image.mode == "RGB"
    return np.asarray(decoded.image)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clamped(form):
    ramp = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)  # 12 bits in a 16-bit container
    pixels = _rgb(_saved(Image.fromarray(ramp), form))
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert pixels[-1, -1].tolist() == [255, 255, 255]
    assert abs(int(pixels[32, 0, 0]) - 128) <= 1
    assert len(np.unique(pixels)) == 256


def test_full_scale_keeps_grey_values_comparable():
    values = np.full((8, 8), 65_535 // 2, np.uint16)
    values[0, 0] = 257
    pixels = _rgb(_saved(Image.fromarray(values)), scale="full")
    assert pixels[5, 5, 0] == 127
    assert pixels[0, 0, 0] == 1


def test_a_constant_deep_picture_keeps_its_place_in_the_range():
    assert _rgb(_saved(Image.fromarray(np.full((4, 4), 65_535, np.uint16))))[0, 0, 0] == 255
    assert _rgb(_saved(Image.fromarray(np.zeros((4, 4), np.uint16))))[0, 0, 0] == 0


def test_white_is_zero_tiff_is_turned_round():
    values = np.linspace(0, 60_000, 256).reshape(16, 16).astype(np.uint16)
    pixels = _rgb(_saved(Image.fromarray(values), "TIFF", tiffinfo={262: 0}))
    assert pixels[0, 0, 0] == 255
    assert pixels[-1, -1, 0] == 0


def test_float_tiff_with_holes():
    values = np.linspace(-5, 5, 100, dtype=np.float32).reshape(10, 10)
    values[0, 0] = np.nan
    pixels = _rgb(_saved(Image.fromarray(values), "TIFF"))
    assert pixels[0, 0, 0] == 0
    assert pixels[-1, -1, 0] == 255


RAMP = np.linspace(0.0, 1.0, 64 * 64).reshape(64, 64)


def _tiff(values: np.ndarray, **settings) -> bytes:
    tifffile = pytest.importorskip("tifffile", reason="writes TIFF files that Pillow can't")
    file = io.BytesIO()
    tifffile.imwrite(file, values, **settings)
    return file.getvalue()


@pytest.mark.parametrize("settings", [{}, {"compression": "zlib"}, {"tile": (32, 32)}, {"bigtiff": True}])
@pytest.mark.parametrize(
    "values",
    [
        pytest.param((RAMP * 65_535).astype(np.uint16), id="16 bits"),
        pytest.param((RAMP * 4_095).astype(np.uint16), id="12 bits in 16"),
        pytest.param((RAMP * 4_000 - 2_000).astype(np.int16), id="16 bits signed"),
        pytest.param((RAMP * 200 - 100).astype(np.int8), id="8 bits signed"),
        pytest.param((RAMP * 4.0e9).astype(np.uint32), id="32 bits beyond half of their range"),
        pytest.param((RAMP * 4_000).astype(np.uint32), id="12 bits in 32"),
        pytest.param((RAMP * 4.0e6 - 2.0e6).astype(np.int32), id="32 bits signed"),
        pytest.param((RAMP * 3 - 1).astype(np.float32), id="floats"),
    ],
)
def test_every_number_type_of_tiff_shows_low_as_dark_and_high_as_bright(values, settings):
    shown = _rgb(_tiff(values, **settings))[:, :, 0]
    assert np.abs(shown - RAMP * 255.0).max() < 2.0


def test_a_number_type_that_is_not_read_is_named():
    with pytest.raises(DataError, match="a TIFF that is damaged or of a number type that isn't read"):
        decode(_tiff(RAMP.astype(np.float64)))


def test_sixteen_bit_colour_is_spread_or_refused_and_never_black():
    def colours(most: int) -> np.ndarray:
        red = (RAMP * most).astype(np.uint16)
        return np.stack([red, red // 2, red // 4], axis=2)

    whole = decode(_tiff(colours(65_535), photometric="rgb"))
    assert np.asarray(whole.image)[-1, -1].tolist() == [255, 127, 63] and not whole.plain
    dark = decode(_tiff(colours(16_383), photometric="rgb"))  # 14 bits in 16
    brightest = np.asarray(dark.image)[-1, -1].astype(int)
    assert np.abs(brightest - [255, 127, 63]).max() <= 6
    assert dark.note == "16-bit colour scaled by percentile"
    assert np.asarray(decode(_tiff(colours(16_383), photometric="rgb"), scale="full").image).max() == 63
    with pytest.raises(
        DataError, match="fill 1/16 of their range, which leaves 16 levels of 8 bits; convert"
    ):
        decode(_tiff(colours(4_095), photometric="rgb"))


def test_sixteen_bit_colour_png_is_not_kept_as_it_is():
    imagecodecs = pytest.importorskip("imagecodecs", reason="writes 16-bit colour PNG")
    ramp = (RAMP * 65_535).astype(np.uint16)
    given = decode(imagecodecs.png_encode(np.stack([ramp] * 3, axis=2)))
    assert not given.plain
    assert np.abs(np.asarray(given.image)[:, :, 1] - RAMP * 255.0).max() < 2.0
    with pytest.raises(DataError, match="16-bit colours fill 1/16"):
        decode(imagecodecs.png_encode(np.stack([ramp // 16] * 3, axis=2)))


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    assert _rgb(_saved(image)).tolist() == [[[255, 0, 0], [255, 255, 255]]]
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([0, 0, 255, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    assert _rgb(_saved(palette)).tolist() == [[[0, 0, 255], [0, 255, 0]]]
    assert _rgb(_saved(palette, transparency=1)).tolist() == [[[0, 0, 255], [255, 255, 255]]]
    assert _rgb(_saved(Image.new("LA", (1, 1), (0, 0)))).tolist() == [[[255, 255, 255]]]


def test_cmyk_one_bit_and_sixteen_bit_colour():
    cyan = _rgb(_saved(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=100))[8, 8]
    assert cyan[0] < 10 and cyan[1] > 245 and cyan[2] > 245
    assert _rgb(_saved(Image.new("1", (1, 1), 1))).tolist() == [[[255, 255, 255]]]


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (20, 10), "black")
    image.paste("white", (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(_saved(image, "JPEG", exif=exif.tobytes(), quality=100))
    pixels = np.asarray(decoded.image)
    assert pixels.shape == (20, 10, 3)
    assert pixels[2, 5, 0] > 250 and pixels[17, 5, 0] < 5
    assert not decoded.plain
    assert decoded.note == "turned upright"


def test_first_frame_of_an_animation_is_taken_and_said():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "green")]
    decoded = decode(_saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert np.asarray(decoded.image)[0, 0].tolist() == [255, 0, 0]
    assert decoded.note == "first of 3 frames"


def test_only_plain_files_may_be_kept_as_they_are():
    rgb = Image.new("RGB", (4, 4), "red")
    assert decode(_saved(rgb)).plain
    assert decode(_saved(rgb, "JPEG")).plain
    assert decode(_saved(rgb.convert("L"))).plain
    assert not decode(_saved(rgb.convert("RGBA"))).plain
    assert not decode(_saved(rgb.convert("P"))).plain
    assert not decode(_saved(rgb, "BMP")).plain


def _bomb_png(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def test_size_limits_are_checked_on_the_header():
    with pytest.raises(DataError, match="unfolds to 9500 x 9500 pixels, more than the limit of 89478485"):
        decode(_bomb_png(9_500))
    with pytest.raises(DataError, match="more than the limit of 89478485 pixels"):
        decode(_bomb_png(60_000))
    with pytest.raises(DataError, match="has 11 bytes, more than the limit of 10"):
        decode(b"x" * 11, Limits(bytes=10))


@pytest.mark.parametrize("data", [b"", b"not a picture", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_refused_in_one_sentence(data):
    with pytest.raises(DataError, match="the image can't be decoded"):
        decode(data)


def test_what_is_no_picture_is_said_to_be_none():
    with pytest.raises(DataError, match="its bytes are in none of the formats PNG, JPEG"):
        decode(b"neither this nor that")


def test_a_truncated_picture_is_refused():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = _saved(Image.fromarray(noise), "JPEG")
    with pytest.raises(DataError, match="the image can't be decoded"):
        decode(data[: len(data) // 2])


def test_a_long_side_and_many_frames_are_refused_on_their_headers():
    # 2 kB that claim a line of millions took seconds to unpack.
    data = _saved(Image.new("L", (20, 24)), "TIFF", compression="tiff_adobe_deflate")
    length = b"\x01\x01\x03\x00\x01\x00\x00\x00"  # tag 257, one number of 16 bits; with \x04 of 32 bits
    assert data.count(length) == 1
    place = data.index(length)
    data = (
        data[: place + 2]
        + b"\x04"
        + data[place + 3 : place + 8]
        + (2_883_588).to_bytes(4, "little")
        + data[place + 12 :]
    )
    with pytest.raises(DataError, match="claims 20 x 2883588 pixels, a side beyond the limit of 65535"):
        decode(data)
    pages = [Image.new("L", (2, 2), grey) for grey in range(4)]
    several = _saved(pages[0], "GIF", save_all=True, append_images=pages[1:])
    assert decode(several, Limits(frames=4)).note == "first of 4 frames"
    with pytest.raises(DataError, match="more frames than the limit of 3"):
        decode(several, Limits(frames=3))


def test_files_are_refused_before_they_are_read(tmp_path):
    with pytest.raises(DataError, match="can't be read"):
        read_limited(tmp_path / "none.png")
    (tmp_path / "big.png").write_bytes(b"0" * 100)
    with pytest.raises(DataError, match="has 100 bytes, more than the limit of 99"):
        read_limited(tmp_path / "big.png", Limits(bytes=99))


def test_arrays_of_every_shape_and_type():
    assert np.asarray(array_to_rgb(np.array([[0, 200]], np.uint8))).tolist() == [[[0] * 3, [200] * 3]]
    assert np.asarray(array_to_rgb(np.array([[False, True]]))).tolist() == [[[0] * 3, [255] * 3]]
    assert np.asarray(array_to_rgb(np.array([[[7], [9]]], np.uint8))).tolist() == [[[7] * 3, [9] * 3]]
    assert np.asarray(array_to_rgb(np.array([[[10, 20, 30, 0]]], np.uint8))).tolist() == [[[255] * 3]]
    assert np.asarray(array_to_rgb(np.array([[-1000, 1000]], np.int16))).tolist() == [[[0] * 3, [255] * 3]]
    with pytest.raises(DataError, match=r"shape \[2, 2, 5\]"):
        array_to_rgb(np.zeros((2, 2, 5), np.uint8))
    with pytest.raises(DataError, match=r"shape \[0, 4\]"):
        array_to_rgb(np.zeros((0, 4), np.uint8))


def test_percentiles_ignore_a_few_hot_pixels():
    values = np.tile(np.arange(100, dtype=np.uint16), (100, 1))
    values[0, 0] = 65_535
    scaled = to_eight_bits(values)
    assert scaled[0, 0] == 255
    assert scaled[50, 50] == round(255 * 50 / 99)


def test_lossless_encoding_gives_the_same_pixels():
    pixels = np.random.default_rng(1).integers(0, 256, (31, 17, 3), dtype=np.uint8)
    assert np.array_equal(_rgb(encode_lossless(Image.fromarray(pixels))), pixels)
    assert encode_lossless(Image.new("RGB", (16_384, 1)))[:4] == b"\x89PNG"
