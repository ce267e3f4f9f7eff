"""Stored values to the picture that a radiologist would see, in the standard's order (see ``tone``)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset

from medkit.readers.dicom import colour
from medkit.readers.dicom.decode import LOSSY, Stored
from medkit.readers.dicom.description import Description
from medkit.readers.dicom.files import number_of, numbers_of, quiet, value_of, word_of
from medkit.readers.dicom.frames import group_of_frame, modality_of
from medkit.readers.dicom.profiles import Profile
from medkit.readers.dicom.reasons import Refused
from medkit.readers.dicom.tone import Modality, Ramp, Table, Tone, between, read_table

PERCENTILES = (0.5, 99.5)
SQUARE_WITHIN = 0.01
MOST_STRETCH = 10.0
# A lossy codec smears padding into its neighbours by about this share of the picture's range.
SMEAR = 0.02
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
Note = tuple[str, str]


@dataclass(frozen=True)
class Rendered:
    """Pictures of a file's frames: uint8 [H,W] or [H,W,3] each, with what was mended or left out."""

    pictures: list[np.ndarray]
    notes: tuple[Note, ...] = ()


def render(
    dataset: Dataset,
    stored: Stored,
    about: Description,
    profile: Profile,
    frames: list[int] | None = None,
    spread: tuple[float, float] | None = None,
    keep: Iterable[tuple[int, int, int, int]] | None = None,
    hide: Iterable[tuple[int, int, int, int]] = (),
) -> Rendered:
    """Renders decoded frames.

    Args:
        dataset: The file's header.
        stored: Its decoded frames.
        about: Its description.
        profile: Which values are shown.
        frames: The frames' numbers in the file, as many as ``stored`` has; None: 0, 1, ...
        spread: Values shown as 0 and 255 where the profile takes them from a volume.
        keep: Boxes (left, top, right, bottom) in px outside which the picture becomes black; None: all stays.
        hide: Boxes that become black.

    Returns:
        One picture a frame, its pixels square.

    Raises:
        Refused: The profile can't be applied, or a transform is damaged.
    """
    with quiet():
        frames = list(range(len(stored.values))) if frames is None else frames
        notes: dict[Note, None] = dict.fromkeys(stored.notes)
        if any(tag.group in range(0x6000, 0x601F, 2) for tag in dataset.keys()):  # noqa: SIM118
            notes["overlay left out", ""] = None
        if about.samples == 3:
            made = [colour.to_rgb(one, stored.photometric, about.stored) for one in stored.values]
        elif about.photometric == "PALETTE COLOR":
            made = [colour.palette_to_rgb(one, dataset) for one in stored.values]
        elif profile.equalise:
            made = [_equalised(one, dataset, about) for one in stored.values]
        else:
            if profile.percentiles and spread is None:
                spread = spread_of(dataset, stored, about, profile.percentiles, frames)
            made = []
            for number, one in zip(frames, stored.values, strict=True):
                tone = tone_of(dataset, number, one, about, profile, notes)
                if spread is not None:
                    tone = replace(tone, shows=(between(*spread),))
                made.append(tone.apply(one))
        if keep is not None:
            made = [_blacked_out(one, keep) for one in made]
            notes["kept the marked regions only", ""] = None
        if hide := tuple(hide):
            made = [_hidden(one, hide) for one in made]
            notes["site mask applied", ""] = None
        return Rendered(
            [_square(one, dataset, frame, notes) for frame, one in zip(frames, made, strict=True)],
            tuple(notes),
        )


def modality_transform(dataset: Dataset, frame: int, signed: bool) -> Modality:
    """Gives the modality transform of a frame (PS3.3 C.11.1; per frame in enhanced objects, C.7.6.16.2.9).

    Raises:
        Refused: A table is damaged, or the slope is 0.
    """
    items = value_of(dataset, "ModalityLUTSequence")
    if items:
        return Modality(table=read_table(items[0], signed))
    group = group_of_frame(dataset, frame, "PixelValueTransformationSequence")
    slope = number_of(group, "RescaleSlope", 1.0)
    intercept = number_of(group, "RescaleIntercept", 0.0)
    if not slope:
        raise Refused("malformed element", "RescaleSlope")
    return Modality(float(slope), float(intercept or 0.0))


