"""Burned-in text: site masks, OCR that only flags or keeps back, and the page on which a person looks."""

from __future__ import annotations

import importlib.util
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from typer.testing import CliRunner

from medkit.cli import app
from medkit.errors import DataError
from medkit.privacy import ocr
from medkit.privacy.masks import masks_of_file, read_masks
from medkit.privacy.ocr import find_text, say
from medkit.privacy.text import Known, known_values
from medkit.readers import Loaded, Merged, Record, Rejected, get_reader
from medkit.readers.dicom.identity import KEY_VARIABLE
from medkit.readers.dicom.reasons import Refused
from medkit.readers.ingest import ingest
from medkit.readers.review import review, write_review
from medkit.store import open_dataset
from tests.dicom_objects import CAPTURE, ULTRASOUND, ct, picture, save

KEY = "the site's own key"
installed = pytest.mark.skipif(
    importlib.util.find_spec("rapidocr") is None,
    reason='the extra "ocr" (rapidocr, onnxruntime) is not installed',
)
DEVICE = {"Manufacturer": "Acme", "ManufacturerModelName": "Sono 5", "StationName": "US-ROOM-2"}
MASK = {
    "manufacturer": "Acme", "model": "Sono 5", "rows": 40, "columns": 60, "boxes": [[0, 0, 60, 8], [50, 30, 60, 40]],
}  # fmt: skip
WINDOW = {"WindowCenter": 128, "WindowWidth": 256}


def loaded(folder: Path, **options: Any) -> list[Loaded | str]:
    """Gives what became of each file of a folder: its pictures, or the reason why there is none."""
    found: list[Loaded | str] = []
    for one in get_reader("dicom")(folder, options):
        if isinstance(one, Rejected | Merged):
            found.append(one.reason)
            continue
        assert callable(one.image)
        try:
            found.append(one.image())
        except Refused as refused:
            found.append(refused.reason)
    return found


def hidden(image: Any) -> set[tuple[int, int]]:
    """Gives (row, column) of the black pixels."""
    return {(int(row), int(column)) for row, column in zip(*np.nonzero(np.asarray(image) == 0), strict=True)}


def within(*boxes: list[int]) -> set[tuple[int, int]]:
    return {
        (row, column)
        for left, top, right, bottom in boxes
        for row in range(top, bottom)
        for column in range(left, right)
    }


# --- site masks --------------------------------------------------------------------------------------------


def bright(**attributes: Any) -> Any:
    shades = np.full((40, 60), 200, np.uint8)
    shades[20, 20] = 90
    return picture(shades, **{**WINDOW, **DEVICE, **attributes})


def test_a_site_mask_blackens_its_boxes_and_nothing_else(tmp_path: Path) -> None:
    save(bright(), tmp_path / "a")
    (plain,) = loaded(tmp_path)
    (masked,) = loaded(tmp_path, masks=[MASK])
    assert isinstance(plain, Loaded) and isinstance(masked, Loaded)
    assert hidden(plain.images[0]) == set()
    assert hidden(masked.images[0]) == within(*MASK["boxes"])
    assert ("site mask applied", "") in masked.notes


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"station": "US-ROOM-2"}, True),
        ({"station": "US-ROOM-3"}, False),
        ({"manufacturer": "Other"}, False),
        ({"model": "Sono 6"}, False),
        ({"rows": 41}, False),
        ({"manufacturer": "", "model": ""}, True),
    ],
)
def test_a_mask_holds_for_its_device_and_size_alone(
    change: dict[str, Any], fits: bool, tmp_path: Path
) -> None:
    save(bright(ManufacturerModelName="Sono 5 "), tmp_path / "a")
    (found,) = loaded(tmp_path, masks=[{**MASK, **change}])
    assert isinstance(found, Loaded)
    assert bool(hidden(found.images[0])) == fits


