"""De-identification: nothing of the table is left at any depth, and what has to stay stays."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit

from medkit import cli
from medkit.errors import DataError
from medkit.privacy.audit import audit, audit_dataset
from medkit.privacy.deidentify import deidentify, elements, mapping, save, texts
from medkit.privacy.profile import BASIC, RESEARCH, Mask, Profile
from medkit.privacy.pseudonyms import Pseudonyms, read_key, shifted
from medkit.privacy.table import row_of, table
from medkit.privacy.text import clean, known_values
from medkit.readers.ingest import ingest
from tests.real_data import real_set

KEY = bytes(range(32))
CT = "1.2.840.10008.5.1.4.1.1.2"


def as_bytes(dataset: FileDataset) -> bytes:
    out = io.BytesIO()
    save(dataset, out)
    return out.getvalue()


def reread(dataset: FileDataset) -> FileDataset:
    return pydicom.dcmread(io.BytesIO(as_bytes(dataset)))


def scan() -> FileDataset:
    """Gives a small CT image of an invented patient."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.SourceApplicationEntityTitle = "WARD7CT"
    out = FileDataset(io.BytesIO(), {}, file_meta=meta, preamble=b"Quimby was here".ljust(128, b"\0"))
    out.SOPClassUID, out.SOPInstanceUID = CT, "1.2.3.4.5"
    out.StudyInstanceUID, out.SeriesInstanceUID = "1.2.3.4", "1.2.3.4.1"
    out.PatientName, out.PatientID, out.PatientBirthDate = "Quimby^Orsolya^Mae", "HX-558231", "19310414"
    out.PatientSex, out.PatientAge, out.PatientWeight = "F", "093Y", "61.5"
    out.AccessionNumber, out.StudyID = "A77120934", "S4471"
    out.StudyDate, out.StudyTime, out.AcquisitionDateTime = "20240229", "134522", "20240229134522.5"
    out.InstitutionName, out.StationName = "Marrowfield General", "MFG-CT2"
    out.ReferringPhysicianName, out.OperatorsName = "Tolliver^Bram", ["Pell^Ida", "Nwosu^Chidi"]
    out.Manufacturer, out.ManufacturerModelName, out.Modality = "Acme", "Scan 5", "CT"
    out.StudyDescription = "CT chest for Quimby, Orsolya, ordered by Dr. Tolliver"
    out.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    out.BodyPartExamined, out.SliceThickness, out.KVP = "CHEST", "1.25", "120"
    out.Rows, out.Columns, out.SamplesPerPixel, out.PhotometricInterpretation = 4, 6, 1, "MONOCHROME2"
    out.BitsAllocated, out.BitsStored, out.HighBit, out.PixelRepresentation = 16, 12, 11, 0
    out.PixelData = np.arange(24, dtype="<u2").tobytes()
    return out


# --- the table ---------------------------------------------------------------------------------------------


def test_the_table_is_the_standards() -> None:
    rows = table("2026c")
    assert len(rows) == 655
    assert Counter(row.action for row in rows.values()) == {
        "X": 415, "D": 93, "U": 55, "Z": 42, "X/D": 23, "X/Z": 11, "X/Z/D": 8, "Z/D": 6, "X/Z/U*": 2,
    }  # fmt: skip
    assert rows["00100010"].name == "Patient's Name"
    for tag, name in (
        (0x50AA0010, "Curve Data"),
        (0x60024000, "Overlay Comments"),
        (0x60FE3000, "Overlay Data"),
    ):
        row = row_of(tag)
        assert row is not None and row.name == name
    assert row_of(0x00280010) is None
    assert row_of(0x60000010) is None


def marked(tag: int, vr: str, number: int, depth: int) -> tuple[Any, bytes]:
    """Gives a value of a kind that stands nowhere else, and the bytes to look for."""
    word = f"Mark{number:04d}q{depth}"
    if vr == "DA":
        text = (date(1903, 5, 6) + timedelta(days=7 * (3 * number + depth))).strftime("%Y%m%d")
    elif vr == "TM":
        text = f"{number % 24:02d}{depth * 17 + 8:02d}{number % 60:02d}.{number:06d}"
    elif vr == "DT":
        text = (date(1951, 5, 6) + timedelta(days=5 * (3 * number + depth))).strftime(
            "%Y%m%d"
        ) + f"1122{number % 60:02d}"
    elif vr == "UI":
        text = f"1.2.3.{7_000_000 + 10 * number + depth}.9"
    elif vr in ("DS", "IS"):
        text = f"{70_000_000 + 10 * number + depth}"
    elif vr == "CS":
        text = word.upper()
    elif vr == "AS":
        text = f"{200 + number % 700:03d}Y"
    elif vr == "AE":
        text = word
    elif vr in ("US", "SS"):
        return 0x4D4B, b""
    elif vr == "SQ":
        item = Dataset()
        if row_of(tag) and row_of(tag).action == "X/Z/U*":  # type: ignore[union-attr]
            text = f"1.2.3.{9_000_000 + 10 * number + depth}.9"
            item.ReferencedSOPInstanceUID = text
        else:
            text = word
            item.CodeMeaning = text
            item.add_new(0x00091010, "LO", f"{text}p")
        return Sequence([item]), text.encode()
    elif vr in ("OB", "OW", "UN"):
        data = word.encode().ljust(12, b"\0")
        return data, word.encode()
    else:
        text = f"{word}^{word}" if vr == "PN" else word
        return text, word.encode()
    return text, text.encode()


