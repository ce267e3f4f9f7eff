"""Forms of other tools: a round trip loses nothing."""

from __future__ import annotations

import itertools
import json
import random

import pytest
from real_data import real_set

from medkit.errors import DataError
from medkit.readers import Rejected
from medkit.readers.format_files import export, read_rows, write_rows
from medkit.readers.formats import FORMS, from_row, to_row
from medkit.sample import Sample, assistant_turn, user_turn
from medkit.store import DatasetWriter, open_dataset

SYSTEM = {"role": "system", "content": [{"type": "text", "text": "You are careful.\n"}]}
SAMPLES = [
    Sample("plain", [user_turn("What is it?", images=1), assistant_turn("A coat.")], ["a.png"]),
    Sample("text", [SYSTEM, user_turn("Is 1 < 2?"), assistant_turn("yes")], []),
    Sample(
        "several",
        [
            SYSTEM,
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Compare "},
                    {"type": "image"},
                    {"type": "text", "text": "with "},
                    {"type": "image"},
                ],
            },
            assistant_turn("The second is darker."),
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\nand this?\n"}]},
            assistant_turn("Größer — 大きい"),
        ],
        ["b.png", "a.png", "dir/c d.png"],
        {
            "labels": {"class": "coat"},
            "objects": [{"label": "x", "box": [0.0, 0.25, 0.5, 1.0], "attributes": {}}],
        },
        {
            "dataset": "d",
            "record": "r",
            "licence": "MIT",
            "group": "g",
            "split": "test",
            "kind": "conversation",
        },
    ),
    Sample(
        "token",
        [user_turn("What does <image> mean in LLaVA?"), assistant_turn("It is <image>\n a place.")],
        [],
    ),
    Sample(
        "extra",
        [user_turn("?", images=1), assistant_turn("!")],
        ["a.png"],
        {},
        {"extra": {"score": 0.5, "tags": ["x"]}},
    ),
    Sample("7", [user_turn("?", images=1), assistant_turn("!")], ["a.png"], {}, {"original_id": 7}),
]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.id)
@pytest.mark.parametrize("form", FORMS)
def test_a_sample_comes_back_from_every_form(sample, form):
    row = json.loads(json.dumps(to_row(sample, form)))
    assert from_row(row, form) == sample


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.id)
@pytest.mark.parametrize("forms", list(itertools.permutations(FORMS, 3)), ids=" ".join)
def test_a_sample_comes_back_from_a_chain_of_forms(sample, forms):
    for form in forms:
        sample_again = from_row(to_row(sample, form), form)
    assert sample_again == sample


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.parquet"])
@pytest.mark.parametrize("form", FORMS)
def test_files_of_every_kind_come_back(tmp_path, form, name):
    assert write_rows(SAMPLES, tmp_path / name, form) == 6
    assert list(read_rows(tmp_path / name, form)) == SAMPLES


def _talk(question: str, answer: str = "A", **more) -> dict:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {**more, "conversations": turns}


SYSTEM_TURN = {"from": "system", "value": "S"}
TOOL_TURN = {"from": "tool", "value": "{}"}
LLAVA_ROWS = [
    _talk("<image>\nWhat?", id="1", image="a.jpg"),
    _talk("What?\n<image>", id="2", image="a.jpg") | {"model": "gpt-4", "score": 3},
    _talk("<image>What?", " A. ", id="3", image="a.jpg"),
    {"id": 4, "conversations": [SYSTEM_TURN, *_talk("Q")["conversations"]]},
    _talk("<image><image>\nQ", image=["a.jpg", "b.jpg"]),
    {"id": "6", "conversations": [*_talk("Q")["conversations"], TOOL_TURN]},
]


@pytest.mark.parametrize("row", LLAVA_ROWS, ids=range(1, 7))
def test_llava_rows_come_back_to_the_letter_even_through_other_forms(row):
    sample = from_row(row, "llava")
    assert to_row(sample, "llava") == row
    for form in ("sharegpt", "swift", "messages"):
        again = from_row(json.loads(json.dumps(to_row(sample, form))), form)
        assert to_row(again, "llava") == row


def test_known_defects_are_mended_and_said():
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A."}]
    sample = from_row({"id": "1", "image": ["a.jpg"], "conversatons": turns}, "llava")
    assert sample.source["mended"] == [
        "conversatons -> conversations",
        "<image> added to the first user turn",
    ]
    assert to_row(sample, "llava")["image"] == "a.jpg"
    assert to_row(sample, "llava")["conversations"][0] == {"from": "human", "value": "<image>\nWhat?"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": "1"}, "no turns under 'conversations'"),
        ({"id": "1", "conversations": []}, "no turns under 'conversations'"),
        ({"id": "1", "conversations": [{"from": "human", "value": 3}]}, "a turn's value is int, not text"),
        (
            {"id": "1", "image": "a", "conversations": [{"from": "human", "value": "<image><image>"}]},
            "2 <image> places and 1 pictures",
        ),
        (
            {"id": "1", "image": [3], "conversations": [{"from": "human", "value": "<image>"}]},
            "a picture's name is no text",
        ),
    ],
)
def test_rows_that_make_no_sense_are_refused(row, said):
    with pytest.raises(DataError, match=said):
        from_row(row, "llava")


