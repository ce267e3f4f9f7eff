"""The contract of a model folder: what it says, what it carries on, and which folders it refuses."""

from __future__ import annotations

import json

import pytest
import tiny_evaluation
from tiny_training import answers, build, build_family, stage
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from medkit.errors import ModelError
from medkit.evaluation.evaluate import evaluate
from medkit.models.contract import Contract, cut_at_stop, read_contract, template_hash, write_contract
from medkit.models.load import load_model, save_model
from medkit.training.train import train

FULL_CONTRACT = Contract(
    fit="pad",
    mean_colour=(1, 2, 3),
    provenance={"seed": 1},
    conversation="v0_med",
    stop=["###"],
    answer_formats={"short": "Answer in a word."},
    tiles=None,
    licence={"base": "mit", "data": ["CC0-1.0"]},
)


@pytest.fixture
def folder(tmp_path):
    build(tmp_path / "model")
    return tmp_path / "model"


def rewrite(path, **changes):
    """Changes values of a JSON file; None takes a key out."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_every_field_survives_its_folder(folder):
    loaded = load_model(folder, "cpu")
    write_contract(folder, FULL_CONTRACT)
    assert read_contract(folder, loaded.processor, loaded.model.config) == FULL_CONTRACT
    assert json.loads((folder / "medkit.json").read_text())["version"] == 3


def test_a_file_of_version_1_still_reads(folder):
    text = '{"version": 1, "fit": "pad", "mean_colour": [9, 8, 7], "provenance": {"seed": 4}}'
    (folder / "medkit.json").write_text(text)
    assert load_model(folder, "cpu").contract == Contract("pad", (9, 8, 7), {"seed": 4})


def test_a_saved_folder_names_its_template(folder):
    loaded = load_model(folder, "cpu")
    assert loaded.contract.template_sha256 == template_hash(loaded.processor)
    assert len(loaded.contract.template_sha256) == 64
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("USER:", "Human:"))
    with pytest.raises(ModelError, match=r"chat template is another .* put back chat_template\.jinja"):
        load_model(folder, "cpu")
    rewrite(folder / "medkit.json", template_sha256="")
    assert load_model(folder, "cpu").contract.fit == "pad"


def nested(name, **changes):
    """A change of the image processor's settings, which lie inside processor_config.json."""

    def change(folder):
        path = folder / "processor_config.json"
        inner = json.loads(path.read_text())
        inner["image_processor"].update(changes)
        path.write_text(json.dumps(inner))

    change.__name__ = name
    return change


def other_patch(folder):
    rewrite(folder / "processor_config.json", patch_size=16)


def other_strategy(folder):
    rewrite(folder / "processor_config.json", vision_feature_select_strategy="full")


def other_token(folder):
    rewrite(folder / "config.json", image_token_index=7)


def crop_for_stretch(folder):
    rewrite(folder / "medkit.json", fit="stretch")
    nested("crop", do_center_crop=True)(folder)


def tiles_for_none(folder):
    rewrite(folder / "medkit.json", tiles={"grid_pinpoints": [[64, 32]], "newline": True})


SIDE = {"height": 48, "width": 48}
SIDE_32 = {"height": 32, "width": 32}
CONTRADICTIONS = [
    (nested("other_size", size=SIDE), "processor makes pictures of 48 px and the vision tower reads 32 px"),
    (
        nested("other_crop", do_center_crop=True, crop_size=SIDE),
        "processor makes pictures of 48 px and the vision tower reads 32 px",
    ),
    (other_patch, "patch_size is 16 for the processor and 8 in config.json"),
    (other_strategy, "vision_feature_select_strategy is full for the processor and default in config.json"),
    (other_token, "writes image token 4 and the model looks for 7"),
    (crop_for_stretch, "fit is stretch but the processor crops pictures; mend preprocessor_config.json"),
    (tiles_for_none, r"tiles.grid_pinpoints is \[\[64, 32\]\] but config.json has none"),
]


