"""What of a folder would still identify someone: counts by attribute and reason, never a value."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from PIL import Image
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from medkit.errors import DataError
from medkit.images import FORMATS, SUFFIXES
from medkit.privacy.decide import WRITTEN, decide, fits, registered
from medkit.privacy.deidentify import DUMMIES, MOST_DEPTH, readable, text_at, texts
from medkit.privacy.profile import BASIC, Profile
from medkit.privacy.pseudonyms import PSEUDONYM, UID_ROOT
from medkit.privacy.quiet import quiet
from medkit.privacy.text import clean, known_values

TEXT_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".html", ".md", ".yaml", ".yml")
MOST_TEXT_BYTES = 16 * 1024 * 1024
# Written by a de-identification, never by a device.
OWN = {
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
}  # fmt: skip
# What says that text may be burned into the picture.
_SCREENS = ("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.104")
_EXIF = {
    0x8825: "GPS position", 0x013B: "artist", 0x8298: "copyright", 0x010E: "description", 0x9C9B: "title",
    0x9C9D: "author", 0xA430: "camera owner", 0xA431: "camera number", 0x9003: "date taken", 0x0132: "date",
}  # fmt: skip


@dataclass
class Audit:
    """What was found.

    Attributes:
        files: By kind: "dicom", "picture", "text", "other", "unreadable".
        found: (where, reason) -> files it was found in; where names an attribute, never a value.
        depths: Deepest sequence that an attribute was found in.
    """

    files: Counter[str] = field(default_factory=Counter)
    found: Counter[tuple[str, str]] = field(default_factory=Counter)
    depths: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """Gives the audit as plain data."""
        rows = [
            {"where": where, "reason": reason, "files": count, "depth": self.depths.get(where, 0)}
            for (where, reason), count in sorted(self.found.items())
        ]
        return {"files": dict(self.files), "remains": rows}


@quiet()
def audit(root: Path, profile: Profile = BASIC) -> Audit:
    """Looks through a folder for what a profile would take out.

    DICOM files are walked attribute by attribute; of pictures the EXIF data are looked at, of text files what
    the rules of reports find; names of files and folders are compared with the header inside.

    Raises:
        DataError: The folder is missing or empty.
    """
    if not root.exists():
        raise DataError(f"{root} doesn't exist; give a folder")
    result = Audit()
    for path in [root] if root.is_file() else _files(root):
        result.files[_look(path, root, profile, result)] += 1
    if not result.files:
        raise DataError(f"{root} holds no file")
    return result


@quiet()
def audit_dataset(dataset: Dataset, profile: Profile = BASIC) -> dict[tuple[str, str], int]:
    """Gives (attribute, reason) -> deepest place of what a profile would still change in a data set."""
    found: dict[tuple[str, str], int] = {}
    moved = text_at(dataset, "LongitudinalTemporalInformationModified") == "MODIFIED"
    _walk(dataset, (profile, moved), 0, found)
    preamble = getattr(dataset, "preamble", None)
    if preamble and preamble.strip(b"\0") and not preamble.startswith((b"II*\0", b"MM\0*")):
        found["file preamble", "bytes before the header"] = 0
    meta: Dataset = getattr(dataset, "file_meta", None) or Dataset()
    for tag in sorted(meta.keys()):
        element = readable(meta, tag)
        if element is None or element.VR == "AE" or element.keyword.startswith("PrivateInformation"):
            found[keyword_for_tag(tag) or f"{tag}", "file meta information"] = 0
    return found


def _files(root: Path) -> list[Path]:
    return sorted(Path(parent, name) for parent, _, names in os.walk(root) for name in names)


def _look(path: Path, root: Path, profile: Profile, result: Audit) -> str:
    """Audits one file into the result and gives its kind."""
    name = path.name.lower()
    try:
        if name.endswith(SUFFIXES):
            places = _exif(path)
            kind = "picture"
        elif name.endswith(TEXT_SUFFIXES):
            places = _text(path)
            kind = "text"
        else:
            kind = "dicom"
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=name.endswith((".dcm", ".ima")))
            places = audit_dataset(dataset, profile)
            places.update(_pixels(dataset))
            places.update(_names(path, root, dataset))
    except InvalidDicomError:
        return "other"
    # Whatever a decoder says of a broken file: what can't be read can't be called clean.
    except Exception:
        result.found["whole file", "unreadable"] += 1
        return "unreadable"
    for place, depth in places.items():
        result.found[place] += 1
        result.depths[place[0]] = max(result.depths.get(place[0], 0), depth)
    return kind


def _walk(dataset: Dataset, by: tuple[Profile, bool], depth: int, found: dict[tuple[str, str], int]) -> None:
    for tag in sorted(dataset.keys()):
        keyword = keyword_for_tag(tag)
        if keyword in OWN:
            continue
        element = readable(dataset, tag)
        where = keyword or ("private attribute" if tag.is_private else f"{tag}")
        if element is None:
            found[where, "unreadable value"] = max(depth, found.get((where, "unreadable value"), 0))
            continue
        reason = _reason(element, keyword, *by)
        if reason:
            found[where, reason] = max(depth, found.get((where, reason), 0))
        elif element.VR == "SQ" and depth < MOST_DEPTH:
            for item in element.value or ():
                _walk(item, by, depth + 1, found)


def _reason(element: DataElement, keyword: str, profile: Profile, moved: bool) -> str:
    """Says why an element identifies; "" for one that is empty, a dummy, a pseudonym or harmless.

    Args:
        moved: Whether the object says of itself that its dates were moved: no one can see that of a date.
    """
    decision = decide(int(element.tag), element.VR, profile)
    if decision.action == "shift" and moved:
        return ""
    if decision.action == "walk":
        return "" if element.VR == "SQ" else decision.reason
    if decision.action == "keep":
        values = [one.strip() for one in texts(element)] if element.VR in WRITTEN else []
        return "" if fits(keyword, element.VR, values) else "free text where a code or number stands"
    if element.VR == "SQ":
        return decision.reason if any(len(item) for item in element.value or ()) else ""
    values = [one.strip("\0 ") for one in texts(element)]
    harmless = all(not one or _harmless(one, element, decision.action) for one in values)
    return "" if harmless else decision.reason


def _harmless(value: str, element: DataElement, action: str) -> bool:
    if element.VR == "UI":
        return registered(value) or value.startswith(UID_ROOT)
    if action == "pseudonym":
        return PSEUDONYM.fullmatch(value) is not None
    if action == "clean":
        return not clean(value).found
    if action == "age":
        return value <= "090Y"
    return action == "dummy" and value == str(DUMMIES.get(element.VR))


def _pixels(dataset: Dataset) -> dict[tuple[str, str], int]:
    if text_at(dataset, "BurnedInAnnotation").upper() == "YES":
        return {("PixelData", "burned-in text, by the header"): 0}
    if _is_screen(text_at(dataset, "SOPClassUID")) or "SCREEN SAVE" in str(dataset.get("ImageType", "")):
        return {("PixelData", "a captured screen or document: look at it"): 0}
    if text_at(dataset, "Modality") == "US" and "SequenceOfUltrasoundRegions" not in dataset:
        return {("PixelData", "ultrasound without regions: look at it"): 0}
    return {}


def _is_screen(sop_class: str) -> bool:
    return any(sop_class == one or sop_class.startswith(f"{one}.") for one in _SCREENS)


def _names(path: Path, root: Path, dataset: Dataset) -> dict[tuple[str, str], int]:
    place = path.relative_to(root).as_posix() if root.is_dir() else path.name
    words = re.sub(r"[_\W]+", " ", place).upper()
    for kind, value in known_values(dataset).values:
        plain = re.sub(r"[_\W]+", " ", value).strip().upper()
        if len(plain) >= 4 and not PSEUDONYM.fullmatch(value) and f" {plain} " in f" {words} ":
            return {("file name", f"holds a {kind.lower()} of its header"): 0}
    return {}


def _exif(path: Path) -> dict[tuple[str, str], int]:
    with Image.open(path, formats=FORMATS) as image:
        exif = image.getexif()
        tags = {*exif, *exif.get_ifd(0x8769)}
        comment = any(
            isinstance(image.info.get(key), str | bytes) for key in ("comment", "Comment", "Author")
        )
    found = {(f"EXIF {_EXIF[tag]}", "picture metadata"): 0 for tag in tags if tag in _EXIF}
    if comment:
        found["picture comment", "picture metadata"] = 0
    return found


def _text(path: Path) -> dict[tuple[str, str], int]:
    with path.open("rb") as file:
        text = file.read(MOST_TEXT_BYTES).decode("utf-8", errors="replace")
    return {(f"text like {kind.lower()}", "found by rule"): 0 for kind in clean(text).found}
