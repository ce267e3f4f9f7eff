"""Every family goes through one code path: masks, a stage of training, a model folder, answers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from families import BUILDERS, build_family
from PIL import Image
from tiny_training import answers, examples, picture, stage
from transformers.processing_utils import ProcessorMixin
from transformers.utils import is_torchvision_available

from medkit.cards import adapters as cards
from medkit.evaluation.generate import answer_questions
from medkit.evaluation.questions import Question
from medkit.models import processors
from medkit.models.contract import prepare_image
from medkit.models.load import load_model, save_model
from medkit.models.parts import FAMILIES, linear_names, parameters_by_part, top_modules
from medkit.models.processors import CONFIG, VIDEO_CONFIG
from medkit.models.quantize import kept_modules
from medkit.sample import Sample, assistant_turn, user_turn
from medkit.store import DatasetWriter
from medkit.training.encode import IGNORE, encode, render_prompt
from medkit.training.train import train

TALK = [
    user_turn("is there a red circle?", images=1),
    assistant_turn("yes"),
    user_turn("what colour is it?"),
    assistant_turn("(not sure) blue, or\n\ngreen"),
]
OTHERS = [family for family in BUILDERS if family != "llava"]


@pytest.fixture(scope="module")
def _built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    built = {family: build_family(family, folder / family) for family in BUILDERS}
    for family in OTHERS:
        save_model(built[family], folder / family, built[family].contract)
    answers(folder / "data", count=8)
    return built


def test_check_and_models_know_the_same_families_and_all_are_built():
    assert sorted(FAMILIES) == sorted(cards.FAMILIES) == sorted(BUILDERS)


@pytest.mark.parametrize("family", OTHERS)
def test_every_part_of_every_family_is_found(_built, family):
    model = _built[family].model
    counts = {
        part: sum(parameter.numel() for _, parameter in members)
        for part, members in parameters_by_part(model, family).items()
    }
    assert min(counts.values()) > 100, counts
    assert sum(counts.values()) == sum(parameter.numel() for parameter in model.parameters())
    # seven linear layers in each of two text blocks; nothing of the tower among them
    named = linear_names(model, family, "language", [])
    assert len(named) == 14 and not any("vis" in name for name in named)
    assert linear_names(model, family, "vision", [])


@pytest.mark.parametrize("family", BUILDERS)
def test_what_is_not_quantised_is_named_from_the_start(_built, family):
    kept = kept_modules(str(_built[family].folder))
    names = {name for name, _ in _built[family].model.named_modules()}
    assert "lm_head" in kept and set(kept) <= names
    tower = {"qwen2_5_vl": "model.visual", "qwen3_vl": "model.visual"}.get(family, "model.vision_")
    assert any(name.startswith(tower) for name in kept)
    outside = [
        name
        for name in names
        if "language_model.layers" in name or "text_model.layers" in name
        if any(f"{name}.".startswith(f"{one}.") for one in kept)
    ]
    assert outside == []


@pytest.mark.parametrize("family", BUILDERS)
@pytest.mark.parametrize("size", [(32, 32), (64, 48)])
def test_masks_cover_the_answers_and_nothing_else(_built, family, size):
    processor = _built[family].processor
    encoded = encode(processor, TALK, [size], 1024)
    learnt = processor.tokenizer.decode(encoded.ids[encoded.labels != IGNORE])
    assert learnt.strip() == (
        "yes</s> (not sure) blue, or\n\ngreen</s>"
        if family == "llava"
        else "yes</s>(not sure) blue, or\n\ngreen</s>"
    )
    for turn in (1, 3):
        text = render_prompt(processor, TALK[:turn])
        special = not text.startswith(processor.tokenizer.bos_token)
        ids = processor(text=[text], images=[Image.new("RGB", size)], add_special_tokens=special)[
            "input_ids"
        ][0]
        assert encoded.ids[: len(ids)].tolist() == list(ids)
        assert encoded.labels[len(ids)] == encoded.ids[len(ids)]


@pytest.mark.parametrize("family", BUILDERS)
def test_a_batch_is_what_the_processor_makes_of_it(_built, family, tmp_path):
    """Batches are made of pictures prepared one by one: the model must see no difference, with two either."""
    loaded = _built[family]
    data = tmp_path / "data"
    pictures = [picture((64, 48), seed) for seed in range(3)]
    with DatasetWriter(data, "answers") as writer:
        refs = [writer.add_image(np.asarray(image)) for image in pictures]
        for name, shown in (("one", refs[:1]), ("two", refs[1:])):
            turns = [user_turn("what colour is it?", images=len(shown)), assistant_turn("red")]
            source = {"record": name, "split": "train", "kind": "conversation", "group": name}
            writer.add(Sample(name, turns, shown, {}, source))
    made = examples(loaded, data)
    wanted = []
    for index, shown in enumerate((pictures[:1], pictures[1:])):
        messages = [user_turn("what colour is it?", images=len(shown)), assistant_turn("red")]
        text = loaded.processor.apply_chat_template(messages, tokenize=False)
        special = not text.startswith(loaded.processor.tokenizer.bos_token)
        inputs = loaded.processor(
            text=[text],
            images=[[prepare_image(one, loaded.contract) for one in shown]],
            add_special_tokens=special,
            return_tensors="pt",
            padding=True,
        )
        batch = made.collate(np.array([index]), 0)
        with torch.no_grad():
            own = loaded.model.eval()(**{key: batch[key] for key in batch if key != "labels"}).logits
            wanted.append(loaded.model(**inputs).logits[0])
        length = wanted[-1].shape[0]
        assert (own[0, :length] - wanted[-1]).abs().max() < 1e-5
    both = made.collate(np.arange(2), 0)
    with torch.no_grad():
        own = loaded.model(**{key: both[key] for key in both if key != "labels"}).logits
    for row, logits in zip(own, wanted, strict=True):
        assert (row[: len(logits)] - logits).abs().max() < 1e-5


@pytest.mark.parametrize("family", OTHERS)
def test_a_stage_leaves_a_folder_that_answers(_built, family, tmp_path):
    result = train(
        stage(epochs=4.0, batch=4, train={"vision": 3e-3, "projector": 3e-3, "language": 3e-3}),
        {"start": _built[family].folder, "data": _built[family].folder.parent / "data"},
        tmp_path,
    )
    assert result["loss_last"] < result["loss_first"]
    assert set(result["trainable"]) == {"vision", "projector", "language"}
    again = load_model(tmp_path / "model", "cpu")
    ask = [user_turn("what colour is it?", images=1)]
    questions = [
        Question("b", "none", str(number), "g", "k", "open", ask, [str(number)], ["red"])
        for number in range(2)
    ]
    replies = answer_questions(
        again.model,
        again.processor,
        questions,
        lambda question: [picture((32, 32), int(question.id))],
        prompt_of=lambda messages: render_prompt(again.processor, messages),
        partial=tmp_path / "replies.jsonl",
        max_new_tokens=3,
    )
    assert len(replies) == 2 and all(isinstance(reply["answer"], str) for reply in replies.values())


@pytest.mark.skipif(is_torchvision_available(), reason="torchvision is installed: nothing is left out")
@pytest.mark.parametrize("family", ["qwen2_5_vl", "smolvlm"])
def test_a_processor_without_torchvision_keeps_its_video_settings(_built, family, tmp_path):
    save_model(_built[family], tmp_path / "came", _built[family].contract)
    video = {"video_processor_type": "SomeVideoProcessor", "fps": 2}
    (tmp_path / "came" / VIDEO_CONFIG).write_text(json.dumps(video))
    loaded = load_model(tmp_path / "came", "cpu")
    save_model(loaded, tmp_path / "went", loaded.contract)
    assert json.loads((tmp_path / "went" / CONFIG).read_text())["video_processor"] == video
    again = load_model(tmp_path / "went", "cpu")
    save_model(again, tmp_path / "further", again.contract)
    assert json.loads((tmp_path / "further" / CONFIG).read_text())["video_processor"] == video


def test_with_torchvision_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(processors, "is_torchvision_available", lambda: True)
    monkeypatch.setattr(ProcessorMixin, "_without_video", False, raising=False)
    before = ProcessorMixin.get_attributes.__func__
    processors.leave_video_out()
    assert ProcessorMixin.get_attributes.__func__ is before


def test_parts_of_lists_are_named_one_by_one(_built):
    # a list has no forward of its own, so PEFT can't keep a trained copy of it
    assert top_modules(_built["qwen3_vl"].model, "qwen3_vl", "projector") == [
        "model.visual.merger",
        "model.visual.deepstack_merger_list.0",
    ]
    assert top_modules(_built["gemma3"].model, "gemma3", "projector") == ["model.multi_modal_projector"]
