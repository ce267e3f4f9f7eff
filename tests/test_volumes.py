"""Volumes: where left and right are, which slices are shown, what a mask and a report add, and what is refused."""

from __future__ import annotations

import gzip
import random
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import yaml
from dicom_objects import ct, save
from PIL import Image

from medkit.errors import DataError, MissingExtra
from medkit.images import decode
from medkit.readers import Loaded, Merged, Record, Rejected, get_reader
from medkit.readers.ingest import ingest
from medkit.readers.nifti.files import Limits, read_head, read_values
from medkit.readers.nifti.reasons import REASONS, Refused
from medkit.readers.slices import SlicePlan, choose, montage, say
from medkit.sample import text_of
from medkit.store import open_dataset
from medkit.teacher.teach import teach

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import fuzz  # noqa: E402 - a script beside the package

# Right, anterior, superior: a value says where it lies. [x, y, z] with x towards the right.
SHAPE = (4, 6, 5)
BODY = np.fromfunction(lambda x, y, z: 100 * x + 10 * y + z, SHAPE).astype(np.int16)
WIDE = {"profiles": {"*": {"windows": [[0, 510]]}}}


def volume(path: Path, values: np.ndarray = BODY, affine: Any = None) -> Path:
    """Writes a volume whose axes run to right, anterior, superior unless the affine says otherwise."""
    made = nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 2.0, 1.0]) if affine is None else affine)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(made.to_bytes()) if path.suffix == ".gz" else made.to_bytes())
    return path


def records(root: Path, **options: Any) -> list[Any]:
    return list(get_reader("nifti")(root, options))


def pictures(root: Path, **options: Any) -> list[np.ndarray]:
    (record,) = [one for one in records(root, **options) if isinstance(one, Record)]
    assert callable(record.image)
    loaded = record.image()
    assert isinstance(loaded, Loaded)
    return [np.asarray(one) for one in loaded.images]


def refusal(path: Path, limits: Limits | None = None) -> str:
    with pytest.raises(Refused) as caught:
        read_values(path, read_head(path, limits or Limits()))
    return caught.value.reason


# --- orientation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "ASR", "SPL", "IRP"])
def test_left_and_right_are_the_same_whatever_order_a_file_has(tmp_path: Path, axes: str) -> None:
    whole = nibabel.Nifti1Image(BODY, np.diag([1.0, 1.0, 2.0, 1.0]))
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(axes)
    )
    stored = whole.as_reoriented(turn)
    assert "".join(nibabel.aff2axcodes(stored.affine)) == axes
    path = volume(tmp_path / "a.nii.gz", np.asarray(stored.dataobj), stored.affine)
    head = read_head(path)
    values = read_values(path, head)
    # Towards left, posterior, superior; the corner is the patient's rightmost, foremost, lowest value.
    assert values.shape == SHAPE
    assert values[0, 0, 0] == 350
    assert values[-1, -1, -1] == 4
    assert head.spacing_mm == (1.0, 1.0, 2.0)
    axial = pictures(tmp_path, **WIDE, slices=1)[0]
    assert (axial.shape, axial[0, 0], axial[-1, -1]) == ((6, 4), 176, 1)  # 352 and 2 of 510


def test_planes_are_shown_as_a_radiologist_sees_them(tmp_path: Path) -> None:
    volume(tmp_path / "a.nii")
    coronal = pictures(tmp_path, **WIDE, slices=6, plane="coronal")
    assert len(coronal) == 6
    # Front first; head at the top, patient's right at the left; 2 mm rows are stretched to the 1 mm of columns.
    assert coronal[0].shape == (10, 4)
    assert coronal[0][0, 0] == 177  # 354: right, front, head
    assert coronal[0][-1, -1] == 25  # 50: left, front, feet
    sagittal = pictures(tmp_path, **WIDE, slices=4, plane="sagittal")
    assert sagittal[0].shape == (10, 6)
    assert (sagittal[0][0, 0], sagittal[-1][-1, -1]) == (177, 0)  # right, front, head; left, back, feet


