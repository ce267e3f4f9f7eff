"""Pixels are those of the original code: pad to square, centre crop, AnyRes tiles."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from reference_masks import reference
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from medkit.models.contract import Contract, prepare_image

PINPOINTS = [[672, 336], [336, 672], [672, 672], [336, 1008], [1008, 336]]  # LLaVA-1.6, [height, width]
TOLERANCE = 1e-5
OTHER_DECODER = 0.05  # another libjpeg may differ by a grey level here and there


def _pictures():
    folder = reference("image_preprocess")
    for path in sorted(folder.glob("*.json")):
        told = json.loads(path.read_text())
        arrays = np.load(path.with_suffix(".npz"))
        sizes = {key: told["processor"][key] for key in ("size", "crop_size")}
        for name, picture in told["images"].items():
            image = Image.open(folder / "images" / picture["file"]).convert("RGB")
            yield name, picture, arrays, image, sizes


PICTURES = list(_pictures())
each_picture = pytest.mark.parametrize(
    ("name", "told", "arrays", "image", "sizes"), PICTURES, ids=[one[0] for one in PICTURES]
)
if not PICTURES:
    pytestmark = pytest.mark.skip(f"no fixture in {reference('image_preprocess')}; set MEDKIT_SHARED")


def _sha(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _same_decoder(told, image) -> bool:
    return _sha(np.asarray(image)) == told["decoded_rgb_sha256"]


def _block_means(pixels: np.ndarray, patch: int = 14) -> np.ndarray:
    side = pixels.shape[-1] // patch
    return pixels.reshape(*pixels.shape[:-2], side, patch, side, patch).mean((-3, -1))


@each_picture
@pytest.mark.parametrize(("mode", "fit"), [("pad", "pad"), ("square", "crop")])
def test_a_square_view_has_the_original_pixels(name, told, arrays, image, sizes, mode, fit):
    if mode not in told:
        pytest.skip(f"{name} has no {mode}")
    colour = tuple(told.get("pad", {}).get("background_rgb", (122, 116, 104)))
    shown = prepare_image(image, Contract(fit=fit, mean_colour=colour))
    pixels = np.asarray(
        CLIPImageProcessorPil(**sizes)(images=[shown], return_tensors="np")["pixel_values"][0]
    )
    exact = _same_decoder(told, image)
    if exact:
        assert _sha(pixels.astype("<f4")) == told[mode]["sha256_float32_le"]
        if mode == "pad":
            assert _sha(np.asarray(shown)) == told["pad"]["square_rgb_sha256"]
    means = arrays[f"{name}/{mode}/block_mean_14x14"]
    assert np.abs(_block_means(pixels) - means).max() < (TOLERANCE if exact else OTHER_DECODER)
    for key in (one for one in arrays if one.startswith(f"{name}/{mode}/rows_")):
        rows = [int(number) for number in key.split("rows_")[1].split("_")]
        assert np.abs(pixels[:, rows] - arrays[key]).max() < (TOLERANCE if exact else 0.5)


@each_picture
def test_tiles_of_the_hugging_face_processor_are_the_originals(name, told, arrays, image, sizes):
    if "anyres_llava16_336" not in told:
        pytest.skip(f"{name} has no tiles")
    processor = LlavaNextImageProcessorPil(**sizes, image_grid_pinpoints=PINPOINTS)
    tiles = np.asarray(processor(images=[image], return_tensors="np")["pixel_values"][0])
    assert list(tiles.shape) == told["anyres_llava16_336"]["shape"]
    exact = _same_decoder(told, image)
    if exact:
        assert _sha(tiles.astype("<f4")) == told["anyres_llava16_336"]["sha256_float32_le"]
    means = arrays[f"{name}/anyres/tile_block_mean_14x14"]
    assert np.abs(_block_means(tiles) - means).max() < (TOLERANCE if exact else OTHER_DECODER)
