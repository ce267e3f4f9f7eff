"""VQA-RAD: its defects are told, its pictures stay in one split, and the whole curriculum runs on it."""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from real_data import real_set, splits_of

from medkit.cards.strict_yaml import read_card
from medkit.errors import DataError
from medkit.readers import Record, Rejected
from medkit.readers.ingest import ingest
from medkit.readers.vqa_rad import read
from medkit.sample import text_of
from medkit.store import open_dataset
from medkit.teacher.teach import teach

ROOT = Path(__file__).resolve().parents[1]
DOMAIN = ROOT / "domains" / "vqa-rad"
FIXTURE = DOMAIN / "fixture"


def items(root: Path, **options) -> tuple[list[Record], list[Rejected]]:
    found = list(read(root, options))
    return [i for i in found if isinstance(i, Record)], [i for i in found if isinstance(i, Rejected)]


def test_questions_keep_their_facts_and_their_defects_are_told():
    records, rejected = items(FIXTURE)
    assert rejected == []
    by_id = {record.id: record for record in records}
    assert sorted(by_id) == sorted([*map(str, range(1, 13)), *(f"image-invented{n}" for n in (1, 2, 3, 4))])
    number = by_id["2"]
    assert number.facts["question"] == {
        "kind": "count", "answer_type": "number", "choices": [], "references": ["2"],
    }  # fmt: skip
    assert text_of(number.messages[1]) == "2"
    assert number.notes == (("answer is a number", "2 is read as text"),)
    assert by_id["3"].facts["question"]["kind"] == "presence"
    assert [reason for reason, _ in by_id["3"].notes] == ["answer_type misspelt", "question_type misspelt"]
    right = by_id["6"]
    assert (text_of(right.messages[0]), text_of(right.messages[1])) == (
        "Is the bright spot left or right?",
        "Right",
    )
    assert right.extra["question_types"] == ["position", "presence"] and right.extra["closed"] is True
    assert [reason for reason, _ in right.notes] == [
        "spaces around text", "several question types", "closed question without yes or no",
    ]  # fmt: skip
    assert by_id["9"].split == "dev" and by_id["9"].extra["official_split"] == "train"


def test_near_duplicates_share_a_group():
    records, _ = items(FIXTURE)
    groups = {record.id: record.group for record in records}
    assert groups["1"] == groups["8"] == groups["image-invented4"] == "invented1.jpg"
    assert groups["3"] == "invented2.jpg"


def test_the_facts_of_a_picture_are_what_its_rows_agree_on():
    records, _ = items(FIXTURE)
    facts = {record.id: record.facts for record in records if not record.kind}
    assert facts["image-invented2"] == {
        "labels": {"organ": "head", "plane": "axial"}, "objects": [], "complete": False, "modality": "MRI",
    }  # fmt: skip
    assert facts["image-invented3"]["modality"] == "CT"  # as the set was gathered: abdomens by CT
    assert facts["image-invented1"] == {
        "labels": {"organ": "chest"}, "objects": [], "complete": False, "modality": "X-ray",
    }  # fmt: skip
    assert items(FIXTURE, describe=["dev"])[0][-1].id == "image-invented6"
    assert [record.kind for record in items(FIXTURE, describe=[])[0]] == ["question"] * 12


def test_rows_that_cannot_be_used_are_rejected_with_their_place(tmp_path):
    shutil.copytree(FIXTURE, tmp_path / "set")
    whole = {"qid": 5, "image": "train/images/invented1.jpg", "question": "What?", "answer": "this"}
    rows = [
        "{",
        json.dumps({**whole, "answer": "  "}),
        json.dumps({**whole, "question": None}),
        json.dumps({**whole, "image": "train/images/none.jpg"}),
        json.dumps({**whole, "image": "../../secret.jpg"}),
        json.dumps({**whole, "qid": None, "answer": 0}),
    ]
    (tmp_path / "set" / "questions_train.jsonl").write_text("\n".join(rows) + "\n")
    records, rejected = items(tmp_path / "set")
    assert Counter(one.reason for one in rejected) == {
        "row unreadable": 1, "question without answer": 1, "question missing": 1, "image missing": 1,
        "image outside the data folder": 1, "picture without question": 3,
    }  # fmt: skip
    assert [(record.id, record.facts["question"]["references"]) for record in records if record.kind][4] == (
        "questions_train.jsonl:6", ["0"],
    )  # fmt: skip