def everything(depth: int) -> tuple[Dataset, list[tuple[str, bytes]]]:
    """Gives a data set with every attribute of the table, private ones and repeaters, and their marks."""
    dataset = Dataset()
    marks: list[tuple[str, bytes]] = []
    for number, row in enumerate(table().values()):
        tag = int(row.tag.replace("xx", "02", 1).replace("xxxx", "0010"), 16)
        if tag >> 16 in (0x0000, 0x0002):
            continue  # of commands and file headers; neither can stand in a data set
        vr = row.vr or ("LO" if tag >> 24 != 0x60 else "OB")
        value, mark = marked(tag, vr, number, depth)
        dataset[tag] = DataElement(tag, vr, value)
        marks.append((row.name, mark))
    for number, (tag, vr) in enumerate(
        ((0x00090010, "LO"), (0x00091001, "LO"), (0x00091002, "UN"), (0x7FE10010, "OB"), (0x60020022, "LO"),
         (0x50020005, "OB"), (0x60001500, "LO"), (0x00080001, "UL"), (0x0018FFF0, "LO"))
    ):  # fmt: skip
        value, mark = (0, b"") if vr == "UL" else marked(tag, vr, 900 + number, depth)
        dataset[tag] = DataElement(tag, vr, value)
        marks.append((f"({tag:08X})", mark))
    return dataset, [(name, mark) for name, mark in marks if mark]


@pytest.fixture(scope="module")
def full() -> tuple[FileDataset, dict[int, list[tuple[str, bytes]]]]:
    """Gives an object with everything at depths 0, 1 and 2."""
    out = scan()
    top, first = everything(0)
    one, second = everything(1)
    two, third = everything(2)
    frame = Dataset()
    frame.FrameContentSequence = Sequence([two])
    for element in top:
        if element.tag not in (0x00080016,):
            out[element.tag] = element
    out.SharedFunctionalGroupsSequence = Sequence([one])
    out.PerFrameFunctionalGroupsSequence = Sequence([frame])
    return out, {0: first, 1: second, 2: third}


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_no_attribute_of_the_table_is_left_at_any_depth(full: Any, depth: int) -> None:
    dataset, marks = full
    assert len(marks[depth]) > 645
    data = as_bytes(deidentify(dataset, KEY))
    assert [name for name, mark in marks[depth] if mark in data] == []


def test_the_marks_would_be_seen(full: Any) -> None:
    dataset, marks = full
    out = io.BytesIO()
    whole = Dataset()
    for element in dataset:
        if element.tag.group > 2:
            whole[element.tag] = element
    whole.save_as(out, implicit_vr=False, little_endian=True)
    for depth in (0, 1, 2):
        seen = sum(mark in out.getvalue() for _, mark in marks[depth])
        assert seen == len(marks[depth])


