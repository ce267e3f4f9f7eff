"""Chest X-rays with their reports, one question a picture or study: MIMIC-CXR and IU X-ray as users hold them."""

from __future__ import annotations

import csv
import gzip
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.readers import SPLIT_NAMES, Record, Rejected, check_options, hashed, image_files, inside
from medkit.readers.figures.xml import XmlError, parse
from medkit.readers.question_rows import rows_of
from medkit.sample import assistant_turn, user_turn

OPTIONS = ("section", "by", "views", "ask", "kind", "part", "licence")
SECTIONS = ("findings", "impression", "both")
# Folders below the root in which copies of MIMIC-CXR, MIMIC-CXR-JPG and their reports are found.
MIMIC_FOLDERS = tuple(
    f"{prefix}{name}"
    for prefix in ("", "physionet.org/files/")
    for name in (
        "files", "images", "mimic-cxr-jpg/files", "mimic-cxr-jpg/2.0.0/files", "mimic-cxr-jpg/2.1.0/files",
        "mimic-cxr/files", "mimic-cxr/2.0.0/files", "mimic-cxr/2.1.0/files", "mimic-cxr-reports/files",
        "reports/files",
    )
)  # fmt: skip
_HEADING = re.compile(r"^[ \t]*([A-Z][A-Z0-9 ,/&()-]{2,}):", re.MULTILINE)


@dataclass(frozen=True)
class _Study:
    """What a layout knows of a question: its report as sections, and its pictures by name."""

    id: str
    pictures: list[str]
    sections: dict[str, str]
    group: str
    split: str | None = None


def read(root: Path, options: dict[str, Any]) -> Iterator[Record | Rejected]:
    """Reads studies with their reports, in the layout that the folder's files show.

    R2Gen's ``annotation.json``; PhysioNet's MIMIC-CXR-JPG (``mimic-cxr-*-split.csv``, with the reports as
    ``sSTUDY.txt`` or in ``mimic_cxr_sectioned.csv``; tables may be gzipped); Open-i's tables
    (``indiana_reports.csv``, ``indiana_projections.csv``); Open-i's XML (``ecgen-radiology``).

    Options:
        section: What is to be written: ``findings`` (default), ``impression``, or ``both``. R2Gen's file has one text.
        by: ``image`` asks about every picture, ``study`` about all pictures of a study at once (default).
        views: View positions that are kept ([PA, AP]), where the layout knows them.
        ask: What is asked.
        kind: The questions' kind, by which scores know the set's own cleaning.
        part: train, valid or test: reports of other parts are not read, only counted, as are pictures of other views.
        licence: As in class_folders.

    Patients' numbers are only used as hashed groups. Reports stay as they are: both sets are de-identified.

    Raises:
        DataError: The folder is missing, has none of these layouts, or an option has a value that it can't have.
    """
    check_options("chest_reports", options, OPTIONS)
    if options.get("section", "findings") not in SECTIONS:
        raise DataError(
            f"reader chest_reports: section {options['section']!r} is none of {', '.join(SECTIONS)}"
        )
    if options.get("by", "study") not in ("image", "study"):
        raise DataError(f"reader chest_reports: by {options['by']!r} is neither image nor study")
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give the folder that holds the reports")
    layout = next((layout for found, layout in LAYOUTS if found(root)), None)
    if layout is None:
        raise DataError(
            f"{root} holds none of annotation.json, mimic-cxr-*-split.csv, indiana_reports.csv and "
            "ecgen-radiology; give the set's folder"
        )
    reading = _Reading(root, options)
    for study in layout(reading):
        yield from reading.records(study) if isinstance(study, _Study) else [study]
    for (name, reason), count in sorted(reading.others.items()):
        yield Rejected(f"({name})", reason, f"{count:,} left unread")


