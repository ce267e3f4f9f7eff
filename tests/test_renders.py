"""A model is served pictures of the look it was trained on: the contract says how grey values are shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_objects import MR, ct, item, picture, save
from tiny_training import build, stage

from medkit.errors import DataError, ModelError
from medkit.evaluation.evaluate import evaluate
from medkit.models.contract import Contract, read_contract, stored_render, write_contract
from medkit.models.load import load_model
from medkit.models.model_card import Story, _howto, _limits
from medkit.models.renders import differences, merge_renders, renders_of
from medkit.readers import Record, get_reader
from medkit.readers.dicom.profiles import choose_profiles, profile_from, settings_of, shipped
from medkit.readers.dicom.reasons import Refused
from medkit.readers.dicom.renders import render_dicom, row_for
from medkit.readers.ingest import ingest
from medkit.sample import assistant_turn, user_turn
from medkit.store import DatasetWriter, open_dataset
from medkit.training.train import train

LUNG = {"modality": "CT", "samples": 2, "profile": "ct-lung@1", "unit": "HU", "windows": [[-1350.0, 150.0]]}
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
OWN = {"CT": {"windows": [[-1000, 400]], "unit": "HU", "version": 3}}


def series(folder: Path) -> Path:
    """Writes an invented CT series of five slices whose values grow towards the head."""
    for index, position in enumerate([10.0, 2.5, 7.5, 0.0, 5.0]):
        values = np.full((16, 16), 500 + round(40 * position), np.uint16)
        values[0, 0] = 0
        attributes = {"ImagePositionPatient": [0, 0, position], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        save(
            ct(values, PixelSpacing=[1, 1], SOPInstanceUID=f"1.2.{index + 1}", **attributes),
            folder / f"{index}",
        )
    return folder


def pictures_of(folder: Path, **options: Any) -> tuple[list[np.ndarray], Record]:
    record = next(iter(get_reader("dicom")(folder, options)))
    assert isinstance(record, Record) and callable(record.image)
    return [np.asarray(one) for one in record.image().images], record


@pytest.mark.parametrize("profile", [*shipped().values(), *choose_profiles(OWN).values()])
def test_a_profile_survives_being_written_down(profile: Any) -> None:
    assert profile_from(json.loads(json.dumps(settings_of(profile)))) == profile


@pytest.mark.parametrize("profiles", ["ct-lung", OWN])
def test_a_file_and_a_series_are_rendered_as_in_training(tmp_path: Path, profiles: Any) -> None:
    folder = series(tmp_path / "in")
    learnt, record = pictures_of(folder, series=True, slices=3, profiles=profiles)
    render = renders_of([(record.extra, record.facts)])
    files = sorted(folder.iterdir(), reverse=True)
    shown = render_dicom(files, render, most=3)
    assert [np.asarray(one)[..., 0].tolist() for one in shown.images] == [one.tolist() for one in learnt]
    assert shown.shows == record.facts["shows"] == "Axial slices 1, 3 and 5 of 5, from the feet to the head."
    (single,), _ = pictures_of(folder, profiles=profiles)
    assert np.array_equal(np.asarray(render_dicom(folder / "0", render).images[0])[..., 0], single)
    # What medkit would show without the contract is another picture.
    assert not np.array_equal(pictures_of(folder)[0][0], single)


@pytest.mark.parametrize(
    "options",
    [
        {"orientation": "RAS", "spacing_mm": [2, 2, 5], "intensity": {"MedianSmooth": {"radius": 1}}},
        {"orientation": "LPS", "profiles": "window"},
        {"slices": {"most": 4, "show": "montage", "tile": 8}},
    ],
)
def test_a_series_is_served_transformed_and_laid_out_as_in_training(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    if "slices" not in options:
        pytest.importorskip("monai", reason="MONAI is not installed: pip install medkit-lmm[volumes]")
    folder = series(tmp_path / "in")
    learnt, record = pictures_of(folder, **{"series": True, "slices": 4, "profiles": "ct-wide"} | options)
    render = json.loads(json.dumps(renders_of([(record.extra, record.facts)])))
    tile = 8 if "slices" in options else None
    shown = render_dicom(sorted(folder.iterdir()), render, most=4, tile=tile)
    assert [np.asarray(one)[..., 0].tolist() for one in shown.images] == [one.tolist() for one in learnt]
    assert shown.shows == record.facts["shows"]
    if tile is None:
        plain = renders_of([(pictures_of(folder, series=True, profiles="ct-wide")[1].extra, record.facts)])
        assert differences(plain, render) and not differences(render, render)


def test_a_file_that_holds_a_series_is_served_as_one(tmp_path: Path) -> None:
    values = np.arange(3 * 16, dtype=np.uint16).reshape(3, 4, 4)
    values[2] += 1000
    places = [
        item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, float(frame)])]) for frame in range(3)
    ]
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[1, 1])],
    )
    enhanced = picture(
        values, SOPClassUID=ENHANCED_MR, Modality="MR", NumberOfFrames=3,
        PerFrameFunctionalGroupsSequence=places, SharedFunctionalGroupsSequence=[shared],
    )  # fmt: skip
    path = save(enhanced, tmp_path / "in" / "a")
    learnt, record = pictures_of(tmp_path / "in", series=True)
    render = renders_of([(record.extra, record.facts)])
    shown = render_dicom([path], render)
    assert [np.asarray(one)[..., 0].tolist() for one in shown.images] == [one.tolist() for one in learnt]
    assert len(learnt) == 3 and shown.shows == record.facts["shows"]
    assert len(render_dicom(path, render).images) == 1


def test_the_contract_keeps_a_profile_that_medkit_has_changed(tmp_path: Path) -> None:
    path = save(ct(np.array([[24, 1024], [1424, 0]], np.uint16)), tmp_path / "a")
    stale = {**LUNG, "windows": [[-1000.0, 400.0]]}
    greys = [np.asarray(render_dicom(path, [row]).images[0])[..., 0].tolist() for row in (LUNG, stale)]
    assert greys == [[[60, 230], [255, 55]], [[0, 182], [255, 0]]]


def test_the_contract_says_which_profile_or_refuses(tmp_path: Path) -> None:
    bone = {**LUNG, "profile": "ct-bone@1", "windows": [[-500, 1300]]}
    anything = {"modality": "*", "samples": 1, "profile": "window@1", "from_file": True}
    assert row_for([LUNG, anything], "CT") == LUNG
    assert row_for([LUNG, anything], "CR") == anything
    assert row_for([LUNG, bone], "CT", "ct-bone@1") == bone
    with pytest.raises(DataError, match="in several ways; choose one of ct-lung@1, ct-bone@1"):
        row_for([LUNG, bone], "CT")
    assert row_for([LUNG, {**LUNG, "transforms": {"orientation": "LPS"}}], "CT") == LUNG
    with pytest.raises(DataError, match="and not a picture without a known modality") as refused:
        row_for([LUNG], "QUIMBY")
    assert "QUIMBY" not in str(refused.value)
    with pytest.raises(DataError, match="contract renders CT ct-lung@1, and not MR"):
        row_for([LUNG], "MR")
    path = save(picture(np.eye(4, dtype=np.uint16), SOPClassUID=MR, Modality="MR"), tmp_path / "a")
    with pytest.raises(DataError, match="contract renders nothing, and not MR"):
        render_dicom(path, [])
    capture = save(picture(np.eye(4, dtype=np.uint16), BurnedInAnnotation="YES"), tmp_path / "b")
    with pytest.raises(Refused, match="may show a name"):
        render_dicom(capture, [anything])
    assert render_dicom(capture, [anything], burned_in="keep").images[0].size == (4, 4)


def test_renders_are_counted_merged_and_compared() -> None:
    sources = [({"render": "ct-lung@1"}, {"modality": "CT"})] * 2 + [({}, {}), ({"render": "window@1"}, {})]
    found = renders_of(sources)
    assert found == [{"modality": "*", "samples": 1, "profile": "window@1", "from_file": True}, LUNG]
    brain = {"modality": "CT", "samples": 9, "profile": "ct-brain@1", "unit": "HU", "windows": [[0.0, 80.0]]}
    assert merge_renders(found, [brain]) == [found[0], brain]
    assert differences(found, [{**LUNG, "samples": 77}]) == []
    assert differences(found, [brain]) == ["CT: rendered with ct-brain@1, trained with ct-lung@1"]
    assert differences(found, [{**LUNG, "windows": [[-1000.0, 400.0]]}]) != []
    assert differences([], [brain]) == []


def test_a_contract_without_the_field_still_reads_and_a_damaged_one_does_not(tmp_path: Path) -> None:
    build(tmp_path)
    loaded = load_model(tmp_path, "cpu")
    write_contract(tmp_path, replace(loaded.contract, render=[LUNG]))
    assert read_contract(tmp_path, loaded.processor).render == [LUNG] == stored_render(tmp_path)
    content = json.loads((tmp_path / "medkit.json").read_text())
    (tmp_path / "medkit.json").write_text(json.dumps({**content, "render": [{"profile": "ct-lung@1"}]}))
    with pytest.raises(ModelError, match="render has a row without modality or profile"):
        read_contract(tmp_path, loaded.processor)
    del content["render"]
    (tmp_path / "medkit.json").write_text(json.dumps({**content, "version": 2}))
    assert (
        read_contract(tmp_path, loaded.processor).render == Contract().render == stored_render(tmp_path) == []
    )


def test_from_dicom_files_to_a_model_and_its_evaluation(tmp_path: Path) -> None:
    for index in range(6):
        values = np.random.default_rng(index).integers(0, 2000, (24, 24)).astype(np.uint16)
        made = ct(values, PatientID=f"P-{index}", StudyInstanceUID=f"1.2.{index + 1}")
        save(made, tmp_path / "in" / ("train" if index < 4 else "test") / f"{index}")
    data = {"reader": "dicom", "options": {"profiles": OWN}, "splits": {"train": "train", "test": "test"}}
    settings = {"domain": {"name": "hospital", "licence": "none", "data": data}, "data": str(tmp_path / "in")}
    ingest(settings, {}, tmp_path / "records")
    asked("Is it lungs?", tmp_path / "records", tmp_path / "data")
    build(tmp_path / "start")
    inputs = {"start": tmp_path / "start", "data": tmp_path / "data"}
    (tmp_path / "stage").mkdir()
    train(stage(epochs=1.0, on=["conversation"], max_tokens=256), inputs, tmp_path / "stage")
    own = {"profile": "card-ct@3", "unit": "HU", "windows": [[-1000.0, 400.0]]}
    assert stored_render(tmp_path / "stage" / "model") == [{"modality": "CT", "samples": 4, **own}]
    card = {"name": "lungs", "controls": [], "scorer": "answer"}
    asking = {"benchmarks": [card]}
    told = {}
    for name, render in (("same", None), ("other", [LUNG])):
        if render:
            contract = load_model(tmp_path / "stage" / "model", "cpu").contract
            write_contract(tmp_path / "stage" / "model", replace(contract, render=render))
        given = {"model": tmp_path / "stage", "data": tmp_path / "data"}
        (tmp_path / name).mkdir()
        evaluate(asking, given, tmp_path / name)
        told[name] = json.loads((tmp_path / name / "scores.json").read_text())["benchmarks"]["lungs"]
    assert told["same"]["render"] == [{"modality": "CT", "samples": 6, **own}]
    assert "render_differs" not in told["same"]
    assert told["other"]["render_differs"] == ["CT: rendered with card-ct@3, trained with ct-lung@1"]


def test_the_model_card_says_how_pictures_are_rendered() -> None:
    contract = Contract(render=[LUNG], licence={"base": "mit", "data": []})
    score = {"render_differs": ["CT: rendered with ct-brain@1, trained with ct-lung@1"], "controls": {}}
    story = Story(stage="instruct", scores={"instruct": {"lungs": score}})
    assert "DICOM files are rendered CT as ct-lung@1" in _howto(contract, "hf")
    assert "rendered" not in _howto(Contract(), "hf")
    assert "- On lungs: CT: rendered with ct-brain@1, trained with ct-lung@1." in _limits(story)


def asked(question: str, records: Path, out: Path) -> None:
    """Writes a dataset whose training samples are talks about the records' pictures and whose others are questions."""
    with DatasetWriter(out, name="asked", images_from=[records]) as to:
        for sample in open_dataset(records):
            test = sample.split == "test"
            turns = [user_turn(question, 1), assistant_turn("yes")]
            facts = (
                {**sample.facts, "question": {"answer_type": "closed", "answers": ["yes"]}} if test else {}
            )
            kind = "question" if test else "conversation"
            facts = facts or {"modality": sample.facts["modality"]}
            to.add(replace(sample, messages=turns, facts=facts, source={**sample.source, "kind": kind}))
