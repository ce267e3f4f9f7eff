"""The commands `medkit data audit` and `medkit data deidentify`: what they write, and what they say."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pydicom
from rich.console import Console
from rich.table import Table

from medkit.errors import DataError
from medkit.privacy.audit import Audit, audit
from medkit.privacy.deidentify import deidentify, mapping, save, text_at
from medkit.privacy.masks import masks_of_file
from medkit.privacy.profile import PROFILES, Profile
from medkit.privacy.pseudonyms import read_key
from medkit.privacy.quiet import quiet


def write_audit(folder: Path, profile: str, out: Path | None) -> str:
    """Audits a folder and gives the table as text.

    Raises:
        DataError: The folder or the profile doesn't exist.
    """
    found = audit(folder, _profile(profile))
    if out is not None:
        out.write_text(json.dumps(found.as_json(), indent=2) + "\n", encoding="utf-8")
    return audit_table(found)


def audit_table(found: Audit) -> str:
    """Gives an audit as a table of attributes, reasons and numbers of files."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.files.items()))
    if not found.found:
        return f"{kinds}: nothing that the profile would take out"
    table = Table("remains", "reason", "depth", "files", title=f"{kinds}")
    for (where, reason), count in sorted(found.found.items(), key=lambda one: (-one[1], one[0])):
        table.add_row(where, reason, str(found.depths.get(where, 0)), str(count))
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(table)
    return console.export_text().rstrip()


@quiet()
def write_deidentified(
    folder: Path, out: Path, key_file: Path, profile: str, mapping_to: Path | None, masks: Path | None = None
) -> str:
    """Writes every DICOM file of a folder without identity, and a ledger of what was left out.

    Files are named by their new UIDs, so that no old name stays; the ledger names inputs by the hash of their
    path. The mapping files (``uid_mapping.csv``, ``patid_mapping.csv``) hold the old values: they are written
    only where they are asked for, and never inside ``out``.

    Raises:
        DataError: A folder, the key, the profile or the masks can't be used.
    """
    chosen, key = _profile(profile), read_key(key_file)
    if masks is not None:
        chosen = replace(chosen, masks=masks_of_file(masks))
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} isn't empty; give a new folder")
    if mapping_to is not None and out.resolve() in (mapping_to.resolve(), *mapping_to.resolve().parents):
        raise DataError("the mapping files undo the de-identification; keep them outside of --out")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise DataError(f"{folder} holds no file")
    out.mkdir(parents=True, exist_ok=True)
    fates: Counter[str] = Counter()
    uids: dict[str, str] = {}
    patients: dict[str, str] = {}
    with (out / "ledger.jsonl").open("w", encoding="utf-8") as ledger:
        for path in files:
            try:
                dataset = pydicom.dcmread(path, force=path.suffix.lower() in (".dcm", ".ima"))
                if "SOPClassUID" not in dataset:
                    raise DataError("no image or document of DICOM")
                clean = deidentify(dataset, key, chosen)
                save(clean, _free(out / text_at(clean, "PatientID"), text_at(clean, "SOPInstanceUID")))
                fate = "written"
                if mapping_to is not None:
                    for whole, part in zip((uids, patients), mapping(dataset, key), strict=True):
                        whole.update(part)
            except DataError as error:
                fate = str(error)
            # A reader's message may quote a value; its kind doesn't.
            except Exception as error:
                fate = f"unreadable ({type(error).__name__})"
            fates[fate] += 1
            if fate != "written":
                digest = hashlib.sha256(path.relative_to(folder).as_posix().encode()).hexdigest()[:16]
                ledger.write(json.dumps({"input": digest, "fate": fate}) + "\n")
    if mapping_to is not None:
        _write_mapping(mapping_to, "uid_mapping.csv", uids)
        _write_mapping(mapping_to, "patid_mapping.csv", patients)
    return "\n".join(f"{count} {fate}" for fate, count in fates.most_common())


def _free(folder: Path, name: str) -> Path:
    """Gives a path that isn't taken: objects may share a UID that should be their own."""
    folder.mkdir(parents=True, exist_ok=True)
    name = name or "object"
    path, number = folder / f"{name}.dcm", 2
    while path.exists():
        path, number = folder / f"{name}-{number}.dcm", number + 1
    return path


def _write_mapping(folder: Path, name: str, pairs: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.unlink(missing_ok=True)  # one that is there may be readable by others
    path.touch(mode=0o600)
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id_old", "id_new"])
        rows.writerows(sorted(pairs.items()))


def _profile(name: str) -> Profile:
    if name not in PROFILES:
        raise DataError(f"there is no privacy profile {name!r}; profiles: {', '.join(PROFILES)}")
    return PROFILES[name]
