"""Slides: which tiles are taken and of what size, what never leaves a slide's file, and what is refused."""

from __future__ import annotations

import csv
import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from medkit import check
from medkit.errors import DataError, MissingExtra
from medkit.readers import Loaded, Merged, Record, Rejected, get_reader
from medkit.readers.ingest import ingest
from medkit.readers.slides import reader as slides_reader
from medkit.readers.slides import work
from medkit.readers.slides.boxes import objects_of
from medkit.readers.slides.grid import Place, Survey, Wanted, choose_tiles, pixel_size, shares
from medkit.readers.slides.reasons import REASONS, Refused
from medkit.readers.slides.tissue import otsu, tissue_mask
from medkit.store import open_dataset

openslide = pytest.importorskip("openslide", reason="needs the extra slides")
tifffile = pytest.importorskip("tifffile", reason="writes the slides; comes with the extra dev")

from tests import slide_files  # noqa: E402 - needs tifffile
from tests.slide_files import GLASS, LABEL_COLOUR, MACRO_COLOUR, NAMED, NUCLEUS, STAIN  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
SPOTS = [(700, 700, 500), (1600, 1200, 300)]
PIXELS = slide_files.tissue((2048, 1536), SPOTS)
KEY = "a key that only this test knows"


def items(root: Path, **options: Any) -> list[Any]:
    return list(get_reader("slides")(root, {"tile": 256, **options}))


def records(root: Path, **options: Any) -> list[Record]:
    return [one for one in items(root, **options) if isinstance(one, Record)]


def rejected(root: Path, **options: Any) -> list[tuple[str, str]]:
    return [(one.reason, one.detail) for one in items(root, **options) if isinstance(one, Rejected)]


def pictures(record: Record) -> list[np.ndarray]:
    assert callable(record.image)
    loaded = record.image()
    assert isinstance(loaded, Loaded)
    return [np.asarray(one) for one in loaded.images]


def survey(mask: Any, mpp: float | None = 0.5, power: float | None = None, side: int = 1024) -> Survey:
    mask = np.asarray(mask, bool)
    sizes = None if mpp is None else (mpp, mpp)
    return Survey(side, side, (0, 0, side, side), sizes, power, "drawn", mask)


def wanted(*magnifications: float, tile: int = 128, most: int = 1000, **others: Any) -> Wanted:
    given = {"tissue": 0.5, "seed": 0, "mpp": None, **others}
    return Wanted(magnifications, tile, most, **given)


# --- magnification ------------------------------------------------------------------------------------------------


def test_pixel_size_comes_from_the_file_then_the_card_then_the_objective() -> None:
    whole = np.ones((4, 4))
    assert pixel_size(survey(whole, 0.25, 40), None) == (0.25, ())
    assert pixel_size(survey(whole, None, 40), None)[0] == 0.25
    assert pixel_size(survey(whole, None, 40), 0.5)[0] == 0.5
    assert pixel_size(survey(whole, 0.25), 0.5) == (0.25, ())
    # 72 dpi, which programs write without knowing, is 353 um.
    assert pixel_size(survey(whole, 352.8), 0.5)[0] == 0.5
    with pytest.raises(Refused, match="no magnification"):
        pixel_size(survey(whole, None), None)
    with pytest.raises(Refused, match=r"pixels aren't square: 0\.5 x 0\.25 um"):
        pixel_size(Survey(9, 9, (0, 0, 9, 9), (0.5, 0.25), None, "", whole.astype(bool)), None)
    size, notes = pixel_size(survey(whole, 0.25, 20), None)  # a 20x objective behind a doubler
    assert (size, notes[0][0]) == (0.25, "pixel size and objective disagree")


def test_a_tile_has_the_side_that_its_magnification_asks_for() -> None:
    slide = survey(np.ones((64, 64)), 0.25)
    sides = {one.magnification: one.side for one in choose_tiles(slide, wanted(10, 20, 40), "a").places}
    assert sides == {10: 512, 20: 256, 40: 128}
    odd = choose_tiles(survey(np.ones((64, 64)), 0.2528), wanted(20, 40), "a").places
    assert {one.side: round(one.mpp, 4) for one in odd} == {253: 0.4997, 128: 0.2528}