def tone_of(
    dataset: Dataset,
    frame: int,
    stored: np.ndarray,
    about: Description,
    profile: Profile,
    notes: dict[Note, None],
) -> Tone:
    """Gives the way of a frame's stored values to grey or colour.

    Raises:
        Refused: The profile needs Hounsfield units and the file has none, or a transform is damaged.
    """
    if profile.unit == "HU" and not has_hounsfield_units(dataset, frame):
        raise Refused("values are not Hounsfield units", f"profile {profile.name}")
    modality = modality_transform(dataset, frame, about.signed)
    padding = padding_of(dataset, stored, about)
    inverted = is_inverted(dataset)
    if profile.windows:
        shows: tuple[Ramp | Table, ...] = tuple(between(low, high) for low, high in profile.windows)
    elif profile.percentiles:
        shows = (between(0.0, 1.0),)
    else:
        shows = (_from_file(dataset, frame, stored, modality, padding, notes),)
    return Tone(modality, shows, inverted, padding)


def is_inverted(dataset: Dataset) -> bool:
    """Whether the least value is shown as white (PS3.3 C.7.6.3.1.2, C.11.6)."""
    return (
        word_of(dataset, "PhotometricInterpretation") == "MONOCHROME1"
        or word_of(dataset, "PresentationLUTShape") == "INVERSE"
    )


def has_hounsfield_units(dataset: Dataset, frame: int) -> bool:
    """Whether the modality transform gives HU: a CT with a rescale whose type is HU or left out (C.11.1.1.2)."""
    if modality_of(dataset) != "CT" or value_of(dataset, "ModalityLUTSequence"):
        return False
    if str(value_of(dataset, "SOPClassUID", "")).startswith(SECONDARY_CAPTURE):
        return False
    group = group_of_frame(dataset, frame, "PixelValueTransformationSequence")
    if number_of(group, "RescaleSlope") is None or number_of(group, "RescaleIntercept") is None:
        return False
    return word_of(group, "RescaleType") in ("", "HU")


def padding_of(dataset: Dataset, stored: np.ndarray, about: Description) -> tuple[float, float] | None:
    """Gives the stored values from..to that fill the picture's edge (PS3.3 C.7.5.1.1.2), or None."""
    value = _in_stored(number_of(dataset, "PixelPaddingValue"), about)
    if value is None:
        return None
    limit = _in_stored(number_of(dataset, "PixelPaddingRangeLimit"), about)
    low, high = (value, value) if limit is None else (min(value, limit), max(value, limit))
    if about.syntax in LOSSY:
        least, greatest = float(stored.min()), float(stored.max())
        smear = SMEAR * (greatest - least)
        if low <= (least + greatest) / 2:
            low, high = min(low, least), high + smear
        else:
            low, high = low - smear, max(high, greatest)
    return low, high


def spread_of(
    dataset: Dataset,
    stored: Stored,
    about: Description,
    percentiles: tuple[float, float],
    frames: list[int] | None = None,
) -> tuple[float, float]:
    """Gives percentiles of the frames' values in the modality's unit, padding left out."""
    numbers = frames or range(len(stored.values))
    return spread_over(
        [units_of(dataset, number, one, about) for number, one in zip(numbers, stored.values, strict=True)],
        percentiles,
    )


def units_of(dataset: Dataset, frame: int, stored: np.ndarray, about: Description) -> np.ndarray:
    """Gives a frame's values in the modality's unit, padding left out, in one row."""
    picture = _picture_values(stored, padding_of(dataset, stored, about))
    return modality_transform(dataset, frame, about.signed).apply(picture).ravel()


def spread_over(gathered: list[np.ndarray], percentiles: tuple[float, float]) -> tuple[float, float]:
    """Gives (low, high) percentiles of all values, low below high."""
    values = np.concatenate([one.ravel() for one in gathered]) if gathered else np.zeros(1)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(one) for one in np.percentile(values, percentiles))
    if high <= low:  # a few bright pixels on a constant ground
        low, high = float(values.min()), float(values.max())
    return low, high if high > low else low + 1.0