@pytest.mark.parametrize(
    ("change", "message"), CONTRADICTIONS, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_folder_that_contradicts_its_contract_is_refused(folder, change, message):
    change(folder)
    with pytest.raises(ModelError, match=message) as told:
        load_model(folder, "cpu")
    assert "\n" not in str(told.value)
    assert "medkit.json" in str(told.value)


def test_tiles_must_be_those_of_the_model(tmp_path):
    loaded = build_family("llava_next", tmp_path / "next")
    grid = [list(pair) for pair in loaded.model.config.image_grid_pinpoints]
    save_model(
        loaded, tmp_path / "same", Contract("stretch", tiles={"grid_pinpoints": grid, "newline": True})
    )
    again = load_model(tmp_path / "same", "cpu")
    assert again.contract.tiles == {"grid_pinpoints": grid, "newline": True}
    rewrite(tmp_path / "same" / "medkit.json", tiles={"grid_pinpoints": [*grid, [640, 320]], "newline": True})
    with pytest.raises(ModelError, match=r"\[640, 320\]\] but config\.json has .* the processor has"):
        load_model(tmp_path / "same", "cpu")


def test_a_processor_that_pads_by_itself_needs_no_crop(folder):
    loaded = load_model(folder, "cpu")

    loaded.processor.image_processor = LlavaImageProcessorPil(
        do_pad=True, do_center_crop=False, size=SIDE_32, crop_size=SIDE_32
    )
    write_contract(folder, Contract("stretch", (1, 2, 3)))
    with pytest.raises(ModelError, match="fit is stretch but the processor pads pictures"):
        read_contract(folder, loaded.processor, loaded.model.config)
    write_contract(folder, Contract("pad", (1, 2, 3)))
    assert read_contract(folder, loaded.processor, loaded.model.config).fit == "pad"


def test_evaluation_refuses_such_a_folder(tmp_path):
    tiny_evaluation.build_model(tmp_path / "model")
    data = tiny_evaluation.write_dataset(tmp_path / "data")
    rewrite(tmp_path / "model" / "processor_config.json", patch_size=7)
    settings = {"benchmarks": [{"name": "tiny", "controls": []}]}
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=r"patch_size is 7 for the processor and 14 in config\.json"):
        evaluate(settings, {"model": tmp_path / "model", "data": data}, tmp_path / "out")
    assert not (tmp_path / "out" / "scores.json").exists()


def test_a_stage_carries_the_contract_on(folder, tmp_path):
    loaded = load_model(folder, "cpu")
    save_model(loaded, tmp_path / "start", FULL_CONTRACT)
    (tmp_path / "out").mkdir()
    inputs = {"start": tmp_path / "start", "data": answers(tmp_path / "data")}
    train(stage(adapter={"kind": "full"}), inputs, tmp_path / "out")
    after = load_model(tmp_path / "out" / "model", "cpu").contract
    for name in ("fit", "mean_colour", "conversation", "stop", "answer_formats", "licence"):
        assert getattr(after, name) == getattr(FULL_CONTRACT, name), name
    assert set(after.provenance) == {"seed", "stage:instruct"}


@pytest.mark.parametrize(
    ("text", "stop", "cut"),
    [
        ("yes###Human: why?", ["###"], "yes"),
        ("yes", ["###"], "yes"),
        ("a</s>b###c", ["###", "</s>"], "a"),
        ("a###b", [], "a###b"),
    ],
)
def test_an_answer_ends_at_the_first_stop_string(text, stop, cut):
    assert cut_at_stop(text, stop) == cut


def test_evaluation_ends_answers_at_stop_strings(tmp_path):
    loaded = tiny_evaluation.build_model(tmp_path / "model")
    data = tiny_evaluation.write_dataset(tmp_path / "data")
    settings = {"benchmarks": [{"name": "tiny", "controls": [], "max_new_tokens": 8}]}

    def asked(name):
        (tmp_path / name).mkdir()
        evaluate(settings, {"model": tmp_path / "model", "data": data}, tmp_path / name)
        lines = (tmp_path / name / "answers.jsonl").read_text().splitlines()
        return {row["id"]: row["answer"] for row in map(json.loads, lines)}

    before = asked("before")
    longest = max(before.values(), key=len)
    letter = longest[len(longest) // 2]
    write_contract(tmp_path / "model", Contract("pad", loaded.contract.mean_colour, stop=[letter]))
    after = asked("after")
    assert after == {key: text.partition(letter)[0].strip() for key, text in before.items()}
    assert after != before
