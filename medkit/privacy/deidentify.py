"""A DICOM data set without what identifies a person: every attribute at every depth, by the table."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from copy import copy
from pathlib import Path
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medkit.errors import DataError
from medkit.privacy import pixels
from medkit.privacy.decide import (
    NUMBERS,
    NUMERALS,
    TEXTS,
    WRITTEN,
    Decision,
    decide,
    fits,
    most_values,
    registered,
    vr_of,
)
from medkit.privacy.profile import BASIC, Profile
from medkit.privacy.pseudonyms import Pseudonyms, shifted
from medkit.privacy.quiet import quiet
from medkit.privacy.text import Known, clean, known_values

# A dummy of each kind that is valid and says nothing (PS3.15 E.3.1, action D).
DUMMIES: dict[str, Any] = {
    "DA": "19000101", "TM": "000000", "DT": "19000101000000", "AS": "000Y", "CS": "OTHER", "DS": "0", "IS": "0",
    "AE": "ANON", "PN": "ANON", "LO": "ANON", "SH": "ANON", "ST": "ANON", "LT": "ANON", "UT": "ANON",
    "UC": "ANON", "UR": "urn:anon", "US": 0, "SS": 0, "UL": 0, "SL": 0, "FL": 0.0, "FD": 0.0, "UV": 0, "SV": 0,
    "OB": b"\0\0", "OW": b"\0\0", "OF": b"\0" * 4, "OD": b"\0" * 8, "OL": b"\0" * 4, "OV": b"\0" * 8,
    "UN": b"\0\0", "AT": 0,
}  # fmt: skip
MOST_DEPTH = 32
# A UUID of its own (PS3.5 B.2): a toolkit's UID may be the root of the very UIDs that are replaced.
IMPLEMENTATION_UID = "2.25.101883640927461558130957285331476095814"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_AGE_LIMIT = 89


@quiet()
def deidentify(dataset: Dataset, key: bytes, profile: Profile = BASIC) -> FileDataset:
    """Gives a data set without identifying attributes; the one that is given stays as it is.

    Attributes of the table are removed, emptied or replaced as it says, at every depth; private and unknown
    ones, curves, overlays and free text outside the table are removed. UIDs and the patient's name and number
    become pseudonyms of the key, so that all files of a patient fit together again, in any process. Pixels
    stay as they are except for a mask of the profile, comments inside compressed frames, and bytes after the
    last frame. Preamble and file meta information are new.

    Args:
        dataset: As pydicom reads it, whole.
        key: The site's secret, at least 32 bytes.
        profile: What is kept beyond the basic profile.

    Returns:
        A data set that ``save_as`` writes as a file.

    Raises:
        DataError: The key is too short, the object is a DICOMDIR, or nested too deep.

    Source: PS3.15 Annex E; attributes (0012,0062) to (0012,0064) say what was done.
    """
    names = Pseudonyms(key)
    if "DirectoryRecordSequence" in dataset:
        raise DataError("the object is a DICOMDIR: it lists files that will have other names; leave it out")
    patient = patient_of(dataset)
    known = known_values(dataset)
    worker = _Worker(names, profile, patient, known, Echoes.of(dataset, known, profile))
    clean_set = worker.walk(dataset, 0)
    syntax = pixels.syntax_of(dataset)
    out = FileDataset(
        io.BytesIO(),
        clean_set,
        preamble=b"\0" * 128,
        file_meta=_meta(clean_set, dataset, syntax),
        is_implicit_VR=syntax == ImplicitVRLittleEndian,
        is_little_endian=syntax != "1.2.840.10008.1.2.2",
    )
    _say_what_was_done(out, profile)
    pixels.strip(out, syntax)
    if boxes := pixels.boxes_for(dataset, profile.masks):
        pixels.blacken(out, boxes)
    return out


@quiet()
def save(dataset: FileDataset, to: Path | io.BytesIO) -> None:
    """Writes a data set that ``deidentify`` gave as a DICOM file.

    Raises:
        DataError: It can't be written: most often its pixel data isn't what its transfer syntax says.
    """
    file = DicomBytesIO()
    try:
        if UID(dataset.file_meta.TransferSyntaxUID).is_transfer_syntax:
            dataset.save_as(file, enforce_file_format=True)
        else:
            # A syntax newer than pydicom's dictionary: all that were added since 2006 are explicit little endian.
            file.is_implicit_VR, file.is_little_endian = False, True
            file.write(b"\0" * 128 + b"DICM")
            write_file_meta_info(file, dataset.file_meta)
            write_dataset(file, dataset)
    # pydicom's message may quote a value; its kind doesn't.
    except Exception as error:
        raise DataError(f"the object can't be written as a DICOM file ({type(error).__name__})") from None
    if isinstance(to, Path):
        to.write_bytes(file.getvalue())
    else:
        to.write(file.getvalue())


def patient_of(dataset: Dataset) -> str:
    """Gives what a patient's pseudonym and date shift hang on: issuer and number, else name and birth date."""
    number = text_at(dataset, "PatientID")
    if number:
        return number
    return "\0".join((text_at(dataset, "PatientName"), text_at(dataset, "PatientBirthDate")))


