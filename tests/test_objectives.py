"""What a stage minimises: exact at supervised positions, and the dense targets of patches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_training import answers, build, build_family, examples, scenes
from torch.nn import functional

from medkit.errors import TrainingError
from medkit.sample import Sample
from medkit.store import DatasetWriter, open_dataset
from medkit.training.examples import ExampleSet
from medkit.training.objectives import (
    CELL,
    CENTRE,
    AnswerObjective,
    SeeHeads,
    SeeObjective,
    patch_targets,
    see_heads,
    whole_targets,
)  # fmt: skip

HEADS = {"label": ["circle", "square"], "colour": ["blue", "red"]}


def _thing(label: str, box: list[float], **attributes: str) -> dict:
    return {"label": label, "box": box, "attributes": attributes}


def test_patches_are_named_by_the_box_that_covers_them():
    facts = {
        "objects": [
            _thing("square", [0.25, 0.25, 0.75, 0.75], colour="red"),
            _thing("circle", [0.75, 0.0, 1.0, 0.25], colour="green"),  # green is no value of the head
        ]
    }
    label, colour = patch_targets(facts, HEADS, 4)
    assert label.tolist() == [[2, 2, 2, 0], [2, 1, 1, 2], [2, 1, 1, 2], [2, 2, 2, 2]]
    ignore = -100
    assert colour.tolist() == [
        [ignore, ignore, ignore, ignore],
        [ignore, 1, 1, ignore],
        [ignore, 1, 1, ignore],
        [ignore, ignore, ignore, ignore],
    ]
    assert label.dtype == np.int64


def test_a_patch_that_is_barely_touched_stays_ground():
    # columns 0.5 .. 2 of a 4 x 4 grid: half of column 0 is enough, three tenths of it are not
    half = patch_targets({"objects": [_thing("circle", [0.125, 0.0, 0.5, 0.25])]}, HEADS, 4)[0]
    assert half[0].tolist() == [0, 0, 2, 2]
    less = patch_targets({"objects": [_thing("circle", [0.175, 0.0, 0.5, 0.25])]}, HEADS, 4)[0]
    assert less[0].tolist() == [2, 0, 2, 2]


def test_an_object_smaller_than_a_patch_names_the_patch_of_its_centre():
    label, colour = patch_targets(
        {"objects": [_thing("circle", [0.3, 0.3, 0.4, 0.4], colour="red")]}, HEADS, 4
    )
    assert label.tolist() == [[2, 2, 2, 2], [2, 0, 2, 2], [2, 2, 2, 2], [2, 2, 2, 2]]
    assert colour[1, 1] == 1 and (colour == -100).sum() == 15


def test_places_name_the_cell_of_an_object_and_the_patch_of_its_centre():
    heads = {CELL: [f"{row}-{column}" for row in range(3) for column in range(3)], CENTRE: ["centre"]}
    facts = {"objects": [_thing("square", [0.5, 0.0, 1.0, 0.5]), _thing("circle", [0.0, 0.75, 0.25, 1.0])]}
    cell, centre = patch_targets(facts, heads, 4)
    ignore = -100
    # the square's centre (0.75, 0.25) lies in the upper right of nine cells, the circle's in the lower left
    assert cell.tolist() == [
        [ignore, ignore, 2, 2],
        [ignore, ignore, 2, 2],
        [ignore, ignore, ignore, ignore],
        [6, ignore, ignore, ignore],
    ]
    assert centre.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 1]]


def test_places_are_asked_for_on_request():
    box = [0.0, 0.0, 1.0, 1.0]
    samples = [_facts(_thing("square", box)), _facts(_thing("circle", box))]
    heads = see_heads(samples, places=True)
    assert list(heads.patch) == ["label", CELL, CENTRE]
    assert heads.patch[CELL] == ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2", "2-0", "2-1", "2-2"]


def test_a_picture_without_objects_is_all_ground():
    assert patch_targets({}, HEADS, 2).tolist() == [[[2, 2], [2, 2]], [[-100, -100], [-100, -100]]]


def _facts(*things: dict) -> Sample:
    return Sample("r", [], ["0" * 64], {"objects": list(things)})


def test_heads_ask_for_labels_and_attributes_with_more_than_one_value():
    box = [0.0, 0.0, 1.0, 1.0]
    samples = [
        _facts(_thing("square", box, colour="red", texture="plain"), _thing("circle", box, colour="blue")),
        _facts(_thing("square", box, colour="red", texture="plain")),
    ]
    heads = see_heads(samples, places=False)
    assert heads == SeeHeads({"label": ["circle", "square"], "colour": ["blue", "red"]}, {})


def test_values_that_are_too_rare_to_learn_are_left_out():
    box = [0.0, 0.0, 1.0, 1.0]
    samples = [_facts(_thing("square" if number % 2 else "circle", box)) for number in range(199)]
    samples.append(_facts(_thing("heart", box)))
    assert see_heads(samples, places=False) == SeeHeads({"label": ["circle", "square"]}, {})


def test_labels_of_the_picture_are_asked_of_the_whole():
    facts = [{"labels": {"class": "glass"}, "modality": "photo"}, {"labels": {"class": "metal"}}]
    heads = see_heads([Sample("r", [], [], one) for one in facts], places=True)
    assert heads == SeeHeads({}, {"class": ["glass", "metal"]})
    assert whole_targets(facts[1], heads.whole).tolist() == [1]
    assert (
        whole_targets({}, heads.whole).tolist()
        == whole_targets({"labels": {"class": "x"}}, heads.whole).tolist()
    )
    assert whole_targets({}, heads.whole).tolist() == [-100]


def test_facts_with_nothing_to_tell_apart_are_an_error():
    with pytest.raises(TrainingError, match=r"needs facts.objects with boxes or facts.labels"):
        see_heads([Sample("r", [], [], {"labels": {"class": "glass"}})], places=False)


def test_labels_of_pictures_are_learnt_without_boxes(tmp_path):
    loaded = build(tmp_path / "model")
    with DatasetWriter(tmp_path / "records", "colours") as writer:
        for number in range(8):
            pixels = np.full((24, 40, 3), 30 + 200 * (number % 2), dtype=np.uint8)  # wide: no box, no matter
            pixels[number, 0] = 255
            facts = {"labels": {"shade": "light" if number % 2 else "dark"}}
            writer.add(Sample(f"r{number}", [], [writer.add_image(pixels)], facts, {"kind": "record"}))
    dataset = open_dataset(tmp_path / "records")
    seen = ExampleSet(loaded, [dataset], [(0, one) for one in dataset], 512, ["flip"], 0, wordless=True)
    objective = SeeObjective(loaded, seen, see_heads(seen.kept, places=True))
    batch = objective.collate(np.arange(8), 0)
    assert batch["patches"].shape == (8, 0, 4, 4) and batch["wholes"].tolist() == [[0], [1]] * 4
    optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    for _ in range(20):
        loss = objective(batch) / 8
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.1


def test_the_loss_at_supervised_positions_is_that_of_all_logits(tmp_path):
    loaded = build(tmp_path / "model")
    objective = AnswerObjective(loaded, examples(loaded, answers(tmp_path / "data")))
    batch = objective.collate(np.arange(5), 0)
    logits = loaded.model(**{key: tensor for key, tensor in batch.items() if key != "labels"}).logits
    flat, labels = logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()
    wanted = functional.cross_entropy(flat, labels, ignore_index=-100, reduction="sum")
    assert objective(batch).item() == pytest.approx(wanted.item(), rel=1e-6)
    assert objective.weights[:5].sum() == (labels != -100).sum()
    whole = loaded.model(**batch).loss  # transformers' own mean
    assert objective(batch).item() / objective.weights[:5].sum() == pytest.approx(whole.item(), rel=1e-6)


def test_batches_come_in_few_lengths(tmp_path):
    loaded = build(tmp_path / "model")
    made = examples(loaded, answers(tmp_path / "data"))
    for index in range(6):
        batch = made.collate(np.array([index]), 0)
        assert batch["input_ids"].shape[1] % 16 == 0
        assert batch["attention_mask"].sum() == made.lengths[index]


def test_padding_changes_no_loss(tmp_path):
    loaded = build(tmp_path / "model")
    objective = AnswerObjective(loaded, examples(loaded, answers(tmp_path / "data")))
    assert len(set(objective.lengths[:6].tolist())) > 2
    together = objective(objective.collate(np.arange(6), 0)).item()
    alone = sum(objective(objective.collate(np.array([index]), 0)).item() for index in range(6))
    assert together == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("family", ["llava_next", "idefics3"])
def test_pictures_that_are_cut_into_unlike_numbers_of_tiles_are_batched(family, tmp_path):
    from tiny_training import picture

    from medkit.sample import assistant_turn, user_turn
    from medkit.store import DatasetWriter

    with DatasetWriter(tmp_path / "data", "sizes") as writer:
        for number, size in enumerate([(32, 32), (64, 32), (30, 64), (64, 64)]):
            turns = [user_turn("what colour is it?", images=1), assistant_turn("red")]
            source = {"kind": "conversation", "split": "train"}
            writer.add(Sample(f"r{number}", turns, [writer.add_image(picture(size, number))], {}, source))
    loaded = build_family(family, tmp_path / family)
    objective = AnswerObjective(loaded, examples(loaded, tmp_path / "data"))
    together = objective(objective.collate(np.arange(4), 0))
    alone = sum(objective(objective.collate(np.array([index]), 0)).item() for index in range(4))
    assert together.item() == pytest.approx(alone, rel=1e-4)
    together.backward()


def test_seeing_learns_and_its_targets_have_a_class_for_ground(tmp_path):
    loaded = build(tmp_path / "model")
    scenes(tmp_path, train=12, valid=2)
    dataset = open_dataset(tmp_path / "records")
    seen = ExampleSet(loaded, [dataset], [(0, sample) for sample in dataset], 512, [], 0, wordless=True)
    objective = SeeObjective(loaded, seen, see_heads(seen.kept, places=True))
    assert set(objective.names.patch) == {"label", "colour", "size", "texture", "character", CELL, CENTRE}
    batch = objective.collate(np.arange(8), 0)
    assert batch["pixel_values"].shape == (8, 3, 32, 32)
    assert batch["patches"].shape == (8, 7, 4, 4)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        loss = objective(batch) / 8
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def _wide(folder, fit: str) -> ExampleSet:
    with DatasetWriter(folder / "records", "wide") as writer:
        for number, shape in enumerate([(32, 32, 3), (32, 64, 3)]):
            pixels = np.full(shape, 7, dtype=np.uint8)
            facts = {"objects": [_thing("square", [0.0, 0.0, 0.5, 0.5])]}
            writer.add(Sample(f"r{number}", [], [writer.add_image(pixels)], facts, {"kind": "record"}))
    dataset = open_dataset(folder / "records")
    loaded = build(folder / "model")
    loaded.contract = replace(loaded.contract, fit=fit)
    return ExampleSet(loaded, [dataset], [(0, sample) for sample in dataset], 512, [], 0, wordless=True)


@pytest.mark.parametrize(("fit", "box"), [("pad", [0.0, 0.25, 0.5, 0.5]), ("stretch", [0.0, 0.0, 0.5, 0.5])])
def test_boxes_follow_what_the_model_sees_of_a_wide_picture(tmp_path, fit, box):
    square, wide = _wide(tmp_path, fit).kept
    assert square.facts["objects"][0]["box"] == [0.0, 0.0, 0.5, 0.5]
    assert wide.facts["objects"][0]["box"] == box


def test_boxes_that_a_crop_would_move_are_dropped(tmp_path):
    seen = _wide(tmp_path, "crop")
    assert [sample.id for sample in seen.kept] == ["r0"]
    reason = "objective see can't follow boxes through the crop of a picture that isn't square"
    assert seen.dropped == [{"record": "r1", "fate": "rejected", "reason": reason}]


def test_seeing_needs_a_tower_of_the_llava_type(tmp_path):
    loaded = build_family("idefics3", tmp_path / "model")
    with pytest.raises(TrainingError, match="idefics3 has none"):
        SeeObjective(loaded, ExampleSet(loaded, [], [], 512, [], 0), SeeHeads(HEADS, {}))