def test_nifti_and_dicom_show_the_same_slice(tmp_path: Path) -> None:
    units = np.arange(12 * 10).reshape(12, 10).astype(np.int16) - 60
    save(ct(units + 1024, ImageOrientationPatient=[1, 0, 0, 0, 1, 0]), tmp_path / "dicom" / "a")
    (record,) = get_reader("dicom")(tmp_path / "dicom", {"profiles": "ct-medgemma-1.5"})
    assert isinstance(record, Record) and callable(record.image)
    # The same pixels with columns towards the left and rows towards the back, as DICOM's axial slices lie.
    volume(tmp_path / "nifti" / "a.nii", np.stack([units.T] * 2, axis=-1), np.diag([-1.0, -1.0, 1.0, 1.0]))
    options = {"profiles": "ct-medgemma-1.5", "modality": "CT", "slices": 1}
    assert np.array_equal(pictures(tmp_path / "nifti", **options)[0], record.image().images[0])


def test_an_unknown_or_doubtful_orientation_is_refused(tmp_path: Path) -> None:
    data = volume(tmp_path / "placed.nii").read_bytes()
    unknown = tmp_path / "unknown.nii"
    unknown.write_bytes(data[:252] + bytes(4) + data[256:])  # qform_code and sform_code
    assert refusal(unknown) == "no orientation"
    assert ("orientation unknown", "taken as right, anterior, superior: sides may be exchanged") in read_head(
        unknown, unplaced=True
    ).notes
    two = nibabel.Nifti1Image(BODY, np.diag([1.0, 1.0, 2.0, 1.0]))
    two.set_qform(np.diag([-1.0, 1.0, 2.0, 1.0]), 1)
    (tmp_path / "two.nii").write_bytes(two.to_bytes())
    assert refusal(tmp_path / "two.nii") == "two orientations"
    sheared = np.diag([1.0, 1.0, 2.0, 1.0])
    sheared[0, 1] = 0.5
    made = nibabel.Nifti1Image(BODY, None)
    made.set_sform(sheared, 1)
    (tmp_path / "sheared.nii").write_bytes(made.to_bytes())
    assert refusal(tmp_path / "sheared.nii") == "damaged orientation"


def test_an_oblique_volume_is_told(tmp_path: Path) -> None:
    cosine, sine = np.cos(np.radians(10)), np.sin(np.radians(10))
    affine = np.eye(4)
    affine[1:3, 1:3] = [[cosine, -sine], [sine, cosine]]
    assert read_head(volume(tmp_path / "a.nii", affine=affine)).notes == (
        ("oblique volume", "10 degrees from the body's axes; it isn't resampled"),
    )


# --- values --------------------------------------------------------------------------------------------------


def test_the_rescale_comes_before_the_window(tmp_path: Path) -> None:
    made = nibabel.Nifti1Image(BODY, np.eye(4))
    made.header.set_slope_inter(2.0, -1000.0)
    (tmp_path / "a.nii").write_bytes(made.to_bytes())
    values = read_values(tmp_path / "a.nii", read_head(tmp_path / "a.nii"))
    assert (values.dtype, values[0, 0, 0], values[-1, -1, 0]) == (np.float32, -300.0, -1000.0)


def test_micrometres_become_millimetres(tmp_path: Path) -> None:
    made = nibabel.Nifti1Image(BODY, np.diag([500.0, 500.0, 2000.0, 1.0]))
    made.header.set_xyzt_units("micron")
    (tmp_path / "a.nii").write_bytes(made.to_bytes())
    with pytest.raises(Refused, match="damaged orientation"):  # 500 mm, if the unit were not read
        read_head(volume(tmp_path / "b.nii", affine=np.diag([500.0, 500.0, 2000.0, 1.0])))
    assert read_head(tmp_path / "a.nii").spacing_mm == (0.5, 0.5, 2.0)


def test_windows_in_hounsfield_units_need_them(tmp_path: Path) -> None:
    volume(tmp_path / "a.nii")  # no value below 0: stored values of a CT whose intercept was lost
    for modality, reason in (("CT", "no value below 0"), ("MR", "the card says no modality CT")):
        (record,) = records(tmp_path, modality=modality, profiles="ct-lung")
        with pytest.raises(Refused, match=f"values are not Hounsfield units: .*{reason}"):
            record.image()


def test_holes_are_black_and_no_part_of_the_percentiles(tmp_path: Path) -> None:
    values = np.full((4, 4, 2), 50.0, np.float32)
    values[0, 0], values[1, 0], values[2, 0] = np.nan, np.inf, 100.0
    volume(tmp_path / "a.nii", values)
    shown = pictures(tmp_path, profiles="mr-minmax", modality="MR", slices=1)[0]
    assert (shown.min(), shown[0, 0], shown[-1, 1]) == (0, 0, 255)


