"""Readers: every record or a reason, nothing raised for bad user data."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_data import real_set, splits_of

from medkit.errors import DataError
from medkit.readers import READERS, Record, Rejected, get_reader, hashed, inside, split_in

SHELF = Path(__file__).resolve().parent.parent / "domains"


def _read(name: str, root: Path, **options) -> tuple[list[Record], list[Rejected]]:
    items = list(get_reader(name)(root, options))
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Rejected)]


def _picture(path: Path, size: tuple[int, int] = (20, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)
    return path


def test_every_named_reader_can_be_loaded():
    assert sorted(READERS) == [
        "arrays", "boxes", "chest_reports", "class_folders", "dicom", "drawn", "figures", "llava_json", "nifti",
        "questions", "table", "vqa_rad",
    ]  # fmt: skip
    assert all(callable(get_reader(name)) for name in READERS)
    with pytest.raises(DataError, match=r"there is no reader 'boxs' \(did you mean 'boxes'\?\)"):
        get_reader("boxs")


@pytest.mark.parametrize("name", sorted(READERS))
def test_unknown_options_are_refused_with_a_guess(name, tmp_path):
    with pytest.raises(DataError, match=r"has no option 'licenc' \(did you mean 'licence'\?\)"):
        list(get_reader(name)(tmp_path, {"licenc": "MIT"}))


@pytest.mark.parametrize("name", ["arrays", "boxes", "class_folders", "table"])
def test_a_missing_folder_is_one_sentence(name, tmp_path):
    with pytest.raises(DataError, match="is no folder"):
        list(get_reader(name)(tmp_path / "none", {}))


def test_names_that_lead_out_of_the_folder_are_not_followed(tmp_path):
    assert inside(tmp_path, "a/../b.png") == tmp_path / "b.png"
    assert inside(tmp_path, "../b.png") is None
    assert inside(tmp_path, "/etc/passwd") is None


def test_split_names_in_folder_and_file_names():
    assert split_in("png_sample_dev", ["train", "dev"]) == "dev"
    assert split_in("instances_val", []) == "val"
    assert split_in("contest", []) is None


# class folders


def test_class_folders_with_and_without_splits(tmp_path):
    _picture(tmp_path / "train/images/glass/a.jpg")
    _picture(tmp_path / "dev/images/metal/b.jpg")
    _picture(tmp_path / "stray.jpg")
    records, rejected = _read("class_folders", tmp_path, splits=["train", "dev"], modality="photo")
    assert [(r.id, r.split, r.facts["labels"]["class"]) for r in records] == [
        ("b", "dev", "metal"),
        ("a", "train", "glass"),
    ]
    assert records[0].facts["modality"] == "photo"
    assert rejected == [Rejected("stray", "no class folder", "stray.jpg")]
    plain, _ = _read("class_folders", tmp_path / "train" / "images")
    assert [(r.id, r.split) for r in plain] == [("a", None)]


def test_a_class_called_like_a_split_is_a_class(tmp_path):
    _picture(tmp_path / "test/a.jpg")
    _picture(tmp_path / "other/b.jpg")
    records, _ = _read("class_folders", tmp_path)
    assert [(r.facts["labels"]["class"], r.split) for r in records] == [("other", None), ("test", None)]


def test_equal_file_names_get_different_ids_and_groups_come_from_a_pattern(tmp_path):
    _picture(tmp_path / "a/p1-1.jpg")
    _picture(tmp_path / "b/p1-1.jpg")
    _picture(tmp_path / "b/p1-2.jpg")
    records, _ = _read("class_folders", tmp_path, group_pattern=r"(p\d+)-")
    assert [r.id for r in records] == ["a/p1-1.jpg", "b/p1-1.jpg", "p1-2"]
    assert {r.group for r in records} == {hashed("p1")}
    _, rejected = _read("class_folders", tmp_path, classes={"a": "Alpha"})
    assert [r.reason for r in rejected] == ["unknown class", "unknown class"]


# arrays


def _npz(path: Path, count: int = 3, **more) -> None:
    np.savez(path, images=np.zeros((count, 4, 4), np.uint8), labels=np.arange(count, dtype=np.uint8), **more)


def test_arrays_with_names_and_splits(tmp_path):
    _npz(tmp_path / "train.npz")
    (tmp_path / "labels.json").write_text('["coat", "bag"]')
    records, rejected = _read("arrays", tmp_path)
    assert [(r.id, r.split, r.facts["labels"]) for r in records] == [
        ("train-000000", "train", {"class": "coat"}),
        ("train-000001", "train", {"class": "bag"}),
    ]
    assert rejected == [Rejected("train-000002", "unknown class", "class number 2, but only 2 names")]


def test_array_files_that_can_not_be_used_are_named(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"zip?")
    with pytest.raises(DataError, match=r"a.npz can't be read as an .npz archive"):
        _read("arrays", tmp_path)
    np.savez(tmp_path / "a.npz", pictures=np.zeros(3))
    with pytest.raises(DataError, match=r"a.npz has no array images, labels; it has pictures"):
        _read("arrays", tmp_path)
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 4, 4)), labels=np.zeros(3))
    with pytest.raises(DataError, match="don't belong together"):
        _read("arrays", tmp_path)
    np.savez(tmp_path / "a.npz", images=np.array([{}], dtype=object), labels=np.zeros(1))
    with pytest.raises(DataError, match=r"can't be read as an .npz archive"):
        _read("arrays", tmp_path)


def test_png_with_the_class_in_the_name(tmp_path):
    _picture(tmp_path / "png_train/0001_label1.png")
    _picture(tmp_path / "png_dev/0002_label9.png")
    _picture(tmp_path / "png_dev/0003.png")
    (tmp_path / "labels.json").write_text('["coat", "bag"]')
    records, rejected = _read("arrays", tmp_path, splits=["train", "dev"])
    assert [(r.id, r.split, r.facts["labels"]["class"]) for r in records] == [("0001_label1", "train", "bag")]
    assert [(r.record, r.reason) for r in rejected] == [
        ("0002_label9", "unknown class"),
        ("0003", "no class in the file name"),
    ]
    alone, _ = _read("arrays", tmp_path / "png_train", splits=["train", "dev"])
    assert [(r.split, r.facts["labels"]["class"]) for r in alone] == [(None, "bag")]


# boxes


def _voc(
    path: Path, objects: str, size: str = "<size><width>20</width><height>10</height></size>", head: str = ""
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{head}<annotation>{size}{objects}</annotation>")


def _object(label: str, *corners: object) -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    edges = "".join(f"<{name}>{value}</{name}>" for name, value in zip(names, corners, strict=True))
    return f"<object><name>{label}</name><bndbox>{edges}</bndbox></object>"


def test_voc_boxes_are_normalised_and_bad_boxes_told_without_losing_the_image(tmp_path):
    _picture(tmp_path / "train/images/a.jpg")
    objects = (
        _object("WBC", 5, 2, 10, 10) + _object("RBC", 3, 3, 3, 3) + _object("RBC", "x", 1, 2, 2)
        + _object("RBC", 30, 1, 40, 5) + _object("", 1, 1, 2, 2) + _object("RBC", -4, 0, 30, 5)
    )  # fmt: skip
    _voc(tmp_path / "train/annotations/a.xml", objects)
    records, rejected = _read("boxes", tmp_path, incomplete=["RBC"])
    assert rejected == []
    assert records[0].facts == {
        "labels": {},
        "objects": [
            {"label": "WBC", "box": [0.25, 0.2, 0.5, 1.0], "attributes": {}},
            {"label": "RBC", "box": [0.0, 0.0, 1.0, 0.5], "attributes": {}},
        ],
        "complete": True,
        "incomplete": ["RBC"],
    }
    assert records[0].split == "train"
    assert [reason for reason, _ in records[0].notes] == [
        "zero-size box", "box unreadable", "box outside the image", "box without label",
    ]  # fmt: skip


LAUGHS = '<!DOCTYPE a [<!ENTITY l "lol"><!ENTITY m "&l;&l;&l;&l;&l;&l;&l;&l;&l;&l;">]>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize("head", [LAUGHS, OUTSIDE])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused_in_any_encoding(tmp_path, head, encoding):
    _picture(tmp_path / "a.jpg")
    start = f'<?xml version="1.0" encoding="{encoding}"?>{head}'
    text = f"{start}<annotation>{_object('&m;', 1, 1, 2, 2)}</annotation>"
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    records, rejected = _read("boxes", tmp_path)
    assert records == []
    assert rejected == [
        Rejected("a", "annotation unreadable", "the XML declares a DOCTYPE, which annotations don't need")
    ]


def test_voc_files_without_partner_and_broken_xml_are_rejected(tmp_path):
    _picture(tmp_path / "lonely.jpg")
    _picture(tmp_path / "b.jpg")
    (tmp_path / "b.xml").write_text("<annotation><object>")
    _voc(tmp_path / "c.xml", "")
    _, rejected = _read("boxes", tmp_path)
    assert [(r.record, r.reason) for r in rejected] == [
        ("b", "annotation unreadable"), ("c", "image missing"), ("lonely.jpg", "no annotation"),
    ]  # fmt: skip


def test_voc_without_a_size_uses_the_pictures_own_and_image_sets_name_the_split(tmp_path):
    _picture(tmp_path / "VOC/JPEGImages/a.jpg", (40, 20))
    _voc(tmp_path / "VOC/Annotations/a.xml", _object("dog", 10, 10, 20, 20), size="")
    (tmp_path / "VOC/ImageSets/Main").mkdir(parents=True)
    (tmp_path / "VOC/ImageSets/Main/val.txt").write_text("a\n")
    records, _ = _read("boxes", tmp_path)
    assert records[0].facts["objects"][0]["box"] == [0.25, 0.5, 0.5, 1.0]
    assert records[0].split == "val"


def test_coco(tmp_path):
    _picture(tmp_path / "images/a.jpg")
    content = {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 20, "height": 10},
            {"id": 8, "file_name": "gone.jpg", "width": 20, "height": 10},
            {"id": 9},
        ],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "bbox": [5, 5, 10, 5]},
            {"image_id": 7, "category_id": 1, "bbox": [5, 5, 0, 5]},
            {"image_id": 7, "category_id": 1, "bbox": [1, 1, 9, 9], "iscrowd": 1},
            {"image_id": 7, "category_id": 2, "bbox": [1, 1, 2, 2]},
        ],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(content))
    (tmp_path / "other.json").write_text("[1, 2]")
    (tmp_path / "broken.json").write_text("{")
    records, rejected = _read("boxes", tmp_path)
    assert [(r.id, r.split) for r in records] == [("a", "train")]
    assert records[0].facts["objects"] == [{"label": "dog", "box": [0.25, 0.5, 0.75, 1.0], "attributes": {}}]
    assert [reason for reason, _ in records[0].notes] == ["zero-size box", "box without label"]
    assert sorted((r.record, r.reason) for r in rejected) == [
        ("broken.json", "annotation unreadable"), ("gone", "image missing"),
        ("instances_train2017.json:images[2]", "record unreadable"),
    ]  # fmt: skip


# tables


def test_table_of_captions_labels_and_questions(tmp_path):
    _picture(tmp_path / "pics/a.png")
    (tmp_path / "rows.csv").write_text(
        "image,caption,kind,patient\n"
        "a.png,A red field.,x,P1\nb.png,Gone.,x,P1\na.png,,x,P2\n../a.png,Out.,x,P2\n"
    )
    records, rejected = _read("table", tmp_path, images="pics", labels=["kind"], group="patient")
    assert [(r.id, r.caption, r.group, r.facts["labels"]) for r in records] == [
        ("rows.csv:2", "A red field.", hashed("P1"), {"kind": "x"})
    ]
    assert [(r.record, r.reason) for r in rejected] == [
        ("rows.csv:3", "image missing"), ("rows.csv:4", "empty caption"), ("rows.csv:5", "image missing"),
    ]  # fmt: skip


def test_table_of_questions_by_split(tmp_path):
    _picture(tmp_path / "a.png")
    rows = [
        {"qid": 1, "image": "a.png", "question": "How many? ", "answer": 0},
        {"qid": 2, "image": "a.png", "question": "Any?", "answer": "Yes"},
        {"qid": 3, "image": "a.png", "question": "Which?", "answer": " left lung "},
        {"qid": 4, "image": "a.png", "question": "Which?", "answer": ""},
    ]
    lines = [*map(json.dumps, rows), "{broken", "[1]"]
    (tmp_path / "questions_dev.jsonl").write_text("\n".join(lines))
    (tmp_path / "unrelated.csv").write_text("x\n1\n")
    records, rejected = _read("table", tmp_path, files="questions_{split}.jsonl")
    assert [(r.id, r.split, r.group) for r in records] == [
        ("1", "dev", "a.png"),
        ("2", "dev", "a.png"),
        ("3", "dev", "a.png"),
    ]
    assert [r.facts["question"] for r in records] == [
        {"kind": "number", "answer_type": "number", "choices": [], "references": ["0"]},
        {"kind": "yes_no", "answer_type": "yes_no", "choices": [], "references": ["Yes"]},
        {"kind": "open", "answer_type": "open", "choices": [], "references": ["left lung"]},
    ]
    assert [(r.record, r.reason) for r in rejected] == [
        ("4", "question without answer"), ("questions_dev.jsonl:5", "row unreadable"),
        ("questions_dev.jsonl:6", "row unreadable"),
    ]  # fmt: skip


def test_table_columns_that_are_missing_are_named(tmp_path):
    (tmp_path / "rows.csv").write_text("picture,text\na.png,x\n")
    with pytest.raises(
        DataError, match=r"no image column; name it with the option image \(columns: picture, text\)"
    ):
        _read("table", tmp_path)
    with pytest.raises(DataError, match=r"no column 'pic' \(image\); it has picture, text"):
        _read("table", tmp_path, image="pic")
    with pytest.raises(DataError, match="holds no table that matches"):
        _read("table", tmp_path, files="*.tsv")


# LLaVA JSON


def test_llava_json_with_its_known_defects(tmp_path):
    _picture(tmp_path / "images/a.jpg")
    _picture(tmp_path / "images/b.jpg")

    def turns(question: str) -> list[dict]:
        return [{"from": "human", "value": question}, {"from": "gpt", "value": "An answer."}]

    rows = [
        {"id": "1", "image": "a.jpg", "conversations": turns("What?\n<image>")},
        {"id": "2", "image": ["a.jpg"], "conversatons": turns("<image>\nWhat?")},
        {"id": "3", "conversations": turns("Only text?")},
        {"id": "4", "image": ["b.jpg", "a.jpg"], "conversations": turns("<image>\nand <image>\nWhich?")},
        {"id": "5", "image": "gone.jpg", "conversations": turns("<image>\nWhat?")},
        {"id": "6", "image": "../x.jpg", "conversations": turns("<image>\nWhat?")},
        {"id": "7", "image": "a.jpg", "conversations": turns("<image>\n<image>\nWhat?")},
        {"id": "8", "image": "a.jpg"},
        {"id": "9", "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat?"}]},
        "no row",
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    records, rejected = _read("llava_json", tmp_path, images="images")
    assert [(r.id, len(r.image), r.group) for r in records] == [
        ("1", 1, "a.jpg"),
        ("2", 1, "a.jpg"),
        ("3", 0, "3"),
        ("4", 2, "b.jpg"),
    ]
    assert records[0].messages[0]["content"] == [{"type": "image"}, {"type": "text", "text": "What?"}]
    assert records[1].notes == (("row mended", "conversatons -> conversations"),)
    assert [path.name for path in records[3].image] == ["b.jpg", "a.jpg"]
    assert [(r.record, r.reason) for r in rejected] == [
        ("5", "image missing"), ("6", "image missing"), ("7", "row unreadable"), ("8", "row unreadable"),
        ("9", "no answer"), ("rows.json:10", "row unreadable"),
    ]  # fmt: skip


# drawn


DOMAIN = """
import numpy as np
def draw(seed, index):
    rng = np.random.default_rng([seed, index])
    if index == 3:
        raise ValueError("three")
    pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return pixels, {"labels": {"n": index}, "objects": [], "complete": True}
