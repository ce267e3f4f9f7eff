"""The train step: a start checkpoint and a dataset folder become a model folder for plain transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny_training import LORA, answers, build, build_family, picture, scenes, stage
from transformers import AutoModelForImageTextToText

from medkit.errors import DataError, ModelError, TrainingError
from medkit.models.load import load_model
from medkit.sample import Sample, assistant_turn, user_turn
from medkit.store import DatasetWriter, open_dataset
from medkit.training.examples import ExampleSet
from medkit.training.train import train

KINDS = ["caption", "description", "conversation", "reasoning"]


@pytest.fixture(scope="module")
def _folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    build(folder / "model")
    scenes(folder, train=24, valid=6)
    return folder


def _train(folder: Path, out: Path, inputs: dict | None = None, **changes):
    out.mkdir(parents=True, exist_ok=True)
    given = {
        "start": folder / "model",
        "data": folder / "taught",
        "records": folder / "records",
        **(inputs or {}),
    }
    return train(stage(**changes), given, out)


def _log(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_full_training_leaves_a_model_folder_and_an_account(_folder, tmp_path):
    result = _train(_folder, tmp_path, epochs=2.0, checkpoint_every=5, save_dtype="bfloat16")
    samples = len(open_dataset(_folder / "taught").select(kinds=KINDS, splits=["train"]))
    steps = -(-samples // 8) * 2
    assert result["samples"] == samples > 24
    assert (result["steps"], result["samples_seen"], result["dropped"]) == (steps, 2 * samples, 0)
    assert result["replay_samples"] == 0
    assert set(result["trainable"]) == {"vision", "projector", "language"}
    assert result["trainable"]["projector"] == 2 * (32 * 32 + 32)
    assert result["loss_last"] < result["loss_first"]
    assert result["valid_loss"] == _log(tmp_path)[-1]["valid_loss"]
    assert result["supervised_tokens"] > result["samples_seen"]
    model, told = AutoModelForImageTextToText.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    assert model.dtype == torch.bfloat16
    contract = load_model(tmp_path / "model", "cpu").contract
    assert contract.fit == "pad"
    assert contract.provenance["stage:instruct"]["samples_seen"] == 2 * samples
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.jsonl", "log.jsonl", "model"]
    assert (tmp_path / "ledger.jsonl").read_text() == ""


def test_lora_training_leaves_an_adapter_folder(_folder, tmp_path):
    result = _train(
        _folder, tmp_path, adapter=LORA, train={"vision": 0.0, "projector": 1e-3, "language": 1e-3}
    )
    assert set(result["trainable"]) == {"projector", "language"}
    base = AutoModelForImageTextToText.from_pretrained(_folder / "model")
    adapted = PeftModel.from_pretrained(base, str(tmp_path / "model"))
    inputs = load_model(tmp_path / "model", "cpu").processor(
        text=["<image> it?"], images=[picture()], return_tensors="pt"
    )
    with torch.no_grad(), adapted.disable_adapter():
        before = adapted(**inputs).logits
    with torch.no_grad():
        assert not torch.equal(adapted(**inputs).logits, before)
    projector = [
        name for name in load_file(tmp_path / "model" / "adapter_model.safetensors") if "projector" in name
    ]
    assert len(projector) == 4


def test_a_second_lora_stage_goes_on_with_the_adapter(_folder, tmp_path):
    _train(_folder, tmp_path / "one", adapter=LORA)
    result = _train(_folder, tmp_path / "two", {"start": tmp_path / "one" / "model"}, adapter=LORA)
    one, two = (load_file(tmp_path / name / "model" / "adapter_model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys() and result["steps"] > 0
    assert not torch.equal(*(state[min(state)] for state in (one, two)))
    assert set(load_model(tmp_path / "two" / "model", "cpu").contract.provenance) >= {
        "built",
        "stage:instruct",
    }


def test_seeing_trains_the_tower_alone(_folder, tmp_path):
    result = _train(
        _folder, tmp_path, objective="see", on=["record"], optimizer="muon", epochs=6.0, augment=["colour"]
    )
    assert set(result["trainable"]) == {"vision", "heads"}
    assert (result["samples"], result["valid_samples"], result["samples_seen"]) == (24, 6, 144)
    assert result["loss_last"] < result["loss_first"]
    before, after = (load_file(path / "model" / "model.safetensors") for path in (_folder, tmp_path))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("vision_tower" in name for name in changed)


def test_seeing_refuses_to_move_objects_whose_place_is_named(tmp_path):
    build(tmp_path)
    with DatasetWriter(tmp_path / "records", "sided") as writer:
        for number in range(4):
            thing = {"label": f"l{number % 2}", "box": [0, 0, 0.5, 0.5], "attributes": {"side": "left"}}
            ref = writer.add_image(np.full((32, 32, 3), number, dtype=np.uint8))
            source = {"kind": "record", "split": "train", "record": f"r{number}"}
            writer.add(Sample(f"r{number}", [], [ref], {"objects": [thing]}, source))
    inputs = {"start": tmp_path, "data": tmp_path / "records", "records": tmp_path / "records"}
    settings = stage(objective="see", on=["record"], augment=["flip", "colour", "shift"])
    (tmp_path / "out").mkdir()
    with pytest.raises(
        TrainingError, match="can't augment by shift: objects have attributes that name their"
    ):
        train(settings, inputs, tmp_path / "out")


def test_replay_is_a_share_of_the_whole(_folder, tmp_path):
    answers(tmp_path / "general", 40)
    own = len(open_dataset(_folder / "taught").select(kinds=KINDS, splits=["train"]))
    result = _train(_folder, tmp_path / "out", {"replay": tmp_path / "general"}, replay=0.2)
    assert result["replay_samples"] == round(own * 0.25)
    assert result["samples"] == own + round(own * 0.25)
    every = _train(_folder, tmp_path / "all", {"replay": tmp_path / "general"}, replay=0.9)
    assert every["replay_samples"] == 40  # as many as there are
    none = _train(_folder, tmp_path / "none", {"replay": tmp_path / "general"}, replay=0.0)
    assert none["replay_samples"] == 0


def test_less_than_a_pass_takes_a_part_of_the_samples(_folder, tmp_path):
    own = len(open_dataset(_folder / "taught").select(kinds=KINDS, splits=["train"]))
    result = _train(_folder, tmp_path, epochs=0.25)
    assert result["samples"] == result["samples_seen"] == -(-own // 4)
    assert result["steps"] == -(-result["samples"] // 8)
    assert _log(tmp_path)[-1]["epoch"] == 1.0


def _mixed(folder: Path) -> Path:
    """Writes two good samples and three that can't be trained on."""
    with DatasetWriter(folder, "mixed") as writer:
        ref = writer.add_image(picture())
        rows = {
            "good": [user_turn("it?", images=1), assistant_turn("red")],
            "text": [user_turn("it?"), assistant_turn("red")],
            "long": [user_turn("it? " * 400, images=1), assistant_turn("red")],
            "mute": [user_turn("it?", images=1)],
            "sly": [user_turn("<image> it?", images=1), assistant_turn("red")],
        }
        for name, turns in rows.items():
            images = [ref] if any(part["type"] == "image" for part in turns[0]["content"]) else []
            writer.add(Sample(name, turns, images, {}, {"kind": "conversation", "split": "train"}))
    return folder


