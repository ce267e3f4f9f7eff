"""Packed samples of one picture train as they would one by one: same loss, same gradients, same tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_training import build_family, picture, stage

from medkit.errors import TrainingError
from medkit.sample import Sample, assistant_turn, user_turn
from medkit.store import DatasetWriter, open_dataset
from medkit.training.encode import IGNORE, Encoded
from medkit.training.examples import ExampleSet, take_apart
from medkit.training.objectives import AnswerObjective
from medkit.training.pack import pack, packed_mask, single_turns, takes_turns
from medkit.training.train import train

FAMILIES = ("llava", "llava_next", "idefics3")
TALKS = (
    [("is there a red circle?", "yes"), ("how many squares are there?", "3")],
    [("is there a red square?", "no")],
    [("what colour is it?", "blue, or green")],
)
PICTURE = 7  # the image token of hand-made samples


@pytest.fixture(scope="module", params=FAMILIES)
def _loaded(request, tmp_path_factory):
    return build_family(request.param, tmp_path_factory.mktemp("family") / request.param)


def _talks(folder, pictures: int = 2):
    with DatasetWriter(folder, "talks") as writer:
        for number in range(pictures):
            # every other picture is wide: families that cut tiles give it another number of tokens
            ref = writer.add_image(np.asarray(picture((32 + 32 * (number % 2), 32), seed=number)))
            for talk, turns in enumerate(TALKS):
                messages = []
                for place, (asked, answered) in enumerate(turns):
                    messages += [user_turn(asked, images=int(place == 0)), assistant_turn(answered)]
                source = {"record": f"r{number}", "split": "train", "kind": "conversation"}
                writer.add(Sample(f"r{number}-{talk}", messages, [ref], {}, source))
    return open_dataset(folder)


def _set(loaded, dataset, turns: str = "together", packed: bool = False) -> ExampleSet:
    samples = [(0, sample) for sample in dataset]
    samples = take_apart(samples) if turns == "apart" else samples
    return ExampleSet(loaded, [dataset], samples, 512, [], 0, packed=packed)


def _loss(loaded, examples) -> tuple[float, dict[str, torch.Tensor]]:
    objective = AnswerObjective(loaded, examples)
    loaded.model.zero_grad()
    loss = objective(objective.collate(np.arange(len(examples)), 0))
    loss.backward()
    grads = {name: p.grad.clone() for name, p in loaded.model.named_parameters() if p.grad is not None}
    return float(loss), grads


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("turns", ["together", "apart"])
def test_packed_loss_and_gradients_are_those_of_the_samples_alone(_loaded, tmp_path, attention, turns):
    _loaded.base_model.set_attn_implementation(attention)
    dataset = _talks(tmp_path / "talks")
    alone = _set(_loaded, dataset, turns=turns)
    packed = _set(_loaded, dataset, turns=turns, packed=True)
    assert len(alone) == (8 if turns == "apart" else 6) and len(packed) == 2
    assert packed.counts.sum() == len(alone)
    assert packed.supervised.sum() == alone.supervised.sum()
    assert packed.lengths.sum() < alone.lengths.sum()
    loss, grads = _loss(_loaded, alone)
    packed_loss, packed_grads = _loss(_loaded, packed)
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    assert grads.keys() == packed_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(packed_grads[name], grad, rtol=1e-3, atol=1e-5, msg=name)


def test_a_mask_that_let_samples_see_each_other_would_show(tmp_path):
    loaded = build_family("llava", tmp_path / "llava")
    loaded.base_model.set_attn_implementation("eager")
    packed = _set(loaded, _talks(tmp_path / "talks"), packed=True)
    objective = AnswerObjective(loaded, packed)
    batch = objective.collate(np.arange(2), 0)
    right = float(objective(batch))
    leaky = {**batch, "segments": torch.where(batch["segments"] > 0, 1, batch["segments"])}
    assert abs(float(objective(leaky)) - right) > 1e-4 * right


def _made(*ids: int, answer: int = 1) -> Encoded:
    array = np.array(ids, dtype=np.int32)
    labels = np.where(np.arange(len(ids)) >= len(ids) - answer, array, IGNORE).astype(np.int32)
    return Encoded(array, labels)


def test_the_common_beginning_is_kept_once():
    first, second = _made(1, PICTURE, PICTURE, 3, 4, 5), _made(1, PICTURE, PICTURE, 3, 6, 8)
    ((joined, numbers),) = pack([first, second], PICTURE, 100)
    assert numbers == [0, 1]
    assert joined.ids.tolist() == [1, PICTURE, PICTURE, 3, 4, 5, 6, 8]
    assert joined.labels.tolist() == [IGNORE] * 5 + [5, IGNORE, 8]
    assert joined.segments.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    assert joined.positions.tolist() == [0, 1, 2, 3, 4, 5, 4, 5]


def test_the_token_that_predicts_an_answer_is_never_shared():
    # the same question with two answers: the last token of the question must predict both
    ((joined, _),) = pack([_made(1, PICTURE, 3, 5), _made(1, PICTURE, 3, 6)], PICTURE, 100)
    assert joined.ids.tolist() == [1, PICTURE, 3, 5, 3, 6]


def test_a_full_sequence_begins_another():
    samples = [_made(1, PICTURE, number, 5) for number in (10, 11, 12, 13, 14)]
    packed = pack(samples, PICTURE, 6)
    assert [numbers for _, numbers in packed] == [[0, 1], [2, 3], [4]]
    assert all(len(one.ids) <= 6 for one, _ in packed)
    assert packed[2][0] is samples[4]


def test_pictures_outside_the_common_beginning_are_not_packed():
    packed = pack([_made(1, 2, PICTURE, 5), _made(1, 3, PICTURE, 5)], PICTURE, 100)
    assert [numbers for _, numbers in packed] == [[0], [1]]


def test_the_mask_lets_a_sample_see_the_beginning_and_itself():
    mask = packed_mask(torch.tensor([[0, 1, 1, 2, -1]]), torch.float32, boolean=True)[0, 0]
    assert mask.int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 0, 1],
    ]
    added = packed_mask(torch.tensor([[0, 1, 1, 2, -1]]), torch.float32, boolean=False)[0, 0]
    assert ((added == 0) == mask).all() and added.min() == torch.finfo(torch.float32).min


def test_single_turns_take_the_picture_along():
    talk = Sample(
        "t", [user_turn("a", 1), assistant_turn("b"), user_turn("c"), assistant_turn("d")], ["0" * 64]
    )
    assert takes_turns(talk)
    first, second = single_turns(talk)
    assert first.messages == talk.messages[:2]
    assert second.messages == [user_turn("c", 1), assistant_turn("d")]
    assert second.id == "t-1" and second.images == talk.images


def test_talks_of_another_form_stay_whole():
    system = {"role": "system", "content": [{"type": "text", "text": "be brief"}]}
    assert not takes_turns(Sample("t", [system, user_turn("a"), assistant_turn("b")], []))
    assert not takes_turns(Sample("t", [user_turn("a"), assistant_turn("b"), user_turn("c")], []))
    second_picture = [user_turn("a", 1), assistant_turn("b"), user_turn("c", 1), assistant_turn("d")]
    assert not takes_turns(Sample("t", second_picture, ["0" * 64] * 2))
    assert take_apart([(0, Sample("record", [], ["0" * 64]))]) == [(0, Sample("record", [], ["0" * 64]))]


def test_a_family_without_packing_is_refused(tmp_path):
    loaded = build_family("llava", tmp_path / "llava")
    dataset = _talks(tmp_path / "talks")
    loaded.base_model.config.model_type = "gemma3"
    with pytest.raises(
        TrainingError, match="pack: true works for llava, llava_next, idefics3, not for gemma3"
    ):
        _set(loaded, dataset, packed=True)
    loaded.base_model.config.model_type = "llava"
    loaded.base_model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(TrainingError, match="needs eager or sdpa attention, not flash_attention_2"):
        _set(loaded, dataset, packed=True)


def test_a_stage_counts_samples_not_sequences(tmp_path):
    build_family("llava", tmp_path / "base")
    _talks(tmp_path / "talks", pictures=3)
    settings = stage(on=["conversation"], turns="apart", pack=True, batch=2)
    (tmp_path / "out").mkdir()
    result = train(settings, {"start": tmp_path / "base", "data": tmp_path / "talks"}, tmp_path / "out")
    assert result["samples"] == result["samples_seen"] == 12 and result["steps"] == 2
