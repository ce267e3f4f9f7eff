"""Which tiles of a slide are taken: magnification, positions, tissue share, and a choice that a hash makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from medkit.readers.slides.reasons import Refused
from medkit.readers.splits import rank

# An objective of 10x gives pixels of 1 um on today's scanners: 20x 0.5 um, 40x 0.25 um.
MPP_OF_ONE = 10.0
MPP_RANGE = (0.05, 20.0)
SQUARE_WITHIN = 0.02
# A scan at 0.2528 um is one at 40x.
UPSAMPLE_WITHIN = 1.06
AGREE_WITHIN = 0.2
MOST_PLACES = 4_000_000


@dataclass(frozen=True)
class Survey:
    """What is known of a slide before a tile is read.

    Attributes:
        width, height: Of level 0, in px.
        bounds: (left, top, width, height) of what was scanned, in px of level 0.
        mpp: Pixel size of level 0 along x and y in um, None where the file doesn't tell.
        power: The objective that the file names, or None.
        vendor: OpenSlide's name of the format.
        mask: bool [H,W], tissue over the whole of level 0.
    """

    width: int
    height: int
    bounds: tuple[int, int, int, int]
    mpp: tuple[float, float] | None
    power: float | None
    vendor: str
    mask: np.ndarray


@dataclass(frozen=True)
class Place:
    """A tile: its corner and side in px of level 0, and what it shows.

    Attributes:
        x, y, side: In px of level 0.
        magnification: As asked for.
        mpp: Pixel size of the tile in um.
        tissue: Share of tissue, 0 to 1.
    """

    x: int
    y: int
    side: int
    magnification: float
    mpp: float
    tissue: float


@dataclass(frozen=True)
class Wanted:
    """What a card asks of every slide.

    Attributes:
        magnifications: In rising order.
        tile: Side of a tile in px.
        most: Most tiles of a slide.
        tissue: Least share of tissue in a tile.
        seed: Of the choice.
        mpp: Pixel size of level 0 in um for slides that don't tell theirs, or None.
    """

    magnifications: tuple[float, ...]
    tile: int
    most: int
    tissue: float
    seed: int
    mpp: float | None


@dataclass(frozen=True)
class Chosen:
    """The tiles of a slide, from low power to high, row by row; how many there were to choose from; notes."""

    places: list[Place]
    candidates: int
    notes: tuple[tuple[str, str], ...]


def name_of(magnification: float) -> str:
    """Gives "20x"."""
    return f"{magnification:g}x"


def pixel_size(survey: Survey, given: float | None) -> tuple[float, tuple[tuple[str, str], ...]]:
    """Gives the pixel size of level 0 in um, and what the ledger should tell of it.

    The file's pixel size comes first, then what the card gives, then the objective.

    Raises:
        Refused: There is none of them, or pixels aren't square.
    """
    power = survey.power if survey.power and survey.power > 0 else None
    low, high = MPP_RANGE
    if survey.mpp is not None and all(low <= one <= high for one in survey.mpp):
        across, down = survey.mpp
        if abs(across - down) > SQUARE_WITHIN * max(across, down):
            raise Refused("pixels aren't square", f"{across:g} x {down:g} um")
        size = (across + down) / 2
        if power and abs(size * power / MPP_OF_ONE - 1) > AGREE_WITHIN:
            detail = f"{size:g} um and an objective of {power:g}x; the pixel size was taken"
            return size, (("pixel size and objective disagree", detail),)
        return size, ()
    if given is not None:
        return given, (("pixel size given by the card", f"{given:g} um"),)
    if power and low <= MPP_OF_ONE / power <= high:
        size = MPP_OF_ONE / power
        return size, (("pixel size taken from the objective", f"{power:g}x, so {size:g} um"),)
    raise Refused("no magnification")


def choose_tiles(survey: Survey, wanted: Wanted, key: str) -> Chosen:
    """Chooses the tiles of a slide.

    Tiles don't overlap and lie whole within what was scanned. The places are shared out evenly between the
    magnifications; what one can't fill goes to the others.

    Args:
        survey: The slide.
        wanted: What the card asks.
        key: What stands for the slide in the hash; the same slide must have the same in every run.

    Raises:
        Refused: There is no magnification, none that was scanned, or no tissue.
    """
    mpp, notes = pixel_size(survey, wanted.mpp)
    by_power: dict[float, list[Place]] = {}
    missing = []
    for magnification in wanted.magnifications:
        tile_mpp = MPP_OF_ONE / magnification
        if mpp > tile_mpp * UPSAMPLE_WITHIN:
            missing.append(name_of(magnification))
            continue
        side = max(round(wanted.tile * tile_mpp / mpp), wanted.tile)
        by_power[magnification] = _tissue_places(survey, wanted, magnification, side, mpp)
    if missing:
        detail = f"{', '.join(missing)}; the slide has {mpp:.3g} um a pixel"
        if not by_power:
            raise Refused("magnification not scanned", detail)
        notes += (("magnification not scanned", detail),)
    candidates = sum(map(len, by_power.values()))
    if not candidates:
        raise Refused("no tissue", f"least share {wanted.tissue:g}")
    places: list[Place] = []
    left, powers = wanted.most, sorted(by_power, key=lambda power: (len(by_power[power]), power))
    for number, magnification in enumerate(powers):
        found = by_power[magnification]
        share = left // (len(powers) - number)
        ranked = sorted(
            found, key=lambda one: rank(wanted.seed, f"{key}:{one.magnification:g}:{one.x},{one.y}")
        )
        places += ranked[:share]
        left -= min(share, len(found))
    places.sort(key=lambda one: (one.magnification, one.y, one.x))
    return Chosen(places, candidates, notes)


def facts_of(place: Place) -> dict[str, Any]:
    """Gives what a record tells of a tile."""
    return {
        "x": place.x,
        "y": place.y,
        "side": place.side,
        "magnification": place.magnification,
        "mpp": round(place.mpp, 4),
        "tissue": round(place.tissue, 3),
    }


def _tissue_places(
    survey: Survey, wanted: Wanted, magnification: float, side: int, mpp: float
) -> list[Place]:
    """Gives every tile with enough tissue."""
    left, top, width, height = survey.bounds
    across, down = width // side, height // side
    if across < 1 or down < 1:
        return []
    if across * down > MOST_PLACES:
        raise Refused("too many pixels", f"{across} x {down} tiles at {name_of(magnification)}")
    xs, ys = left + side * np.arange(across), top + side * np.arange(down)
    share = shares(survey, xs, ys, side)
    rows, columns = np.nonzero(share >= wanted.tissue)
    tile_mpp = mpp * side / wanted.tile
    return [
        Place(int(xs[column]), int(ys[row]), side, magnification, tile_mpp, float(share[row, column]))
        for row, column in zip(rows, columns, strict=True)
    ]


def shares(survey: Survey, xs: np.ndarray, ys: np.ndarray, side: int) -> np.ndarray:
    """Gives the share of tissue of the tiles with these left and top edges, float64 [len(ys), len(xs)]."""
    height, width = survey.mask.shape
    sums = np.zeros((height + 1, width + 1), np.int64)
    np.cumsum(np.cumsum(survey.mask, axis=0, dtype=np.int64), axis=1, out=sums[1:, 1:])
    columns, rows = width / survey.width, height / survey.height
    first_x, first_y = _edge(xs * columns, width - 1), _edge(ys * rows, height - 1)
    # A tile smaller than a pixel of the mask has that pixel's share.
    last_x = np.maximum(_edge((xs + side) * columns, width), first_x + 1)
    last_y = np.maximum(_edge((ys + side) * rows, height), first_y + 1)
    inside = (
        sums[last_y[:, None], last_x]
        - sums[first_y[:, None], last_x]
        - sums[last_y[:, None], first_x]
        + sums[first_y[:, None], first_x]
    )
    return inside / ((last_y - first_y)[:, None] * (last_x - first_x))


def _edge(places: np.ndarray, most: int) -> np.ndarray:
    return np.clip(np.rint(places).astype(np.int64), 0, most)
