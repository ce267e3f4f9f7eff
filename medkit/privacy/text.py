"""Free text without what identifies: values known from the header of the same study, then rules.

The header is the strongest signal: it names the very people and numbers that the report repeats. Rules find
what has a form (dates, telephones, numbers behind a label, titled names). Names that stand in no header and
behind no title are not found: measure the recall on reports of your own site.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from medkit.privacy.presidio import Finder
from medkit.privacy.quiet import quiet
from medkit.privacy.rules import MONTHS, RULES

_NAMES = (
    "PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ReferringPhysicianName",
    "PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "OperatorsName", "PhysiciansOfRecord",
    "RequestingPhysician", "ScheduledPerformingPhysicianName", "ResponsiblePerson", "ConsultingPhysicianName",
    "VerifyingObserverName", "PersonName", "ContentCreatorName",
)  # fmt: skip
_IDS = (
    "PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "AdmissionID", "IssuerOfPatientID",
    "MedicalRecordLocator", "FillerOrderNumberImagingServiceRequest", "PlacerOrderNumberImagingServiceRequest",
    "RequestedProcedureID", "DeviceSerialNumber", "MilitaryRank", "ClinicalTrialSubjectID",
)  # fmt: skip
_PLACES = (
    "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "PatientAddress", "StationName",
    "PatientTelephoneNumbers", "ReferringPhysicianAddress", "ReferringPhysicianTelephoneNumbers",
    "CurrentPatientLocation", "ClinicalTrialCoordinatingCenterName", "ClinicalTrialSiteName",
    "ClinicalTrialSponsorName",
)  # fmt: skip
_DATES = (
    "PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AdmittingDate",
    "AcquisitionDateTime",
)  # fmt: skip
# Words that are part of names and of findings: known values of these alone are no names.
_WORDS = {
    "anon", "anonymous", "hospital", "clinic", "medical", "center", "centre", "department", "radiology",
    "university", "general", "the", "and", "for", "unknown", "none", "left", "right", "male", "female", "head",
    "chest", "abdomen", "brain", "lung", "liver", "hand", "foot", "skull", "spine", "test", "phantom",
}  # fmt: skip
_MARK = re.compile(r"\[[A-Z]+\]")
_KINDS = {
    keyword: kind
    for kind, keywords in (("NAME", _NAMES), ("ID", _IDS), ("PLACE", _PLACES), ("DATE", _DATES))
    for keyword in keywords
}


@dataclass(frozen=True)
class Known:
    """What a study's header names.

    Attributes:
        values: (kind, text), the longest first.
    """

    values: tuple[tuple[str, str], ...] = ()

    @cached_property
    def kinds(self) -> dict[str, str]:
        """Upper-case text -> kind."""
        return {value.upper(): kind for kind, value in reversed(self.values)}

    @cached_property
    def pattern(self) -> re.Pattern[str] | None:
        """One expression for all of them, as whole words; the longest is tried first."""
        words = "|".join(re.escape(value) for _, value in self.values)
        return re.compile(rf"(?<![^\W_])(?:{words})(?![^\W_])", re.IGNORECASE) if words else None


@dataclass(frozen=True)
class Cleaned:
    """A text with "[NAME]", "[DATE]" and the like in place of what was found, and how often each was."""

    text: str
    found: Counter[str] = field(default_factory=Counter)


@quiet()
def known_values(dataset: Dataset) -> Known:
    """Gives the names, numbers, places and dates of a header and of what is nested in it, in their usual forms."""
    found: set[tuple[str, str]] = set()
    for keyword, value in _walk(dataset, 0):
        kind = _KINDS.get(keyword)
        if kind == "NAME":
            found |= {("NAME", form) for form in _name_forms(value)}
        elif kind == "DATE":
            found |= {("DATE", form) for form in _date_forms(value)}
        elif kind and _telling(value):
            found.add((kind, value.strip()))
    return Known(tuple(sorted(found, key=lambda one: (-len(one[1]), one))))


def clean(text: str, known: Known | None = None, finder: Finder | None = None) -> Cleaned:
    """Gives a text without known values, what the rules find and, where it is asked, what Presidio finds."""
    found: Counter[str] = Counter()
    if known is not None and known.pattern is not None:
        kinds = known.kinds

        def replace(match: re.Match[str]) -> str:
            kind = kinds.get(match.group(0).upper(), "NAME")
            found[kind] += 1
            return f"[{kind}]"

        text = known.pattern.sub(replace, text)
    for kind, rule in RULES:
        text = rule.sub(lambda match, kind=kind: _replaced(match, kind, found), text)
    if finder is not None:
        text = _without_spans(text, finder.spans(text), found)
    # "[NAME], [NAME]" of one person's parts reads as one.
    text = re.sub(r"\[(\w+)\](?:[\s,]+\[\1\])+", r"[\1]", text)
    return Cleaned(text, +found)


def _replaced(match: re.Match[str], kind: str, found: Counter[str]) -> str:
    whole = match.group(0)
    if "value" not in match.re.groupindex:
        found[kind] += 1
        return f"[{kind}]"
    low, high = match.start("value") - match.start(), match.end("value") - match.start()
    if low < 0:
        return whole
    found[kind] += 1
    return f"{whole[:low]}[{kind}]{whole[high:]}"


def _without_spans(text: str, spans: list[tuple[int, int, str]], found: Counter[str]) -> str:
    marks = [match.span() for match in _MARK.finditer(text)]
    for start, end, kind in reversed(spans):
        if any(start < last and first < end for first, last in marks):
            continue
        found[kind] += 1
        text = f"{text[:start]}[{kind}]{text[end:]}"
    return text


def _walk(dataset: Dataset, depth: int) -> Iterable[tuple[str, str]]:
    for tag in sorted(dataset.keys()):
        try:
            element: Any = dataset[tag]
            value = element.value
        except Exception:
            # what can't be parsed may still be a name: its bytes are looked for as they stand
            yield keyword_for_tag(tag), _raw_text(dataset, tag)
            continue
        if element.VR == "SQ":
            if depth < 8:
                for item in value or ():
                    yield from _walk(item, depth + 1)
        elif value not in (None, ""):
            many = (
                value if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else [value]
            )
            yield from ((element.keyword, str(one)) for one in many)


def _raw_text(dataset: Dataset, tag: BaseTag) -> str:
    raw = dataset.get_item(tag, keep_deferred=True)
    value = (raw.value if raw is not None else None) or b""
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode().strip("\0 ")
    except UnicodeDecodeError:
        return value.decode("latin-1").strip("\0 ")


def _name_forms(value: str) -> set[str]:
    forms: set[str] = set()
    for group in value.split("="):
        parts = [part.strip() for part in group.split("^") if part.strip()]
        words = [word for part in parts for word in re.split(r"[\s,]+", part)]
        forms |= {word for word in words if len(word) >= 3 and _telling(word) and not word.isdigit()}
        if len(parts) >= 2:
            family, given = parts[0], parts[1]
            forms |= {f"{given} {family}", f"{family}, {given}", f"{family} {given}"}
        elif parts and _telling(parts[0]):
            forms.add(parts[0])
    return {form for form in forms if len(form) >= 3}


def _date_forms(value: str) -> set[str]:
    match = re.match(r"(\d{4})\D?(\d{2})\D?(\d{2})", value.strip())
    if match is None or not 1 <= int(match[2]) <= 12:
        return set()
    year, month, day = match.groups()
    long_month = MONTHS[int(month) - 1]
    short_month = long_month[:3]
    numbers = {(day, month), (month, day), (str(int(day)), str(int(month))), (str(int(month)), str(int(day)))}
    forms = {f"{year}{month}{day}", f"{year}-{month}-{day}", f"{year}/{month}/{day}", f"{year}.{month}.{day}"}
    for mark in "/.-":
        forms |= {f"{first}{mark}{second}{mark}{y}" for first, second in numbers for y in (year, year[2:])}
    for word in (long_month, short_month):
        for one in (day, str(int(day))):
            forms |= {
                f"{one} {word} {year}",
                f"{word} {one}, {year}",
                f"{word} {one} {year}",
                f"{one}-{word}-{year}",
            }
    return forms


def _telling(value: str) -> bool:
    text = value.strip().lower()
    return len(text) >= 3 and text not in _WORDS and not re.fullmatch(r"[\W_0]*", text)
