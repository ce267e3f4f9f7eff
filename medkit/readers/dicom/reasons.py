"""Every reason for which a DICOM file or series gives no picture, and the exception that carries one."""

from __future__ import annotations

from contextlib import AbstractContextManager

from medkit.readers import worker
from medkit.readers.refusal import Refusal, within_one_file

REASONS = {
    "not DICOM": "The file neither has the DICOM prefix nor starts with a DICOM element.",
    "file too large": "The file is larger than the limit.",
    "inflates too far": "A deflated file or frame unfolds beyond the limit.",
    "header unreadable": "The header can't be parsed.",
    "malformed element": "An element that is needed holds something of another type.",
    "DICOMDIR": "A directory of other files; those are read by themselves.",
    "not a picture": "The object is a report, a plan, a segmentation, a dose, a curve or a map of numbers.",
    "whole slide": "A whole-slide object; the reader slides makes tiles of it.",
    "no pixel data": "The object has no pixel data.",
    "no transfer syntax": "The header doesn't say how the pixels are encoded.",
    "unknown transfer syntax": "No decoder of medkit reads this encoding.",
    "decoder not installed": "The encoding needs the packages of the extra 'dicom'.",
    "incomplete pixel description": "Rows, columns, bits or the photometric interpretation is missing or impossible.",
    "too many pixels": "The header asks for more pixels or frames than the limit.",
    "truncated pixel data": "There are fewer pixel bytes or frames than the header says.",
    "codestream and header disagree": "The compressed image has another size or number of channels than the header.",
    **worker.REASONS,
    "may show a name": "A screen capture, a secondary capture, or said to have text burned into the pixels.",
    "ultrasound region unknown": "No region of the picture is known to be free of text.",
    "shows text": "OCR found text in the picture, and the card keeps such pictures back.",
    "values are not Hounsfield units": "The profile's windows need HU, and the file's values are none.",
    "unforeseen fault": "Something in the file that medkit didn't foresee; the detail names the kind of error.",
    "modality left out": "The card's list of modalities doesn't name it.",
    "one value": "All pixels are equal; there is nothing to see.",
    "missing slices": "Series: the distance between two neighbours is a multiple of the others.",
    "uneven spacing": "Series: the distances between neighbours differ.",
    "duplicate slices": "Series: two slices lie at one place.",
    "several acquisitions": "Series: one place was taken several times (phases, echoes, b-values).",
    "mixed orientation": "Series: the slices don't share one orientation.",
    "localizer in the series": "Series: a localizer lies among the slices.",
    "mixed geometry": "Series: the slices differ in size, pixel spacing or unit.",
    "segmentation doesn't fit": "Its frames don't lie on the slices of its series, or its kind is unknown.",
    "segmentation without its series": "No series of the folder is the one that a segmentation refers to.",
    "report unreadable": "The report is too long, empty or no text.",
    "report without images": "No record's fields give the report's file name.",
    "no positions": "Series: slices without position or orientation; instance numbers prove no order.",
}


class Refused(Refusal):
    """A file or series that gives no picture."""

    reasons = REASONS


def one_file() -> AbstractContextManager[None]:
    """Keeps whatever a hostile file raises within that file, as a ``Refused``."""
    return within_one_file(Refused, Refused("too many pixels", "more memory than the limit"))