def test_what_a_mask_fits_is_not_kept_back(tmp_path: Path) -> None:
    save(bright(SOPClassUID=CAPTURE), tmp_path / "capture")
    save(bright(BurnedInAnnotation="YES"), tmp_path / "said")
    save(bright(SOPClassUID=ULTRASOUND, Modality="US"), tmp_path / "sound")
    save(bright(SOPClassUID=CAPTURE, Manufacturer="Other"), tmp_path / "unknown")
    kept_back = ["may show a name", "may show a name", "ultrasound region unknown", "may show a name"]
    assert loaded(tmp_path) == kept_back
    found = loaded(tmp_path, masks=[MASK])
    assert found[3] == "may show a name"
    for one in found[:3]:
        assert isinstance(one, Loaded)
        assert hidden(one.images[0]) == within(*MASK["boxes"])


def test_every_slice_of_a_series_is_masked(tmp_path: Path) -> None:
    for index in range(4):
        values = np.full((40, 60), 1100 + index, np.uint16)
        values[5, 5] = 1000
        made = ct(
            values, SOPInstanceUID=f"1.2.{index}", ImagePositionPatient=[0, 0, index], InstanceNumber=index + 1,
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelSpacing=[1, 1], FrameOfReferenceUID="1.9", **DEVICE,
        )  # fmt: skip
        save(made, tmp_path / f"{index}")
    found = [one for one in loaded(tmp_path, series=True, masks=[MASK]) if isinstance(one, Loaded)]
    assert len(found) == 1 and len(found[0].images) == 4
    for image in found[0].images:
        assert hidden(image) >= within(*MASK["boxes"])
        assert (20, 20) not in hidden(image)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "must be a list"),
        ([3], r"masks\[0\] is no mapping"),
        ([{**MASK, "row": 3}], "has no key row"),
        ([{**MASK, "rows": "40"}], "rows must be the picture's number of rows"),
        ([{**MASK, "rows": True}], "rows must be"),
        ([{**MASK, "model": 5}], "model must be text"),
        ([{**MASK, "boxes": []}], "boxes must be a list"),
        ([{**MASK, "boxes": [[0, 0, 61, 8]]}], "within 60 x 40 px"),
        ([{**MASK, "boxes": [[8, 0, 8, 8]]}], "a box must be"),
        ([{**MASK, "boxes": [[0.5, 0, 8, 8]]}], "a box must be"),
    ],
)
def test_masks_that_make_no_sense_are_refused(given: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_masks(given, "reader dicom")


def test_masks_blacken_dicom_that_goes_out(tmp_path: Path) -> None:
    import pydicom

    (tmp_path / "key").write_text("ab" * 32, encoding="utf-8")
    (tmp_path / "masks.yaml").write_text(
        "masks:\n- {manufacturer: Acme, rows: 40, columns: 60, boxes: [[0, 0, 60, 8]]}\n", encoding="utf-8"
    )
    save(bright(), tmp_path / "in" / "a.dcm")
    words = ["data", "deidentify", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(
        app, [*words, "--key", str(tmp_path / "key"), "--masks", str(tmp_path / "masks.yaml")]
    )
    assert done.exit_code == 0, done.output
    (written,) = (tmp_path / "out").rglob("*.dcm")
    assert hidden(pydicom.dcmread(written).pixel_array) == within([0, 0, 60, 8])
    with pytest.raises(DataError, match="holds no masks"):
        masks_of_file(tmp_path / "nothing.yaml")


# --- OCR ---------------------------------------------------------------------------------------------------


def written(*lines: str, size: int = 20) -> np.ndarray:
    """Draws lines of text on dark grey, uint8 [H,W]."""
    image = Image.new("L", (420, 60 + 40 * len(lines)), 30)
    pen = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        pen.text((20, 20 + 40 * number), line, fill=230, font=ImageFont.load_default(size=size))
    pen.ellipse((300, image.height - 40, 400, image.height - 10), fill=140)
    return np.asarray(image)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts an engine in place that reads what it is told to."""

    def put(*texts: str, score: float = 0.99) -> None:
        corners = np.array([[10.2, 20], [90, 20], [90, 41.5], [10.2, 41]])
        boxes = [corners + np.array([0, 40 * number]) for number in range(len(texts))]
        found = SimpleNamespace(
            boxes=np.array(boxes) if texts else None, txts=texts or None, scores=(score,) * len(texts) or None
        )
        monkeypatch.setattr(ocr, "_engine", lambda: lambda picture: found)
        monkeypatch.setattr(ocr, "check_installed", lambda who: None)
        monkeypatch.setattr("medkit.readers.dicom.screening.check_installed", lambda who: None)
        monkeypatch.setattr("medkit.readers.review.check_installed", lambda who: None)

    return put


@pytest.mark.parametrize(
    ("text", "lines"),
    [("L", 0), ("AP erect", 0), ("L / PA", 0), ("--", 0), ("1.06 cm", 1), ("Quimby", 1), ("PA Quimby", 1)],
)
def test_markers_of_view_and_side_are_no_text(text: str, lines: int, reads: Callable[..., None]) -> None:
    reads(text)
    assert len(find_text(np.zeros((80, 100), np.uint8))) == lines


def test_a_line_says_where_and_how_much_but_never_what(reads: Callable[..., None]) -> None:
    reads("QUIMBY^ORSOLYA", "14.04.1931", "HX-558231", "Gain 55", "unsure")
    header = picture(np.zeros((4, 4), np.uint8), PatientName="Quimby^Orsolya", PatientID="HX-558231")
    lines = find_text(np.zeros((80, 100, 3), np.uint8), known_values(header))
    assert [(one.box, one.letters, one.known, one.like) for one in lines[:3]] == [
        ((10, 20, 90, 42), 13, "NAME", ""),
        ((10, 60, 90, 82), 8, "", "DATE"),
        ((10, 100, 90, 122), 8, "ID", ""),
    ]
    assert say(lines) == "5 lines, 1 with a id of the header, 1 with a name of the header, 1 like a date"
    for value in ("QUIMBY", "ORSOLYA", "1931", "558231", "Gain"):
        assert value.lower() not in f"{lines} {say(lines)}".lower()


def test_what_is_read_without_confidence_is_no_text(reads: Callable[..., None]) -> None:
    reads("Quimby", score=0.3)
    assert find_text(np.zeros((80, 100), np.uint8)) == []
    reads()
    assert find_text(np.zeros((80, 100), np.uint8)) == []


def test_ocr_flags_or_keeps_back_and_never_edits(tmp_path: Path, reads: Callable[..., None]) -> None:
    save(bright(PatientName="Quimby^Orsolya"), tmp_path / "a")
    reads("QUIMBY ORSOLYA", "Gain 55")
    plain, flagged = loaded(tmp_path)[0], loaded(tmp_path, ocr="flag")[0]
    assert isinstance(plain, Loaded) and isinstance(flagged, Loaded)
    assert np.array_equal(plain.images[0], flagged.images[0])
    assert set(flagged.notes) - set(plain.notes) == {("shows text", "2 lines, 1 with a name of the header")}
    assert loaded(tmp_path, ocr="quarantine") == ["shows text"]
    reads("L")
    assert loaded(tmp_path, ocr="quarantine") != ["shows text"]


def test_wrong_words_and_a_missing_package_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(bright(), tmp_path / "a")
    with pytest.raises(DataError, match="ocr 'yes' is none of off, flag, quarantine"):
        loaded(tmp_path, ocr="yes")
    monkeypatch.setattr(ocr.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r'needs the extra "ocr": pip install "medkit-lmm\[ocr\]"'):
        loaded(tmp_path, ocr="flag")
    with pytest.raises(DataError, match="needs the extra"):
        review(tmp_path, ocr=True)


@installed
@pytest.mark.parametrize("text", ["QUIMBY ORSOLYA", "Quimby, Orsolya Mae", "QUIMBY^ORSOLYA 14.04.1931"])
def test_real_ocr_reads_a_name_of_the_header(text: str) -> None:
    header = picture(np.zeros((4, 4), np.uint8), PatientName="Quimby^Orsolya^Mae")
    lines = find_text(written(text), known_values(header))
    assert [line.known for line in lines] == ["NAME"]
    left, top, right, bottom = lines[0].box
    assert 10 <= left <= 30 and 10 <= top <= 30 and 120 <= right <= 400 and 35 <= bottom <= 60


def test_a_large_picture_is_read_in_parts_that_cover_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    def engine(picture: np.ndarray) -> SimpleNamespace:
        """Finds every bright spot as a line of its size."""
        assert max(picture.shape) <= 1024
        seen.append(picture.shape[:2])
        rows, columns = np.nonzero(picture[..., 0] > 200)
        if not len(rows):
            return SimpleNamespace(boxes=None, txts=None, scores=None)
        left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
        return SimpleNamespace(boxes=np.array([corners]), txts=("Quimby",), scores=(0.9,))

    monkeypatch.setattr(ocr, "_engine", lambda: engine)
    for top, left in ((0, 0), (2460, 1860), (1000, 900), (1290, 5)):
        seen.clear()
        picture = np.full((2500, 2000), 30, np.uint8)
        picture[top : top + 40, left : left + 100] = 250
        (line,) = find_text(picture)
        wanted = (left, top, left + 100, top + 40)
        assert all(abs(edge - right) <= 3 for edge, right in zip(line.box, wanted, strict=True))
        # Parts without anything in them aren't read; the reduced picture always is.
        assert seen[-1] == (1024, 819)
        assert 2 <= len(seen) < 10


@installed
def test_real_ocr_finds_small_text_in_a_large_radiograph() -> None:
    large = np.full((2500, 2000), 30, np.uint8)
    line = written("QUIMBY ORSOLYA")[:60, :300]
    large[2430:2490, 1650:1950] = line
    header = picture(np.zeros((4, 4), np.uint8), PatientName="Quimby^Orsolya")
    (found,) = find_text(large, known_values(header))
    assert found.known == "NAME"
    left, top, right, bottom = found.box
    assert left >= 1650 and right <= 1950 and top >= 2430 and bottom <= 2490


@installed
def test_real_ocr_leaves_markers_and_shapes_alone() -> None:
    assert find_text(written("L")) == []
    assert find_text(written()) == []
    colour = np.stack([written("Gain 55")] * 3, axis=2)
    assert [line.known for line in find_text(colour, Known())] == [""]


@installed
def test_real_ocr_keeps_back_a_radiograph_with_a_name(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    save(picture(written("Quimby, Orsolya", "L"), PatientName="Quimby^Orsolya", **WINDOW), tmp_path / "named")
    save(picture(written("L"), **WINDOW), tmp_path / "plain")
    found = loaded(tmp_path, ocr="quarantine")
    assert found[0] == "shows text"
    assert isinstance(found[1], Loaded)
    said = capfd.readouterr()
    assert said.out + said.err == ""


# --- review ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures that are kept back, two that aren't, one that can't be read; the name is everywhere."""
    root = tmp_path / "Quimby"
    named = {"PatientName": "Quimby^Orsolya", "PatientID": "HX-558231"}
    save(bright(SOPClassUID=CAPTURE, **named), root / "Quimby-capture.dcm")
    save(bright(BurnedInAnnotation="YES", **named), root / "Quimby-said.dcm")
    save(bright(**named), root / "Quimby-plain.dcm")
    save(
        bright(SOPClassUID=ULTRASOUND, Modality="US", Manufacturer="Other", **named),
        root / "deep" / "Quimby.dcm",
    )
    (root / "Quimby.txt").write_text("Quimby", encoding="utf-8")
    return root


def test_the_page_shows_what_is_kept_back_under_the_ledgers_names(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    domain = {"name": "ward", "licence": "yours", "data": {"reader": "dicom", "options": {}, "splits": {}}}
    ingest({"domain": domain, "data": str(folder)}, {}, tmp_path / "set")
    ledger = {
        row["record"]: row["reason"]
        for row in open_dataset(tmp_path / "set").ledger()
        if row["reason"] in ("may show a name", "ultrasound region unknown")
    }
    assert len(ledger) == 3
    out = tmp_path / "holder" / "review.html"
    done = CliRunner().invoke(app, ["data", "review", str(folder), "--out", str(out)])
    assert done.exit_code == 0, done.output
    page = out.read_text(encoding="utf-8")
    assert os.stat(out).st_mode & 0o077 == 0
    assert set(re.findall(r'class="id">([0-9a-f]{16})<', page)) == set(ledger)
    assert set(re.findall(r'type="checkbox" value="([0-9a-f]{16})"', page)) == set(ledger)
    pictures = re.findall(r'src="data:image/webp;base64,([^"]+)"', page)
    assert len(pictures) == 3
    import base64

    with Image.open(io.BytesIO(base64.b64decode(pictures[0]))) as image:
        assert image.size == (60, 40)
    assert "2 may show a name" in done.output and "1 ultrasound region unknown" in done.output
    for value in ("Quimby", "Orsolya", "558231", "http://", "https://"):
        assert value not in page.replace(str(folder), "") and value not in done.output.replace(
            str(tmp_path), ""
        )


def test_what_a_person_released_comes_in(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    found = review(folder)
    chosen = [doubt.record for doubt in found.doubts if doubt.reason == "may show a name"]
    (tmp_path / "released.txt").write_text("\n".join(chosen) + "\n", encoding="utf-8")
    records = list(get_reader("dicom")(folder, {"released": str(tmp_path / "released.txt")}))
    kept = {one.id for one in records if isinstance(one, Record)}
    assert len(chosen) == 2 and kept > set(chosen) and len(kept) == 3
    assert [one.reason for one in records if isinstance(one, Rejected)] == [
        "not DICOM",
        "ultrasound region unknown",
    ]
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(DataError, match=f"set {KEY_VARIABLE}"):
        list(get_reader("dicom")(folder, {"released": str(tmp_path / "released.txt")}))
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with pytest.raises(DataError, match="can't be read"):
        list(get_reader("dicom")(folder, {"released": str(tmp_path / "missing.txt")}))


def test_a_released_picture_with_text_is_told_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: Callable[..., None]
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    reads("Gain 55")
    save(bright(), tmp_path / "in" / "a")
    (doubt,) = review(tmp_path / "in", ocr=True).doubts
    assert (doubt.reason, doubt.boxes) == ("shows text", [pytest.approx((100 / 6, 50, 400 / 3, 55))])
    (tmp_path / "released.txt").write_text(doubt.record, encoding="utf-8")
    (found,) = loaded(tmp_path / "in", ocr="quarantine", released=str(tmp_path / "released.txt"))
    assert isinstance(found, Loaded) and ("shows text", "1 line") in found.notes


def test_pictures_outside_of_dicom_are_searched_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, reads: Callable[..., None]
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    Image.fromarray(written("Quimby")).save(folder / "Quimby.png")
    (folder / "broken.png").write_bytes(b"\x89PNG broken")
    reads("Quimby")
    found = review(folder, ocr=True)
    doubt = next(one for one in found.doubts if not one.releasable)
    assert (doubt.reason, doubt.detail) == ("shows text", "1 line")
    assert found.counts["header unreadable"] == 1
    assert sum(found.counts.values()) == 7


def test_without_a_key_nothing_can_be_released(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    write_review(folder, tmp_path / "review.html")
    page = (tmp_path / "review.html").read_text(encoding="utf-8")
    assert f"{KEY_VARIABLE} is not set" in page
    assert 'type="checkbox"' not in page.split("<script>")[0]


def test_the_page_is_never_written_into_the_data(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="outside of the data folder"):
        write_review(folder, folder / "deep" / "review.html")
    with pytest.raises(DataError, match=r"must end in \.html"):
        write_review(folder, tmp_path / "review.pdf")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no file"):
        write_review(tmp_path / "empty", tmp_path / "review.html")
    assert not (tmp_path / "review.html").exists()


def test_more_than_the_page_shows_is_counted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    write_review(folder, tmp_path / "review.html", most=1)
    page = (tmp_path / "review.html").read_text(encoding="utf-8")
    assert page.count('class="card"') == 1
    assert "May show a name: 2" in page and "1 are shown" in page


def test_a_mask_takes_its_device_off_the_page(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "masks.yaml").write_text(
        "- {manufacturer: Acme, rows: 40, columns: 60, boxes: [[0, 0, 60, 8]]}\n", encoding="utf-8"
    )
    found = review(folder, masks=tmp_path / "masks.yaml")
    assert [doubt.reason for doubt in found.doubts] == ["ultrasound region unknown"]


# --- series that are transformed as a whole ------------------------------------------------------------------


def stack(folder: Path, orientation: tuple[int, ...] = (1, 0, 0, 0, 1, 0), **attributes: Any) -> None:
    """Writes a series of four bright slices, 1076 HU and more, with a mark in one corner."""
    normal = np.cross(orientation[:3], orientation[3:])
    for index in range(4):
        values = np.full((40, 60), 2100 + 50 * index, np.uint16)
        values[:8, :20] = 3000
        save(
            ct(
                values, SOPInstanceUID=f"1.2.{index}", ImagePositionPatient=[float(one) for one in index * normal],
                ImageOrientationPatient=list(orientation), PixelSpacing=[1, 1], **{**DEVICE, **attributes},
            ),
            folder / f"{index}",
        )  # fmt: skip


@pytest.fixture
def monai() -> None:
    pytest.importorskip("monai", reason="MONAI is not installed: pip install medkit-lmm[volumes]")


@pytest.mark.usefixtures("monai")
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("profile", [{"CT": {"windows": [[0, 3000]], "unit": "HU"}}, "mr-percentile"])
def test_a_masked_region_is_black_in_a_transformed_stack(
    tmp_path: Path, profile: Any, photometric: str
) -> None:
    stack(tmp_path, PhotometricInterpretation=photometric)
    options = {"series": True, "profiles": profile, "orientation": "RAS", "masks": [MASK]}
    (masked,) = [one for one in loaded(tmp_path, **options) if isinstance(one, Loaded)]
    (plain,) = [one for one in loaded(tmp_path, **{**options, "masks": None}) if isinstance(one, Loaded)]
    assert ("site mask applied", "") in masked.notes and plain.notes == ()
    for image in masked.images:
        assert hidden(np.asarray(image)[::-1, ::-1]) >= within(*MASK["boxes"])
    assert not any(hidden(np.asarray(image)[::-1, ::-1]) >= within(*MASK["boxes"]) for image in plain.images)


@pytest.mark.usefixtures("monai")
def test_two_masks_of_one_device_both_count(tmp_path: Path) -> None:
    stack(tmp_path)
    masks = [{**MASK, "boxes": [box]} for box in MASK["boxes"]]
    for options in ({}, {"orientation": "LPS"}):
        found = loaded(tmp_path, series=True, profiles="ct-wide", masks=masks, **options)
        (masked,) = [one for one in found if isinstance(one, Loaded)]
        assert all(hidden(image) >= within(*MASK["boxes"]) for image in masked.images)


@pytest.mark.usefixtures("monai")
def test_least_values_shown_as_white_stay_so_in_a_transformed_stack(tmp_path: Path) -> None:
    stack(tmp_path, PhotometricInterpretation="MONOCHROME1")
    wide = {"series": True, "profiles": {"CT": {"windows": [[0, 2000]], "unit": "HU"}}}
    (plain,) = [one for one in loaded(tmp_path, **wide) if isinstance(one, Loaded)]
    (turned,) = [one for one in loaded(tmp_path, **wide, orientation="LPS") if isinstance(one, Loaded)]
    assert np.asarray(plain.images[0])[20, 20] == 118  # 255 - 137
    for one, other in zip(plain.images, turned.images, strict=True):
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1


@pytest.mark.usefixtures("monai")
def test_ocr_keeps_back_a_transformed_stack_that_shows_text(
    tmp_path: Path, reads: Callable[..., None]
) -> None:
    stack(tmp_path, PatientName="Quimby^Orsolya")
    options = {"series": True, "profiles": "ct-wide", "orientation": "LPS", "slices": 2}
    reads("QUIMBY ORSOLYA")
    told = ("shows text", "2 lines, 2 with a name of the header")
    (flagged,) = [one for one in loaded(tmp_path, **options, ocr="flag") if isinstance(one, Loaded)]
    assert told in flagged.notes
    assert loaded(tmp_path, **options, ocr="quarantine")[0] == "shows text"
    reads("L")
    assert isinstance(loaded(tmp_path, **options, ocr="quarantine")[0], Loaded)


@pytest.mark.usefixtures("monai")
@pytest.mark.parametrize("orientation", ["LPS", "RAS", "LAI"])
@pytest.mark.parametrize(
    "taken",
    [
        (1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0), (0, 1, 0, -1, 0, 0),  # axial: usual, prone, turned by a quarter
        (1, 0, 0, 0, 0, -1), (1, 0, 0, 0, 0, 1), (0, 1, 0, 0, 0, -1), (0, 0, -1, 0, 1, 0),  # coronal, sagittal
    ],
)  # fmt: skip
def test_ocr_reads_a_turned_stack_as_its_device_wrote_it(
    tmp_path: Path, orientation: str, taken: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack(tmp_path, taken)
    seen: list[np.ndarray] = []
    monkeypatch.setattr("medkit.readers.dicom.stack.text_in", lambda made, _: seen.extend(made) or [])
    monkeypatch.setattr("medkit.readers.dicom.screening.check_installed", lambda who: None)
    wide = {"CT": {"windows": [[0, 3000]], "unit": "HU"}}
    loaded(tmp_path, series=True, profiles=wide, orientation=orientation, ocr="flag")
    assert len(seen) == 4
    for one in seen:
        assert one.shape == (40, 60)
        bright = one == one.max()
        assert bright[:8, :20].all() and bright.sum() == 160


def test_of_a_series_the_slices_that_show_text_are_released(
    tmp_path: Path, reads: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    stack(tmp_path / "in")
    reads("Gain 55")
    read_all = find_text

    def first_slice_alone(one: np.ndarray, known: Known | None) -> Any:
        return read_all(one, known) if one.min() == 91 else []  # 1076 HU in 0 to 3000

    monkeypatch.setattr("medkit.readers.dicom.screening.find_text", first_slice_alone)
    shades = {"CT": {"windows": [[0, 3000]], "unit": "HU"}}
    released = tmp_path / "released.txt"
    options = {"series": True, "profiles": shades, "ocr": "quarantine", "released": str(released)}
    released.write_text("")
    _, *rows = get_reader("dicom")(tmp_path / "in", options)
    names = [one.record for one in rows if isinstance(one, Merged)]
    for given in ([], names[1:], names[:1], names):
        released.write_text("\n".join(given))
        found = loaded(tmp_path / "in", **options)[0]
        if names[0] in given:
            assert isinstance(found, Loaded) and ("shows text", "1 line") in found.notes
        else:
            assert found == "shows text"