def test_no_attribute_of_the_table_leaves_through_the_reader(
    full: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("MEDKIT_PATIENT_KEY", KEY.hex())
    dataset, marks = full
    whole = Dataset()
    for element in dataset:
        if element.tag.group > 2:
            whole[element.tag] = element
    folder = tmp_path / "in"
    folder.mkdir()
    whole.file_meta = dataset.file_meta
    pydicom.dcmwrite(folder / "one.dcm", whole, enforce_file_format=True)
    name = str(whole.PatientName).partition("^")[0]
    (folder / "one.txt").write_text(f"No effusion. {name} was here on 2024-02-29.", encoding="utf-8")
    whole_text = {"reports": "{name}.txt", "give": ["caption", "record"]}
    options = {**whole_text, "patient": ["age_band", "sex"], "profiles": "window"}
    domain = {"name": "ward", "licence": "yours", "data": {"reader": "dicom", "options": options}}
    made = ingest({"domain": domain, "data": str(folder)}, {}, tmp_path / "out")
    assert made["samples"] == 2
    data = b"".join(path.read_bytes() for path in sorted((tmp_path / "out").iterdir()))
    said = capfd.readouterr()
    data += f"{caplog.text}{said.out}{said.err}".encode()
    left = [name for at in marks.values() for name, mark in at if mark in data]
    assert left == []
    assert b"No effusion. [NAME] was here on [DATE]." in data


def test_shifting_dates_keeps_times_of_day_and_nothing_else(full: Any) -> None:
    dataset, marks = full
    data = as_bytes(deidentify(dataset, KEY, Profile("dates", dates="shift")))
    kinds = {row.name: row.vr for row in table().values()}
    left = {kinds.get(name, "?") for at in marks.values() for name, mark in at if mark in data}
    assert left == {"TM"}


def test_what_is_nested_stays_without_what_identifies(full: Any) -> None:
    dataset = scan()
    measures, frame, content = Dataset(), Dataset(), Dataset()
    measures.SliceThickness, measures.PatientName = "2.5", "Quimby"
    content.FrameAcquisitionNumber, content.FrameComments = 7, "Quimby moved"
    frame.FrameContentSequence, frame.PixelMeasuresSequence = Sequence([content]), Sequence([measures])
    dataset.PerFrameFunctionalGroupsSequence = Sequence([frame])
    (group,) = deidentify(dataset, KEY).PerFrameFunctionalGroupsSequence
    assert group.FrameContentSequence[0].FrameAcquisitionNumber == 7
    assert "FrameComments" not in group.FrameContentSequence[0]
    assert group.PixelMeasuresSequence[0].SliceThickness == 2.5
    assert group.PixelMeasuresSequence[0].PatientName == Pseudonyms(KEY).name("HX-558231")


def test_private_and_unknown_attributes_are_gone_at_every_depth(full: Any) -> None:
    out = deidentify(full[0], KEY)
    assert [element.tag for element in elements(out) if element.tag.is_private] == []
    assert [element.tag for element in elements(out) if element.tag.group >> 8 in (0x50, 0x60)] == []


def test_nothing_is_found_in_what_was_made(full: Any) -> None:
    for profile in (BASIC, RESEARCH):
        assert audit_dataset(reread(deidentify(full[0], KEY, profile)), profile) == {}


def test_the_object_that_is_given_stays_as_it_is() -> None:
    for make in (scan, lambda: jpeg_scan(b"Quimby, Orsolya")):
        one, other = make(), make()
        deidentify(one, KEY, Profile("all", "shift", True, "clean", (Mask(4, 6, ((0, 0, 6, 2),)),)))
        assert one == other


# --- the files of the shared set ---------------------------------------------------------------------------


def real_files() -> Iterator[tuple[Path, FileDataset]]:
    folder = real_set("dicom")
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix not in (".md", ".txt", ".jsonl", ".json"):
            try:
                dataset = pydicom.dcmread(path, force=True)
            except Exception:
                continue
            if len(dataset) and "DirectoryRecordSequence" not in dataset:
                yield path, dataset


PEOPLE = ("PatientName", "InstitutionName", "ReferringPhysicianName", "OperatorsName", "StationName")


def telling(value: str) -> bool:
    """Says whether a value can be looked for: words and long numbers; YES and 0000 stand anywhere by chance."""
    return len(re.findall(r"[A-Za-z]", value)) >= 4 or (
        len(set(re.findall(r"\d", value))) >= 3 and len(value) >= 6
    )


@pytest.mark.filterwarnings("ignore")
def test_no_identifying_value_of_the_set_is_left_in_any_byte() -> None:
    files, left = 0, []
    for path, dataset in real_files():
        identifying: dict[str, str] = {}
        kept: set[str] = set()
        codes: set[str] = set()
        for element in elements(dataset):
            values = (
                [one.strip("\0 ") for one in texts(element)]
                if element.VR not in ("SQ", "OB", "OW", "UN")
                else []
            )
            if element.tag.is_private or row_of(int(element.tag)) is not None:
                identifying.update({one: element.keyword or "private" for one in values if telling(one)})
            else:
                kept.update(values)
                codes.update(values if element.VR == "CS" else [])
        out = deidentify(dataset, KEY)
        data = as_bytes(out)
        files += 1
        for value, name in identifying.items():
            # A description may be nothing but a code (CHEST), a private attribute a model's name or a measure: these
            # identify nobody where they stand openly.
            if name == "private" and any(value in one for one in kept):
                continue
            if name.endswith(("Description", "Name", "Comments")) and value in codes and name not in PEOPLE:
                continue
            if any(value.encode(code, "replace") in data for code in ("utf-8", "latin-1")):
                left.append(f"{path.name}: {name}")
    assert files >= 20
    assert left == []


@pytest.mark.filterwarnings("ignore")
def test_pixels_of_the_set_stay_the_same() -> None:
    changed = []
    for path, dataset in real_files():
        if "PixelData" not in dataset:
            continue
        out = deidentify(dataset, KEY)
        old, new = bytes(dataset.PixelData), bytes(out.PixelData)
        if old == new or (old.startswith(new) and not out.file_meta.TransferSyntaxUID.is_encapsulated):
            continue
        # Comments were taken out of the frames' headers: what is coded behind them is the same.
        count = int(dataset.get("NumberOfFrames") or 1)
        frames = [list(generate_frames(one, number_of_frames=count)) for one in (old, new)]
        if [coded(frame) for frame in frames[0]] != [coded(frame) for frame in frames[1]]:
            changed.append(path.name)
    assert changed == []


def coded(frame: bytes) -> bytes:
    """Gives a frame from its first scan or tile on."""
    mark = b"\xff\x90" if frame.startswith(b"\xff\x4f") else b"\xff\xda"
    assert mark in frame
    return frame[frame.index(mark) :].rstrip(b"\0")


@pytest.mark.filterwarnings("ignore")
def test_the_audit_of_the_set_shows_no_value(tmp_path: Path) -> None:
    folder = real_set("dicom")
    found = audit(folder)
    assert found.files["dicom"] >= 20 and found.found
    said = json.dumps(found.as_json())
    values = set()
    for _, dataset in real_files():
        for keyword in (
            "PatientName",
            "PatientID",
            "InstitutionName",
            "ReferringPhysicianName",
            "AccessionNumber",
        ):
            values |= {str(dataset.get(keyword, "") or "").strip()}
    assert [value for value in values if telling(value) and value in said] == []


# --- an answer key in the style of MIDI-B ------------------------------------------------------------------


def test_the_ten_kinds_of_actions_pass() -> None:
    first, second = scan(), scan()
    second.SOPInstanceUID, second.StudyDate = "1.2.3.4.6", "20240307"
    inner = Dataset()
    inner.ReferencedSOPClassUID, inner.ReferencedSOPInstanceUID = CT, "1.2.3.4.5"
    second.ReferencedImageSequence = Sequence([inner])
    marked_box = (1, 1, 4, 3)
    profile = Profile(
        "midi", dates="shift", patient=True, descriptions="clean", masks=(Mask(4, 6, (marked_box,), "Acme"),)
    )
    plain = deidentify(first, KEY, RESEARCH)
    one, two = deidentify(first, KEY, profile), deidentify(second, KEY, profile)
    uids, patients = mapping(second, KEY)
    answers = {
        "tag_retained": all(
            keyword in one for keyword in ("SliceThickness", "KVP", "PatientSex", "PatientID")
        ),
        "text_notnull": bool(one.PatientName) and bool(one.PatientID) and bool(one.StudyDescription),
        "text_retained": one.BodyPartExamined == "CHEST" and "CT chest for" in one.StudyDescription,
        "text_removed": not {"Quimby", "Orsolya", "Tolliver", "Marrowfield"}
        & set(re.findall(r"\w+", str(one))),
        "date_shifted": (
            days(two.StudyDate) - days(one.StudyDate) == 7
            and one.StudyDate == shifted("20240229", Pseudonyms(KEY).days("HX-558231"))
            and one.AcquisitionDateTime[:8] == one.StudyDate
        ),
        "uid_changed": one.SOPInstanceUID != "1.2.3.4.5" and one.SOPClassUID == CT,
        "uid_consistent": (
            two.ReferencedImageSequence[0].ReferencedSOPInstanceUID == one.SOPInstanceUID == uids["1.2.3.4.5"]
            and one.StudyInstanceUID == two.StudyInstanceUID
            and one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID
        ),
        "patid_consistent": one.PatientID == two.PatientID == patients["HX-558231"] != "HX-558231",
        "pixels_retained": plain.PixelData == first.PixelData,
        "pixels_hidden": hidden(one, marked_box),
    }
    assert answers == dict.fromkeys(answers, True)
    assert len(answers) == 10


def days(value: str) -> int:
    return date(int(value[:4]), int(value[4:6]), int(value[6:8])).toordinal()


def hidden(dataset: FileDataset, box: tuple[int, int, int, int]) -> bool:
    left, top, right, bottom = box
    picture = dataset.pixel_array
    expected = np.arange(24, dtype="u2").reshape(4, 6)
    expected[top:bottom, left:right] = 0
    return np.array_equal(picture, expected)


def test_nothing_is_logged(
    recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    whole = io.BytesIO()
    scan().save_as(whole, enforce_file_format=True)
    data = whole.getvalue().replace(b"1.2.3.4.1", b"1.2.Quimb").replace(b"19310414", b"Quimby31")
    dataset = pydicom.dcmread(io.BytesIO(data))
    for profile in (BASIC, RESEARCH):
        save(deidentify(dataset, KEY, profile), io.BytesIO())
    audit_dataset(dataset)
    mapping(dataset, KEY)
    assert [str(one.message) for one in recwarn] == []
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


def test_what_was_done_is_written_down() -> None:
    basic, research = reread(deidentify(scan(), KEY)), reread(deidentify(scan(), KEY, RESEARCH))
    assert basic.PatientIdentityRemoved == "YES"
    assert basic.DeidentificationMethod == "medkit basic, PS3.15 Table E.1-1 2026c"
    assert [item.CodeValue for item in basic.DeidentificationMethodCodeSequence] == ["113100"]
    assert [item.CodeValue for item in research.DeidentificationMethodCodeSequence] == [
        "113100", "113105", "113107", "113108",
    ]  # fmt: skip
    assert (
        basic.LongitudinalTemporalInformationModified,
        research.LongitudinalTemporalInformationModified,
    ) == (
        "REMOVED",
        "MODIFIED",
    )
    assert basic.preamble == b"\0" * 128
    assert "SourceApplicationEntityTitle" not in basic.file_meta


def test_patient_characteristics_are_an_option_and_great_ages_are_not() -> None:
    basic, research = deidentify(scan(), KEY), deidentify(scan(), KEY, RESEARCH)
    assert (basic.PatientSex, "PatientAge" in basic, "PatientWeight" in basic) == (None, False, False)
    assert (research.PatientSex, research.PatientAge, research.PatientWeight) == ("F", "090Y", 61.5)
    assert not research.PatientBirthDate


def test_a_makers_name_goes_where_it_is_the_institutions() -> None:
    dataset = scan()
    dataset.InstitutionName = "ACME"
    assert "Manufacturer" not in deidentify(dataset, KEY)
    assert deidentify(scan(), KEY).Manufacturer == "Acme"


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        (["ORIGINAL", "PRIMARY", "AXIAL"], ["ORIGINAL", "PRIMARY", "AXIAL"]),
        (["DERIVED", "SECONDARY", "JONES"], ["DERIVED", "SECONDARY"]),
        (["DERIVED", "SECONDARY", "", "MIP"], ["DERIVED", "SECONDARY", "", "MIP"]),
    ],
)
def test_free_values_of_the_image_type_are_dropped(kind: list[str], left: list[str]) -> None:
    dataset = scan()
    dataset.ImageType = kind
    assert list(deidentify(dataset, KEY).ImageType) == left


