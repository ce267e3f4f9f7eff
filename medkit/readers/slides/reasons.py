"""Every reason for which a slide gives no tiles, and the exception that carries one."""

from __future__ import annotations

from contextlib import AbstractContextManager

from medkit.readers import worker
from medkit.readers.refusal import Refusal, within_one_file

REASONS = {
    "not a slide": "OpenSlide knows no slide format that the file has; a plain picture is for another reader.",
    "slide unreadable": "The file is a slide, and opening it or reading a level of it fails.",
    "file too large": "The file is larger than the limit.",
    "too many pixels": "The slide claims more pixels than the limit, or has no low-power level to find tissue on.",
    "no magnification": "The file tells neither pixel size nor objective; give the option mpp.",
    "pixels aren't square": "The pixel size differs between rows and columns.",
    "magnification not scanned": "The slide was scanned at a lower magnification than any that the card asks for.",
    "no tissue": "No tile has the tissue share that the card asks for.",
    "unknown transfer syntax": "A DICOM slide that is compressed in a way that OpenSlide doesn't read.",
    "header unreadable": "The header of a DICOM file can't be parsed.",
    **worker.REASONS,
    "unforeseen fault": "Something in the file that medkit didn't foresee; the detail names the kind of error.",
    "slide missing": "A row of the table or of the boxes names a slide that isn't there.",
    "row unreadable": "A row of the table or of the boxes makes no sense.",
    "repeated row": "The table has an earlier row for the same slide.",
}


class Refused(Refusal):
    """A slide that gives no tiles."""

    reasons = REASONS


def one_file() -> AbstractContextManager[None]:
    """Keeps whatever a hostile file raises within that file, as a ``Refused``."""
    return within_one_file(Refused, Refused("too many pixels", "more memory than the limit"))
