"""Which pixels may leave: names are burned into captures and around ultrasound sectors.

Nothing here reads text. A capture is kept back whole; of an ultrasound picture only the regions that the header
marks as acquired data stay, and one region out of bounds makes all of them stale.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from medkit.readers.dicom.description import Description
from medkit.readers.dicom.files import number_of, value_of, word_of, words_of
from medkit.readers.dicom.reasons import Refused
from medkit.readers.dicom.vocabulary import vocabulary

Box = tuple[int, int, int, int]
IMAGES = "1.2.840.10008.5.1.4.1.1."
SECONDARY_CAPTURE = "7"
WHOLE_SLIDE = "77.1.6"
# Storage classes of pictures (PS3.4 B.5), below ``IMAGES``.
PICTURES = vocabulary("picture_classes")
ULTRASOUND = frozenset(("3", "3.1", "6", "6.1", "6.2"))
CAPTURES = frozenset(
    ("SCREEN SAVE", "SCREENSHOT", "SCREEN CAPTURE", "DOSE_INFO", "REPORT", "SECONDARY CAPTURE")
)
OTHERS = (
    ("66.", "a segmentation or registration"),
    ("30.", "a parametric map"),
    ("67.", "a value mapping"),
    ("88.", "a report"),
    ("104.", "an encapsulated document"),
    ("11.", "a presentation state"),
    ("9.", "a waveform"),
    ("481.", "a radiotherapy object"),
)
# A region as large as the picture marks nothing as free of text.
MOST_COVER = 0.98


def check_is_picture(dataset: Dataset) -> None:
    """Refuses objects that are no pictures, before anything else is read of them.

    Raises:
        Refused: With what the object is, in medkit's words.
    """
    uid = str(value_of(dataset, "SOPClassUID", ""))
    meta = getattr(dataset, "file_meta", None)
    uid = uid or (str(value_of(meta, "MediaStorageSOPClassUID", "")) if meta is not None else "")
    if uid == "1.2.840.10008.1.3.10" or "DirectoryRecordSequence" in dataset:
        raise Refused("DICOMDIR")
    if uid == IMAGES + WHOLE_SLIDE:
        raise Refused("whole slide")
    kind = uid.removeprefix(IMAGES)
    if uid and (kind == uid or kind not in PICTURES):
        raise Refused(
            "not a picture", next((word for head, word in OTHERS if f"{kind}.".startswith(head)), "")
        )
    if "Rows" not in dataset:
        raise Refused("no pixel data")


def clean_regions(dataset: Dataset, about: Description) -> list[Box] | None:
    """Gives the boxes of a picture that may leave.

    Returns:
        (left, top, right, bottom) in px, right and bottom exclusive; None: the whole picture.

    Raises:
        Refused: Nothing of it may.
    """
    uid = str(value_of(dataset, "SOPClassUID", "")).removeprefix(IMAGES)
    if word_of(dataset, "BurnedInAnnotation") == "YES":
        raise Refused("may show a name", "BurnedInAnnotation is YES")
    if not uid or uid == SECONDARY_CAPTURE or uid.startswith(SECONDARY_CAPTURE + "."):
        raise Refused("may show a name", "a secondary capture" if uid else "no SOP class")
    if CAPTURES.intersection(words_of(dataset, "ImageType")):
        raise Refused("may show a name", "ImageType names a screen capture")
    if uid in ULTRASOUND or word_of(dataset, "Modality") == "US":
        return _ultrasound_regions(dataset, about)
    return None


def _ultrasound_regions(dataset: Dataset, about: Description) -> list[Box]:
    """Gives the regions of an ultrasound picture (PS3.3 C.8.5.5)."""
    boxes: list[Box] = []
    for item in value_of(dataset, "SequenceOfUltrasoundRegions", []):
        edges = [
            number_of(item, f"RegionLocation{edge}", -1.0) for edge in ("MinX0", "MinY0", "MaxX1", "MaxY1")
        ]
        left, top, right, bottom = (int(-1 if edge is None else edge) for edge in edges)
        # Some writers count the last column from 1.
        if not (0 <= left < right <= about.columns and 0 <= top < bottom <= about.rows):
            detail = f"a region reaches {right} x {bottom}, the picture {about.columns} x {about.rows}"
            raise Refused("ultrasound region unknown", detail)
        boxes.append((left, top, min(right + 1, about.columns), min(bottom + 1, about.rows)))
    if not boxes:
        raise Refused("ultrasound region unknown", "the header marks none")
    cover = max((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    if cover > MOST_COVER * about.rows * about.columns:
        raise Refused("ultrasound region unknown", "a region covers the whole picture")
    return boxes
