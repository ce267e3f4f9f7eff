"""The forms in which sets write pictures, choices, answers and prompts, and what is refused."""

from __future__ import annotations

import base64
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
from test_benchmarks import picture, write

from medkit.errors import DataError
from medkit.readers import Record, Rejected, inside
from medkit.readers.benchmarks import find_benchmark
from medkit.readers.question_rows import rows_of
from medkit.readers.question_texts import choices_of, gold_of, lettered, listed
from medkit.readers.questions import NO_PICTURE, count_questions, read
from medkit.sample import text_of


def first(root: Path, **options: Any) -> Record | Rejected:
    return next(iter(read(root, options)))


def kept(root: Path, **options: Any) -> Record:
    found = first(root, **options)
    assert isinstance(found, Record), found
    return found


def test_choices_are_read_in_every_form():
    wanted = ["Left lung", "Heart", "C. difficile"]
    for given in (
        wanted,
        {"B": "Heart", "A": "Left lung", "C": "C. difficile", "D": None},
        "['Left lung', 'Heart', 'C. difficile']",
        "Left lung|Heart|C. difficile",
        " A:Left lung  B:Heart  C:C. difficile ",
        "(A) Left lung (B) Heart (C) C. difficile",
        [" A:Left lung ", " B:Heart ", "C:C. difficile"],
        [None, None, "A: Left lung, B: Heart, C: C. difficile"],
    ):
        assert choices_of(given) == wanted, given
    assert choices_of(["A. baumannii", "E. coli"]) == [
        "A. baumannii",
        "E. coli",
    ]  # not all begin with their letter
    assert choices_of("") == choices_of(None) == choices_of([]) == []
    assert lettered("A: one") == [] and listed("[1, 2]") is None and listed("[unclosed") is None


def test_answers_are_read_in_every_form():
    choices = ["red", "green", "A"]
    for answer in ("B", "b", " (B) ", "B: green", "B.", "green"):
        assert gold_of(answer, choices, "letter") == (["green"], []), answer
    assert gold_of("A", choices, "letter")[0] == ["A"]  # a choice's own text is that choice
    assert gold_of("Both", choices, "letter")[0] == gold_of("D", choices, "letter")[0] == []
    assert gold_of(1, choices, "index")[0] == ["green"]
    assert gold_of(3, choices, "index")[0] == gold_of("-1", choices, "index")[0] == []
    assert gold_of("Red", choices, "text") == (["red"], [])
    assert gold_of("blue", choices, "text") == (["blue"], [("answer is none of the choices", "blue")])
    assert gold_of("B", choices, "text") == (["B"], [])
    people = [
        {"answer": "dog", "answer_id": 1},
        {"answer": "cat", "answer_id": 2},
        {"answer": "cat", "answer_id": 3},
    ]
    assert gold_of(people, [], "text") == (["cat", "cat", "dog"], [])
    assert gold_of("['1/3', '0.33']", [], "text")[0] == ["1/3", "0.33"]
    assert gold_of("[3, 4]", [], "text")[0] == ["[3, 4]"]
    assert gold_of(4, [], "text") == (["4"], [("answer is a number", "4 is read as text")])


def test_a_set_of_the_original_vqa_files_is_read_with_its_annotations(tmp_path):
    picture(tmp_path / "val2014" / "COCO_val2014_000000000042.png", 3)
    questions = {"info": {}, "questions": [{"image_id": 42, "question": "Bright?", "question_id": 42000}]}
    answers = [{"answer": one, "answer_id": n} for n, one in enumerate(["no", *["yes"] * 9])]
    annotations = {
        "annotations": [{"question_id": 42000, "answers": answers, "multiple_choice_answer": "yes"}]
    }
    (tmp_path / "v2_questions.json").write_text(json.dumps(questions))
    (tmp_path / "v2_annotations.json").write_text(json.dumps(annotations))
    options = {
        "files": "v2_questions.json", "id": "question_id", "answers_from": "v2_annotations.json", "answer": "answers",
        "image": "val2014/COCO_val2014_{image_id:012d}.png",
    }  # fmt: skip
    record = kept(tmp_path, **options)
    assert record.facts["question"]["references"] == ["yes"] * 9 + ["no"]
    assert record.image == [tmp_path / "val2014" / "COCO_val2014_000000000042.png"]
    with pytest.raises(DataError, match="has no column 'picture' \\(image\\)"):
        first(tmp_path, **{**options, "image": "{picture}.png"})


