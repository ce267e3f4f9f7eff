"""From files to a record's pictures: what a loader of the reader carries, and what serving calls with a contract."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medkit.privacy.ocr import Line
from medkit.privacy.pixels import boxes_for
from medkit.privacy.profile import Mask
from medkit.readers import Loaded
from medkit.readers.dicom.burned_in import Box
from medkit.readers.dicom.description import Description
from medkit.readers.dicom.files import Limits, quiet
from medkit.readers.dicom.profiles import Profile
from medkit.readers.dicom.reasons import Refused, one_file
from medkit.readers.dicom.reduced import fit_small
from medkit.readers.dicom.render import PERCENTILES, render, spread_over, units_of
from medkit.readers.dicom.screening import judge, text_in
from medkit.readers.dicom.series import Volume, read_stored, runs_of
from medkit.readers.slices import montage, shrink

# A volume's percentiles are taken of every second pixel of every second row: a quarter, the same to the eye.
THIN = 2


@dataclass(frozen=True)
class Loading:
    """How pictures are made of files; what a record's loader carries.

    Attributes:
        places: (file, frames from 0) in order.
        profile: What is shown.
        limits: What is refused.
        keep: Boxes of the pictures that may leave, or None: all.
        volume: All slices, where the profile's percentiles run over a volume.
        tile: Longest side in px of a montage's tiles, or None: the pictures stay apart.
        side: Shorter side in px that larger pictures are shrunk to, or None: they keep their size.
        masks: Regions that become black, by device.
        ocr: Whether text in the pictures is looked for: ``off``, ``flag`` or ``quarantine``.
        released: Files whose text a person looked at: it is told and never keeps the pictures back.
    """

    places: tuple[tuple[Path, tuple[int, ...]], ...]
    profile: Profile
    limits: Limits
    keep: tuple[Box, ...] | None = None
    volume: Volume | None = None
    tile: int | None = None
    side: int | None = None
    masks: tuple[Mask, ...] = ()
    ocr: str = "off"
    released: tuple[Path, ...] = ()

    def __call__(self) -> Loaded:
        """Decodes and renders.

        Raises:
            Refused: With the reason.
        """
        with one_file(), quiet():
            return self._load()

    def _load(self) -> Loaded:
        spread = self._spread()
        pictures: list[Any] = []
        notes: dict[tuple[str, str], None] = {}
        lines: list[Line] = []
        seen: list[Line] = []
        for path, frames in self.places:
            wanted = list(frames)
            dataset, about, stored = read_stored(path, wanted, self.limits, self._enough())
            if len(self.places) == 1 and stored.values.min() == stored.values.max():
                raise Refused("one value")
            hide = boxes_for(dataset, self.masks)
            made = render(dataset, stored, about, self.profile, wanted, spread, self.keep, hide)
            if self.ocr != "off":
                (seen if path in self.released else lines).extend(text_in(made.pictures, dataset))
            size = stored.values.shape[1:3]
            pictures += [one if self.tile else self._fitted(one, size, about) for one in made.pictures]
            notes |= dict.fromkeys(made.notes)
        judge(lines, self.ocr)
        notes |= judge(lines + seen, "flag")
        if self.tile is not None:
            pictures = [shrink(montage(pictures, self.tile), self.side)]
        return Loaded(pictures, tuple(notes))

    def _enough(self) -> int | None:
        """Gives the size that suffices to decode, or None where only whole pictures show the same.

        A region's edge must not take in what lies beyond it, small text must stay legible to be found, and the
        least and greatest value are single pixels'.
        """
        ends = (
            self.profile.percentiles is not None
            and self.volume is None
            and self.profile.percentiles != PERCENTILES
        )
        whole = self.keep is not None or self.tile is not None or bool(self.masks) or self.ocr != "off"
        return None if whole or ends else self.side

    def _fitted(self, picture: Any, size: tuple[int, int], about: Description) -> Any:
        """Gives a picture shrunk to the side that is asked for."""
        if self.side is None or size == (about.rows, about.columns):
            return shrink(picture, self.side)
        return fit_small(picture, size, about, self.side)

    def _spread(self) -> tuple[float, float] | None:
        if self.volume is None or not self.profile.percentiles:
            return None
        values = []
        for path, frames in runs_of(self.volume.slices):
            dataset, about, stored = read_stored(path, list(frames), self.limits)
            for frame, one in zip(frames, stored.values, strict=True):
                values.append(units_of(dataset, frame, one[::THIN, ::THIN], about))
        return spread_over(values, self.profile.percentiles)