@dataclass
class _Reading:
    root: Path
    options: dict[str, Any]
    others: Counter[tuple[str, str]] = field(default_factory=Counter)

    def wants(self, split: str | None) -> bool:
        """Whether a split is of the part that is asked; counts what isn't."""
        part = self.options.get("part")
        # a name that medkit doesn't know may be the card's
        wanted = part is None or split is None or SPLIT_NAMES.get(split.strip().lower(), part) == part
        if not wanted:
            self.others[str(split), "another split"] += 1
        return wanted

    def records(self, study: _Study) -> Iterator[Record | Rejected]:
        """Gives a study's question, or one a picture."""
        wanted = self.options.get("section", "findings")
        names = ("findings", "impression") if wanted == "both" else (wanted,)
        texts = [study.sections.get("report") or study.sections.get(name, "") for name in names]
        report = " ".join(dict.fromkeys(" ".join(text.split()) for text in texts if text.strip()))
        if not report:
            yield Rejected(study.id, "report without section", wanted)
            return
        apart = self.options.get("by", "study") == "image"
        for place, names in enumerate([[name] for name in study.pictures] if apart else [study.pictures]):
            record = f"{study.id}:{place + 1}" if apart and len(study.pictures) > 1 else study.id
            paths = [self.picture(name) for name in names]
            lost = next((name for name, path in zip(names, paths, strict=True) if path is None), None)
            if lost is not None or not paths:
                yield Rejected(record, "image missing", "" if lost is None else Path(lost).name)
                continue
            yield self._record(record, [path for path in paths if path is not None], report, study)

    def _record(self, record: str, paths: list[Path], report: str, study: _Study) -> Record:
        ask = self.options.get("ask", "Describe the findings of this chest X-ray.")
        facts = {
            "kind": self.options.get("kind", "report"),
            "answer_type": "report",
            "choices": [],
            "references": [report],
        }
        return Record(
            record,
            list(paths),
            {"question": facts},
            messages=[user_turn(ask, len(paths)), assistant_turn(report)],
            group=hashed(study.group),
            split=study.split,
            licence=self.options.get("licence", ""),
            kind="question",
            extra={"question": ask},
        )

    def picture(self, name: str) -> Path | None:
        """Gives a picture by its path below one of the known folders, else by its file name."""
        for base in (self.root, *self.folders):
            path = inside(base, name)
            if path is not None and path.is_file():
                return path
        same = self.by_name.get(Path(name).name, []) if "/" not in name else []
        return same[0] if len(same) == 1 else None

    @cached_property
    def folders(self) -> list[Path]:
        return [self.root / name for name in MIMIC_FOLDERS if (self.root / name).is_dir()]

    @cached_property
    def by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for path in image_files(self.root):
            found[path.name].append(path)
        return found

    def table(self, pattern: str) -> list[dict[str, str]] | None:
        """Gives the rows of a table in the root or beside the pictures, gzipped or not; None where it is missing."""
        for base in (self.root, *(folder.parent for folder in self.folders)):
            for path in (*sorted(base.glob(pattern)), *sorted(base.glob(f"{pattern}.gz"))):
                opened = gzip.open if path.suffix == ".gz" else open
                try:
                    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
                        return list(_whole(csv.DictReader(file), path))
                except (OSError, EOFError, csv.Error, UnicodeDecodeError) as error:
                    raise DataError(f"{path} can't be read as a table ({error})") from None
        return None


def sections_of(text: str) -> dict[str, str]:
    """Gives the sections of a report by their heading in small letters: "FINDINGS: clear" gives findings."""
    marks = list(_HEADING.finditer(text))
    found: dict[str, str] = {}
    for mark, after in zip_longest(marks, marks[1:]):
        end = len(text) if after is None else after.start()
        found.setdefault(mark[1].strip().lower(), text[mark.end() : end].strip())
    return found


def _r2gen(reading: _Reading) -> Iterator[_Study | Rejected]:
    path = reading.root / "annotation.json"
    for number, row in rows_of(path):
        place = f"{path.name}:{number}"
        if isinstance(row, str) or not isinstance(row.get("report"), str):
            yield Rejected(place, "row unreadable", row if isinstance(row, str) else "no report")
            continue
        split = None if row.get("split") is None else str(row["split"])
        if not reading.wants(split):
            continue
        named = row.get("image_path") or []
        pictures = [str(name) for name in (named if isinstance(named, list) else [named])]
        identifier = str(row.get("id", place))
        group = str(row.get("subject_id", identifier))
        yield _Study(identifier, pictures, {"report": row["report"]}, group, split)