def test_text_in_place_of_a_number_or_code_is_dropped() -> None:
    dataset = scan()
    for keyword, value in (("KVP", b"for Quimby"), ("BodyPartExamined", b"Quimby's")):
        element = pydicom.dataelem.RawDataElement(
            pydicom.tag.Tag(keyword),
            pydicom.datadict.dictionary_VR(keyword),
            len(value),
            value,
            0,
            False,
            True,
        )
        dataset._dict[element.tag] = element
    out = deidentify(dataset, KEY)
    assert "KVP" not in out and "BodyPartExamined" not in out


def test_an_attribute_of_another_kind_than_its_own_is_not_kept() -> None:
    dataset = scan()
    dataset[0x00540010] = DataElement(0x00540010, "PN", "Quimby^Orsolya")
    dataset.LengthToEnd = [int.from_bytes(b"Quim", "little"), int.from_bytes(b"by. ", "little")]
    assert "EnergyWindowVector" in dataset and "LengthToEnd" in dataset
    out = deidentify(dataset, KEY)
    assert "EnergyWindowVector" not in out and "LengthToEnd" not in out


def test_a_text_that_holds_other_attributes_is_dropped() -> None:
    dataset = scan()
    dataset.Manufacturer = "Acme\x08\x00PN\x10\x00Nobody^Known"
    dataset.ManufacturerModelName = "x" * 65
    out = deidentify(dataset, KEY)
    assert "Manufacturer" not in out and "ManufacturerModelName" not in out