@quiet()
def mapping(dataset: Dataset, key: bytes) -> tuple[dict[str, str], dict[str, str]]:
    """Gives (old -> new UIDs, old -> new patient numbers) of a data set: for the key holder alone."""
    names = Pseudonyms(key)
    uids: dict[str, str] = {}
    for element in elements(dataset):
        if element.VR == "UI":
            uids.update({uid: names.uid(uid) for uid in texts(element) if uid and not registered(uid)})
    patient = text_at(dataset, "PatientID")
    return uids, {patient: names.name(patient)} if patient else {}


def elements(dataset: Dataset, depth: int = 0) -> Iterator[DataElement]:
    """Gives every readable element at every depth."""
    for tag in sorted(dataset.keys()):
        element = readable(dataset, tag)
        if element is None:
            continue
        yield element
        if element.VR == "SQ" and depth < MOST_DEPTH and element.value:
            for item in element.value:
                yield from elements(item, depth + 1)


def readable(dataset: Dataset, tag: Any) -> DataElement | None:
    """Gives an element, or None where its bytes don't have the form of its kind."""
    try:
        return dataset[tag]
    # pydicom raises nearly anything on a broken value; whatever it is, the value is not understood.
    except Exception:
        return None


def texts(element: DataElement) -> list[str]:
    """Gives an element's values as text; none for an empty one."""
    value = element.value
    if value is None or value == "":
        return []
    if isinstance(value, str | bytes):
        return [value if isinstance(value, str) else value.decode("latin-1")]
    try:
        return (
            [str(one) for one in value] if hasattr(value, "__iter__") and element.VR != "PN" else [str(value)]
        )
    except Exception:
        return [str(value)]


def text_at(dataset: Dataset, keyword: str) -> str:
    """Gives an attribute's first value as text, "" where there is none."""
    if keyword not in dataset:
        return ""
    element = readable(dataset, keyword)
    values = texts(element) if element is not None else []
    return values[0].strip() if values else ""


class Echoes:
    """What a kept text may not repeat: a maker's name is no secret unless it is the institution's, too."""

    def __init__(self, whole: Iterable[str] = (), parts: Iterable[str] = ()) -> None:
        self.whole = {value.upper() for value in whole}
        words = [re.escape(value) for value in parts if len(value) >= 3]
        self.parts = (
            re.compile(rf"(?<![^\W_])(?:{'|'.join(words)})(?![^\W_])", re.IGNORECASE) if words else None
        )

    @classmethod
    def of(cls, dataset: Dataset, known: Known, profile: Profile) -> Echoes:
        """Gathers an object's names, numbers and places, and every other text that is taken out of it."""
        taken = set()
        for element in elements(dataset):
            if element.VR in TEXTS and not element.tag.is_private:
                decision = decide(int(element.tag), element.VR, profile)
                if decision.reason.startswith("table"):
                    taken |= {value.strip() for value in texts(element)}
        taken.discard("")
        return cls(taken, {value for kind, value in known.values if kind != "DATE"})

    def heard(self, element: DataElement) -> bool:
        """Says whether an element of text or number repeats one of them."""
        if element.VR in TEXTS:
            values = [one.strip() for one in texts(element)]
            return any(one.upper() in self.whole or (self.parts and self.parts.search(one)) for one in values)
        if element.VR in ("IS", "DS", "CS") and self.parts:
            return any(len(one) >= 4 and self.parts.fullmatch(one.strip()) for one in texts(element))
        return False