def test_a_folder_without_questions_is_said(tmp_path):
    with pytest.raises(DataError, match=r"holds no questions_SPLIT\.jsonl; give the set's folder"):
        list(read(tmp_path, {}))


def settings(folder: Path) -> dict:
    return {"domain": {**read_card(DOMAIN / "domain.yaml").value, "folder": str(DOMAIN)}, "data": str(folder)}


def test_training_questions_stay_questions_and_the_teacher_speaks_of_the_rest(tmp_path):
    ingest(settings(FIXTURE), {}, tmp_path / "ingest")
    taught = {"teacher": read_card(DOMAIN / "teacher.yaml").value, "seed": 0, "conversations_per_image": 2}
    teach(taught, {"ingest": tmp_path / "ingest"}, tmp_path / "teach")
    dataset = open_dataset(tmp_path / "teach")
    kinds = Counter((sample.split, sample.kind) for sample in dataset)
    assert kinds["test", "question"] == 4  # the set's own alone: nothing made is asked
    assert kinds["train", "question"] >= 4 and kinds["train", "caption"] >= 2
    assert {sample.source.get("teacher") for sample in dataset if sample.kind == "question"} == {None}
    captions = [text_of(sample.messages[1]) for sample in dataset if sample.kind == "caption"]
    assert all("{" not in caption and caption.endswith(".") for caption in captions)


def test_the_real_set_comes_in_whole_and_split_by_picture(tmp_path):
    root = real_set("vqa_rad")
    rows = {split: found for split, found in splits_of(root, "questions_*.jsonl").items() if found}
    records, rejected = items(root)
    questions = [record for record in records if record.kind]
    assert Counter(record.split for record in questions) == {
        split: len(found) for split, found in rows.items()
    }
    assert {one.reason for one in rejected} <= {"picture without question"}
    told = Counter(reason for record in questions for reason, _ in record.notes)
    every = [row for found in rows.values() for row in found]
    assert told["answer is a number"] == sum(not isinstance(row["answer"], str) for row in every)
    assert told["answer_type misspelt"] == sum(row["answer_type"] not in ("OPEN", "CLOSED") for row in every)
    group_splits = defaultdict(set)
    for record in questions:
        group_splits[record.group].add(record.split)
    assert all(len(splits) == 1 for splits in group_splits.values())
    for split, found in splits_of(root, "images_*.jsonl").items():
        for row in found:
            twin = row.get("near_duplicate_group")
            if twin and row["n_questions"]:
                own = {r.group for r in questions if Path(str(r.image)).name == Path(row["image"]).name}
                assert own == {twin}, (split, row["image"])


SHORT = (
    "ingest.limit=40", "adapter.rank=4", "adapter.alpha=8", "align.batch=16", "instruct.batch=8",
    "finetune.batch=8", "finetune.epochs=1", "instruct.epochs=0.5", "hardware.precision=fp32",
    "teacher.conversations_per_image=1",
)  # fmt: skip


@pytest.mark.slow
def test_the_whole_curriculum_ends_in_a_folder_that_plain_transformers_loads(tmp_path):
    from test_end_to_end import BASE, flags, medkit, plain_answers

    root = real_set("vqa_rad")
    base = shutil.copytree(BASE, tmp_path / "imported")
    words = ("vqa-rad", *flags(SHORT), "--set", f"data={root}", "--set", f"base={base}")
    medkit(tmp_path, "run", *words)
    run = tmp_path / "runs" / "vqa-rad"
    for stage, least in (("align", 1), ("instruct", 1), ("finetune", 8)):
        summary = json.loads(next(run.glob(f"[0-9]-{stage}/summary.json")).read_text())
        assert summary["result"]["samples_seen"] >= least, stage
    adapter = json.loads((run / "model" / "adapter_config.json").read_text())
    ours, theirs = plain_answers("finetune", run, tmp_path, base=Path(adapter["base_model_name_or_path"]))
    assert len(ours) == 12 and ours == theirs
    medkit(tmp_path, "export", "runs/vqa-rad", "--out", "bundle", "--dtype", "float32")
    shutil.rmtree(run / "model")
    shutil.copytree(tmp_path / "bundle", run / "model")
    assert plain_answers("finetune", run, tmp_path) == (ours, ours)