def test_what_was_not_scanned_is_never_made_up() -> None:
    slide = survey(np.ones((64, 64)), 0.5)
    with pytest.raises(Refused, match=r"magnification not scanned: 40x; the slide has 0\.5 um a pixel"):
        choose_tiles(slide, wanted(40), "a")
    chosen = choose_tiles(slide, wanted(20, 40), "a")
    assert {one.magnification for one in chosen.places} == {20}
    assert [reason for reason, _ in chosen.notes] == ["magnification not scanned"]


@pytest.mark.parametrize("kind", ["generic", "svs", "dicom"])
def test_tiles_show_what_the_slide_holds_there(tmp_path: Path, kind: str) -> None:
    if kind == "generic":
        slide_files.pyramid(tmp_path / "a.tif", PIXELS)
    elif kind == "svs":
        slide_files.svs(tmp_path / "a.svs", PIXELS)
    else:
        slide_files.dicom(tmp_path, PIXELS)
    found = records(tmp_path, magnifications=[5, 10, 20], tiles=9)
    assert Counter(one.facts["labels"]["magnification"] for one in found) == {"5x": 1, "10x": 4, "20x": 4}
    for one in found:
        tile = one.facts["tile"]
        (picture,) = pictures(one)
        assert picture.shape == (256, 256, 3) and picture.dtype == np.uint8
        x, y, side = tile["x"], tile["y"], tile["side"]
        assert side == {5: 1024, 10: 512, 20: 256}[tile["magnification"]]
        truth = Image.fromarray(PIXELS[y : y + side, x : x + side]).resize((256, 256), Image.Resampling.BOX)
        assert np.abs(picture.astype(int) - np.asarray(truth)).mean() < 6
        inside = np.abs(PIXELS[y : y + side, x : x + side].astype(int) - GLASS).max(axis=2) > 20
        assert abs(tile["tissue"] - inside.mean()) < 0.05
        assert tile["mpp"] == 0.5 * side / 256


def test_uncompressed_dicom_slides_are_read_or_refused_by_name(tmp_path: Path) -> None:
    slide_files.dicom(tmp_path, PIXELS, syntax="1.2.840.10008.1.2.1")
    found = records(tmp_path, tiles=2)
    if found:
        tile = found[0].facts["tile"]
        truth = PIXELS[tile["y"] : tile["y"] + 256, tile["x"] : tile["x"] + 256]
        assert np.array_equal(pictures(found[0])[0], truth)
    else:
        assert {reason for reason, _ in rejected(tmp_path)} <= {"unknown transfer syntax", "slide unreadable"}


def test_a_dicom_slide_is_one_record_of_many_files_and_known_by_its_patient(tmp_path: Path) -> None:
    slide_files.dicom(tmp_path / "one", PIXELS, count=3)
    given = items(tmp_path, names="kept", tiles=1)
    assert [(one.record, one.detail) for one in given if isinstance(one, Merged)] == [
        ("0", "1 at 20x, of 17 with tissue"),
        ("1", "level of the slide, record 0"),
        ("2", "level of the slide, record 0"),
        ("8", "label or overview, never opened, record 0"),
    ]
    (record,) = [one for one in given if isinstance(one, Record)]
    assert len(record.group) == 16 and NAMED[0] not in record.group
    reader = get_reader("dicom")(tmp_path, {})
    assert {one.reason for one in reader if isinstance(one, Rejected)} == {"whole slide"}


# --- tissue -------------------------------------------------------------------------------------------------------


def test_otsu_parts_two_heaps_of_values() -> None:
    assert otsu(np.repeat(np.array([3, 5, 90, 92], np.uint8), [70, 30, 40, 10])) in range(5, 90)
    assert otsu(np.full(9, 7, np.uint8)) in range(256)


