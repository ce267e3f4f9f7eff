"""A file or series rendered as a model's training pictures were: serving takes the list that the contract holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medkit.errors import DataError
from medkit.readers.dicom.burned_in import check_is_picture, clean_regions
from medkit.readers.dicom.decode import describe
from medkit.readers.dicom.files import DEFAULT_LIMITS, quiet, read_file
from medkit.readers.dicom.frames import modality_of
from medkit.readers.dicom.loading import Loading
from medkit.readers.dicom.profiles import Profile, profile_from
from medkit.readers.dicom.reasons import Refused, one_file
from medkit.readers.dicom.series import (
    VOLUMES,
    Volume,
    order_slices,
    plane_as_said,
    plane_of,
    runs_of,
    slices_of,
)
from medkit.readers.dicom.stack import StackLoading, count_across
from medkit.readers.dicom.vocabulary import vocabulary
from medkit.readers.slices import choose_slices, say
from medkit.readers.volumes import Transforms, backwards, read_transforms

ANY = "*"


@dataclass(frozen=True)
class Shown:
    """What a model is given of a file or series.

    Attributes:
        images: RGB pictures, in order.
        shows: Words for the slices ("Axial slices 1 and 9 of 9, from the feet to the head."), "" for a single file.
        profile: What rendered them.
        notes: (reason, detail) pairs: what was mended or left out.
    """

    images: list[Image.Image]
    shows: str
    profile: Profile
    notes: tuple[tuple[str, str], ...]


def row_for(render: Sequence[dict[str, Any]], modality: str, name: str | None = None) -> dict[str, Any]:
    """Gives the row by which a contract renders a modality; of rows of one profile the one of most samples.

    Args:
        render: The contract's list.
        modality: As the header says, "" for none.
        name: Which one, for a contract with several of the modality.

    Raises:
        DataError: The contract has none for the modality, or several and no name was given.
    """
    rows = [row for row in render if row.get("modality") == (modality or ANY)]
    rows = rows or [row for row in render if row.get("modality") == ANY]
    rows = [row for row in rows if name is None or row.get("profile") == name]
    if not rows:
        known = (
            ", ".join(dict.fromkeys(f"{row.get('modality')} {row.get('profile')}" for row in render))
            or "nothing"
        )
        # What a header has in place of a modality may be anybody's name.
        said = modality if modality in vocabulary("modalities") else "a picture without a known modality"
        raise DataError(f"the model's contract renders {known}, and not {said}")
    ways = dict.fromkeys(str(row.get("profile")) for row in rows)
    if len(ways) > 1:
        names = ", ".join(ways)
        raise DataError(
            f"the model was trained on {modality} rendered in several ways; choose one of {names}"
        )
    return rows[0]


def render_dicom(
    files: Path | Sequence[Path],
    render: Sequence[dict[str, Any]],
    *,
    profile: str | None = None,
    most: int = 16,
    tile: int | None = None,
    side: int | None = None,
    burned_in: str = "quarantine",
) -> Shown:
    """Renders a DICOM file, or the files of one series, as a model's training pictures were.

    Args:
        files: A path: one file, of which the middle frame is shown. A list: all files of a series, or the one file
            that holds it.
        render: The field ``render`` of the model's contract.
        profile: Which of several profiles, with its version.
        most: Most slices of a series, evenly spread.
        tile: Longest side in px of the tiles of a montage, for a model that was trained on them; None: the slices
            are pictures of their own.
        side: Shorter side in px that larger pictures are shrunk to, or None.
        burned_in: "quarantine" or "keep", as in the reader.

    Raises:
        DataError: The contract doesn't say how, or a file gives no picture (``Refused``: with the reader's reason).
    """
    paths = [files] if isinstance(files, Path) else list(files)
    if not paths or burned_in not in ("quarantine", "keep"):
        raise DataError("give at least one DICOM file, and burned_in as quarantine or keep")
    slices, keep, modality, frames, whole = [], None, "", 1, not isinstance(files, Path)
    for path in paths:
        with one_file(), quiet():
            header = read_file(path, pixels=False)
            check_is_picture(header)
            about = describe(header, has_pixels=False)
            boxes = clean_regions(header, about) if burned_in == "quarantine" else None
            keep, modality, frames = (
                None if boxes is None else tuple(boxes),
                modality_of(header),
                about.frames,
            )
            slices += slices_of(path, header) if whole else []
            if keep is not None and len(paths) > 1:
                raise Refused("ultrasound region unknown", "regions are a file's own; give one file")
    row = row_for(render, modality, profile)
    chosen, transforms = profile_from(row), read_transforms("dicom", row.get("transforms") or {})
    if len(paths) == 1 and (len(slices) < 2 or modality not in VOLUMES):
        volume, shows = None, ""
        places = ((paths[0], tuple(choose_slices(frames, 1))),)
        loading: Loading | StackLoading = Loading(places, chosen, DEFAULT_LIMITS, keep, side=side)
    else:
        volume = order_slices(slices)
        with one_file(), quiet():
            loading, shows = _series(volume, chosen, transforms, most, tile, side)
    loaded = loading()
    images = [Image.fromarray(np.asarray(one)).convert("RGB") for one in loaded.images]
    return Shown(images, shows, chosen, loaded.notes + (volume.notes if volume else ()))


def _series(
    volume: Volume,
    chosen: Profile,
    transforms: Transforms | None,
    most: int,
    tile: int | None,
    side: int | None,
) -> tuple[Loading | StackLoading, str]:
    """Gives what loads a series, transformed as in training, and the words for its slices."""
    plane = plane_of(volume.slices[0].orientation)
    count = count_across(volume, plane, transforms)
    numbers = choose_slices(count, most)
    if transforms is None:
        places = tuple(runs_of([volume.slices[one] for one in numbers]))
        loading = Loading(places, chosen, DEFAULT_LIMITS, None, volume, tile, side)
        return loading, say(numbers, count, plane_as_said(plane, volume), tile is not None)
    loading = StackLoading(volume, chosen, DEFAULT_LIMITS, plane, tuple(numbers), transforms, tile, side)
    return loading, say(numbers, count, plane, tile is not None, backwards(plane, transforms.orientation))
