"""Tiles and token counts of AnyRes are the reference's, and what the Hugging Face model needs is known."""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch
from PIL import Image
from reference_masks import reference
from tiny_training import CORPUS, build_family
from transformers import LlavaNextProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from medkit.errors import ModelError
from medkit.models.anyres import TRANSFORMERS_DIGITS, best_resolution, tiling, unpadded
from medkit.models.tiny import train_tokenizer
from medkit.sample import assistant_turn, user_turn
from medkit.training.encode import encode

LLAVA_16 = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)]
# 396 / 704 of 48 rows is 27, but comes out as 26.999999999999996
ROUNDED = {
    (861, 328): ((24, 62), (24, 64)),
    (396, 704): ((48, 26), (48, 28)),
    (1056, 220): ((14, 72), (16, 72)),
    (176, 110): ((14, 24), (16, 24)),
}


def _rows():
    """Gives (set, row) of every tiling file of the fixture."""
    for path in sorted(reference("anyres_tiling").glob("*.json")):
        content = json.loads(path.read_text())
        for row in content["rows"]:
            yield content["sets"][row["pinpoints"]], row


def _reference_rows():
    rows = list(_rows())
    if not rows:
        pytest.skip(f"no tiling files in {reference('anyres_tiling')}; set MEDKIT_SHARED")
    return rows


def _tiling(kind, row, digits=None):
    pinpoints = [tuple(point) for point in kind["grid_pinpoints_width_height"]]
    return tiling(tuple(row["size"]), pinpoints, kind["image_size"], kind["patch_size"], digits)


@cache
def _processor(px: int, patch: int, pinpoints: tuple[tuple[int, int], ...]) -> LlavaNextProcessor:
    image_processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": px},
        crop_size={"height": px, "width": px},
        image_grid_pinpoints=[[high, wide] for wide, high in pinpoints],
    )
    return LlavaNextProcessor(
        image_processor,
        train_tokenizer(CORPUS, 300),
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def _hugging_face_tokens(size, px, patch, pinpoints) -> int:
    processor = _processor(px, patch, tuple(tuple(point) for point in pinpoints))
    return processor._get_num_multimodal_tokens(image_sizes=[size[::-1]])["num_image_tokens"][0]


def test_every_row_of_the_reference_is_equal():
    for kind, row in _reference_rows():
        made = _tiling(kind, row)
        told = {
            "best_resolution": list(made.best_resolution),
            "tiles_wide": made.tiles_wide,
            "tiles_high": made.tiles_high,
            "n_tiles_with_base": made.tiles,
            "resized_content_box_xyxy": list(made.content_box),
            "feature_grid_before_unpad_hw": list(made.feature_grid),
            "unpadded_hw": list(made.unpadded),
            "image_tokens_spatial_unpad": made.image_tokens,
            "image_tokens_spatial": made.image_tokens_padded,
        }
        assert told == {key: row[key] for key in told}, row


def test_hugging_face_counts_the_same_tokens_but_where_it_rounds():
    for kind, row in _reference_rows():
        pinpoints = kind["grid_pinpoints_width_height"]
        counted = _hugging_face_tokens(row["size"], kind["image_size"], kind["patch_size"], pinpoints)
        rounded = _tiling(kind, row, TRANSFORMERS_DIGITS)
        assert counted == rounded.image_tokens, row
        if counted != row["image_tokens_spatial_unpad"]:
            assert rounded.unpadded != tuple(row["unpadded_hw"]), row


@pytest.mark.parametrize("size", ROUNDED)
def test_a_side_a_hair_below_a_whole_number_differs_in_hugging_face(size):
    original, hugging_face = ROUNDED[size]
    assert tiling(size, LLAVA_16, 336, 14).unpadded == original
    ours = tiling(size, LLAVA_16, 336, 14, TRANSFORMERS_DIGITS)
    assert ours.unpadded == hugging_face
    assert _hugging_face_tokens(list(size), 336, 14, LLAVA_16) == ours.image_tokens


@pytest.mark.parametrize(
    ("size", "canvas"),
    [
        ((336, 336), (336, 672)),  # a small picture gets two tiles; the first of two equal canvases wins
        ((378, 378), (672, 672)),
        ((1024, 421), (1008, 336)),
        ((305, 427), (336, 672)),  # all of it fits either canvas; this one wastes less
        ((100, 900), (336, 1008)),
    ],
)
def test_the_canvas_that_keeps_most_pixels_is_chosen(size, canvas):
    assert best_resolution(size, LLAVA_16) == canvas


def test_there_must_be_a_canvas_to_choose():
    with pytest.raises(ModelError, match="image_grid_pinpoints is empty"):
        best_resolution((10, 10), [])


def test_a_picture_as_narrow_as_a_thread_leaves_newlines_or_nothing():
    upright, lying = (tiling(size, LLAVA_16, 336, 14) for size in ((1, 500), (500, 1)))
    assert (upright.unpadded, upright.image_tokens, upright.empty) == ((48, 0), 24 * 24 + 48, True)
    assert (lying.unpadded, lying.image_tokens, lying.empty) == ((0, 48), 24 * 24, True)
    assert not tiling((336, 336), LLAVA_16, 336, 14).empty
    assert unpadded((100, 99), (24, 24)) == (24, 24)  # an odd rest stays


@pytest.fixture(scope="module")
def _next(tmp_path_factory):
    return build_family("llava_next", tmp_path_factory.mktemp("next"))


@pytest.mark.parametrize("size", [(32, 32), (64, 30), (20, 61), (1, 500), (500, 1), (7, 300)])
def test_training_counts_the_tokens_that_the_model_makes(_next, size):
    talk = [user_turn("what colour is it?", images=1), assistant_turn("red")]
    encoded = encode(_next.processor, talk, [size], 512)
    inputs = _next.processor.image_processor(images=[Image.new("RGB", size)], return_tensors="pt")
    with torch.inference_mode():  # the model itself refuses another number of tokens
        _next.model(input_ids=torch.from_numpy(encoded.ids).long()[None], **inputs)
    planned = tiling(size, [(64, 32), (32, 64), (64, 64)], 32, 8, TRANSFORMERS_DIGITS)
    assert (encoded.ids == _next.processor.image_token_id).sum() == planned.image_tokens
