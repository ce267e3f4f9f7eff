"""The only attributes that leave a DICOM header: an allow-list whose every value is checked against a vocabulary.

A code string is whatever somebody typed, so a coded attribute passes only as one of the standard's terms, and a
number only as a number. Nothing else of a header is ever copied.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from pydicom.dataset import Dataset

from medkit.errors import DataError
from medkit.readers.dicom.description import Description
from medkit.readers.dicom.files import number_of, numbers_of, value_of, word_of, words_of
from medkit.readers.dicom.frames import group_of_frame
from medkit.readers.dicom.reasons import Refused
from medkit.readers.dicom.vocabulary import vocabulary

# PS3.3 C.7.3.1.1.1: modalities that acquire pictures.
MODALITIES = vocabulary("modalities")
# PS3.16 annex L, the terms of Body Part Examined that are in use.
BODY_PARTS = vocabulary("body_parts")
VIEWS = vocabulary("views")
# PS3.16 CID 4014, the views of mammography that are written as codes.
VIEW_CODES = {
    "R-10242": "CC",
    "R-10226": "MLO",
    "R-10224": "ML",
    "R-10228": "LM",
    "399162004": "CC",
    "399368009": "MLO",
}
SIDES = {"L": "left", "R": "right", "B": "both", "U": "unpaired"}
POSITIONS = vocabulary("patient_positions")
IMAGE_TYPES = vocabulary("image_types")
NUMBERS = {
    "slice_thickness_mm": "SliceThickness",
    "tube_voltage_kv": "KVP",
    "echo_time_ms": "EchoTime",
    "repetition_time_ms": "RepetitionTime",
    "flip_angle_deg": "FlipAngle",
    "field_strength_t": "MagneticFieldStrength",
}
ABOUT_PATIENT = ("age_band", "sex")
AGE = re.compile(r"(\d{1,3})([DWMY])")


def facts_of(dataset: Dataset, about: Description, patient: Iterable[str] = ()) -> dict[str, Any]:
    """Gives the allow-listed attributes of a file.

    Args:
        dataset: A parsed header.
        about: Its pixel description.
        patient: Which of ``ABOUT_PATIENT`` may leave as well.

    Returns:
        Facts with medkit's own names; absent, empty and unknown values are left out.
    """
    facts: dict[str, Any] = {}
    for name, look in _LOOKS.items():
        value = _found(look, dataset)
        if value:
            facts[name] = value
    for name, keyword in NUMBERS.items():
        value = _found(lambda header, keyword=keyword: number_of(header, keyword), dataset)
        if value is not None:
            facts[name] = round(value, 4)
    if "age_band" in patient:
        facts |= _named("age_band", _age_band(word_of(dataset, "PatientAge")))
    if "sex" in patient:
        sexes = {"F": "female", "M": "male", "O": "other"}
        facts |= _named("sex", sexes.get(word_of(dataset, "PatientSex"), ""))
    if about.frames > 1:
        facts["frames"] = about.frames
    return facts


def check_patient(given: Any) -> tuple[str, ...]:
    """Checks the card's list of what may be told about a patient.

    Raises:
        DataError: It asks for anything else.
    """
    wanted = tuple(given) if isinstance(given, list | tuple) else (given,) if given else ()
    unknown = [str(one) for one in wanted if one not in ABOUT_PATIENT]
    if unknown:
        raise DataError(
            f"reader dicom: patient can't hold {', '.join(unknown)}; it may hold {', '.join(ABOUT_PATIENT)}"
        )
    return wanted


def _modality(dataset: Dataset) -> str:
    word = word_of(dataset, "Modality")
    return word if word in MODALITIES else ""


def _body_part(dataset: Dataset) -> str:
    word = word_of(dataset, "BodyPartExamined").replace(" ", "").replace("_", "")
    return word.lower() if word in BODY_PARTS else ""


def _view(dataset: Dataset) -> str:
    word = word_of(dataset, "ViewPosition")
    if word in VIEWS:
        return word
    codes = value_of(dataset, "ViewCodeSequence")
    return VIEW_CODES.get(str(value_of(codes[0], "CodeValue", "")), "") if codes else ""


def _side(dataset: Dataset) -> str:
    return SIDES.get(word_of(dataset, "ImageLaterality") or word_of(dataset, "Laterality"), "")


def _position(dataset: Dataset) -> str:
    word = word_of(dataset, "PatientPosition")
    return word if word in POSITIONS else ""


def _image_type(dataset: Dataset) -> list[str]:
    return [word for word in words_of(dataset, "ImageType") if word in IMAGE_TYPES]


def _spacing(dataset: Dataset) -> list[float]:
    group = group_of_frame(dataset, 0, "PixelMeasuresSequence")
    spacing = numbers_of(group, "PixelSpacing") or numbers_of(dataset, "ImagerPixelSpacing")
    return [round(one, 4) for one in spacing[:2]]


def _contrast(dataset: Dataset) -> bool:
    return bool(value_of(dataset, "ContrastBolusAgent") or value_of(dataset, "ContrastBolusAgentSequence"))


_LOOKS: dict[str, Callable[[Dataset], Any]] = {
    "modality": _modality,
    "body_part": _body_part,
    "view": _view,
    "side": _side,
    "patient_position": _position,
    "image_type": _image_type,
    "pixel_spacing_mm": _spacing,
    "contrast_agent": _contrast,
}


def _found(look: Callable[[Dataset], Any], dataset: Dataset) -> Any:
    """Gives a fact, or None where its element is malformed: no picture fails for a fact."""
    try:
        return look(dataset)
    except Refused:
        return None


def _age_band(text: str) -> str:
    """Gives a decade, "90+" from 90 on: exact ages above 89 identify."""
    match = AGE.fullmatch(text)
    if not match:
        return ""
    years = int(match[1]) // {"D": 365, "W": 52, "M": 12, "Y": 1}[match[2]]
    return "90+" if years >= 90 else f"{years // 10 * 10}-{years // 10 * 10 + 9}"


def _named(name: str, value: str) -> dict[str, str]:
    return {name: value} if value else {}