def test_stain_is_tissue_and_glass_ink_shadow_and_nothing_are_not() -> None:
    kinds = {
        "glass": ((*GLASS, 255), False),
        "pale stain": ((228, 204, 220, 255), True),
        "strong stain": ((*STAIN, 255), True),
        "nucleus": ((*NUCLEUS, 255), True),
        "brown stain": ((150, 100, 60, 255), True),
        "green ink": ((40, 160, 70, 255), False),
        "black edge": ((14, 4, 8, 255), False),
        "not scanned": ((*STAIN, 0), False),
    }
    row = np.array([[colour for colour, _ in kinds.values()]], np.uint8)
    found = tissue_mask(np.repeat(np.repeat(row, 20, axis=0), 5, axis=1))
    assert dict(zip(kinds, found[0, ::5].tolist(), strict=True)) == {
        name: is_tissue for name, (_, is_tissue) in kinds.items()
    }


def test_glass_alone_is_no_tissue_and_a_full_slide_is_all_tissue() -> None:
    noise = np.random.default_rng(0).integers(-3, 4, (64, 64, 3))
    opaque = np.full((64, 64, 1), 255)
    glass = np.concatenate([np.array(GLASS) + noise, opaque], axis=2).astype(np.uint8)
    full = np.concatenate([np.array(STAIN) + noise, opaque], axis=2).astype(np.uint8)
    assert not tissue_mask(glass).any()
    assert tissue_mask(full).all()
    assert not tissue_mask(np.zeros((4, 4, 4), np.uint8)).any()


def test_the_share_of_tissue_is_that_of_the_tile() -> None:
    mask = np.zeros((8, 8), bool)
    mask[:, :3] = True
    found = shares(survey(mask), np.array([0, 256, 512]), np.array([0, 512]), 256)
    assert found.tolist() == [[1.0, 0.5, 0.0], [1.0, 0.5, 0.0]]


def test_tiles_too_small_for_the_mask_have_its_pixels_share() -> None:
    mask = np.array([[True, False], [False, False]])
    found = shares(survey(mask), np.array([0, 64, 640]), np.array([0]), 64)
    assert found.tolist() == [[1.0, 1.0, 0.0]]


# --- the choice ---------------------------------------------------------------------------------------------------


def test_the_choice_is_the_same_in_every_run_and_another_with_another_seed(tmp_path: Path) -> None:
    slide_files.pyramid(tmp_path / "a.tif", PIXELS)
    first = [one.id for one in records(tmp_path, tiles=5, names="kept")]
    assert [one.id for one in records(tmp_path, tiles=5, names="kept")] == first
    assert len(first) == 5
    assert [one.id for one in records(tmp_path, tiles=5, names="kept", seed=1)] != first
    corners = [(one.facts["tile"]["y"], one.facts["tile"]["x"]) for one in records(tmp_path, tiles=5)]
    assert corners == sorted(corners)


def test_tiles_are_shared_out_and_what_one_power_lacks_goes_to_the_others() -> None:
    slide = survey(np.ones((64, 64)), 0.5)  # 16 places at 5x ... side 512: 2 x 2 at 5x, 8 x 8 at 20x
    counts = Counter(one.magnification for one in choose_tiles(slide, wanted(5, 20, most=20), "a").places)
    assert counts == {5: 4, 20: 16}
    assert choose_tiles(slide, wanted(5, 20, most=20), "a").candidates == 68
    assert len(choose_tiles(slide, wanted(5, 20, most=1), "a").places) == 1


def test_tiles_lie_within_what_was_scanned() -> None:
    slide = Survey(1024, 1024, (100, 50, 300, 290), (0.5, 0.5), None, "", np.ones((64, 64), bool))
    found = [(one.x, one.y) for one in choose_tiles(slide, wanted(20), "a").places]
    assert found == [(100, 50), (228, 50), (100, 178), (228, 178)]


# --- table and boxes ----------------------------------------------------------------------------------------------