def test_samples_that_cannot_be_trained_on_are_in_the_ledger(_folder, tmp_path):
    result = _train(_folder, tmp_path / "out", {"data": _mixed(tmp_path / "data")}, batch=2, max_tokens=200)
    assert (result["samples"], result["dropped"]) == (2, 3)
    rows = [json.loads(line) for line in (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()]
    assert [(row["record"], row["fate"]) for row in rows] == [
        ("long", "rejected"),
        ("mute", "rejected"),
        ("sly", "rejected"),
    ]
    assert "tokens exceed max_tokens 200" in rows[0]["reason"]
    assert rows[1]["reason"] == "no supervised token is left"
    assert rows[2]["reason"] == "the text holds the reserved token <image>"


def test_questions_that_were_left_out_are_in_the_ledger(_folder, tmp_path):
    talk = [
        user_turn("it? " * 40, images=1),
        assistant_turn("red"),
        user_turn("is it?"),
        assistant_turn("no"),
    ]
    with DatasetWriter(tmp_path / "data", "talks") as writer:
        ref = writer.add_image(np.zeros((32, 32, 3), dtype=np.uint8))
        source = {"kind": "conversation", "split": "train"}
        writer.add(Sample("talk", talk, [ref], {}, source))
    inputs = {"data": tmp_path / "data"}
    result = _train(_folder, tmp_path / "out", inputs, batch=1, max_tokens=60, too_long="drop_turns")
    assert (result["samples"], result["dropped"], result["shortened"]) == (1, 0, 1)
    assert json.loads((tmp_path / "out" / "ledger.jsonl").read_text()) == {
        "record": "talk",
        "fate": "shortened",
        "reason": "1 oldest questions left out to fit max_tokens 60",
    }


def test_a_batch_without_a_picture_is_trained_on(_folder, tmp_path):
    result = _train(_folder, tmp_path / "out", {"data": _mixed(tmp_path / "data")}, batch=1, max_tokens=200)
    assert result["steps"] == 2


def test_a_stage_without_samples_is_a_clear_error(_folder, tmp_path):
    with pytest.raises(DataError, match=r"taught: no train sample of kind question"):
        _train(_folder, tmp_path, on=["question"])


def test_records_without_text_teach_no_answers(_folder, tmp_path):
    with pytest.raises(
        TrainingError, match="none of 24 samples can be trained on; first reason: no supervised token"
    ):
        _train(_folder, tmp_path, {"data": _folder / "records"}, on=["record"])


def test_a_stage_that_trains_nothing_is_a_clear_error(_folder, tmp_path):
    with pytest.raises(ModelError, match="every part is frozen"):
        _train(_folder, tmp_path, train={"vision": 0.0, "projector": 0.0, "language": 0.0})


def test_stages_of_unlike_precision_follow_one_another(_folder, tmp_path):
    for precision in ("bf16", "fp32"):
        hardware = {"device": "cpu", "precision": precision, "threads": 1}
        result = _train(_folder, tmp_path / precision, hardware=hardware, epochs=0.5)
        assert result["loss_first"] == pytest.approx(5.8, abs=0.8)


def test_a_tracker_is_written_to_when_it_is_asked_for(_folder, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _train(_folder, tmp_path, trackers=["tensorboard"], epochs=1.0)
    events = sorted(tmp_path.rglob("events.out.tfevents.*"))
    assert events
    seen: dict[str, list[int]] = {}
    for path in events:
        reader = EventAccumulator(str(path))
        reader.Reload()
        for tag in reader.Tags()["scalars"]:
            seen.setdefault(tag, []).extend(item.step for item in reader.Scalars(tag))
    rows = _log(tmp_path)
    assert seen["loss"] == [row["step"] for row in rows if "loss" in row]
    assert seen["valid_loss"] == [row["step"] for row in rows if "valid_loss" in row]


TWO = {"device": "cpu", "precision": "fp32", "threads": 1, "processes": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("adapter", "changes"),
    [
        ({"kind": "full"}, {"micro_batch": 3}),
        ({**LORA, "dropout": 0.0}, {"gradient_checkpointing": True}),
    ],
)
def test_two_processes_take_the_path_of_one(_folder, tmp_path, adapter, changes):
    settings = {"adapter": adapter, "epochs": 2.0, "batch": 7, "checkpoint_every": 5, **changes}
    alone = _train(_folder, tmp_path / "alone", **settings)
    two = _train(_folder, tmp_path / "two", hardware=TWO, **settings)
    for key in ("steps", "samples", "samples_seen", "supervised_tokens", "trainable", "dropped"):
        assert two[key] == alone[key]
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == [
        "ledger.jsonl",
        "log.jsonl",
        "model",
    ]
    rows, others = _log(tmp_path / "alone"), _log(tmp_path / "two")
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    for row, other in zip(rows, others, strict=True):
        for key in ("loss", "valid_loss"):
            assert other.get(key, 0.0) == pytest.approx(row.get(key, 0.0), abs=1e-4)
    name = "model.safetensors" if adapter["kind"] == "full" else "adapter_model.safetensors"
    one, both = (load_file(tmp_path / run / "model" / name) for run in ("alone", "two"))
    for key in one:
        torch.testing.assert_close(both[key], one[key], rtol=0, atol=2e-3)


@pytest.mark.slow
def test_two_processes_survive_text_only_batches_of_one_and_stop_together(_folder, tmp_path):
    # five samples in batches of two: the last has one sample for two processes, and some have no picture
    with DatasetWriter(tmp_path / "data", "few") as writer:
        for number in range(10):
            images = [] if number % 3 == 0 else [writer.add_image(picture(seed=number))]
            turns = [user_turn("it?", images=len(images)), assistant_turn("red")]
            source = {"kind": "conversation", "split": "train" if number < 5 else "valid"}
            writer.add(Sample(f"r{number}", turns, images, {}, source))
    changes = {
        "batch": 2,
        "epochs": 30.0,
        "validate_every": 3,
        "patience": 1,
        "schedule": "constant",
        "train": {"vision": 1e-3, "projector": 1e-3, "language": 0.05},
    }
    two = _train(_folder, tmp_path / "two", {"data": tmp_path / "data"}, hardware=TWO, **changes)
    alone = _train(_folder, tmp_path / "alone", {"data": tmp_path / "data"}, **changes)
    assert two["steps"] == alone["steps"] < 90
    assert two["valid_loss"] == pytest.approx(alone["valid_loss"], abs=1e-3)


@pytest.mark.slow
def test_every_launched_process_trains_and_a_fault_comes_back_in_one_sentence(_folder, tmp_path, monkeypatch):
    from medkit.training import launch as launching

    commands = []
    real = launching.subprocess.run
    monkeypatch.setattr(
        launching.subprocess,
        "run",
        lambda *given, **more: (commands.append(given[0]), real(*given, **more))[1],
    )
    with pytest.raises(TrainingError, match=r"taught: no train sample of kind question"):
        _train(_folder, tmp_path, hardware=TWO, on=["question"])
    assert commands[0][commands[0].index("--nproc_per_node") + 1] == "2"


def test_fewer_processes_than_were_launched_are_refused(_folder, tmp_path, monkeypatch):
    # accelerate on CPU falls back to one process without a word: both would then train the same whole batches
    from medkit.training import train as training

    class Alone:
        num_processes, device, trackers = 1, torch.device("cpu"), []

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(training, "Accelerator", lambda **_: Alone())
    with pytest.raises(TrainingError, match="accelerate runs 1 of 2 launched processes; use torchrun"):
        _train(_folder, tmp_path)


def test_a_question_is_learnt_as_it_will_be_asked(tmp_path):
    loaded = build(tmp_path / "model")
    loaded.contract = replace(loaded.contract, answer_formats={"short": "red green"})
    with DatasetWriter(tmp_path / "data", "asked") as writer:
        for kind in ("question", "conversation"):
            ref = writer.add_image(np.zeros((8, 8, 3), dtype=np.uint8))
            turns = [user_turn("what colour is it?", images=1), assistant_turn("blue")]
            facts = {"question": {"kind": "colour", "answer_type": "open"}} if kind == "question" else {}
            source = {"record": kind, "split": "train", "kind": kind, "group": kind}
            writer.add(Sample(kind, turns, [ref], facts, source))
    dataset = open_dataset(tmp_path / "data")
    made = ExampleSet(loaded, [dataset], [(0, sample) for sample in dataset], 512, [], 0)
    texts = [loaded.processor.tokenizer.decode(one.encoded.ids) for one in made.examples]
    assert ["it?\nred green ASSISTANT: blue" in text for text in texts] == [True, False]
    assert "it? ASSISTANT: blue" in texts[1]


def test_large_pictures_are_made_small_before_they_are_varied(tmp_path):
    loaded = build(tmp_path / "model")  # it sees 32 px
    with DatasetWriter(tmp_path / "talks", "large") as writer:
        ref = writer.add_image(np.asarray(picture((6, 6)).resize((640, 640))))
        turns = [user_turn("what colour is it?", images=1), assistant_turn("red")]
        writer.add(Sample("r0", turns, [ref], {}, {"split": "train", "kind": "conversation"}))
    dataset = open_dataset(tmp_path / "talks")
    pixels = {}
    for side in (0, 32):
        examples = ExampleSet(loaded, [dataset], [(0, dataset[0])], 512, ["flip", "shift"], 0)
        assert examples._side == 32
        examples._side = side  # 0: at full size
        pixels[side] = examples.pictures(np.array([0]), 0)["pixel_values"]
    assert pixels[32].shape == pixels[0].shape
    assert (pixels[32] - pixels[0]).abs().mean() < 0.02 * pixels[0].abs().mean()


def test_pictures_that_are_cut_into_tiles_keep_their_size(tmp_path):
    for family in ("llava_next", "idefics3"):
        loaded = build_family(family, tmp_path / family)
        assert ExampleSet(loaded, [], [], 512, ["shift"], 0)._side == 0
