"""Masks, boxes and measurements of tables and COCO files end in the facts, or in the ledger with a reason."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medkit.errors import DataError
from medkit.readers import Record, Rejected, get_reader, truths
from medkit.readers.ingest import ingest
from medkit.readers.truths import coco_mask
from medkit.readers.worker import Worker
from medkit.store import open_dataset


def picture(path: Path, width: int = 40, height: int = 20, **save: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(len(path.name)).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(values).save(path, **save)
    return path


def read(reader: str, root: Path, **options: Any) -> dict[str, Record | Rejected]:
    items = get_reader(reader)(root, options)
    return {one.id if isinstance(one, Record) else one.record: one for one in items}  # type: ignore[union-attr]


def facts(found: dict[str, Any], name: str) -> dict[str, Any]:
    assert isinstance(found[name], Record)
    return found[name].facts


# --- measurements and masks of tables ----------------------------------------------------------------------


def write_table(root: Path, head: str, *rows: str) -> None:
    (root / "rows.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")


def test_measurements_are_numbers_with_their_unit_in_the_name(tmp_path: Path) -> None:
    for name in "abcde":
        picture(tmp_path / f"{name}.png")
    write_table(
        tmp_path, "id,image,size,hu", "a,a.png,12.5,-40", 'b,b.png,"7,25",1e2', "c,c.png,,3", "d,d.png,12 mm,nan",
        "e,e.png,,",
    )  # fmt: skip
    found = read("table", tmp_path, measurements={"diameter_mm": "size", "density_hu": "hu"})
    assert facts(found, "a")["measurements"] == {"diameter_mm": 12.5, "density_hu": -40.0}
    assert facts(found, "b")["measurements"] == {"diameter_mm": 7.25, "density_hu": 100.0}
    assert facts(found, "c")["measurements"] == {"density_hu": 3.0}
    assert "measurements" not in facts(found, "d") and "measurements" not in facts(found, "e")
    assert found["d"].notes == (
        ("measurement unreadable", "diameter_mm: the cell is no number"),
        ("measurement unreadable", "density_hu: the cell is no number"),
    )  # type: ignore[union-attr]
    listed = read("table", tmp_path, measurements=["size"])
    assert facts(listed, "a")["measurements"] == {"size": 12.5}


def test_a_mask_that_crashes_its_decoder_costs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import os,sys;o=sys.stdout.buffer;o.write(bytes(8));o.flush();sys.stdin.buffer.read(8);os.abort()"
    hostile = Worker(truths.TASK, [sys.executable, "-c", code])
    monkeypatch.setattr(truths.worker, "shared", lambda task: hostile)
    Image.new("L", (8, 8), 255).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match="decoder crashed"):
        truths.mask_object(tmp_path / "mask.png", "lesion")


def test_mask_files_become_objects_with_box_and_area(tmp_path: Path) -> None:
    marked = np.zeros((20, 40), np.uint8)
    marked[5:10, 10:30] = 1
    for name in "abcd":
        picture(tmp_path / "pictures" / f"{name}.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray(marked).save(tmp_path / "masks" / "a.png")
    Image.fromarray(marked * 255).save(tmp_path / "masks" / "lossy.jpg", quality=60)
    Image.fromarray(marked * 0).save(tmp_path / "masks" / "empty.png")
    (tmp_path / "masks" / "broken.png").write_bytes(b"\x89PNG")
    write_table(
        tmp_path, "id,image,lesion", "a,a.png,../masks/a.png", "b,b.png,../masks/empty.png",
        "c,c.png,../masks/none.png", "d,d.png,../masks/broken.png", "e,a.png,../masks/lossy.jpg", "f,a.png,",
        "g,a.png,../../outside.png",
    )  # fmt: skip
    found = read("table", tmp_path, images="pictures", masks={"lesion": "lesion"})
    assert facts(found, "a")["objects"] == [
        {"label": "lesion", "box": [0.25, 0.25, 0.75, 0.5], "attributes": {}, "mask": {"area": 0.125}}
    ]
    (lossy,) = facts(found, "e")["objects"]
    assert lossy["mask"]["area"] == pytest.approx(0.125, abs=0.02)
    told = {name: one.notes[0][0] for name, one in found.items() if isinstance(one, Record) and one.notes}
    assert told == {"b": "empty mask", "c": "mask missing", "d": "mask unreadable", "g": "mask missing"}
    assert all(facts(found, name)["objects"] == [] for name in "bcdfg")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"measurements": 3}, "measurements is a list of columns"),
        ({"measurements": {"size_mm": 3}}, "measurements is a list of columns"),
        ({"measurements": ["weight"]}, "has no column 'weight'; it has image, size"),
        ({"masks": ["lesion"]}, "masks is a mapping of labels"),
        ({"masks": {"lesion": "mask"}}, "has no column 'mask'"),
    ],
)
def test_columns_that_are_not_there_are_refused(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    write_table(tmp_path, "image,size", "a.png,3")
    with pytest.raises(DataError, match=said):
        read("table", tmp_path, **options)


# --- boxes in tables ---------------------------------------------------------------------------------------


def test_a_row_a_box_by_corners(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "unlisted"):
        picture(tmp_path / f"{name}.png")
    write_table(
        tmp_path, "filename,width,height,class,xmin,ymin,xmax,ymax", "a.png,40,20,nodule,10,5,30,10",
        "a.png,40,20,mass,0,0,4,4", "b.png,40,20,No finding,,,,", "c.png,40,20,nodule,30,5,10,10",
        "missing.png,40,20,nodule,1,1,2,2",
    )  # fmt: skip
    found = read("boxes", tmp_path, layout="table")
    assert facts(found, "a")["objects"] == [
        {"label": "nodule", "box": [0.25, 0.25, 0.75, 0.5], "attributes": {}},
        {"label": "mass", "box": [0.0, 0.0, 0.1, 0.2], "attributes": {}},
    ]
    assert facts(found, "b") == {"labels": {}, "objects": [], "complete": True}
    assert facts(found, "c")["objects"] == []
    assert found["c"].notes[0][0] == "zero-size box"  # type: ignore[union-attr]
    assert found["missing.png"] == Rejected("missing.png", "image missing", "")
    assert found["unlisted.png"] == Rejected("unlisted.png", "no annotation")


def test_a_row_a_box_by_size_and_other_names(tmp_path: Path) -> None:
    picture(tmp_path / "p1.png")
    picture(tmp_path / "p2.png")
    picture(tmp_path / "p3.png")
    text = "patientId,x,y,width,height,Target\np1,10,5,20,5,1\np2,,,,,0\np3,4,x,2,2,1\n"
    (tmp_path / "boxes_train.csv").write_text(text, encoding="utf-8")
    options = {
        "layout": "table",
        "columns": {"label": "Target"},
        "rename": {"1": "opacity"},
        "files": "boxes_{split}.csv",
    }
    found = read("boxes", tmp_path, **options)
    assert facts(found, "p1")["objects"] == [
        {"label": "opacity", "box": [0.25, 0.25, 0.75, 0.5], "attributes": {}}
    ]
    assert facts(found, "p2")["objects"] == facts(found, "p3")["objects"] == []
    assert {one.split for one in found.values() if isinstance(one, Record)} == {"train"}
    assert found["p3"].notes[0][0] == "box unreadable"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"columns": {"label": "kind"}}, "has no column 'kind'"),
        ({"columns": {"labels": "class"}}, "columns has no labels"),
        ({"files": "*.tsv"}, "holds no table"),
        ({}, "has no columns for image, left, top"),
    ],
)
def test_tables_without_boxes_are_refused(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    write_table(tmp_path, "image,class,xmin,ymin", "a.png,nodule,1,2")
    with pytest.raises(DataError, match=said):
        read("boxes", tmp_path, layout="table", **options)


# --- masks of COCO -----------------------------------------------------------------------------------------

SQUARE = [[10, 5, 30, 5, 30, 10, 10, 10]]


def packed(runs: list[int]) -> str:
    """Packs run lengths as COCO does: the reverse of what medkit reads, written from the format's description."""
    text = ""
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            sign = value & 31
            value >>= 5
            more = value != (-1 if sign & 16 else 0)
            text += chr((sign | 32 if more else sign) + 48)
    return text


