"""What a card says about burned-in text: the policy, the site's masks, OCR, and what a person looked at."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from medkit.errors import DataError
from medkit.privacy.masks import read_masks
from medkit.privacy.ocr import CHOICES, Line, check_installed, find_text, say
from medkit.privacy.pixels import boxes_for
from medkit.privacy.profile import Mask
from medkit.privacy.text import known_values
from medkit.readers.dicom.burned_in import Box, clean_regions
from medkit.readers.dicom.description import Description
from medkit.readers.dicom.identity import KEY_VARIABLE
from medkit.readers.dicom.reasons import Refused

POLICIES = ("quarantine", "keep")
SCREENING = ("burned_in", "masks", "ocr", "released")
Note = tuple[str, str]


@dataclass(frozen=True)
class Screening:
    """How pictures with burned-in text are kept back.

    Attributes:
        burned_in: ``quarantine`` or ``keep``.
        masks: Regions that become black, by device. A picture that a mask fits is not kept back: the mask says
            where its device writes.
        ocr: ``off``; ``flag`` tells of text in the ledger; ``quarantine`` keeps pictures with text back.
        released: Pseudonyms of files that a person looked at and found free of names.
    """

    burned_in: str = "quarantine"
    masks: tuple[Mask, ...] = ()
    ocr: str = "off"
    released: frozenset[str] = frozenset()

    def regions(self, dataset: Dataset, about: Description, record: str) -> tuple[Box, ...] | None:
        """Gives the boxes of a picture that may leave, or None for all of it.

        Raises:
            Refused: Nothing of it may.
        """
        if self.burned_in == "keep" or record in self.released:
            return None
        try:
            boxes = clean_regions(dataset, about)
        except Refused:
            if not boxes_for(dataset, self.masks):
                raise
            return None
        return None if boxes is None else tuple(boxes)

    def ocr_of(self, *files: str) -> str:
        """Gives what OCR does with a record of these files: what a person released is never kept back."""
        return "flag" if self.ocr == "quarantine" and self.released.issuperset(files) else self.ocr


def text_in(pictures: Iterable[np.ndarray], dataset: Dataset) -> list[Line]:
    """Gives the lines of text in rendered pictures of a file, compared with its header."""
    known = known_values(dataset)
    return [line for picture in pictures for line in find_text(picture, known)]


def judge(lines: list[Line], ocr: str) -> dict[Note, None]:
    """Gives what the ledger should tell of text that was found.

    Raises:
        Refused: The card keeps pictures with text back.
    """
    if not lines:
        return {}
    if ocr == "quarantine":
        raise Refused("shows text", say(lines))
    return {("shows text", say(lines)): None}


def read_screening(options: dict[str, Any]) -> Screening:
    """Gives what a card's options say.

    Raises:
        DataError: An option makes no sense, OCR isn't installed, or the list of released files can't be used.
    """
    burned_in, ocr = options.get("burned_in", "quarantine"), options.get("ocr", "off")
    if burned_in not in POLICIES:
        raise DataError(f"reader dicom: burned_in {burned_in!r} is none of {', '.join(POLICIES)}")
    # YAML readers differ on what a bare off is.
    ocr = "off" if ocr is False else ocr
    if ocr not in CHOICES:
        raise DataError(f"reader dicom: ocr {ocr!r} is none of {', '.join(CHOICES)}")
    if ocr != "off":
        check_installed("reader dicom")
    masks = read_masks(options.get("masks"), "reader dicom")
    return Screening(burned_in, masks, ocr, _released(options.get("released")))


def _released(path: Any) -> frozenset[str]:
    if path is None:
        return frozenset()
    if not os.environ.get(KEY_VARIABLE):
        raise DataError(
            f"reader dicom: released names files by pseudonyms of your own key; set {KEY_VARIABLE} as at the review"
        )
    try:
        words = Path(str(path)).expanduser().read_text(encoding="utf-8").split()
    except (OSError, ValueError) as error:
        raise DataError(
            f"reader dicom: the released list {path} can't be read ({type(error).__name__})"
        ) from None
    return frozenset(words)