def _mimic(reading: _Reading) -> Iterator[_Study | Rejected]:
    rows = _columns(reading.table("mimic-cxr-*-split.csv"), "dicom_id", "study_id", "subject_id", "split")
    kept, views = reading.options.get("views", []), {}
    if kept:
        table = _columns(reading.table("mimic-cxr-*-metadata.csv"), "dicom_id", "ViewPosition")
        views = {row["dicom_id"]: row["ViewPosition"] for row in table}
    sectioned = reading.table("mimic_cxr_sectioned.csv")
    known = None if sectioned is None else {row.get("study", ""): row for row in sectioned}
    studies: dict[str, _Study] = {}
    for row in rows:
        if not reading.wants(row["split"]):
            continue
        view = views.get(row["dicom_id"]) or "no view position"
        if kept and view not in kept:
            reading.others[view, "another view"] += 1
            continue
        subject, study = f"p{row['subject_id']}", f"s{row['study_id']}"
        folder = f"{subject[:3]}/{subject}/{study}"
        if study not in studies:
            if known is None:
                sections = _text_of(reading, f"{subject[:3]}/{subject}/{study}.txt")
            else:
                sections = {key: text for key, text in known.get(study, {}).items() if text}
            studies[study] = _Study(study, [], sections, subject, row["split"])
        studies[study].pictures.append(f"{folder}/{row['dicom_id']}.jpg")
    yield from studies.values()


def _text_of(reading: _Reading, name: str) -> dict[str, str]:
    path = reading.picture(name)
    return sections_of(path.read_text(encoding="utf-8", errors="replace")) if path else {}


def _openi_tables(reading: _Reading) -> Iterator[_Study | Rejected]:
    rows = _columns(reading.table("indiana_reports.csv"), "uid", "findings", "impression")
    shown: dict[str, list[tuple[bool, str]]] = defaultdict(list)
    for row in _columns(reading.table("indiana_projections.csv"), "uid", "filename", "projection"):
        shown[row["uid"]].append((row["projection"] != "Frontal", row["filename"]))
    for row in rows:
        pictures = [name for _, name in sorted(shown.get(row["uid"], []))]
        yield _Study(row["uid"], pictures, {key: row[key] or "" for key in SECTIONS[:2]}, row["uid"])


def _openi_xml(reading: _Reading) -> Iterator[_Study | Rejected]:
    for path in sorted((reading.root / "ecgen-radiology").glob("*.xml")):
        try:
            tree = parse(path.read_bytes())
        except (XmlError, OSError) as error:
            yield Rejected(path.name, "report unreadable", str(error))
            continue
        sections = {
            str(part.get("Label", "")).lower(): "".join(part.itertext()) for part in tree.iter("AbstractText")
        }
        pictures = [f"{part.get('id')}.png" for part in tree.iter("parentImage") if part.get("id")]
        yield _Study(path.stem, pictures, sections, path.stem)


def _whole(reader: csv.DictReader[str], path: Path) -> Iterator[dict[str, str]]:
    for row in reader:
        if None in row.values():
            raise DataError(
                f"{path}: line {reader.line_num} has fewer fields than the header; copy the file again"
            )
        yield row


def _columns(rows: list[dict[str, str]] | None, *columns: str) -> list[dict[str, str]]:
    if not rows:
        raise DataError(f"a table with the columns {', '.join(columns)} is missing or empty")
    lost = [column for column in columns if column not in rows[0]]
    if lost:
        raise DataError(f"a table has no column {lost[0]!r}; it has {', '.join(map(str, rows[0]))}")
    return rows


def _has_split_table(root: Path) -> bool:
    parents = (root, *((root / name).parent for name in MIMIC_FOLDERS))
    return any(parent.is_dir() and any(parent.glob("mimic-cxr-*-split.csv*")) for parent in parents)


LAYOUTS: tuple[tuple[Callable[[Path], bool], Callable[[_Reading], Iterator[_Study | Rejected]]], ...] = (
    (lambda root: (root / "annotation.json").is_file(), _r2gen),
    (_has_split_table, _mimic),
    (lambda root: any(root.glob("indiana_reports.csv*")), _openi_tables),
    (lambda root: (root / "ecgen-radiology").is_dir(), _openi_xml),
)