def runs_of(marked: np.ndarray) -> list[int]:
    """Gives the run lengths of a mask [H,W], column by column, the first run being unmarked."""
    runs, value = [0], False
    for one in marked.T.ravel():
        if one != value:
            runs.append(0)
            value = bool(one)
        runs[-1] += 1
    return runs


def test_polygons_give_area_box_and_shape() -> None:
    mask, box, fault = coco_mask(SQUARE, (40, 20))
    assert (mask, box, fault) == (
        {"area": 0.125, "polygons": [[0.25, 0.25, 0.75, 0.25, 0.75, 0.5, 0.25, 0.5]]},
        [10.0, 5.0, 30.0, 10.0],
        "",
    )
    many = np.stack([np.cos(np.linspace(0, 6.28, 600)), np.sin(np.linspace(0, 6.28, 600))], 1) * 9 + 10
    mask, box, fault = coco_mask([many.ravel().tolist()], (20, 20))
    assert mask == {"area": pytest.approx(np.pi * 81 / 400, rel=0.01)}
    assert fault == "600 points: kept as its area"


def test_run_lengths_give_area_and_box_packed_or_not() -> None:
    marked = np.zeros((20, 40), bool)
    marked[5:10, 10:30] = True
    runs = runs_of(marked)
    assert sum(runs) == 800 and runs[0] == 205
    for counts in (runs, packed(runs)):
        mask, box, fault = coco_mask({"size": [20, 40], "counts": counts}, (40, 20))
        assert mask == {"area": 0.125, "rle": {"size": [20, 40], "counts": counts}}
        assert (box, fault) == ([10, 5, 30, 10], "")