def test_docvqa_as_its_portal_gives_it_is_read_by_the_same_card(tmp_path):
    picture(tmp_path / "documents" / "page_1.png", 3)
    row = {
        "questionId": 5,
        "question": "Which number?",
        "image": "documents/page_1.png",
        "answers": ["7", "no. 7"],
    }
    (tmp_path / "val_v1.0_withQT.json").write_text(json.dumps({"dataset_name": "docvqa", "data": [row]}))
    options = find_benchmark("docvqa", str(tmp_path))["benchmark"]["data"]["options"]
    record = kept(tmp_path, **options)
    assert record.image == [tmp_path / "documents" / "page_1.png"] and record.split == "val"
    assert record.facts["question"]["references"] == ["7", "no. 7"]


def test_rows_by_id_and_pictures_in_folders_of_their_id(tmp_path):
    picture(tmp_path / "test" / "7" / "image.png", 3)
    problems = {
        "7": {
            "question": "Which?",
            "choices": ["a", "b"],
            "answer": 1,
            "image": "image.png",
            "split": "test",
        },
        "8": {"question": "What?", "choices": ["a", "b"], "answer": 0, "image": None, "split": "test"},
    }
    (tmp_path / "problems.json").write_text(json.dumps(problems))
    options = {"files": "problems.json", "image": "{split}/{id}/{image}", "answer_is": "index"}
    shown, alone = (one for one in read(tmp_path, options) if isinstance(one, Record))
    assert shown.image == [tmp_path / "test" / "7" / "image.png"] and shown.split == "test"
    assert alone.image == [] and alone.facts["question"]["references"] == ["a"]