def test_what_is_nested_too_deep_and_lists_of_files_are_refused() -> None:
    dataset = scan()
    inner: Dataset = dataset
    for _ in range(40):
        item = Dataset()
        inner.SharedFunctionalGroupsSequence = Sequence([item])
        inner = item
    with pytest.raises(DataError, match="nested more than 32"):
        deidentify(dataset, KEY)
    listing = scan()
    listing.DirectoryRecordSequence = Sequence()
    with pytest.raises(DataError, match="DICOMDIR"):
        deidentify(listing, KEY)


@pytest.mark.filterwarnings("ignore")
def test_damaged_objects_are_refused_or_clean() -> None:
    whole = io.BytesIO()
    scan().save_as(whole, enforce_file_format=True)
    random = Random(0)
    fates: Counter[str] = Counter()
    for _ in range(300):
        data = bytearray(whole.getvalue())
        for _ in range(random.randint(1, 6)):
            data[random.randrange(132, len(data))] = random.randrange(256)
        try:
            dataset = pydicom.dcmread(io.BytesIO(bytes(data)), force=True)
        except Exception:
            fates["unreadable"] += 1
            continue
        try:
            out = as_bytes(deidentify(dataset, KEY))
        except DataError:
            fates["refused"] += 1
            continue
        fates["clean"] += 1
        audit_dataset(dataset)
        # A damaged length may move text into another attribute; none of these may come out of it.
        assert not [word for word in (b"Orsolya", b"Tolliver", b"HX-558231", b"A77120934") if word in out]
    assert fates["clean"] > 200
    assert sum(fates.values()) == 300


