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
from medkit.readers.dicom.reasons import one_file
from medkit.readers.dicom.series import order_slices, plane_as_said, plane_of, runs_of, slices_of
from medkit.readers.slices import choose_slices, say

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


def profile_for(render: Sequence[dict[str, Any]], modality: str, name: str | None = None) -> Profile:
    """Gives the profile that a contract renders a modality with.

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
        raise DataError(
            f"the model's contract renders {known}, and not {modality or 'a picture without modality'}"
        )
    if len(rows) > 1:
        names = ", ".join(str(row.get("profile")) for row in rows)
        raise DataError(
            f"the model was trained on {modality} rendered in several ways; choose one of {names}"
        )
    return profile_from(rows[0])


def render_dicom(
    files: Path | Sequence[Path],
    render: Sequence[dict[str, Any]],
    *,
    profile: str | None = None,
    most: int = 16,
    side: int | None = None,
    burned_in: str = "quarantine",
) -> Shown:
    """Renders a DICOM file, or the files of one series, as a model's training pictures were.

    Args:
        files: One file (the middle of its frames is shown), or all files of a series.
        render: The field ``render`` of the model's contract.
        profile: Which of several profiles, with its version.
        most: Most slices of a series, evenly spread.
        side: Shorter side in px that larger pictures are shrunk to, or None.
        burned_in: "quarantine" or "keep", as in the reader.

    Raises:
        DataError: The contract doesn't say how, or a file gives no picture (``Refused``: with the reader's reason).
    """
    paths = [files] if isinstance(files, Path) else list(files)
    if not paths or burned_in not in ("quarantine", "keep"):
        raise DataError("give at least one DICOM file, and burned_in as quarantine or keep")
    slices, keep, modality, frames = [], None, "", 1
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
            slices += slices_of(path, header) if len(paths) > 1 else []
    chosen = profile_for(render, modality, profile)
    if len(paths) == 1:
        places, volume, shows = ((paths[0], tuple(choose_slices(frames, 1))),), None, ""
    else:
        volume = order_slices(slices)
        numbers = choose_slices(len(volume.slices), most)
        places = tuple(runs_of([volume.slices[one] for one in numbers]))
        plane = plane_as_said(plane_of(volume.slices[0].orientation), volume)
        shows = say(numbers, len(volume.slices), plane)
    loaded = Loading(places, chosen, DEFAULT_LIMITS, keep, volume, side=side)()
    images = [Image.fromarray(np.asarray(one)).convert("RGB") for one in loaded.images]
    return Shown(images, shows, chosen, loaded.notes + (volume.notes if volume else ()))