def test_pictures_come_from_archives_as_they_are(tmp_path):
    name = picture(tmp_path / "made" / "x.png", 3)
    data = (tmp_path / "made" / name).read_bytes()
    (tmp_path / "set").mkdir()
    with zipfile.ZipFile(tmp_path / "set" / "images.zip", "w") as archive:
        for member in ("images/a/x.png", "images/b/x.png", "images/only.png", "notes.txt"):
            archive.writestr(member, data)
    names = ["a/x.png", "x.png", "only.png", "none.png", "../x.png"]
    write(
        tmp_path / "set" / "rows.jsonl", [{"image": one, "question": "Q?", "answer": "yes"} for one in names]
    )
    found = list(read(tmp_path / "set", {"files": "rows.jsonl", "archive": "*.zip"}))
    assert [one.image if isinstance(one, Record) else one.detail for one in found] == [
        [data], "x.png is there 2 times", [data], "none.png is in no folder", "../x.png",
    ]  # fmt: skip
    (tmp_path / "set" / "images.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"images.zip can't be read as a zip archive"):
        list(read(tmp_path / "set", {"files": "rows.jsonl", "archive": "*.zip"}))


def test_a_picture_that_the_text_names_must_be_there(tmp_path):
    picture(tmp_path / "x.png", 3)
    rows = [
        {"one": "x.png", "two": "", "question": f"What is {mark}?", "answer": "yes"}
        for mark in ("<image 1>", "<image 2>", "it")
    ]
    write(tmp_path / "rows.jsonl", rows)
    found = list(read(tmp_path, {"files": "rows.jsonl", "image": ["one", "two"]}))
    assert [len(one.image) if isinstance(one, Record) else one.detail for one in found] == [  # type: ignore[arg-type]
        1, "the text names a picture that the row has not", 1,
    ]  # fmt: skip


def test_base64_rows_may_refer_to_another_rows_picture(tmp_path):
    picture(tmp_path / "x.png", 3)
    text = base64.b64encode((tmp_path / "x.png").read_bytes()).decode()
    rows = [
        {"index": 3, "image": "5", "question": "Before?", "answer": "yes"},
        {"index": 5, "image": text, "question": "Here?", "answer": "yes"},
        {"index": 6, "image": f"['{text}', '{text}']", "question": "Both?", "answer": "yes"},
        {"index": 7, "image": "no picture!", "question": "None?", "answer": "yes"},
    ]
    write(tmp_path / "rows.jsonl", rows)
    found = list(read(tmp_path, {"files": "rows.jsonl", "base64": True, "id": "index"}))
    data = (tmp_path / "x.png").read_bytes()
    assert [one.image for one in found if isinstance(one, Record)] == [[data], [data], [data, data]]
    assert found[0].group == found[1].group  # type: ignore[union-attr]
    assert isinstance(found[3], Rejected) and found[3].reason == "image missing"


def test_a_row_refers_to_a_picture_of_its_own_table(tmp_path):
    """VLMEvalKit's tables count from 0 each: "0" in the second is not the first one's picture."""
    for name, grey in (("a", 3), ("b", 200)):
        picture(tmp_path / f"{name}.png", grey)
        text = base64.b64encode((tmp_path / f"{name}.png").read_bytes()).decode()
        rows = [
            {"index": 0, "image": text, "question": "One?", "answer": name},
            {"index": 1, "image": "0", "question": "Two?", "answer": name},
        ]
        write(tmp_path / f"{name}.jsonl", rows)
    found = list(read(tmp_path, {"files": "*.jsonl", "base64": True, "id": "index"}))
    shown = [(one.facts["question"]["references"][0], one.image) for one in found if isinstance(one, Record)]
    assert shown == [(name, [(tmp_path / f"{name}.png").read_bytes()]) for name in ("a", "a", "b", "b")]


def test_columns_are_found_in_rows_that_differ(tmp_path):
    """A first row without a picture, or a second table with other names, hides no later row's."""
    picture(tmp_path / "x.png", 3)
    write(
        tmp_path / "a.jsonl",
        [{"question": "Why?", "answer": "so"}, {"image": "x.png", "question": "Who?", "answer": "he"}],
    )
    write(tmp_path / "b.jsonl", [{"img_name": "x.png", "text": "What?", "answer": "it", "qid": 7}])
    found = [one for one in read(tmp_path, {"files": "*.jsonl"}) if isinstance(one, Record)]
    assert [(one.id, len(one.image)) for one in found] == [("a.jsonl:1", 0), ("a.jsonl:2", 1), ("7", 1)]  # type: ignore[arg-type]
    write(
        tmp_path / "c.jsonl",
        [{"one": "x.png", "two": "x.png", "question": "Why?", "answer": "so"},
         {"one": "x.png", "question": "Who?", "answer": "he"}],
    )  # fmt: skip
    found = list(read(tmp_path, {"files": "c.jsonl", "image": ["one", "two"]}))
    assert [len(one.image) for one in found if isinstance(one, Record)] == [2, 1]  # type: ignore[arg-type]


def test_a_column_of_choices_that_is_in_no_table_is_named(tmp_path):
    write(tmp_path / "rows.jsonl", [{"question": "Which?", "options": ["x", "y"], "answer": "x"}])
    for choices in ("optoins", ["A", "B"]):
        with pytest.raises(
            DataError, match=r"rows.jsonl:1 has no column '(optoins|A)' \(choices\); it has question, options"
        ):
            list(read(tmp_path, {"files": "rows.jsonl", "choices": choices}))


def test_an_empty_picture_cell_is_told(tmp_path):
    picture(tmp_path / "x.png", 3)
    rows = [{"image": name, "question": f"{name}?", "answer": "yes"} for name in ("x.png", "", None)]
    write(tmp_path / "rows.jsonl", rows)
    found = [one for one in read(tmp_path, {"files": "rows.jsonl"}) if isinstance(one, Record)]
    assert [one.notes for one in found] == [(), (NO_PICTURE,), (NO_PICTURE,)]
    write(tmp_path / "rows.jsonl", [{"question": "So?", "answer": "yes"}])
    assert kept(tmp_path, files="rows.jsonl").notes == ()  # the set has no pictures


def test_a_table_of_the_working_folder_finds_its_pictures(tmp_path, monkeypatch):
    picture(tmp_path / "img" / "x.png", 3)
    write(tmp_path / "rows.jsonl", [{"image": "img/x.png", "question": "So?", "answer": "yes"}] * 2)
    monkeypatch.chdir(tmp_path)
    assert count_questions(Path("rows.jsonl")) == 2
    assert inside(Path("."), "img/x.png") == Path("img/x.png") and inside(Path("a"), "b") == Path("a/b")
    for name in ("../x.png", "/etc/x.png", ".", "", "img/../../x.png"):
        assert inside(Path("."), name) is None, name
    assert inside(Path(".."), "x.png") == Path("../x.png") and inside(Path(".."), "../x.png") is None
    assert inside(Path("a"), "../ab/x.png") is None and inside(Path("/"), "x.png") == Path("/x.png")


def test_a_missing_picture_is_not_another_ones_namesake(tmp_path):
    """SLAKE calls every picture source.jpg, in a folder each: the only one that is there is not everyone's."""
    picture(tmp_path / "imgs" / "xmlab1" / "source.jpg", 3)
    picture(tmp_path / "flat.jpg", 3)
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(tmp_path / "flat.jpg", "set/xmlab8/packed.jpg")
    named = {
        "xmlab1/source.jpg": 1, "imgs/xmlab1/source.jpg": 1, "source.jpg": 1, "train/flat.jpg": 1,
        "set/xmlab8/packed.jpg": 1, "xmlab8/packed.jpg": 1, "packed.jpg": 1,
        "xmlab2/source.jpg": 0, "xmlab9/packed.jpg": 0,
    }  # fmt: skip
    write(tmp_path / "rows.jsonl", [{"image": name, "question": "What?", "answer": "x"} for name in named])
    found = list(read(tmp_path, {"files": "rows.jsonl", "archive": "*.zip"}))
    assert [len(one.image) if isinstance(one, Record) else 0 for one in found] == list(named.values())  # type: ignore[arg-type]
    assert [(one.reason, one.detail) for one in found if isinstance(one, Rejected)] == [
        ("image missing", "xmlab2/source.jpg is in no folder"),
        ("image missing", "xmlab9/packed.jpg is in no folder"),
    ]


def test_prompts_take_the_sets_own_form(tmp_path):
    row = {"question": "Which? Please answer.", "options": ["x", "y"], "answer": "B", "hint": ""}
    write(
        tmp_path / "rows.jsonl",
        [row, {**row, "options": [], "answer": "z", "kind": "free", "hint": "Given."}],
    )
    options = {
        "files": "rows.jsonl", "answer_is": "letter", "open": {"kind": "free"}, "context": "hint",
        "cut": "Please answer.",
        "prompt": "{context} / {question} / {choices} / {count} / {list}", "choice": "<{letter}> {text}",
        "between": "; ",
        "suffix": {"choice": "A letter.", "open": "A word."},
    }  # fmt: skip
    closed, free = (one for one in read(tmp_path, options) if isinstance(one, Record))
    assert text_of(closed.messages[0]) == "N/A / Which? / <A> x; <B> y / 2 / ['x', 'y']\nA letter."  # type: ignore[index]
    assert text_of(free.messages[0]) == "Given. / Which? /  / 0 / []\nA word."  # type: ignore[index]
    assert free.facts["question"]["references"] == ["z"] and free.facts["question"]["answer_type"] == "open"
    plain = {"files": "rows.jsonl", "answer_is": "letter", "open": {"kind": "free"}, "context": "hint"}
    asked = [text_of(one.messages[0]) for one in read(tmp_path, plain) if isinstance(one, Record)]  # type: ignore[index]
    assert asked == ["Which? Please answer.\nA. x\nB. y", "Given.\nWhich? Please answer."]
    for wrong, said in (
        ({"prompt": "{questoin}"}, "prompt has no place {questoin}; there are {question}, {context}"),
        ({"prompt": "{question"}, "prompt '{question': expected '}'"),
        ({"choice": "{text} {number}"}, "choice has no place {number}"),
        ({"answer_type": "essay"}, "answer_type 'essay' is none of yes_no, number"),
        ({"known_from": {"file": "x"}}, "has not the keys file, key and column"),
        ({"prompt": "{question:>{width}}"}, "prompt '{question:>{width}}': 'width'"),
        ({"open": True}, "open True is no mapping"),
        ({"files": 3}, "files 3 is no text or list of texts"),
        ({"suffix": {"closed": "x"}}, "has other keys than choice and open"),
        ({"answers_from": "none.jsonl"}, "holds no none.jsonl"),
    ):
        with pytest.raises(DataError) as error:
            list(read(tmp_path, {"files": "rows.jsonl", **wrong}))
        assert said in str(error.value)


def test_one_question_is_asked_of_every_row(tmp_path):
    write(
        tmp_path / "rows.jsonl", [{"answer": "Clear lungs.", "set": "a"}, {"answer": "Effusion.", "set": "b"}]
    )
    record = kept(
        tmp_path, files="rows.jsonl", ask="What is seen?", answer_type="report", only={"set": ["b", "c"]}
    )
    assert record.facts["question"] == {
        "kind": "report", "answer_type": "report", "choices": [], "references": ["Effusion."],
    }  # fmt: skip
    assert record.extra["question"] == "What is seen?"


def test_a_hole_between_lettered_choices_is_refused(tmp_path):
    write(
        tmp_path / "rows.jsonl",
        [
            {"question": "Q?", "A": "x", "B": "", "C": "z", "answer": "C"},
            {"question": "Q?", "A": "x", "B": "y", "C": "", "answer": "B"},
        ],
    )
    hole, fine = read(tmp_path, {"files": "rows.jsonl", "choices": ["A", "B", "C"], "answer_is": "letter"})
    assert isinstance(hole, Rejected) and hole.reason == "choice missing"
    assert isinstance(fine, Record) and fine.facts["question"]["references"] == ["y"]


def test_json_is_unwrapped_by_split_and_by_key(tmp_path):
    path = tmp_path / "x.json"
    for content, wanted in (
        ({"train": [{"a": 1}], "test": [{"a": 2, "split": "other"}, 3]},
         [{"split": "train", "a": 1}, {"split": "other", "a": 2}, "not an object"]),
        ({"dataset_name": "d", "data": [{"a": 1}]}, [{"a": 1}]),
        ({"k": {"a": 1}}, [{"id": "k", "a": 1}]),
        ([{"a": 1}], [{"a": 1}]),
        ({"a": 1}, [{"a": 1}]),
    ):  # fmt: skip
        path.write_text(json.dumps(content))
        assert [row for _, row in rows_of(path)] == wanted


def test_a_list_of_context_is_written_with_commas(tmp_path):
    write(
        tmp_path / "rows.jsonl", [{"question": "Which brand?", "answer": "x", "ocr_tokens": ["KIT", "100"]}]
    )
    prompt = "{question}\nReference OCR token: {context}"
    record = kept(tmp_path, files="rows.jsonl", context="ocr_tokens", prompt=prompt, suffix="One word.")
    assert text_of(record.messages[0]) == "Which brand?\nReference OCR token: KIT, 100\nOne word."  # type: ignore[index]


def test_no_row_stops_the_reading(tmp_path):
    """Values of every type in every column end as a record or as a refusal."""
    picture(tmp_path / "x.png", 3)
    rng = random.Random(7)
    values: list[Any] = [
        None, "", " ", "x.png", "A", "B. y", "['a', 'b']", "[", "A: a B: b", "(", 0, -1, 3.5, float("nan"), True, [],
        ["a"], [None, 1, ["x"]], {}, {"A": "a", "B": None}, {"bytes": None, "path": "x.png"}, {"answer": 1},
        "\0",
        "../x", "a/b", "long " * 200, "What is in <image 2>?",
    ]  # fmt: skip
    columns = ("id", "image", "question", "answer", "options", "kind", "hint", "split", "group")
    rows = [{column: rng.choice(values) for column in columns} for _ in range(1500)]
    rows[0] = {**dict.fromkeys(columns, "x"), "image": "x.png"}
    write(tmp_path / "rows.jsonl", rows)
    for options in (
        {}, {"base64": True}, {"answer_is": "letter"}, {"answer_is": "index", "context": "hint", "group": "group"},
        {"image": ["image", "hint"], "known": "hint", "prompt": "{list}{choices}"}, {"choices": ["hint", "kind", "id"]},
        {"image": "{id}/{image}", "ask": "Q?", "answer_type": "report", "open": {"kind": [3.5, None]}},
    ):  # fmt: skip
        found = list(read(tmp_path, {"files": "rows.jsonl", **options}))
        assert len(found) == len(rows)
        asked = sum(isinstance(one, Record) for one in found)
        assert 0 < asked < len(rows), options