# --- pseudonyms --------------------------------------------------------------------------------------------


def test_pseudonyms_depend_on_the_key_alone() -> None:
    names = Pseudonyms(KEY)
    assert names.name("HX-558231") == "MK-KZHOC2OR6243QJTT"
    assert names.uid("1.2.3.4.5") == "2.25.254260956493134844779427272327941164426"
    assert names.days("HX-558231") == 2846
    assert names.name(" hx-558231 ") == names.name("HX-558231")
    assert Pseudonyms(KEY[::-1]).uid("1.2.3.4.5") != names.uid("1.2.3.4.5")
    assert UID(names.uid("1.2.3.4.5")).is_valid


def test_short_keys_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="16 bytes"):
        Pseudonyms(b"x" * 16)
    with pytest.raises(DataError, match="openssl rand"):
        read_key(tmp_path / "none")
    tmp_path.joinpath("short").write_text("abc")
    with pytest.raises(DataError, match="holds 3 bytes"):
        read_key(tmp_path / "short")


@pytest.mark.parametrize(
    ("value", "back", "moved"),
    [
        ("20240301", 1, "20240229"),
        ("20240301134522.123456+0100", 1, "20240229134522.123456+0100"),
        ("2024.03.01", 60, "20240101"),
        ("2024", 1, None),
        ("00010101", 10, None),
        ("20241301", 1, None),
        ("20240301 by Jones", 1, None),
    ],
)
def test_dates_move_by_whole_days(value: str, back: int, moved: str | None) -> None:
    assert shifted(value, back) == moved


# --- pixels ------------------------------------------------------------------------------------------------


def jpeg_scan(comment: bytes) -> FileDataset:
    data = io.BytesIO()
    Image.new("L", (6, 4), 90).save(data, format="JPEG", comment=comment)
    dataset = scan()
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = encapsulate([data.getvalue()])
    return dataset


def test_comments_inside_a_frame_are_taken_out() -> None:
    dataset = jpeg_scan(b"Quimby, Orsolya")
    out = reread(deidentify(dataset, KEY))
    (frame,) = generate_frames(out.PixelData, number_of_frames=1)
    assert b"Quimby" in dataset.PixelData and b"Quimby" not in frame
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(frame))), np.full((4, 6), 90))
    assert b"JFIF" in frame


def test_comments_of_a_jpeg_2000_header_are_taken_out() -> None:
    from medkit.privacy.pixels import _jpeg_2000

    data = io.BytesIO()
    Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32)).save(
        data, format="JPEG2000", no_jp2=True
    )
    stream = data.getvalue()
    comment = b"\xff\x64" + struct.pack(">HH", 4 + 6, 1) + b"Quimby"
    size = 4 + struct.unpack(">H", stream[4:6])[0]
    stream = stream[:size] + comment + stream[size:]
    cleaned = _jpeg_2000(stream)
    assert b"Quimby" in stream and b"Quimby" not in cleaned
    before, after = (np.asarray(Image.open(io.BytesIO(one))) for one in (stream, cleaned))
    assert np.array_equal(before, after)