def _picture_values(stored: np.ndarray, padding: tuple[float, float] | None) -> np.ndarray:
    if padding is None:
        return stored
    kept = stored[(stored < padding[0]) | (stored > padding[1])]
    return kept if kept.size else stored


def _in_stored(value: float | None, about: Description) -> float | None:
    """Gives a padding value in the sign of the stored values: writers put it into US where SS is meant."""
    if value is None or about.keyword != "PixelData":
        return value
    half = 2 ** (about.allocated - 1)
    if about.signed and value >= half:
        return value - 2 * half
    return value + 2 * half if not about.signed and value < 0 else value


def _from_file(
    dataset: Dataset,
    frame: int,
    stored: np.ndarray,
    modality: Modality,
    padding: tuple[float, float] | None,
    notes: dict[Note, None],
) -> Ramp | Table:
    """Gives the file's own first window, else its VOI table, else percentiles."""
    group = group_of_frame(dataset, frame, "FrameVOILUTSequence")
    centres, widths = numbers_of(group, "WindowCenter"), numbers_of(group, "WindowWidth")
    if centres and widths:
        kind = word_of(group, "VOILUTFunction") or "LINEAR"
        if kind not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
            notes["unknown VOI function", "taken as LINEAR"] = None
            kind = "LINEAR"
        if widths[0] >= 1 or (widths[0] > 0 and kind != "LINEAR"):
            return Ramp(centres[0], widths[0], kind)
        notes["window without width", "percentiles were taken instead"] = None
    items = value_of(dataset, "VOILUTSequence")
    if items:
        picture = modality.apply(stored)
        return read_table(items[0], signed=bool(picture.min() < 0))
    picture = modality.apply(_picture_values(stored, padding))
    return between(*spread_over([picture], PERCENTILES))


def _equalised(stored: np.ndarray, dataset: Dataset, about: Description) -> np.ndarray:
    """Gives least..greatest stored value as 0..255, inverted where needed, with an equalised histogram."""
    values = stored.astype(np.float64)
    values -= values.min()
    grey = (values / max(values.max(), 1e-9) * 255.0).astype(np.uint8)
    if about.photometric == "MONOCHROME1":
        grey = 255 - grey
    counts = np.bincount(grey.ravel(), minlength=256)
    filled = np.cumsum(counts)
    first = filled[np.flatnonzero(counts)[0]]
    share = (filled - first) / max(grey.size - first, 1)
    return np.rint(np.clip(share, 0, 1) * 255.0).astype(np.uint8)[grey]


def _blacked_out(picture: np.ndarray, keep: Iterable[tuple[int, int, int, int]]) -> np.ndarray:
    out = np.zeros_like(picture)
    for left, top, right, bottom in keep:
        out[top:bottom, left:right] = picture[top:bottom, left:right]
    return out


def _hidden(picture: np.ndarray, boxes: Iterable[tuple[int, int, int, int]]) -> np.ndarray:
    out = picture.copy()
    for left, top, right, bottom in boxes:
        out[top:bottom, left:right] = 0
    return out


def _square(picture: np.ndarray, dataset: Dataset, frame: int, notes: dict[Note, None]) -> np.ndarray:
    """Stretches the coarser axis so that pixels are square (PS3.3 C.7.6.3.1.7, 10.7.1.3)."""
    spacing = numbers_of(group_of_frame(dataset, frame, "PixelMeasuresSequence"), "PixelSpacing")
    spacing = spacing or numbers_of(dataset, "ImagerPixelSpacing") or numbers_of(dataset, "PixelAspectRatio")
    if len(spacing) < 2 or min(spacing[:2]) <= 0:
        return picture
    ratio = spacing[0] / spacing[1]  # height of a pixel by its width
    if abs(ratio - 1.0) <= SQUARE_WITHIN:
        return picture
    if not 1 / MOST_STRETCH <= ratio <= MOST_STRETCH:
        notes["pixel aspect left as it is", "the header's ratio is beyond 1 to 10"] = None
        return picture
    height, width = picture.shape[:2]
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    notes["pixels made square", f"{width} x {height} to {size[0]} x {size[1]}"] = None
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