class _Worker:
    """Walks one object."""

    def __init__(
        self, names: Pseudonyms, profile: Profile, patient: str, known: Known, echoes: Echoes
    ) -> None:
        self.names, self.profile, self.patient, self.known, self.echoes = (
            names,
            profile,
            patient,
            known,
            echoes,
        )

    def walk(self, dataset: Dataset, depth: int) -> Dataset:
        """Gives a data set of what stays."""
        if depth > MOST_DEPTH:
            raise DataError(f"the object is nested more than {MOST_DEPTH} sequences deep; it is refused")
        out = Dataset()
        for tag in sorted(dataset.keys()):
            element = self._element(dataset, tag, depth)
            if element is not None:
                out.add(element)
        return out

    def _element(self, dataset: Dataset, tag: Any, depth: int) -> DataElement | None:
        decision = decide(int(tag), vr_of(int(tag)), self.profile)
        if decision.action == "remove":
            return None
        element = readable(dataset, tag)
        if element is None:
            return None
        # The file may give an attribute another kind than the dictionary: UN, or text in place of a number.
        if vr_of(int(tag)) != element.VR:
            decision = decide(int(tag), element.VR, self.profile)
        return None if decision.action == "remove" else self._changed(element, decision, depth)

    def _changed(self, element: DataElement, decision: Decision, depth: int) -> DataElement | None:
        action, vr = decision.action, element.VR
        if action == "walk":
            if vr != "SQ":
                return None
            return DataElement(
                element.tag, "SQ", Sequence([self.walk(item, depth + 1) for item in element.value])
            )
        if action == "empty":
            return DataElement(element.tag, vr, Sequence() if vr == "SQ" else None)
        if action == "dummy":
            return DataElement(element.tag, vr, Sequence([Dataset()]) if vr == "SQ" else DUMMIES.get(vr))
        if action == "pseudonym":
            return DataElement(element.tag, vr, self._pseudonym(element))
        if action == "uid":
            return DataElement(element.tag, vr, self._uids(element)) if vr == "UI" else None
        if action == "shift":
            return DataElement(element.tag, vr, self._shifted(element))
        if action == "clean":
            return DataElement(element.tag, vr, self._cleaned(element))
        if action == "age":
            return DataElement(element.tag, vr, _age(element))
        return self._kept(element)

    def _kept(self, element: DataElement) -> DataElement | None:
        keyword = keyword_for_tag(element.tag)
        values = [one.strip() for one in texts(element)] if element.VR in WRITTEN else []
        if not fits(keyword, element.VR, values):
            if keyword != "ImageType":
                return None
            stay = [one for one in values[:2] if fits("ImageType", "CS", [one])]
            return DataElement(
                element.tag,
                "CS",
                [*stay, *(one for one in values[2:] if fits("ImageType", "CS", ["", "", one]))],
            )
        most = most_values(int(element.tag)) if element.VR in NUMBERS | NUMERALS else None
        # A number with more values than it can have is a damaged length: what it swallowed may be text.
        if (most is not None and most < element.VM) or self.echoes.heard(element):
            return None
        if keyword == "CodeMeaning" and self.profile.descriptions == "clean":
            return DataElement(element.tag, element.VR, self._cleaned(element))
        # A copy: setting an attribute later changes the element that the data set holds.
        return copy(element)

    def _pseudonym(self, element: DataElement) -> str | None:
        return self.names.name(self.patient) if texts(element) else None

    def _uids(self, element: DataElement) -> list[str] | str | None:
        values = [uid if registered(uid) else self.names.uid(uid) for uid in texts(element) if uid]
        return values[0] if len(values) == 1 else values or None

    def _shifted(self, element: DataElement) -> list[str] | str | None:
        days = self.names.days(self.patient)
        moved = [shifted(value, days) or "" for value in texts(element)]
        return moved[0] if len(moved) == 1 else moved or None

    def _cleaned(self, element: DataElement) -> list[str] | str | None:
        values = [clean(value, self.known).text for value in texts(element)]
        return values[0] if len(values) == 1 else values or None


def _age(element: DataElement) -> str | None:
    values = texts(element)
    if not values or len(values[0]) != 4 or not values[0][:3].isdigit():
        return None
    return "090Y" if values[0][3] == "Y" and int(values[0][:3]) > _AGE_LIMIT else values[0]


def _meta(clean_set: Dataset, dataset: Dataset, syntax: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.TransferSyntaxUID = UID(syntax or ExplicitVRLittleEndian)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_UID)
    meta.ImplementationVersionName = "MEDKIT"
    meta.MediaStorageSOPClassUID = UID(text_at(clean_set, "SOPClassUID") or SECONDARY_CAPTURE)
    meta.MediaStorageSOPInstanceUID = UID(text_at(clean_set, "SOPInstanceUID") or "2.25.0")
    return meta


def _say_what_was_done(out: Dataset, profile: Profile) -> None:
    out.PatientIdentityRemoved = "YES"
    out.DeidentificationMethod = f"medkit {profile.name}, PS3.15 Table E.1-1 {profile.version}"
    codes = [("113100", "Basic Application Confidentiality Profile")]
    if profile.masks:
        codes.append(("113101", "Clean Pixel Data Option"))
    if profile.descriptions == "clean":
        codes.append(("113105", "Clean Descriptors Option"))
    if profile.dates == "shift":
        codes.append(("113107", "Retain Longitudinal Temporal Information Modified Dates Option"))
    if profile.patient:
        codes.append(("113108", "Retain Patient Characteristics Option"))
    out.DeidentificationMethodCodeSequence = Sequence([_code(*code) for code in codes])
    out.LongitudinalTemporalInformationModified = "MODIFIED" if profile.dates == "shift" else "REMOVED"


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item