# --- which slices --------------------------------------------------------------------------------------------


def test_slices_are_spread_evenly_or_around_the_finding() -> None:
    assert choose(40, SlicePlan(4)) == [0, 13, 26, 39]
    around = SlicePlan(3, "finding", margin=0.1)
    assert choose(40, around, (10, 19)) == [9, 15, 20]
    assert choose(40, around, (38, 39)) == [37, 38, 39]
    assert choose(40, around, None) == [0, 20, 39]


def test_the_sentence_names_plane_numbers_and_direction() -> None:
    assert say([0, 13, 26], 40, "axial") == "Axial slices 1, 14 and 27 of 40, from the feet to the head."
    assert say([4], 9, "") == "Slice 5 of 9."
    assert say([0, 8], 9, "coronal", True) == (
        "One picture of coronal slices 1 and 9 of 9, from front to back, row by row."
    )


def test_a_montage_runs_row_by_row_on_black() -> None:
    tiles = [np.full((4, 2), value, np.uint8) for value in (10, 20, 30)]
    laid = montage(tiles, tile=2)
    assert laid.tolist() == [[10, 20], [10, 20], [30, 0], [30, 0]]
    assert montage([np.zeros((4, 6, 3), np.uint8)] * 5, tile=9).shape == (8, 18, 3)