def test_random_rows_never_raise_anything_else(tmp_path):
    rng = random.Random(0)
    values = [
        None,
        3,
        "",
        "x",
        [],
        {},
        [None],
        ["a"],
        [{}],
        [{"from": "human"}],
        [{"from": "human", "value": "<image>"}],
        {"a": 1},
    ]
    rows = [
        {
            key: rng.choice(values)
            for key in ("id", "image", "images", "conversations", "messages", "medkit", "system")
            if rng.random() < 0.7
        }
        for _ in range(800)
    ]
    (tmp_path / "rows.json").write_text(json.dumps([*rows, 1, None, "x"]))
    for form in FORMS:
        read = list(read_rows(tmp_path / "rows.json", form))
        assert len(read) == 803
        assert all(isinstance(item, Sample | Rejected) for item in read)


def test_llama_factory_descriptor_is_written_and_followed(tmp_path):
    write_rows(SAMPLES[:1], tmp_path / "train.json", "sharegpt")
    write_rows(SAMPLES[1:2], tmp_path / "test.json", "sharegpt")
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert sorted(info) == ["test", "train"]
    assert info["train"] == {
        "file_name": "train.json",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "images": "images"},
        "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human",
                 "assistant_tag": "gpt", "system_tag": "system"},
    }  # fmt: skip
    info["other"] = {
        "file_name": "other.json",
        "columns": {"messages": "talk", "images": "pics", "system": "rule"},
        "tags": {"role_tag": "who", "content_tag": "says", "user_tag": "me", "assistant_tag": "you"},
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    row = {
        "talk": [{"who": "me", "says": "<image>\nQ"}, {"who": "you", "says": "A"}],
        "pics": ["a.png"],
        "rule": "Be brief.",
    }
    (tmp_path / "other.json").write_text(json.dumps([row]))
    (sample,) = read_rows(tmp_path / "other.json", "sharegpt")
    assert [turn["role"] for turn in sample.messages] == ["system", "user", "assistant"]
    assert sample.images == ["a.png"]


def test_a_file_that_is_no_list_is_one_sentence(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match=r"a.json holds no list of rows"):
        list(read_rows(tmp_path / "a.json", "llava"))
    (tmp_path / "b.json").write_text("[")
    with pytest.raises(DataError, match=r"b.json can't be read"):
        list(read_rows(tmp_path / "b.json", "llava"))
    with pytest.raises(DataError, match="there is no form 'chatml'"):
        list(read_rows(tmp_path / "b.json", "chatml"))


def test_export_writes_rows_and_pictures_that_llava_json_reads_again(tmp_path):
    import numpy as np

    from medkit.readers import get_reader

    with DatasetWriter(tmp_path / "d", "d") as to:
        ref = to.add_image(np.full((4, 4, 3), 9, np.uint8))
        to.add(
            Sample(
                "s",
                [user_turn("Q", images=1), assistant_turn("A")],
                [ref],
                {"labels": {"a": "b"}},
                {"split": "test"},
            )
        )
        to.add(Sample("r", [], [ref], {}, {"kind": "record"}))
    path = export(open_dataset(tmp_path / "d"), tmp_path / "out", "llava")
    written = [p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")]
    assert sorted(written) == ["d.json", f"images/{ref}.webp"]
    (record,) = get_reader("llava_json")(path, {})
    assert (record.id, record.split, record.facts) == ("s", "test", {"labels": {"a": "b"}})
    assert [p.name for p in record.image] == [f"{ref}.webp"]


def test_real_coco_conversations_make_rows(tmp_path):
    folder = real_set("llava_eval")
    path = folder / "playground/data/coco2014_val_gpt4_qa_30x3.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    talks = [
        {
            "id": f"{row['id']}-{row['type']}",
            "image": row["image"],
            "conversations": [
                {"from": "human", "value": "<image>\n" + row["instruction"]},
                {"from": "gpt", "value": row["output"]},
            ],
            "type": row["type"],
        }
        for row in rows
    ]
    (tmp_path / "rows.json").write_text(json.dumps(talks))
    for form in FORMS:
        samples = list(read_rows(tmp_path / "rows.json", "llava"))
        write_rows(samples, tmp_path / f"{form}.parquet", form)
        again = [to_row(sample, "llava") for sample in read_rows(tmp_path / f"{form}.parquet", form)]
        assert again == talks