def test_bytes_behind_the_last_frame_are_cut_off() -> None:
    dataset = scan()
    pixels = dataset.PixelData
    dataset.PixelData = pixels + b"Quimby, Orsolya!"
    assert deidentify(dataset, KEY).PixelData == pixels


def test_a_mask_blackens_compressed_pictures_too() -> None:
    mask = Mask(4, 6, ((0, 0, 6, 2),))
    out = reread(deidentify(jpeg_scan(b""), KEY, Profile("masked", masks=(mask,))))
    expected = np.full((4, 6), 90)
    expected[:2] = 0
    assert np.array_equal(out.pixel_array, expected)
    inverse = scan()
    inverse.PhotometricInterpretation = "MONOCHROME1"
    out = deidentify(inverse, KEY, Profile("masked", masks=(mask,)))
    assert out.pixel_array[:2].tolist() == [[4095] * 6] * 2
    other = deidentify(scan(), KEY, Profile("masked", masks=(Mask(4, 6, ((0, 0, 6, 2),), "Other"),)))
    assert np.array_equal(other.pixel_array, np.arange(24).reshape(4, 6))


def test_a_picture_that_cannot_be_blackened_is_refused() -> None:
    dataset = jpeg_scan(b"")
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9broken"])
    with pytest.raises(DataError, match="can't be blackened"):
        deidentify(dataset, KEY, Profile("masked", masks=(Mask(4, 6, ((0, 0, 6, 2),)),)))


# --- reports -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Orsolya Quimby was seen on 29 February 2024.", "[NAME] was seen on [DATE]."),
        ("QUIMBY, ORSOLYA (HX-558231), acc A77120934.", "[NAME] ([ID]), acc [ID]."),
        ("Compared with 02/29/2024 and 2024-02-29.", "Compared with [DATE] and [DATE]."),
        ("Performed at Marrowfield General by Nwosu.", "Performed at [PLACE] by [NAME]."),
        ("Mrs. Quimby's lungs are clear.", "Mrs. [NAME]'s lungs are clear."),
    ],
)
def test_a_report_loses_what_its_header_knows(text: str, cleaned: str) -> None:
    assert clean(text, known_values(scan())).text == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Discussed with Dr. Ada Winslow at 14:05.", "Discussed with Dr. [NAME] at 14:05."),
        ("Prior of March 3rd, 2021 and 12-Apr-2022.", "Prior of [DATE] and [DATE]."),
        ("MRN: 00482913, call 555-201-3344.", "MRN: [ID], call [PHONE]."),
        ("Page me at ext 4471 or a.b@ward.example.org.", "Page me at ext [PHONE] or [EMAIL]."),
        ("Electronically signed by: Jonas Ekelund, MD.", "Electronically signed by: [NAME]."),
        ("A 94-year-old woman, 64 years of smoking.", "A [AGE]-year-old woman, 64 years of smoking."),
        ("Lives at 14 Cedar Hollow Lane, OH 44120.", "Lives at [ADDRESS]."),
        ("Stable since 3/14.", "Stable since [DATE]."),
    ],
)
def test_a_report_loses_what_rules_find(text: str, cleaned: str) -> None:
    assert clean(text).text == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "Hodgkin lymphoma, Wilson disease, Baker cyst.",
        "Disc protrusion L4-L5 and C5/6, T2 hyperintense.",
        "BI-RADS 4, PI-RADS 3/5, Gleason 3+4, grade 2/3.",
        "Nodule 12 x 8 mm (series 3, image 45), SUV 4.2.",
        "Pain 7/10; 3/4 of the volume; 1.5 T; 120/80 mmHg.",
        "Ejection fraction 55-60 %, heart rate 72 per minute.",
        "May show mild scarring; seen in March is unclear to us.",
        "Segment VIII, Couinaud 5/6, TNM T2N0M0.",
    ],
)
def test_findings_stay(text: str) -> None:
    assert clean(text, known_values(scan())).text == text


def test_a_header_of_common_words_takes_no_findings() -> None:
    dataset = scan()
    dataset.PatientName, dataset.InstitutionName, dataset.PatientID = "Chest^Test", "Hospital", "0"
    text = "Chest radiograph in hospital, test 0."
    assert clean(text, known_values(dataset)).text == text


# --- audit and command line --------------------------------------------------------------------------------