def test_a_mask_gives_findings_and_its_slices(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[1, 2, 3] = 2
    mask[0:2, 2, 4] = 2
    mask[3, 3, 0] = 7
    volume(tmp_path / "case.nii.gz")
    volume(tmp_path / "case_seg.nii.gz", mask)
    options = {**WIDE, "masks": "{name}_seg.nii.gz", "labels": {2: "nodule"}}
    record, merged = records(tmp_path, **options, slices={"most": 2, "show": "finding", "margin": 0})
    assert record.facts["findings"] == [
        {
            "label": "nodule", "slices": [4, 5], "largest": 5, "volume_ml": 0.006,
            "shown": [
                {"slice": 4, "box": [0.5, 0.5, 0.75, 0.6667], "area_mm2": 1.0},
                {"slice": 5, "box": [0.5, 0.5, 1.0, 0.6667], "area_mm2": 2.0},
            ],
        }
    ]  # fmt: skip
    assert record.facts["slice_labels"] == [["nodule"], ["nodule"]]
    assert record.facts["volume"] == {
        "slices": 5, "shown": [4, 5], "plane": "axial", "spacing_mm": [2.0, 1.0, 1.0],
    }  # fmt: skip
    assert [one[0, 0] for one in record.image().images] == [176, 177]
    assert merged == Merged("case_seg", "mask of a volume", "of record case")


def test_large_pictures_are_shrunk(tmp_path: Path) -> None:
    volume(tmp_path / "a.nii", np.fromfunction(lambda x, y, z: x + y + z, (40, 60, 3)).astype(np.int16))
    assert pictures(tmp_path, **WIDE, slices=1)[0].shape == (60, 40)
    assert pictures(tmp_path, **WIDE, slices=1, side_px=20)[0].shape == (30, 20)
    assert pictures(tmp_path, **WIDE, slices=1, side_px=64)[0].shape == (60, 40)


def test_a_mask_of_another_place_costs_its_volume(tmp_path: Path) -> None:
    volume(tmp_path / "case.nii")
    volume(tmp_path / "case-mask.nii", np.ones(SHAPE, np.uint8), np.diag([1.0, 1.0, 2.5, 1.0]))
    found = records(tmp_path, masks="{name}-mask.nii")
    assert [type(one) for one in found] == [Rejected, Merged]
    assert found[0].reason == "mask doesn't fit"


# --- reports -------------------------------------------------------------------------------------------------


def test_reports_are_found_by_their_rule_and_every_file_has_a_fate(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name in ("one", "two"):
        volume(root / f"{name}.nii", BODY + (5 if name == "two" else 0))
    (root / "one.txt").write_text("No nodule. Phone 555-123-4567.", encoding="utf-8")
    (root / "three.txt").write_text("Nobody's.", encoding="utf-8")
    (root / "list.csv").write_text("a,b\n", encoding="utf-8")
    options = {**WIDE, "reports": "{name}.txt", "slices": 2}
    domain = {"name": "x", "licence": "CC0-1.0", "data": {"reader": "nifti", "options": options}}
    ingest({"domain": domain, "data": str(root)}, {}, tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    fates = {(row["record"], row["fate"], row["reason"]) for row in dataset.ledger()}
    assert {
        ("one", "kept", ""),
        ("one.txt", "merged", "report"),
        ("two", "told", "no report"),
        ("three.txt", "rejected", "report without images"),
        ("list.csv", "rejected", "not NIfTI"),
    } <= fates
    (caption,) = [sample for sample in dataset if sample.kind == "caption"]
    assert len(caption.images) == 2
    assert text_of(caption.messages[0]) == (
        "Axial slices 1 and 5 of 5, from the feet to the head.\nDescribe the picture."
    )
    assert "No nodule." in text_of(caption.messages[1])
    assert "555-123-4567" not in text_of(caption.messages[1])


def test_a_series_takes_its_report_without_the_patient(tmp_path: Path) -> None:
    for index in range(3):
        made = ct(
            np.full((8, 8), 1024 + 100 * index, np.uint16), AccessionNumber="ACC20177", SOPInstanceUID=f"1.2.{index}",
            PixelSpacing=[1, 1], ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[0, 0, index],
        )  # fmt: skip
        save(made, tmp_path / "scan" / f"{index}")
    (tmp_path / "ACC20177.txt").write_text("Invented Person has no bleeding. ACC20177.", encoding="utf-8")
    options = {
        "series": True, "reports": "{accession}.txt", "profiles": "ct-wide", "slices": {"most": 3, "show": "montage"},
    }  # fmt: skip
    record, *merged = get_reader("dicom")(tmp_path, options)
    assert isinstance(record, Record) and callable(record.image)
    assert record.caption is not None and "has no bleeding" in record.caption
    assert not any(word in record.caption for word in ("Invented", "Person", "ACC20177"))
    assert [type(one) for one in merged] == [Merged] * 4
    (laid,) = record.image().images
    assert np.asarray(laid).shape == (16, 16)
    assert record.facts["shows"] == (
        "One picture of axial slices 1, 2 and 3 of 3, from the feet to the head, row by row."
    )


def test_the_shipped_series_become_reports_and_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # without a key the ids are random, and with them which questions are asked of which patient
    monkeypatch.setenv("MEDKIT_PATIENT_KEY", "a key that the test always uses")
    folder = ROOT / "domains" / "ct-reports"
    card = yaml.safe_load((folder / "domain.yaml").read_text(encoding="utf-8"))
    made = ingest({"domain": card, "data": str(folder / "fixture")}, {}, tmp_path / "read")
    assert (made["kinds"], made["groups"], made["rejected"]) == ({"caption": 6, "record": 6}, 6, {})
    words = yaml.safe_load((folder / "teacher.yaml").read_text(encoding="utf-8"))
    settings = {
        "teacher": words,
        "conversations_per_image": 1,
        "questions_per_image": 2,
        "seed": 0,
        "apart": False,
    }
    assert teach(settings, {"ingest": tmp_path / "read"}, tmp_path / "taught")["without_text"] == 0
    taught = list(open_dataset(tmp_path / "taught"))
    assert {sample.kind for sample in taught} >= {"caption", "conversation", "question"}
    assert all(
        text_of(sample.messages[0]).startswith("One picture of axial slices 1, 2, 3 and 4 of 4")
        for sample in taught
    )


# --- limits --------------------------------------------------------------------------------------------------


def test_a_header_that_asks_for_too_much_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    head = nibabel.Nifti1Header()
    head.set_data_shape((30_000, 30_000, 100))
    head.set_data_dtype(np.int16)
    head.set_sform(np.eye(4), 1)
    head["magic"], head["vox_offset"] = b"n+1", 352
    bomb = gzip.compress(head.binaryblock + bytes(50_000_000))
    (tmp_path / "a.nii.gz").write_bytes(bomb)
    assert refusal(tmp_path / "a.nii.gz") == "too many values"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:-1], "truncated values"),
        (lambda data: gzip.compress(data)[:-20], "truncated values"),
        (lambda data: data[:344] + b"ni1\0" + data[348:], "pair of files"),
        (lambda data: b"\0" * 400, "not NIfTI"),
        (lambda data: data[:70] + (128).to_bytes(2, "little") + data[72:], "not grey"),
        (lambda data: data[:42] + (1).to_bytes(2, "little") + data[44:], "not a volume"),
        (lambda data: data[:108] + np.float32(1e9).tobytes() + data[112:], "header unreadable"),
    ],
)
def test_damaged_files_have_their_reason(tmp_path: Path, change: Any, reason: str) -> None:
    data = volume(tmp_path / "whole.nii").read_bytes()
    (tmp_path / "a.nii").write_bytes(change(data))
    assert refusal(tmp_path / "a.nii") == reason


