"""What happens to one attribute, and why: by the table, and by default deny for what the table doesn't know."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_for_tag

from medkit.privacy.profile import Profile
from medkit.privacy.table import row_of

DATES = frozenset(("DA", "DT", "TM"))
TEXTS = frozenset(("PN", "LO", "SH", "ST", "LT", "UT", "UC", "UR", "AE"))
NUMBERS = frozenset(("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT", "OF", "OD", "OL", "OV"))
NUMERALS = frozenset(("DS", "IS"))
# Kinds whose values are characters, so that their form can be looked at.
WRITTEN = TEXTS | NUMERALS | {"CS"}
# Technical text that pictures need or that no person writes by hand, of attributes outside the table.
KEPT_TEXTS = frozenset((
    "CodeValue", "LongCodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning",
    "Manufacturer", "ManufacturerModelName", "ConvolutionKernel", "FilterType", "ReceiveCoilName",
    "TransmitCoilName", "SequenceName", "PulseSequenceName", "RescaleType", "ModalityLUTType",
    "ImagedNucleus", "TypeOfFilters", "Grid",
))  # fmt: skip
KEPT_BYTES = frozenset((
    "PixelData", "FloatPixelData", "DoubleFloatPixelData", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData", "LUTData", "WaveformData", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
))  # fmt: skip
# Patient characteristics option, PS3.15 Table E.1-1.
PATIENT = frozenset(("PatientSex", "PatientAge", "PatientSize", "PatientWeight"))
# Terms of ImageType beyond the first two values; anything else there is free text of a device or a person.
IMAGE_TYPES = frozenset((
    "AXIAL", "LOCALIZER", "OTHER", "VOLUME", "THUMBNAIL", "LABEL", "OVERVIEW", "NONE", "RESAMPLED", "MPR", "MIP",
    "MINIP", "AVERAGE", "PROJECTION", "PROJECTION IMAGE", "REFORMATTED", "SINGLE PLANE", "BIPLANE A", "BIPLANE B",
    "M", "P", "R", "I", "ADD", "DIFFUSION", "ADC", "FA", "TRACEW", "NORM", "DIS2D", "DIS3D", "ND", "FM", "MEAN",
    "M_SE", "M_FFE", "M_IR", "SE", "FFE", "IR", "WHOLE BODY", "STATIC", "DYNAMIC", "GATED", "TOMO", "RECON TOMO",
    "RECON GATED TOMO", "EMISSION", "TRANSMISSION", "DENSITY", "SCREEN SAVE",
))  # fmt: skip
_REGISTERED = re.compile(r"1\.2\.840\.10008\.[0-9.]{1,50}")
MOST_TEXT = 64
_CODE = re.compile(r"[A-Z0-9_ ]{0,16}")
_NUMERAL = re.compile(r"[0-9+\-.eE ]{0,16}")


@dataclass(frozen=True)
class Decision:
    """What to do with an attribute.

    Attributes:
        action: "keep", "remove", "empty", "dummy", "uid", "shift", "clean", "age", "pseudonym" or "walk".
        reason: Why, in fixed words for audits: "table X", "private", "unknown", ...
    """

    action: str
    reason: str


@lru_cache(maxsize=16_384)
def decide(tag: int, vr: str, profile: Profile) -> Decision:
    """Decides on an attribute by its tag and value representation; its value is looked at by ``fits``."""
    group = tag >> 16
    if group & 1:
        return Decision("remove", "private")
    if group in (0x0000, 0x0002) or tag & 0xFFFF == 0:
        return Decision("remove", "no attribute of a data set")
    row = row_of(tag, profile.version)
    keyword = keyword_for_tag(tag)
    if group >> 8 in (0x50, 0x60):
        return Decision("remove", "curve or overlay")
    if row is not None:
        return _by_table(tag, vr or row.vr, keyword, row.action, profile)
    if not keyword:
        return Decision("remove", "unknown")
    return _by_kind(vr, keyword, profile)


def fits(keyword: str, vr: str, values: list[str]) -> bool:
    """Says whether a kept attribute's values have the form of its kind; others are removed as free text."""
    if keyword == "ImageType":
        first = values[:2]
        return all(_CODE.fullmatch(one) for one in first) and all(
            one in IMAGE_TYPES or not one for one in values[2:]
        )
    if vr == "CS":
        return all(_CODE.fullmatch(one) for one in values)
    if vr in TEXTS:
        # A damaged length makes one value of many: with their tags between them, as control characters.
        return all(len(one) <= MOST_TEXT and one.isprintable() for one in values)
    if vr in NUMERALS:
        return all(_NUMERAL.fullmatch(one) for one in values)
    return True


def registered(uid: str) -> bool:
    """Says whether a UID names something of the standard (a class, a syntax), not an object or a person."""
    return _REGISTERED.fullmatch(uid) is not None


def _by_table(tag: int, vr: str, keyword: str, action: str, profile: Profile) -> Decision:
    reason = f"table {action}"
    if keyword in ("PatientName", "PatientID"):
        return Decision("pseudonym", reason)
    if profile.patient and keyword in PATIENT:
        return Decision("age" if keyword == "PatientAge" else "keep", reason)
    if profile.dates == "shift" and vr in DATES and not keyword.startswith("PatientBirth"):
        return Decision("keep" if vr == "TM" else "shift", reason)
    if profile.descriptions == "clean" and vr in TEXTS and _is_description(keyword):
        return Decision("clean", reason)
    if vr == "UI" and action != "X":
        return Decision("uid", reason)
    if action == "X/Z/U*":
        return Decision("walk", reason)
    if action.endswith("D"):
        return Decision("dummy", reason)
    return Decision("empty" if action.endswith("Z") else "remove", reason)


def _by_kind(vr: str, keyword: str, profile: Profile) -> Decision:
    if vr == "SQ":
        return Decision("walk", "sequence")
    if vr == "UI":
        return Decision("uid", "identifier outside the table")
    if vr in DATES:
        return Decision(
            "shift" if profile.dates == "shift" and vr != "TM" else "remove", "date outside the table"
        )
    if vr in TEXTS:
        kept = keyword in KEPT_TEXTS
        return Decision("keep" if kept else "remove", "technical text" if kept else "text outside the table")
    if vr in NUMBERS or vr in NUMERALS or vr == "CS":
        return Decision("keep", "number or code")
    if vr in ("OB", "OW", "OB or OW", "US or OW", "US or SS or OW", "US or SS") and keyword in KEPT_BYTES:
        return Decision("keep", "pixels")
    if vr in ("US or SS", "US or SS or OW", "US or OW"):
        return Decision("keep", "number or code")
    return Decision("remove", "bytes or text outside the table")


def _is_description(keyword: str) -> bool:
    return keyword.endswith(("Description", "Comments", "ProtocolName")) and "Patient" not in keyword


@lru_cache(maxsize=16_384)
def vr_of(tag: int) -> str:
    """Gives the dictionary's value representation of a tag, "" for an unknown one."""
    try:
        return dictionary_VR(tag)
    except KeyError:
        row = row_of(tag)
        return row.vr if row is not None else ""


@lru_cache(maxsize=16_384)
def most_values(tag: int) -> int | None:
    """Gives how many values a tag may have, None where that is not one fixed number."""
    try:
        many = dictionary_VM(tag)
    except KeyError:
        return None
    return int(many) if many.isdigit() else None