def table(path: Path, *rows: dict[str, Any]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def test_labels_patients_and_splits_come_from_the_table(tmp_path: Path) -> None:
    slide_files.pyramid(tmp_path / "a.tif", PIXELS)
    slide_files.svs(tmp_path / "sub" / "b.svs", PIXELS)
    slide_files.pyramid(tmp_path / "c.tif", PIXELS)
    table(
        tmp_path / "t.csv",
        {"slide": "a", "who": "Jane Doe", "organ": "lung", "grade": "unknown", "part": "train"},
        {"slide": "sub/b.svs", "who": "Jane Doe", "organ": "skin", "grade": "2", "part": "test"},
        {"slide": "gone", "who": "x", "organ": "y", "grade": "z", "part": "train"},
        {"slide": "a", "who": "again", "organ": "y", "grade": "z", "part": "train"},
    )
    columns = {"labels": ["organ", "grade"], "unknown": ["unknown"], "group": "who", "split": "part"}
    given = items(tmp_path, table="t.csv", **columns, names="kept", tiles=1)
    a, c, b = [one for one in given if isinstance(one, Record)]
    assert (a.id.split(":")[0], b.id.split(":")[0], c.id.split(":")[0]) == ("a", "b", "c")
    assert a.facts["labels"] == {"organ": "lung", "magnification": "20x"}
    assert b.facts["labels"] == {"organ": "skin", "grade": "2", "magnification": "20x"}
    assert (a.split, b.split, c.split) == ("train", "test", None)
    assert a.group == b.group != c.group and "Doe" not in a.group
    assert ("no row in the table", "") in c.notes
    assert [(one.record, one.reason) for one in given if isinstance(one, Rejected)] == [
        ("t.csv:5", "repeated row"),
        ("t.csv:4", "slide missing"),
    ]


def test_a_slide_that_is_refused_is_not_missing(tmp_path: Path) -> None:
    slide_files.pyramid(tmp_path / "a.tif", np.full((512, 512, 3), 242, np.uint8))
    table(tmp_path / "t.csv", {"slide": "a", "organ": "lung"})
    assert rejected(tmp_path, table="t.csv", labels=["organ"]) == [("no tissue", "least share 0.5")]


def test_patients_are_found_in_names_where_the_card_says_how(tmp_path: Path) -> None:
    for name in ("P1-a", "P1-b", "P2-a"):
        slide_files.pyramid(tmp_path / f"{name}.tif", PIXELS)
    one, two, three = records(tmp_path, group_pattern=r"^(P\d+)-", tiles=1)
    assert one.group == two.group != three.group
    assert "P1" not in one.group


def test_a_whole_slide_can_be_one_record_with_its_caption(tmp_path: Path) -> None:
    slide_files.svs(tmp_path / "a.svs", PIXELS)
    table(tmp_path / "t.csv", {"slide": "a", "text": "Adenoma, seen by Dr. Smith on 2026-11-21."})
    given = items(
        tmp_path,
        table="t.csv",
        caption="text",
        records="slide",
        tiles=6,
        magnifications=[5, 20],
        names="kept",
    )
    (record,) = given
    assert record.id == "a" and len(pictures(record)) == 6
    assert record.facts["shows"] == "Tiles of one slide, 1 at 5x and 5 at 20x."
    assert [tile["magnification"] for tile in record.facts["tiles"]] == [5, 20, 20, 20, 20, 20]
    assert record.caption.startswith("Adenoma") and "Smith" not in record.caption
    with pytest.raises(DataError, match="a caption tells of a whole slide; give records: slide"):
        items(tmp_path, table="t.csv", caption="text")


def test_boxes_are_cut_at_the_tile() -> None:
    place = Place(1000, 2000, 500, 10, 1.0, 1.0)
    boxes = [
        ("inside", 1100.0, 2100.0, 1200.0, 2150.0),
        ("all over", 0.0, 0.0, 9000.0, 9000.0),
        ("a corner of it", 900.0, 1900.0, 1010.0, 2010.0),
        ("half", 1450.0, 2000.0, 1550.0, 2100.0),
        ("beside", 1500.0, 2000.0, 1600.0, 2100.0),
    ]
    assert {one["label"]: one["box"] for one in objects_of(boxes, place)} == {
        "inside": [0.2, 0.2, 0.4, 0.3],
        "all over": [0.0, 0.0, 1.0, 1.0],
        "half": [0.9, 0.0, 1.0, 0.2],
    }


def test_boxes_come_from_a_table_and_bad_rows_are_told(tmp_path: Path) -> None:
    slide_files.pyramid(tmp_path / "a.tif", PIXELS)
    row = {"slide": "a", "label": "gland", "x": 512, "y": 512, "width": 256, "height": 128}
    rows = (row, row | {"x": "left"}, row | {"width": 0}, row | {"slide": "gone"})
    table(tmp_path / "boxes.csv", *rows)
    given = items(tmp_path, boxes="boxes.csv", complete=True, names="kept")
    objects = {one.id: one.facts["objects"] for one in given if isinstance(one, Record)}
    assert objects["a:20x:512,512"] == [{"label": "gland", "box": [0.0, 0.0, 1.0, 0.5], "attributes": {}}]
    assert sum(map(len, objects.values())) == 1
    assert [(one.record, one.reason) for one in given if isinstance(one, Rejected)] == [
        ("boxes.csv:3", "row unreadable"),
        ("boxes.csv:4", "row unreadable"),
        ("boxes.csv:5", "slide missing"),
    ]


# --- privacy ------------------------------------------------------------------------------------------------------


def test_label_and_macro_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = slide_files.svs(tmp_path / "a.svs", PIXELS)
    with openslide.OpenSlide(path) as slide:
        told = np.asarray(slide.associated_images["label"].convert("RGB"))
        assert (told == LABEL_COLOUR).all(axis=2).mean() > 0.5  # the file does hold one, with a name on it
        assert sorted(slide.associated_images) == ["label", "macro", "thumbnail"]

    def opened(*_: Any) -> None:
        raise AssertionError("an associated image was opened")

    monkeypatch.setattr(openslide.lowlevel, "read_associated_image", opened)
    monkeypatch.setattr(openslide.OpenSlide, "associated_images", property(opened))
    with openslide.OpenSlide(path) as slide:
        head, (mask,) = work.survey(slide)
        tile = work.read_tile(slide, (512, 512), 256, 256)
    assert set(head) == {"width", "height", "bounds", "mpp", "power", "vendor"}
    assert mask.any() and tile.shape == (256, 256, 3)


@pytest.mark.parametrize("kind", ["svs", "dicom"])
def test_nothing_that_identifies_gets_into_the_dataset(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDKIT_PATIENT_KEY", KEY)
    source = tmp_path / "source"
    for number in (1, 2):
        name = f"{NAMED[0]}-{number}"
        pixels = slide_files.tissue((2048, 1536), SPOTS, (STAIN, (190, 120, 160))[number - 1])
        if kind == "svs":
            slide_files.svs(source / f"{name}.svs", pixels)
        else:
            slide_files.dicom(source / name, pixels)
    (source / f"{NAMED[0]} notes.txt").write_text(NAMED[1])
    (source / f"{NAMED[0]} broken.svs").write_bytes(b"II*\0" + bytes(100))
    card = yaml.safe_load((ROOT / "domains/pathology-slides/domain.yaml").read_text())
    options = {"magnifications": [5, 20], "tile": 256, "tiles": 6}
    card["data"] |= {"options": options, "env": "", "where": ""}
    summary = ingest({"domain": card, "data": str(source), "seed": 0}, {}, tmp_path / "out")
    assert summary["samples"] == 12
    assert summary["rejected"] == {"not a slide": 2}
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert [word for word in NAMED if word.encode() in content] == [], path.name
    dataset = open_dataset(tmp_path / "out")
    for ref in dataset.refs():
        pixels = np.asarray(dataset.image(ref)).astype(int)
        for colour in (LABEL_COLOUR, MACRO_COLOUR):
            assert np.abs(pixels - colour).max(axis=2).min() > 20


def test_the_mapping_names_the_files_and_stays_private(tmp_path: Path) -> None:
    slide_files.svs(tmp_path / "in" / "S26-1.svs", PIXELS)
    mapping = tmp_path / "mapping.csv"
    (record,) = records(tmp_path / "in", tiles=1, mapping=str(mapping))
    rows = list(csv.reader(mapping.open()))
    assert rows == [["record", "file"], [record.extra["slide"], "S26-1.svs"]]
    assert mapping.stat().st_mode & 0o077 == 0


# --- refusals -----------------------------------------------------------------------------------------------------


def test_broken_slides_cost_a_row_each(tmp_path: Path) -> None:
    slide_files.pyramid(tmp_path / "fine.tif", PIXELS)
    slide_files.pyramid(tmp_path / "unsized.tif", PIXELS, mpp=None)
    slide_files.pyramid(tmp_path / "low.tif", PIXELS, mpp=2.0)
    data = slide_files.svs(tmp_path / "short.svs", PIXELS).read_bytes()
    (tmp_path / "short.svs").write_bytes(data[: len(data) // 2])
    Image.fromarray(PIXELS).save(tmp_path / "plain.tif")
    (tmp_path / "empty.ndpi").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no slide")
    given = items(tmp_path, names="kept", tiles=2)
    found = {one.record: one.reason for one in given if isinstance(one, Rejected)}
    assert found.pop("short") in ("slide unreadable", "not a slide")
    assert found == {
        "unsized": "no magnification",
        "low": "magnification not scanned",
        "plain": "not a slide",
        "empty": "not a slide",
        "notes": "not a slide",
    }
    assert [one.id.split(":")[0] for one in given if isinstance(one, Record)] == ["fine", "fine"]
    assert {one.id.split(":")[0] for one in records(tmp_path, names="kept", mpp=0.5)} == {"fine", "unsized"}
    assert set(found.values()) <= set(REASONS)


def test_damaged_tiles_cost_their_record_and_no_other(tmp_path: Path) -> None:
    path = slide_files.pyramid(tmp_path / "a.tif", PIXELS)
    found = records(tmp_path, tiles=4)
    whole = path.read_bytes()
    first = found[0].facts["tile"]
    damaged = bytearray(whole)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        number = first["y"] // 256 * (2048 // 256) + first["x"] // 256
        offset, count = page.dataoffsets[number], page.databytecounts[number]
        damaged[offset : offset + count] = bytes(count)
    path.write_bytes(bytes(damaged))
    with pytest.raises(Refused, match="slide unreadable: reading level 0 fails"):
        pictures(found[0])
    assert [len(pictures(one)) for one in found[1:]] == [1, 1, 1]


def test_a_worker_that_dies_or_hangs_costs_one_slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide_files.pyramid(tmp_path / "a.tif", PIXELS)
    (record, *_) = records(tmp_path, tiles=2)
    child = work.worker.shared(work.TASK)._child
    assert child is not None
    os.kill(child.pid, 9)
    child.wait()
    assert len(pictures(record)) == 1  # started again
    child = work.worker.shared(work.TASK)._child
    assert child is not None
    os.kill(child.pid, signal.SIGSTOP)
    with pytest.raises(Refused, match="decoder too slow"):
        work.survey_apart(tmp_path / "a.tif", work.Limits(seconds=0.3))
    assert len(pictures(record)) == 1


def test_limits_are_checked_before_pixels(tmp_path: Path) -> None:
    path = slide_files.pyramid(tmp_path / "a.tif", PIXELS)
    for limits, reason in (
        (work.Limits(file_bytes=1000), "file too large"),
        (work.Limits(side=1000), "too many pixels"),
        (work.Limits(region_pixels=1000), "too many pixels"),
    ):
        with pytest.raises(Refused, match=reason):
            work.survey_apart(path, limits)
    with pytest.raises(Refused, match="slide unreadable"):
        work.survey_apart(tmp_path / "gone.tif")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"magnifications": 20}, "magnifications 20 is no list"),
        ({"magnifications": [0]}, "is no list of objectives"),
        ({"tile": 8}, "tile 8 is no whole number from 16 to 4096"),
        ({"tiles": True}, "tiles True is no whole number"),
        ({"tissue": 2}, "tissue 2 is no share"),
        ({"mpp": 500}, "mpp 500 is no pixel size"),
        ({"records": "patient"}, "records 'patient' is none of tile, slide"),
        ({"names": "plain"}, "names 'plain' is none of hashed, kept"),
        ({"labels": ["organ"]}, "labels need table"),
        ({"table": "gone.csv"}, "there is no table gone.csv"),
        ({"table": "../t.csv"}, "there is no table"),
        ({"table": "t.csv", "labels": ["grade"]}, "t.csv has no column 'grade'; it has slide, organ"),
        ({"boxes": "t.csv"}, "t.csv needs the columns slide, label, x, y, width, height"),
        ({"magnification": 20}, "did you mean 'magnifications'"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    table(tmp_path / "t.csv", {"slide": "a", "organ": "lung"})
    with pytest.raises(DataError, match=message):
        items(tmp_path, **options)


def test_without_openslide_the_card_is_fine_and_the_recipe_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slides_reader, "is_installed", lambda: False)
    with pytest.raises(MissingExtra, match=r"pip install medkit-lmm\[slides\]"):
        items(tmp_path)
    fine, problems = check.check_shelf()
    assert "pathology-slides" in fine["domain"] and problems == []
    card = check.load("pathology-slides", need_data=False).domains["pathology-slides"]
    (problem,) = check.fixture_problems(card.card, card.folder)
    assert "medkit-lmm[slides]" in problem.message


def test_the_fixture_of_the_domain_gives_tiles_at_both_magnifications(tmp_path: Path) -> None:
    folder = ROOT / "domains" / "pathology-slides"
    card = yaml.safe_load((folder / "domain.yaml").read_text())
    shutil.copytree(folder / "fixture", tmp_path / "data")
    summary = ingest({"domain": card, "data": str(tmp_path / "data"), "seed": 0}, {}, tmp_path / "out")
    assert (summary["samples"], summary["rejected"], summary["splits"]["test"]) == (30, {}, 10)
    labels = Counter(one.facts["labels"]["magnification"] for one in open_dataset(tmp_path / "out"))
    assert labels == {"5x": 6, "10x": 24}


def test_the_page_lists_every_reason() -> None:
    page = (ROOT / "docs" / "slides.md").read_text(encoding="utf-8")
    rows = page.split("<!-- reasons -->\n")[1].split("\n\n")[0].splitlines()[2:]
    assert [tuple(row.strip("| ").split(" | ")) for row in rows] == list(REASONS.items())


def test_mutated_slides_end_with_tiles_or_a_reason(tmp_path: Path) -> None:
    pixels = slide_files.tissue((1024, 1024), [(512, 512, 480)])
    sources = [
        slide_files.svs(tmp_path / "a.svs", pixels),
        slide_files.pyramid(tmp_path / "a.tif", pixels),
        slide_files.dicom(tmp_path / "d", pixels, count=1)[0],
    ]
    random = np.random.default_rng(1)
    for number in range(45):
        source = sources[number % 3]
        data = bytearray(source.read_bytes())
        for place in random.integers(0, len(data) if number % 2 else 3000, random.integers(1, 20)):
            data[place] = random.integers(256)
        path = tmp_path / str(number) / f"m{source.suffix}"
        path.parent.mkdir()
        path.write_bytes(bytes(data))
        outcome = items(path.parent, mpp=0.5, tiles=2)
        assert outcome, number
        for one in outcome:
            if isinstance(one, Rejected):
                assert one.reason in REASONS, number
            elif isinstance(one, Record):
                try:
                    assert pictures(one)[0].shape == (256, 256, 3)
                except Refused as refused:
                    assert refused.reason in REASONS, number