def test_header_texts_stay_inside(tmp_path: Path) -> None:
    made = nibabel.Nifti1Image(BODY, np.eye(4))
    made.header["descrip"], made.header["db_name"] = b"Doe^Jane 1970", b"MRN-4711"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.nii").write_bytes(made.to_bytes())
    domain = {"name": "x", "licence": "CC0-1.0", "data": {"reader": "nifti"}}
    ingest({"domain": domain, "data": str(tmp_path / "data")}, {}, tmp_path / "out")
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    assert b"Doe^Jane" not in written and b"MRN-4711" not in written


@pytest.mark.parametrize(
    "options",
    [
        {"plane": "diagonal"},
        {"slices": 0},
        {"slices": {"most": 3, "show": "all"}},
        {"slices": {"show": "finding"}},
        {"masks": "mask.nii"},
        {"reports": "report.txt"},
        {"reports": "{study}.txt"},
        {"give": ["pictures"]},
        {"profiles": "cxr-equalised"},
        {"labels": ["liver"]},
    ],
)
def test_wrong_options_are_one_sentence(tmp_path: Path, options: dict[str, Any]) -> None:
    volume(tmp_path / "a.nii")
    with pytest.raises(DataError, match=r"^reader nifti: "):
        records(tmp_path, **options)


def test_the_page_lists_every_reason() -> None:
    page = (ROOT / "docs" / "volumes.md").read_text(encoding="utf-8")
    table = page.split("<!-- reasons -->\n")[1].split("\n\n")[0].splitlines()[2:]
    assert table == [f"| {reason} | {means} |" for reason, means in REASONS.items()]


# --- pictures of more than eight bits, and damage of every kind ------------------------------------------------


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ],
)
def test_sixteen_bits_keep_their_order_beyond_255(tmp_path: Path, form: str, options: dict[str, str]) -> None:
    values = np.linspace(300, 4000, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a", format=form, **options)
    shown = np.asarray(decode((tmp_path / "a").read_bytes()).image)[..., 0].ravel().astype(int)
    assert (np.diff(shown) >= 0).all()
    assert (shown[0], shown[-1], len(np.unique(shown))) == (0, 255, 256)


@pytest.mark.parametrize("kind", sorted(fuzz.KINDS))
def test_damaged_inputs_end_with_a_fate(kind: str) -> None:
    result = fuzz.run_batch(kind, seed=5, number=0, count=30)
    assert result["read"] + result["refused"] == 30
    assert (result["crashes"], result["unaccounted"], result["faults"]) == (0, 0, [])


def test_a_damaged_case_is_the_same_again() -> None:
    seed = fuzz.png_seeds()[0]
    first, again = (fuzz.mutate(seed, random.Random("a")) for _ in range(2))
    assert first == again != seed


def test_what_is_not_installed_is_said_once_and_not_of_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.nii").write_bytes(bytes(400))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(
        MissingExtra, match=r'reader nifti needs nibabel: pip install "medkit-lmm\[volumes\]"'
    ):
        list(get_reader("nifti")(tmp_path, {}))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group_pattern": "("}, r"group_pattern '\(' is no regular expression"),
        ({"group_pattern": ["x"]}, "is no regular expression"),
        ({"unplaced": 1, "modality": 3}, "modality 3 is no text; unplaced 1 is neither true nor false"),
        ({"profiles": ["ct-lung"]}, "is neither a render profile's name nor a mapping"),
    ],
)
def test_an_option_of_the_wrong_kind_is_refused_before_a_file_is_read(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    (tmp_path / "a.nii").write_bytes(bytes(400))
    with pytest.raises(DataError, match=said):
        next(iter(get_reader("nifti")(tmp_path, options)))
