"""AnyRes: which grid of tiles a picture is cut into, and how many tokens the language model then reads.

Sizes are (width, height) in px as in original configs; Hugging Face writes grid points as [height, width].

Training and serving take the counts of the Hugging Face processor and model, which agree with one another;
planning calls ``tiling`` with ``TRANSFORMERS_DIGITS`` and gets the same.

Source: haotian-liu/LLaVA c121f04 (``select_best_resolution``, ``resize_and_pad_image``, ``unpad_image``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ModelError

Size = tuple[int, int]
TRANSFORMERS_DIGITS = 7  # its processor and its model agree on this, the original code doesn't round


@dataclass(frozen=True)
class Tiling:
    """How AnyRes cuts one picture.

    Attributes:
        best_resolution: (width, height) in px of the canvas that the picture is resized onto.
        tiles_wide: Tiles in a row of the canvas.
        tiles_high: Tiles in a column.
        tiles: All tiles, with the view of the whole picture that goes first.
        content_box: (left, top, right, bottom) in px of the resized picture on the black canvas.
        feature_grid: (rows, columns) of features of the whole canvas.
        unpadded: (rows, columns) that are left when those of the padding are cut off.
        image_tokens: Tokens of the whole view and of the unpadded rows, each with its newline.
        image_tokens_padded: Tokens without unpadding and newlines.
    """

    best_resolution: Size
    tiles_wide: int
    tiles_high: int
    tiles: int
    content_box: tuple[int, int, int, int]
    feature_grid: Size
    unpadded: Size
    image_tokens: int
    image_tokens_padded: int

    @property
    def empty(self) -> bool:
        """Whether a picture is so narrow that unpadding leaves nothing of its tiles."""
        return 0 in self.unpadded


def best_resolution(size_wh: Size, pinpoints_wh: Sequence[Size]) -> Size:
    """Picks the canvas on which a picture keeps the most of its pixels; ties go to the least waste, then order.

    Args:
        size_wh: The picture's size.
        pinpoints_wh: Canvases to choose from.

    Raises:
        ModelError: There is none to choose from.
    """
    if not pinpoints_wh:
        raise ModelError("image_grid_pinpoints is empty; give at least one size")
    width, height = size_wh

    def gain(canvas: Size) -> tuple[int, int]:
        scale = min(canvas[0] / width, canvas[1] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - canvas[0] * canvas[1]

    return tuple(max(pinpoints_wh, key=gain))  # type: ignore[return-value]


def tiling(
    size_wh: Size, pinpoints_wh: Sequence[Size], tower_px: int, patch_px: int, digits: int | None = None
) -> Tiling:
    """Plans the tiles and tokens of a picture.

    Args:
        size_wh: The picture's size.
        pinpoints_wh: Canvases to choose from.
        tower_px: Side of a tile: what the vision tower takes.
        patch_px: Side of the tower's patch.
        digits: As in ``unpadded``: ``TRANSFORMERS_DIGITS`` to plan for a Hugging Face model.
    """
    canvas = best_resolution(size_wh, pinpoints_wh)
    wide, high = canvas[0] // tower_px, canvas[1] // tower_px
    side = tower_px // patch_px
    grid = (high * side, wide * side)
    rows, columns = unpadded(size_wh, grid, digits)
    tiles = wide * high + 1
    return Tiling(
        best_resolution=canvas,
        tiles_wide=wide,
        tiles_high=high,
        tiles=tiles,
        content_box=content_box(size_wh, canvas),
        feature_grid=grid,
        unpadded=(rows, columns),
        image_tokens=side * side + rows * (columns + 1),
        image_tokens_padded=tiles * side * side,
    )


def content_box(size_wh: Size, canvas_wh: Size) -> tuple[int, int, int, int]:
    """Gives where a picture lies, resized in its own proportions, in the middle of a canvas.

    Args:
        size_wh: The picture's size.
        canvas_wh: The canvas.

    Returns:
        (left, top, right, bottom) in px.
    """
    across, down = canvas_wh[0] / size_wh[0], canvas_wh[1] / size_wh[1]
    if across < down:
        width, height = canvas_wh[0], min(math.ceil(size_wh[1] * across), canvas_wh[1])
    else:
        width, height = min(math.ceil(size_wh[0] * down), canvas_wh[0]), canvas_wh[1]
    left, top = (canvas_wh[0] - width) // 2, (canvas_wh[1] - height) // 2
    return left, top, left + width, top + height


def unpadded(size_wh: Size, grid: Size, digits: int | None = None) -> Size:
    """Gives the (rows, columns) of a feature grid that are left without the padding; an odd rest stays.

    Args:
        size_wh: The picture's size.
        grid: (rows, columns) of the canvas.
        digits: Round the content's side to so many digits before its fraction is cut off; None does not, as the
            original code. The two differ by two rows or columns where a whole number comes out a hair below
            itself: about one shape in 75,000.
    """
    width, height = size_wh
    rows, columns = grid

    def whole(side: float) -> int:
        return int(side if digits is None else round(side, digits))

    if width / height > columns / rows:
        return rows - (rows - whole(height * (columns / width))) // 2 * 2, columns
    return rows, columns - (columns - whole(width * (rows / height))) // 2 * 2
