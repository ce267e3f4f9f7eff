"""Chest X-rays with reports: every layout in which users hold the two sets, and what can't be asked."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest
from test_benchmark_cards import EVALS
from test_benchmarks import picture

from medkit.errors import DataError
from medkit.readers import Record, Rejected
from medkit.readers.benchmarks import find_benchmark, read_benchmark
from medkit.readers.chest_reports import read, sections_of


def table(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def split_of(items) -> tuple[list[Record], list[Rejected]]:
    items = list(items)
    return [one for one in items if isinstance(one, Record)], [
        one for one in items if isinstance(one, Rejected)
    ]


def gold(record: Record) -> str:
    return record.facts["question"]["references"][0]


def test_sections_are_found_by_their_headings():
    text = (
        " EXAMINATION: CHEST\n\n FINDINGS:\n \n Clear. Note: old.\n\n IMPRESSION: Fine.\n FINDINGS: again\n"
    )
    assert sections_of(text) == {
        "examination": "CHEST",
        "findings": "Clear. Note: old.",
        "impression": "Fine.",
    }
    assert sections_of("no heading at all") == {}


def test_physionets_folders_with_sectioned_reports_and_views(tmp_path):
    rows = [
        {"dicom_id": f"d{n}", "study_id": study, "subject_id": "10000001", "split": split}
        for n, (study, split) in enumerate([("51", "test"), ("51", "test"), ("52", "test"), ("53", "train")])
    ]
    root = tmp_path / "mimic-cxr-jpg" / "2.0.0"
    table(root / "mimic-cxr-2.0.0-split.csv.gz", rows)
    views = [
        {"dicom_id": f"d{n}", "ViewPosition": view} for n, view in enumerate(("PA", "LATERAL", "AP", "PA"))
    ]
    table(root / "mimic-cxr-2.0.0-metadata.csv.gz", views)
    table(
        tmp_path / "mimic_cxr_sectioned.csv",
        [
            {"study": "s51", "impression": "Fine.", "findings": "Clear\n lungs.", "last_paragraph": ""},
            {"study": "s52", "impression": "Only this.", "findings": "", "last_paragraph": ""},
        ],
    )
    for study, name in (("s51", "d0"), ("s51", "d1")):
        picture(root / "files" / "p10" / "p10000001" / study / f"{name}.jpg", 3)
    records, told = split_of(read(tmp_path, {"views": ["PA", "AP"], "part": "test"}))
    assert [(one.id, gold(one), len(one.image)) for one in records] == [("s51", "Clear lungs.", 1)]  # type: ignore[arg-type]
    assert [(one.record, one.reason, one.detail) for one in told] == [
        ("s52", "report without section", "findings"), ("(LATERAL)", "another view", "1 left unread"),
        ("(train)", "another split", "1 left unread"),
    ]  # fmt: skip
    records, told = split_of(read(tmp_path, {"section": "both", "by": "image"}))
    assert [(one.id, gold(one)) for one in records] == [
        ("s51:1", "Clear lungs. Fine."), ("s51:2", "Clear lungs. Fine."),
    ]  # fmt: skip
    assert [(one.record, one.reason) for one in told] == [
        ("s52", "image missing"),
        ("s53", "report without section"),
    ]
    assert records[0].group == records[1].group and records[0].split == "test"


def test_physionets_validation_part_can_be_asked(tmp_path):
    """It is called "validate", which no other set calls it."""
    rows = [
        {"dicom_id": f"d{n}", "study_id": f"{n}", "subject_id": "10000001", "split": split}
        for n, split in enumerate(("train", "validate", "test"))
    ]
    table(tmp_path / "mimic-cxr-2.0.0-split.csv", rows)
    table(tmp_path / "mimic_cxr_sectioned.csv", [{"study": f"s{n}", "findings": "Clear."} for n in range(3)])
    picture(tmp_path / "files" / "p10" / "p10000001" / "s1" / "d1.jpg", 3)
    records, told = split_of(read(tmp_path, {"part": "valid"}))
    assert [one.id for one in records] == ["s1"]
    assert [one.record for one in told] == ["(test)", "(train)"]
    done = read_benchmark(
        {**find_benchmark("mimic-cxr", str(tmp_path)), "part": "valid"}, {}, tmp_path / "out"
    )
    assert done["found"]["questions"] == 1


def test_a_table_that_was_cut_is_refused(tmp_path):
    (tmp_path / "indiana_reports.csv").write_text("uid,findings,impression\n1,Clear.,x\n2,Clear.,x\n")
    (tmp_path / "indiana_projections.csv").write_text("uid,filename,projection\n1,a.png,Frontal\n1\n")
    with pytest.raises(DataError, match=r"indiana_projections.csv: line 3 has fewer fields than the header"):
        list(read(tmp_path, {}))


def test_open_is_tables_and_xml(tmp_path):
    tables = tmp_path / "tables"
    table(
        tables / "indiana_reports.csv",
        [
            {"uid": "1", "findings": "Clear.", "impression": "Normal."},
            {"uid": "2", "findings": "", "impression": "x"},
        ],
    )
    shown = [("1", "1_b.dcm.png", "Lateral"), ("1", "1_a.dcm.png", "Frontal"), ("2", "2.png", "Frontal")]
    table(
        tables / "indiana_projections.csv",
        [dict(zip(("uid", "filename", "projection"), one, strict=True)) for one in shown],
    )
    for _, name, _ in shown:
        picture(tables / "images" / "images_normalized" / name, 3)
    records, told = split_of(read(tables, {"kind": "iu_xray"}))
    assert [(one.id, gold(one), [Path(str(p)).name for p in one.image]) for one in records] == [  # type: ignore[union-attr]
        ("1", "Clear.", ["1_a.dcm.png", "1_b.dcm.png"])
    ]
    assert records[0].split is None and records[0].facts["question"]["kind"] == "iu_xray"
    assert [one.reason for one in told] == ["report without section"]

    xml = tmp_path / "xml"
    (xml / "ecgen-radiology").mkdir(parents=True)
    (xml / "ecgen-radiology" / "7.xml").write_text(
        '<eCitation><MedlineCitation><Abstract><AbstractText Label="FINDINGS">No mass &amp; no effusion.</AbstractText>'
        '<AbstractText Label="IMPRESSION">Fine.</AbstractText></Abstract></MedlineCitation>'
        '<parentImage id="CXR7_IM-1"/><parentImage id="CXR7_IM-2"/></eCitation>'
    )
    (xml / "ecgen-radiology" / "8.xml").write_text("<open>")
    for name in ("CXR7_IM-1.png", "CXR7_IM-2.png"):
        picture(xml / "NLMCXR_png" / name, 3)
    records, told = split_of(read(xml, {}))
    assert [(one.id, gold(one), len(one.image)) for one in records] == [("7", "No mass & no effusion.", 2)]  # type: ignore[arg-type]
    assert [(one.record, one.reason) for one in told] == [("8.xml", "report unreadable")]


def test_what_is_no_such_set_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds none of annotation.json, mimic-cxr-\*-split.csv"):
        list(read(tmp_path, {}))
    with pytest.raises(DataError, match="section 'last' is none of findings"):
        list(read(EVALS / "iu-xray" / "fixture", {"section": "last"}))
    with pytest.raises(DataError, match="by 'patient' is neither image nor study"):
        list(read(EVALS / "iu-xray" / "fixture", {"by": "patient"}))
    table(tmp_path / "mimic-cxr-2.0.0-split.csv", [{"dicom_id": "a", "split": "test"}])
    with pytest.raises(DataError, match="a table has no column 'study_id'; it has dicom_id, split"):
        list(read(tmp_path, {}))
    (tmp_path / "annotation.json").write_text(
        '{"test": [{"id": "a"}, {"id": "b", "report": "x", "image_path": ["../b.png"]}]}'
    )
    records, told = split_of(read(tmp_path, {}))
    assert not records and [(one.reason, one.detail) for one in told] == [
        ("row unreadable", "no report"), ("image missing", "b.png"),
    ]  # fmt: skip
