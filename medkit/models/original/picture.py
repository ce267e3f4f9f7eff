"""What an original checkpoint does with a picture: pad, crop or tiles, as processor and contract."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any

from transformers import LlavaNextProcessor, LlavaProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from ...errors import ModelError
from .detect import Layout
from .names import NEWLINE
from .read import Weights
from .tokens import Tokens

POLICIES = ("pad", "crop", "anyres")
_SHARED = (
    "size", "crop_size", "image_mean", "image_std", "resample", "rescale_factor", "do_resize", "do_rescale",
    "do_normalize", "do_convert_rgb",
)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """How a picture becomes pixels.

    Attributes:
        fit: The contract's: ``pad``, ``crop``, or ``stretch`` where the processor cuts tiles itself.
        mean_colour: RGB 0..255, cut off as the original does, not rounded.
        tiled: AnyRes: a base view and tiles of a grid.
        pinpoints: Grids as [height, width] in px; empty unless tiled.
        image_processor: With the checkpoint's sizes and means.
    """

    fit: str
    mean_colour: tuple[int, int, int]
    tiled: bool
    pinpoints: list[list[int]]
    image_processor: Any


def picture_policy(
    layout: Layout, weights: Weights, image_processor: Any, fit: str | None, notes: list[str]
) -> Picture:
    """Reads the picture policy of a config.

    Args:
        layout: The checkpoint.
        weights: Its tensors: tiles need ``image_newline``.
        image_processor: The tower's own.
        fit: ``pad``, ``crop`` or ``anyres`` against the config; None follows it.
        notes: What a person should know is added here.

    Raises:
        ModelError: The policy has no exact form in Hugging Face's LLaVA.
    """
    if fit is not None and fit not in POLICIES:
        raise ModelError(f"fit {fit!r} is unknown; use one of {', '.join(POLICIES)}")
    named = layout.config.get("image_aspect_ratio")
    policy = fit or _policy(layout, named)
    red, green, blue = (int(255 * value) for value in image_processor.image_mean)
    colour = (red, green, blue)
    if policy != "anyres":
        if not fit and named not in ("pad", "square", None):
            notes.append(f"image_aspect_ratio {named!r} means the processor's own crop, as in the original")
        own = "crop" if image_processor.do_center_crop else "stretch"
        return Picture("pad" if policy == "pad" else own, colour, False, [], image_processor)
    merge = layout.config.get("mm_patch_merge_type", "flat")
    if merge != "spatial_unpad" or NEWLINE not in weights:
        what = f"mm_patch_merge_type is {merge!r}" if merge != "spatial_unpad" else "image_newline is missing"
        raise ModelError(
            f"{layout.folder}: tiles (anyres) but {what}; only spatial_unpad with image_newline has an exact form"
        )
    side = _side(image_processor)
    pinpoints = read_pinpoints(layout.config.get("image_grid_pinpoints"), side)
    shared = {key: getattr(image_processor, key) for key in _SHARED}
    tiled = LlavaNextImageProcessorPil(
        **shared,
        do_center_crop=False,  # a tile has the tower's size already
        image_grid_pinpoints=[[height, width] for width, height in pinpoints],
    )
    return Picture("stretch", colour, True, [[height, width] for width, height in pinpoints], tiled)


def read_pinpoints(value: Any, side: int) -> list[tuple[int, int]]:
    """Gives the grids of a config as (width, height) in px.

    Args:
        value: A list of pairs, that list as text, or a range of tiles such as ``(1x1),...,(6x6)``.
        side: Side of a tile in px.

    Raises:
        ModelError: It is none of these.
    """
    if isinstance(value, str) and (found := re.findall(r"\(\s*(\d+)\s*x\s*(\d+)\s*\)", value)):
        (first_wide, first_high), (last_wide, last_high) = (
            tuple(map(int, one)) for one in (found[0], found[-1])
        )
        return [
            (wide * side, high * side)
            for wide in range(first_wide, last_wide + 1)
            for high in range(first_high, last_high + 1)
        ]
    try:
        pairs = ast.literal_eval(value) if isinstance(value, str) else value
        grids = [(int(width), int(height)) for width, height in pairs]
    except (ValueError, SyntaxError, TypeError) as error:
        raise ModelError(
            f"image_grid_pinpoints {value!r} can't be read: a list of [width, height]"
        ) from error
    if not grids or any(width % side or height % side for width, height in grids):
        raise ModelError(f"image_grid_pinpoints {value!r}: every side must be a multiple of {side} px")
    return grids


def make_processor(picture: Picture, tokens: Tokens, config: Any, template: str) -> Any:
    """Puts tokenizer and image processor together."""
    kind = LlavaNextProcessor if picture.tiled else LlavaProcessor
    return kind(
        picture.image_processor,
        tokens.tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        chat_template=template,
        image_token=tokens.image,
        num_additional_image_tokens=1,
    )


def _policy(layout: Layout, named: Any) -> str:
    if named == "pad" or named == "anyres":
        return named
    if str(named).startswith(("anyres_max", "highres", "crop_split")):
        raise ModelError(
            f"{layout.folder}: image_aspect_ratio {named!r} has no exact form in Hugging Face's LLaVA-NeXT; "
            "import it with a policy that it can serve: --fit pad, --fit crop or --fit anyres"
        )
    return "crop"


def _side(image_processor: Any) -> int:
    size = image_processor.crop_size or image_processor.size
    return int(size["height"])
