"""Segmentation objects tell findings of their series: boxes, areas, slices; highdicom writes them and is the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_objects import ct, save
from highdicom.sr.coding import CodedConcept
from pydicom.sr.codedict import codes

from medkit.errors import DataError
from medkit.readers import Merged, Record, Rejected, get_reader
from medkit.readers.dicom.files import DEFAULT_LIMITS, read_file
from medkit.readers.dicom.segmentation import segments_in
from medkit.readers.dicom.series import order_slices, slices_of

SHAPE = (6, 16, 20)  # slices, rows, columns
WIDE = {"series": True, "segmentations": True, "profiles": "ct-wide"}
# Of the files as they lie, from the head to the feet; medkit shows them from the feet.
LIVER = np.zeros(SHAPE, bool)
LIVER[1:5, 4:12, 2:10] = True
TUMOUR = np.zeros(SHAPE, bool)
TUMOUR[2, 6:8, 5:10] = True


def series(folder: Path) -> list[pydicom.Dataset]:
    """Writes an invented CT series whose files run from the head to the feet."""
    made = []
    for index in range(SHAPE[0]):
        values = np.full(SHAPE[1:], 1024, np.uint16)
        values[LIVER[index]] = 1084
        values[TUMOUR[index]] = 1124
        values[0, 0] = 0
        one = ct(
            values,
            PixelSpacing=[2.0, 1.0],
            SliceThickness=3.0,
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[-10.0, -16.0, 30.0 - 3.0 * index],
            SOPInstanceUID=f"1.2.5.{index + 1}",
            FrameOfReferenceUID="1.2.7",
            InstanceNumber=index + 1,
            ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
            PatientBirthDate="",
            PatientSex="",
            StudyDate="",
            StudyTime="",
            StudyID="",
            SeriesNumber=1,
            AccessionNumber="",
            ReferringPhysicianName="",
        )
        save(one, folder / f"{index}.dcm")
        made.append(pydicom.dcmread(folder / f"{index}.dcm"))
    return made


def segmentation(sources: list[pydicom.Dataset], path: Path, kind: Any = None, **changes: Any) -> Path:
    """Writes a segmentation of liver and tumour, which overlap."""
    kind = kind or highdicom.seg.SegmentationTypeValues.BINARY
    described = [
        highdicom.seg.SegmentDescription(
            number,
            label,
            codes.SCT.Organ,
            code,
            highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label, code in (
            (1, "Quimby's liver", CodedConcept("10200004", "SCT", "Liver")),
            (2, "Quimby's lesion", CodedConcept("4147007", "SCT", "Mass")),
        )
    ]
    pixels = np.stack([LIVER, TUMOUR], axis=-1)
    made = highdicom.seg.Segmentation(
        sources, pixels.astype(float if kind.value == "FRACTIONAL" else np.uint8), kind, described,
        series_instance_uid="1.2.9", series_number=2, sop_instance_uid="1.2.9.1", instance_number=1,
        manufacturer="invented", manufacturer_model_name="invented", software_versions="1", device_serial_number="1",
    )  # fmt: skip
    for keyword, value in changes.items():
        setattr(made, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)
    return path


def record_of(root: Path, **options: Any) -> tuple[Record, list[Any]]:
    record, *others = get_reader("dicom")(root, {**WIDE, **options})
    assert isinstance(record, Record) and callable(record.image)
    return record, others


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_segments_are_those_that_highdicom_reads(tmp_path: Path, kind: str) -> None:
    sources = series(tmp_path / "ct")
    path = segmentation(sources, tmp_path / "seg.dcm", highdicom.seg.SegmentationTypeValues(kind))
    files = sorted((tmp_path / "ct").iterdir())
    volume = order_slices([one for file in files for one in slices_of(file, read_file(file))])
    ours = segments_in(path, volume, DEFAULT_LIMITS, None)
    assert [(one.number, one.label) for one in ours] == [(1, "1"), (2, "2")]
    oracle = highdicom.seg.segread(path)
    uids = [pydicom.dcmread(one.path).SOPInstanceUID for one in volume.slices]
    for one in ours:
        theirs = oracle.get_pixels_by_source_instance(uids, segment_numbers=[one.number])[..., 0] > 0
        assert np.array_equal(one.mask, theirs.transpose(2, 1, 0))
    truth = (LIVER, TUMOUR)
    assert all(
        np.array_equal(one.mask, mask[::-1].transpose(2, 1, 0)) for one, mask in zip(ours, truth, strict=True)
    )


def test_findings_have_slices_boxes_areas_and_no_name(tmp_path: Path) -> None:
    segmentation(series(tmp_path / "ct"), tmp_path / "seg.dcm")
    record, others = record_of(tmp_path, labels={"10200004": "liver", 2: "mass"}, slices=6)
    liver, mass = record.facts["findings"]
    assert {key: liver[key] for key in ("label", "slices", "largest", "volume_ml")} == {
        "label": "liver", "slices": [2, 5], "largest": 2, "volume_ml": round(4 * 64 * 6 / 1000, 3),
    }  # fmt: skip
    assert mass["shown"] == [{"slice": 4, "box": [0.25, 0.375, 0.5, 0.5], "area_mm2": 20.0}]
    assert [one["slice"] for one in liver["shown"]] == [2, 3, 4, 5]
    assert liver["shown"][0] == {"slice": 2, "box": [0.1, 0.25, 0.5, 0.75], "area_mm2": 128.0}
    assert record.facts["slice_labels"] == [
        [], ["liver"], ["liver"], ["liver", "mass"], ["liver"], [],
    ]  # fmt: skip
    # The box holds the bright pixels of the picture, whose rows are stretched to square pixels.
    picture = np.asarray(record.image().images[3])  # type: ignore[operator]
    assert picture.shape == (32, 20)
    left, top, right, bottom = (
        round(edge * side) for edge, side in zip(mass["shown"][0]["box"], (20, 32, 20, 32), strict=True)
    )
    inside = picture[top:bottom, left:right]
    assert inside.mean() > picture.mean() + 5 and inside[1:-1].min() == picture.max()
    assert "Quimby" not in str(record) + str(others)
    assert [one.reason for one in others if isinstance(one, Merged)].count("segmentation of a series") == 1


def test_slices_are_taken_around_the_finding(tmp_path: Path) -> None:
    segmentation(series(tmp_path / "ct"), tmp_path / "seg.dcm")
    show = {"most": 1, "show": "finding", "margin": 0}
    record, _ = record_of(tmp_path, labels={2: "mass"}, slices=show)
    assert record.facts["volume"]["shown"] == [4]
    assert record.facts["objects"] == [{"label": "mass", "box": [0.25, 0.375, 0.5, 0.5], "attributes": {}}]
    assert record.facts["shows"] == "Axial slice 4 of 6."
    record, _ = record_of(tmp_path, labels={9: "nothing here"}, slices=show)
    assert ("no finding in a segmentation", "slices were taken evenly") in record.notes
    assert "findings" not in record.facts


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SegmentationType": "OTHER"}, "segmentation doesn't fit"),
        ({"Rows": 8, "Columns": 40}, "segmentation doesn't fit"),
    ],
)
def test_a_segmentation_that_does_not_fit_costs_its_series(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    segmentation(series(tmp_path / "ct"), tmp_path / "seg.dcm", **changes)
    found = list(get_reader("dicom")(tmp_path, WIDE))
    assert [type(one) for one in found] == [Rejected] * 7
    assert {one.reason for one in found} == {reason}


def test_a_segmentation_beside_its_series_or_without_one_is_told(tmp_path: Path) -> None:
    sources = series(tmp_path / "ct")
    path = segmentation(sources, tmp_path / "seg.dcm")
    moved = pydicom.dcmread(path)
    for group in moved.PerFrameFunctionalGroupsSequence:
        x, y, z = group.PlanePositionSequence[0].ImagePositionPatient
        group.PlanePositionSequence[0].ImagePositionPatient = [x, y, z + 1.5]
    moved.save_as(path)
    found = list(get_reader("dicom")(tmp_path, WIDE))
    assert {(type(one), one.reason) for one in found} == {(Rejected, "segmentation doesn't fit")}
    moved.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3.4.5"
    moved.save_as(path)
    record, *others = get_reader("dicom")(tmp_path, WIDE)
    assert isinstance(record, Record) and "findings" not in record.facts
    assert [one.reason for one in others if isinstance(one, Rejected)] == ["segmentation without its series"]
    # Without the option a segmentation is no picture, as ever.
    reasons = [
        one.reason
        for one in get_reader("dicom")(tmp_path, {**WIDE, "segmentations": False})
        if isinstance(one, Rejected)
    ]
    assert reasons == ["not a picture"]


def test_a_series_is_turned_and_resampled_with_its_segmentation(tmp_path: Path) -> None:
    pytest.importorskip("monai", reason="MONAI is not installed: pip install medkit-lmm[volumes]")
    segmentation(series(tmp_path / "ct"), tmp_path / "seg.dcm")
    plain, _ = record_of(tmp_path, slices=6, labels={1: "liver"})
    same, _ = record_of(tmp_path, slices=6, labels={1: "liver"}, orientation="LPS")
    assert {**plain.facts, "shows": ""} == {**same.facts, "shows": ""}
    for first, second in zip(plain.image().images, same.image().images, strict=True):  # type: ignore[operator]
        assert np.abs(np.asarray(first).astype(int) - np.asarray(second)).max() <= 1
    mirrored, _ = record_of(tmp_path, slices=6, labels={1: "liver"}, orientation="RAS")
    left, top, right, bottom = plain.facts["findings"][0]["shown"][0]["box"]
    assert mirrored.facts["findings"][0]["shown"][0]["box"] == pytest.approx(
        [1 - right, 1 - bottom, 1 - left, 1 - top]
    )
    even, _ = record_of(tmp_path, slices=99, labels={1: "liver"}, spacing_mm=[1, 1, 1])
    assert even.facts["volume"]["slices"] == 16 and even.facts["volume"]["spacing_mm"] == [1.0, 1.0, 1.0]
    images = even.image().images  # type: ignore[operator]
    assert {np.asarray(one).shape for one in images} == {(31, 20)}
    assert even.facts["findings"][0]["volume_ml"] == pytest.approx(1.536, rel=0.2)
    with pytest.raises(DataError, match="spacing_mm is three distances"):
        record_of(tmp_path, spacing_mm=1)


def test_padding_does_not_darken_its_neighbours_when_resampled(tmp_path: Path) -> None:
    pytest.importorskip("monai", reason="MONAI is not installed: pip install medkit-lmm[volumes]")
    for index in range(3):
        values = np.full((8, 8), 1024, np.int16)
        values[:, :4] = -2000
        values[0, 7] = 900
        about = {
            "PixelPaddingValue": -2000, "PixelSpacing": [1, 1], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "ImagePositionPatient": [0, 0, index], "SOPInstanceUID": f"1.2.{index + 1}",
        }  # fmt: skip
        save(ct(values, **about), tmp_path / f"{index}")
    options = {"series": True, "profiles": "ct-wide", "spacing_mm": [0.5, 0.5, 1], "slices": 1}
    record = next(iter(get_reader("dicom")(tmp_path, options)))
    assert isinstance(record, Record) and callable(record.image)
    edge = np.asarray(record.image().images[0])[8, 7]
    assert int(edge) > 110  # between -124 and 0 HU; with the padding's own -3024 HU it would be black


def test_masks_that_would_fill_the_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmentation(series(tmp_path / "ct"), tmp_path / "seg.dcm")
    monkeypatch.setattr("medkit.readers.dicom.segmentation.MOST_VALUES", 6 * 16 * 20)
    found = list(get_reader("dicom")(tmp_path, WIDE))
    assert {(type(one), one.reason) for one in found} == {(Rejected, "too many pixels")}  # type: ignore[union-attr]
    assert "more than 1 segments of the volume's size; name fewer with labels" in found[0].detail  # type: ignore[union-attr]
    record, _ = record_of(tmp_path, labels={1: "liver"})
    assert [one["label"] for one in record.facts["findings"]] == ["liver"]


def test_findings_need_segmentations(tmp_path: Path) -> None:
    series(tmp_path)
    with pytest.raises(DataError, match=r"slices\.show finding needs segmentations: true"):
        list(get_reader("dicom")(tmp_path, {"series": True, "slices": {"most": 1, "show": "finding"}}))
    with pytest.raises(DataError, match=r"labels maps segment numbers .* to names, with segmentations: true"):
        list(get_reader("dicom")(tmp_path, {**WIDE, "labels": ["liver"]}))