def test_packed_runs_that_shrink_and_grow_are_read() -> None:
    marked = np.random.default_rng(4).random((64, 48)) > 0.8
    marked[0, 0] = False
    runs = runs_of(marked)
    for counts in (runs, packed(runs)):
        mask, box, _ = coco_mask({"size": [64, 48], "counts": counts}, (48, 64))
        assert mask is not None and mask["area"] == pytest.approx(marked.mean(), abs=1e-6)
        rows, columns = np.nonzero(marked)
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([[1, 2, 3, 4]], "fewer than three points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "half a point"),
        ([["a", 2, 3, 4, 5, 6]], "isn't numbers"),
        ([[1, 2, 3, 4, 5, float("nan")]], "fewer than three points"),
        ({"counts": [3]}, "without a size"),
        ({"size": [2, 2], "counts": [3]}, "don't fill the size"),
        ({"size": [2, 2], "counts": [5, -1]}, "don't fill the size"),
        ({"size": [2, 2], "counts": "é"}, "aren't numbers"),
        ({"size": [2, 2], "counts": "o"}, "aren't numbers"),
        ({"size": [2, 2], "counts": None}, "aren't numbers"),
        ({"size": [1 << 20, 1 << 20], "counts": [1 << 40]}, "more pixels than the limit"),
    ],
)
def test_masks_that_make_no_sense_have_a_reason(given: Any, said: str) -> None:
    mask, box, fault = coco_mask(given, (40, 20))
    assert mask is None and box is None
    assert said in fault


def test_no_mask_is_no_fault() -> None:
    for given in (None, [], {}, 3):
        assert coco_mask(given, (40, 20)) == (None, None, "")


def test_coco_masks_and_attributes_reach_the_dataset(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / "in" / f"{name}.png")
    annotations = [
        {"image_id": 1, "category_id": 1, "bbox": [10, 5, 20, 5], "segmentation": SQUARE,
         "attributes": {"margin": "spiculated", "occluded": False}},
        {"image_id": 1, "category_id": 1, "segmentation": SQUARE},
        {"image_id": 2, "category_id": 1, "bbox": [1, 1, 2, 2], "segmentation": [[1, 2]]},
        {"image_id": [2], "category_id": {}, "bbox": [1, 1, 2, 2]},
    ]  # fmt: skip
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 1, "name": "nodule"}],
        "annotations": annotations,
    }
    (tmp_path / "in" / "coco.json").write_text(json.dumps(content), encoding="utf-8")
    domain = {"name": "d", "licence": "yours", "data": {"reader": "boxes", "splits": {}}}
    ingest({"domain": domain, "data": str(tmp_path / "in")}, {}, tmp_path / "out")
    made = open_dataset(tmp_path / "out")
    rows = {sample.id: sample.facts["objects"] for sample in made}
    mask = {"area": 0.125, "polygons": [[0.25, 0.25, 0.75, 0.25, 0.75, 0.5, 0.25, 0.5]]}
    box = [0.25, 0.25, 0.75, 0.5]
    assert rows["a"] == [
        {"label": "nodule", "box": box, "attributes": {"margin": "spiculated"}, "mask": mask},
        {"label": "nodule", "box": box, "attributes": {}, "mask": mask},
    ]
    assert rows["b"] == [{"label": "nodule", "box": [0.025, 0.05, 0.075, 0.15], "attributes": {}}]
    told = [row for row in made.ledger() if row["fate"] == "told" and row["reason"] == "mask left out"]
    assert [row["record"] for row in told] == ["b"]