def medkit(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["medkit", *words])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_audit_counts_and_never_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "HX-558231"
    folder.mkdir()
    dataset = scan()
    inner = Dataset()
    inner.PatientName = "Quimby^Orsolya"
    dataset.SharedFunctionalGroupsSequence = Sequence([inner])
    dataset.add_new(0x00090010, "LO", "ACME 1.0")
    dataset.add_new(0x00091001, "LO", "Quimby")
    dataset.save_as(folder / "a.dcm", enforce_file_format=True)
    exif = Image.Exif()
    exif[0x013B] = "Orsolya Quimby"
    Image.new("RGB", (4, 4)).save(folder / "b.jpg", exif=exif)
    (folder / "c.txt").write_text("Seen by Dr. Tolliver on 2024-02-29.")
    (folder / "d.bin").write_bytes(b"nothing")
    (folder / "e.png").write_bytes(b"broken")
    found = audit(tmp_path)
    assert found.files == {"dicom": 1, "picture": 1, "text": 1, "other": 1, "unreadable": 1}
    assert found.found["PatientName", "table Z"] == 1
    assert found.depths["PatientName"] == 1
    assert found.found["private attribute", "private"] == 1
    assert found.found["EXIF artist", "picture metadata"] == 1
    assert (
        found.found["text like name", "found by rule"] == found.found["text like date", "found by rule"] == 1
    )
    assert found.found["file preamble", "bytes before the header"] == 1
    assert found.found["SourceApplicationEntityTitle", "file meta information"] == 1
    assert found.found["file name", "holds a id of its header"] == 1
    assert medkit(monkeypatch, "data", "audit", str(tmp_path), "--out", str(tmp_path / "audit.json")) == 0
    said = capsys.readouterr().out + (tmp_path / "audit.json").read_text()
    assert "PatientName" in said
    for value in (
        "Quimby",
        "Orsolya",
        "HX-558231",
        "Tolliver",
        "Marrowfield",
        "19310414",
        "20240229",
        "A77120934",
    ):
        assert value not in said


def test_dicom_out_by_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    source, out, key, table_folder = (tmp_path / name for name in ("in", "out", "key", "holder"))
    source.mkdir()
    scan().save_as(source / "Quimby.dcm", enforce_file_format=True)
    again = scan()
    again.KVP = "90"
    again.save_as(source / "Quimby-2.dcm", enforce_file_format=True)
    (source / "notes.txt").write_text("Quimby")
    key.write_text("ab" * 32)
    words = ["data", "deidentify", str(source), "--out", str(out), "--key", str(key)]
    assert medkit(monkeypatch, *words, "--mapping", str(out / "map")) == 1
    assert not out.exists()
    assert medkit(monkeypatch, *words, "--mapping", str(table_folder)) == 0
    said = capsys.readouterr()
    written = sorted(out.rglob("*.dcm"))
    assert len(written) == 2
    assert audit(out).found == {}
    everything = said.out + said.err + "".join(str(path) for path in out.rglob("*"))
    data = everything.encode() + b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    for value in (
        b"Quimby",
        b"HX-558231",
        b"Marrowfield",
        b"1.2.3.4.5",
        b"20240229",
        b"A77120934",
        b"Tolliver",
    ):
        assert value not in data
    mapped = (table_folder / "patid_mapping.csv").read_text().splitlines()
    assert mapped[0] == "id_old,id_new" and mapped[1].startswith("HX-558231,MK-")
    assert os.stat(table_folder / "patid_mapping.csv").st_mode & 0o077 == 0
    assert "1.2.3.4.5," in (table_folder / "uid_mapping.csv").read_text()
    assert medkit(monkeypatch, *words) == 1
    assert "isn't empty" in capsys.readouterr().err


def test_wrong_words_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert medkit(monkeypatch, "data", "audit", str(tmp_path / "none")) == 1
    assert medkit(monkeypatch, "data", "audit", str(tmp_path)) == 1
    (tmp_path / "a.txt").write_text("x")
    assert medkit(monkeypatch, "data", "audit", str(tmp_path), "--profile", "loose") == 1
    said = capsys.readouterr().err
    assert "doesn't exist" in said and "holds no file" in said and "profiles: basic, research" in said


def test_a_name_that_cannot_be_parsed_is_looked_for_all_the_same():
    header = Dataset()
    # written with a number's value representation, so that reading the element fails
    for tag, value in ((0x00100010, b"Quisling^Mara"), (0x00100020, b"HX-771234")):
        header[tag] = RawDataElement(BaseTag(tag), "FD", len(value), value, 0, False, True)
    with pytest.raises(Exception, match="bytes"):
        _ = header[0x00100010]
    cleaned = clean("Mara Quisling, record HX-771234: no change.", known_values(header)).text
    assert "Quisling" not in cleaned and "HX-771234" not in cleaned
