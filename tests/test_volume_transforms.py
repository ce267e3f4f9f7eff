"""Volumes turned, resampled and smoothed through MONAI, and what a mask marks on the slices that are shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from medkit.errors import DataError
from medkit.readers import Record, Rejected, get_reader
from medkit.readers.volumes import CODES

pytest.importorskip("monai", reason="MONAI is not installed: pip install medkit-lmm[volumes]")

# Right, anterior, superior: a value says where it lies. [x, y, z] with x towards the right.
SHAPE = (4, 6, 5)
BODY = np.fromfunction(lambda x, y, z: 100 * x + 10 * y + z, SHAPE).astype(np.int16)
WIDE: dict[str, Any] = {"profiles": {"*": {"windows": [[0, 510]]}}}
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def volume(path: Path, values: np.ndarray = BODY, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(nibabel.Nifti1Image(values, affine).to_bytes())
    return path


def one(root: Path, **options: Any) -> tuple[list[np.ndarray], dict[str, Any]]:
    (record,) = [one for one in get_reader("nifti")(root, options) if isinstance(one, Record)]
    assert callable(record.image)
    return [np.asarray(picture) for picture in record.image().images], record.facts


@pytest.mark.parametrize("stored", ["RAS", "LPS", "SPL"])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_the_usual_orientation_is_medkits_own(tmp_path: Path, stored: str, plane: str) -> None:
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(stored)
    )
    made = nibabel.Nifti1Image(BODY, AFFINE).as_reoriented(turn)
    volume(tmp_path / "a.nii", np.asarray(made.dataobj), made.affine)
    without, facts = one(tmp_path, **WIDE, plane=plane)
    turned, same = one(tmp_path, **WIDE, plane=plane, orientation="LPS")
    assert all(np.array_equal(first, second) for first, second in zip(without, turned, strict=True))
    assert facts == same


def test_other_letters_mirror_pictures_and_order(tmp_path: Path) -> None:
    volume(tmp_path / "a.nii")
    usual, facts = one(tmp_path, **WIDE)
    mirrored, said = one(tmp_path, **WIDE, orientation="RAI")
    assert np.array_equal(mirrored[0], usual[-1][::-1, ::-1])
    assert facts["shows"] == "Axial slices 1, 2, 3, 4 and 5 of 5, from the feet to the head."
    assert said["shows"] == "Axial slices 1, 2, 3, 4 and 5 of 5, from the head to the feet."
    upright = one(tmp_path, **WIDE, plane="coronal")[0]
    assert np.array_equal(one(tmp_path, **WIDE, plane="coronal", orientation="LPI")[0][0], upright[0])


def test_resampling_follows_the_axes_of_the_body(tmp_path: Path) -> None:
    # Stored as superior, left, anterior: the spacing of the card is across, in depth and in height all the same.
    turn = nibabel.orientations.axcodes2ornt("SLA")
    made = nibabel.Nifti1Image(BODY, AFFINE)
    made = made.as_reoriented(
        nibabel.orientations.ornt_transform(nibabel.orientations.io_orientation(AFFINE), turn)
    )
    volume(tmp_path / "a.nii", np.asarray(made.dataobj), made.affine)
    pictures, facts = one(tmp_path, **WIDE, spacing_mm=[1, 1, 1], slices=99)
    assert facts["volume"] == {
        "slices": 9,
        "shown": list(range(1, 10)),
        "plane": "axial",
        "spacing_mm": [1.0, 1.0, 1.0],
    }
    assert {one.shape for one in pictures} == {(6, 4)}
    # Along the height values grow by one a stored slice of 2 mm; 300, 350 and the half between them are seen.
    assert [int(one[-1, 0]) for one in pictures] == [150, 150, 150, 151, 151, 151, 152, 152, 152]
    coarse, facts = one(tmp_path, **WIDE, spacing_mm=[2, 2, 2])
    assert coarse[0].shape == (4, 2) and facts["volume"]["slices"] == 5


def test_a_mask_is_resampled_with_its_volume(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:3, 2:4, 3] = 2
    volume(tmp_path / "case.nii")
    volume(tmp_path / "case_seg.nii", mask)
    options = {**WIDE, "masks": "{name}_seg.nii", "labels": {2: "nodule"}, "spacing_mm": [0.5, 0.5, 1]}
    pictures, facts = one(tmp_path, **options, slices={"most": 1, "show": "finding", "margin": 0})
    (found,) = facts["findings"]
    assert found["label"] == "nodule" and set(np.unique(mask)) == {0, 2}
    assert found["slices"][0] <= 7 <= found["slices"][1] <= 8
    left, top, right, bottom = facts["objects"][0]["box"]
    # Right and left sides change places, as do front and back.
    assert (left, right) == (pytest.approx(0.29, abs=0.1), pytest.approx(0.79, abs=0.1))
    assert (top, bottom) == (pytest.approx(0.36, abs=0.1), pytest.approx(0.64, abs=0.1))
    assert found["shown"][0]["area_mm2"] == pytest.approx(4.0, abs=2.3)
    assert facts["slice_labels"] == [["nodule"]] and len(pictures) == 1


def test_smoothing_keeps_units_and_other_steps_do_not(tmp_path: Path) -> None:
    values = BODY.copy()
    values[2, 3, 2] = 500
    volume(tmp_path / "a.nii", values)
    rough = one(tmp_path, **WIDE)[0][2]
    smooth = one(tmp_path, **WIDE, intensity={"MedianSmooth": {"radius": 1}})[0][2]
    assert int(rough[2, 1]) == 250 and int(smooth[2, 1]) < 130
    percentiles = {"profiles": {"*": {"percentiles": [0, 100]}}}
    bright = one(tmp_path, **percentiles, intensity={"AdjustContrast": {"gamma": 0.3}})[0][2]
    assert bright.mean() > one(tmp_path, **percentiles)[0][2].mean() + 5
    with pytest.raises(DataError, match="change what values mean, so profile card-any@1 can't show windows"):
        one(tmp_path, **WIDE, intensity={"HistogramNormalize": {}})


def test_a_volume_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    volume(tmp_path / "a.nii", affine=np.diag([90.0, 90.0, 90.0, 1.0]))
    (found,) = get_reader("nifti")(tmp_path, {**WIDE, "spacing_mm": [0.05, 0.05, 0.05]})
    assert isinstance(found, Rejected)
    assert (found.reason, found.detail) == ("too many values", "5401 x 9001 x 7201 after resampling")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"orientation": "SAR"}, f"orientation 'SAR' is none of {', '.join(CODES)}"),
        ({"spacing_mm": [1, 1]}, "spacing_mm is three distances"),
        ({"spacing_mm": [1, 1, 0]}, "spacing_mm is three distances"),
        ({"intensity": {"RandGibbsNoise": {}}}, "intensity 'RandGibbsNoise' is none of MedianSmooth"),
        ({"intensity": {"GaussianSmooth": {"sigma": "x"}}}, "GaussianSmooth takes numbers for sigma"),
        ({"intensity": ["MedianSmooth"]}, "intensity maps MONAI's transforms"),
        ({"intensity": {"AdjustContrast": {}}}, "AdjustContrast needs gamma"),
    ],
)
def test_wrong_options_are_one_sentence(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    volume(tmp_path / "a.nii")
    with pytest.raises(DataError, match=said):
        list(get_reader("nifti")(tmp_path, options))


def test_a_volume_that_is_too_large_before_it_is_made_coarser_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume(tmp_path / "a.nii")
    monkeypatch.setattr("medkit.readers.nifti.reader.MOST_VALUES", 119)
    (refused,) = get_reader("nifti")(tmp_path, {**WIDE, "spacing_mm": [2, 2, 4]})
    assert isinstance(refused, Rejected)
    assert (refused.reason, refused.detail) == ("too many values", "4 x 6 x 5 before resampling")


def test_monai_is_imported_only_when_a_card_asks(tmp_path: Path) -> None:
    volume(tmp_path / "a.nii")
    script = (
        "import sys; from pathlib import Path; from medkit.readers import get_reader;"
        f"found = get_reader('nifti')(Path({str(tmp_path)!r}), {{'slices': 1}}); [one.image() for one in found];"
        "print('monai' in sys.modules, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False False"