"""


def test_drawn_pictures_depend_on_seed_and_index_alone(tmp_path):
    (tmp_path / "domain.py").write_text(DOMAIN)
    few, _ = _read("drawn", tmp_path, train=2, test=1, seed=1)
    more, rejected = _read("drawn", tmp_path, train=70, test=70, seed=1)
    spread, _ = _read("drawn", tmp_path, train=70, test=70, seed=1, workers=2)
    other, _ = _read("drawn", tmp_path, train=2, seed=2)
    assert [(r.id, r.split) for r in few] == [
        ("train-000000", "train"),
        ("train-000001", "train"),
        ("test-000000", "test"),
    ]
    assert np.array_equal(few[1].image, more[1].image)
    assert not np.array_equal(few[1].image, other[1].image)
    assert [r.id for r in more] == [r.id for r in spread]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(more, spread, strict=True))
    pictures = {r.image.tobytes() for r in more}
    assert len(pictures) == 139
    assert rejected == [Rejected("train-000003", "drawing failed", "ValueError: three")]


def test_a_domain_without_usable_code_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"domain.py is missing"):
        _read("drawn", tmp_path, train=1)
    (tmp_path / "domain.py").write_text("x = 1")
    with pytest.raises(DataError, match="has no function draw"):
        _read("drawn", tmp_path, train=1)
    (tmp_path / "domain.py").write_text("raise OSError('no')")
    with pytest.raises(DataError, match=r"can't be imported \(OSError: no\)"):
        _read("drawn", tmp_path, train=1)
    (tmp_path / "domain.py").write_text("import numpy as np\ndef draw(s, i): return np.zeros((2, 2)), {}")
    assert _read("drawn", tmp_path, train=1)[1][0].detail == "draw gave float64 [2, 2], not uint8 [H,W,3]"


# shipped fixtures


@pytest.mark.parametrize(
    ("domain", "reader", "count", "labels"),
    [
        ("blood", "boxes", 5, {"RBC", "WBC", "Platelets"}),
        ("sorting", "class_folders", 24, {"cardboard", "glass", "metal", "paper", "plastic", "trash"}),
        ("retail", "arrays", 40, {"Bag", "Coat", "Dress", "Sandal", "Shirt"}),
        ("chest-xray", "table", 12, {"PA", "AP Supine", "COVID-19", "Pneumocystis", "ARDS", "No Finding"}),
    ],
)
def test_shipped_fixtures_are_read_by_their_own_card(domain, reader, count, labels):
    yaml = pytest.importorskip("yaml")
    card = yaml.safe_load((SHELF / domain / "domain.yaml").read_text())
    assert card["data"]["reader"] == reader
    records, rejected = _read(
        reader, SHELF / domain / "fixture", splits=list(card["data"]["splits"]), **card["data"]["options"]
    )
    assert (len(records), rejected) == (count, [])
    assert {r.split for r in records} == {"train", "dev"}
    found = {o["label"] for r in records for o in r.facts["objects"]} | set(
        value for r in records for value in r.facts["labels"].values()
    )
    assert labels <= found
    assert sum(f.stat().st_size for f in (SHELF / domain / "fixture").rglob("*") if f.is_file()) < 64 * 1024


# real sets, wherever they are


def test_real_blood_smears_match_their_listing():
    folder = real_set("bccd")
    listed = splits_of(folder, "items_*.jsonl")
    records, rejected = _read("boxes", folder, splits=list(listed))
    assert rejected == []
    assert Counter(r.split for r in records) == {split: len(rows) for split, rows in listed.items()}
    by_id = {r.id: r for r in records}
    for row in (row for rows in listed.values() for row in rows):
        record = by_id[row["id"]]
        zero = sum(x0 >= x1 or y0 >= y1 for x0, y0, x1, y1 in (o["bbox_xyxy"] for o in row["objects"]))
        assert len(record.facts["objects"]) == len(row["objects"]) - zero
        assert len(record.notes) == zero


def test_real_waste_photos_match_their_listing():
    folder = real_set("trashnet")
    listed = splits_of(folder, "items_*.jsonl")
    records, rejected = _read("class_folders", folder, splits=list(listed))
    assert rejected == []
    assert Counter(r.split for r in records) == {split: len(rows) for split, rows in listed.items()}
    labels = {row["id"]: row["label"] for rows in listed.values() for row in rows}
    assert {r.id: r.facts["labels"]["class"] for r in records} == labels


def test_real_product_photos_match_their_arrays_and_their_png():
    folder = real_set("fashion_mnist")
    names = json.loads((folder / "labels.json").read_text())
    records, rejected = _read("arrays", folder)
    assert rejected == []
    for archive in folder.glob("*.npz"):
        labels = np.load(archive)["labels"]
        own = [r for r in records if r.split == archive.stem]
        assert [r.facts["labels"]["class"] for r in own] == [names[label] for label in labels]
    for sample in folder.glob("png_sample_*"):
        records, rejected = _read("arrays", sample)
        assert (len(records), rejected) == (len(list(sample.glob("*.png"))), [])


def test_real_radiology_questions_match_their_listing():
    folder = real_set("vqa_rad")
    listed = splits_of(folder, "questions_*.jsonl")
    records, rejected = _read("table", folder, files="questions_{split}.jsonl", kind="question_type")
    assert rejected == []
    assert Counter(r.split for r in records) == {split: len(rows) for split, rows in listed.items()}
    assert {r.facts["question"]["answer_type"] for r in records} == {"yes_no", "number", "open"}


def test_real_chest_radiographs_match_their_listing():
    root = real_set("covid_cxr")
    yaml = pytest.importorskip("yaml")
    card = yaml.safe_load((SHELF / "chest-xray" / "domain.yaml").read_text())
    records, rejected = _read("table", root, splits=list(card["data"]["splits"]), **card["data"]["options"])
    listed = {row["id"]: row for rows in splits_of(root, "items_*.jsonl").values() for row in rows}
    assert (len(records), rejected) == (len(listed), [])
    for record in records:
        row = listed[record.id]
        assert record.licence == row["licence"]
        assert record.facts["labels"].get("view") == row["metadata"].get("view")
        finding = row["metadata"].get("finding")
        assert record.facts["labels"].get("finding") == (None if finding in ("todo", "Unknown") else finding)
    groups = {record.group for record in records}
    assert len(groups) == len({row["patientid"] for row in listed.values()})
