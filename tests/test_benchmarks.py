"""Benchmarks: rows of every layout, counts held against the card, leaks between two sets, POPE of any domain."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from card_shelf import medkit
from PIL import Image
from real_data import real_set, splits_of

from medkit.cards.load import load_recipe
from medkit.check import check_shelf
from medkit.errors import DataError
from medkit.evaluation import scorers
from medkit.evaluation.evaluate import _questions
from medkit.evaluation.leak_audit import audit_leaks, told
from medkit.evaluation.pope import pope_questions
from medkit.plan import plan
from medkit.readers import Record, Rejected
from medkit.readers.benchmarks import differences, find_benchmark, read_benchmark
from medkit.readers.questions import read
from medkit.sample import Sample, assistant_turn, text_of, user_turn
from medkit.store import DatasetWriter, open_dataset

EVALS = Path(__file__).resolve().parents[1] / "evals"


def picture(path: Path, shade: int, side: int = 16) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.radial_gradient("L").resize((side, side)).point(lambda level: level * shade // 10).save(path)
    return path.name


def benchmark(name: str, data: Path, out: Path, **more) -> dict:
    return read_benchmark({**find_benchmark(name, str(data)), **more}, {}, out)


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_every_fixture_of_the_shelf_is_read():
    fine, problems = check_shelf()
    assert problems == []
    assert {"vqa-rad", "vqa-rad-public", "slake-en", "slake-zh", "pmc-vqa", "pope", "pope-coco"} <= {
        *fine["benchmark"]
    }


def test_one_part_is_read_and_what_differs_is_said(tmp_path):
    summary = benchmark("vqa-rad", EVALS / "vqa-rad" / "fixture", tmp_path / "test")
    assert summary["found"] == {"questions": 2, "images": 2, "closed": 1, "yes_no": 1, "choice": 0}
    assert summary["differs"] == [
        "2 questions where the card says 451", "2 images where the card says 203",
        "1 closed questions where the card says 272", "1 yes/no answers where the card says 251",
    ]  # fmt: skip
    assert summary["rejected"] == {"another split": 3}
    train = benchmark("vqa-rad", EVALS / "vqa-rad" / "fixture", tmp_path / "train", part="train")
    assert train["found"]["questions"] == 3 and train["expected"] == {} and train["differs"] == []
    assert train["defects"] == {
        "answer is a number": 1, "spaces around text": 1, "answer_type misspelt": 1,
        "closed question without yes or no": 1,
    }  # fmt: skip
    assert [sample.split for sample in open_dataset(tmp_path / "train")] == ["test"] * 3
    assert differences({"questions": 2}, {"questions": 2}) == []


def test_the_first_publication_is_split_by_its_phrase_type(tmp_path):
    summary = benchmark("vqa-rad-public", EVALS / "vqa-rad-public" / "fixture", tmp_path / "test")
    assert summary["found"]["questions"] == 2 and summary["rejected"] == {"another split": 1}


def test_choices_are_asked_with_letters_and_answered_by_text():
    options = find_benchmark("pmc-vqa", str(EVALS))["benchmark"]["data"]["options"]
    (record,) = read(EVALS / "pmc-vqa" / "fixture", options)
    assert isinstance(record, Record)
    assert record.messages is not None
    assert text_of(record.messages[0]) == (
        "Question: What shape is drawn?\nChoices: A:Circle B:Square C:Star D:Line\nThe Answer is:"
    )
    assert record.facts["question"] == {
        "kind": "choice", "answer_type": "choice", "choices": ["Circle", "Square", "Star", "Line"],
        "references": ["Square"],
    }  # fmt: skip
    assert scorers.score("B", ["Square"], record.facts["question"]["choices"], "choice")["answer"] == 1.0


def test_parquet_rows_bring_their_pictures(tmp_path):
    picture(tmp_path / "a.png", 3)
    data = (tmp_path / "a.png").read_bytes()
    rows = [
        {"image": {"bytes": data, "path": "a.png"}, "question": "Bright?", "answer": answer}
        for answer in ("yes", "no")
    ]
    (tmp_path / "set" / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set" / "data" / "test-00000-of-00001.parquet")
    summary = benchmark("vqa-rad-hub", tmp_path / "set", tmp_path / "out")
    assert summary["found"]["questions"] == 2 and summary["found"]["images"] == 1
    assert summary["found"]["yes_no"] == 2


def test_a_hub_set_is_fetched_at_its_revision_and_the_commit_is_kept(tmp_path, monkeypatch):
    picture(tmp_path / "a.png", 3)
    folder = tmp_path / "snapshots" / "0123abc"
    (folder / "data").mkdir(parents=True)
    row = {
        "image": {"bytes": (tmp_path / "a.png").read_bytes(), "path": "a.png"},
        "question": "Q?",
        "answer": "yes",
    }
    pq.write_table(pa.Table.from_pylist([row]), folder / "data" / "test-0.parquet")
    asked = []

    def fetch(hub, **more):
        asked.append((hub, more["repo_type"], more["revision"], more["allow_patterns"]))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    monkeypatch.delenv("MEDKIT_VQA_RAD_HUB", raising=False)
    settings = find_benchmark("vqa-rad-hub")
    assert settings["data"] == "hub:flaviagiammarino/vqa-rad@main"
    assert read_benchmark(settings, {}, tmp_path / "out")["revision"] == "0123abc"
    assert asked == [("flaviagiammarino/vqa-rad", "dataset", "main", ["data/*.parquet"])]
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: 1 / 0)
    with pytest.raises(
        DataError, match=r"can't be fetched \(ZeroDivisionError\); give its files as a folder"
    ):
        read_benchmark(settings, {}, tmp_path / "out2")


def test_bad_rows_are_refused_with_a_reason(tmp_path):
    picture(tmp_path / "a" / "one.png", 3)
    picture(tmp_path / "a" / "two.png", 4)
    picture(tmp_path / "b" / "two.png", 5)
    whole = {"image": "one.png", "question": "What?", "answer": "this"}
    write(
        tmp_path / "rows.jsonl",
        [
            whole, whole, {**whole, "answer": None}, {**whole, "question": " "}, {**whole, "image": "two.png"},
            {**whole, "image": "../../x.png"}, {**whole, "image": "none.png"}, {**whole, "answer": ["a", 2]},
            {**whole, "image": None},
        ],
    )  # fmt: skip
    items = list(read(tmp_path, {"files": "rows.jsonl"}))
    assert [(item.reason, item.detail) for item in items if isinstance(item, Rejected)] == [
        ("question without answer", "rows.jsonl:3"), ("question missing", "rows.jsonl:4"),
        ("image missing", "two.png is there 2 times"), ("image outside the data folder", "../../x.png"),
        ("image missing", "none.png is in no folder"),
    ]  # fmt: skip
    kept = [item for item in items if isinstance(item, Record)]
    assert [reason for reason, _ in kept[1].notes] == ["question repeated"]
    assert kept[2].facts["question"]["references"] == ["a", "2"] and kept[3].image == []
    with pytest.raises(DataError, match="has no column 'gold'"):
        list(read(tmp_path, {"files": "rows.jsonl", "answer": "gold"}))
    with pytest.raises(DataError, match="holds no table that matches x"):
        list(read(tmp_path, {"files": "x"}))


def test_what_is_wrong_with_a_name_or_a_folder_is_said_with_the_way_out(tmp_path):
    with pytest.raises(DataError, match="there is no benchmark vqa-radd on the shelf; did you mean vqa-rad"):
        find_benchmark("vqa-radd")
    (settings := find_benchmark("vqa-rad", "nowhere"))["benchmark"]["data"]["where"] = ""
    with pytest.raises(DataError, match=r"the data folder nowhere isn't there$"):
        read_benchmark(settings, {}, tmp_path / "out")


def test_answers_can_stand_in_another_file(tmp_path):
    write(tmp_path / "questions.jsonl", [{"question_id": 1, "text": "What?", "category": "conv"}])
    write(tmp_path / "answers.jsonl", [{"question_id": 1, "text": "A drawing."}])
    options = {"files": "questions.jsonl", "answers_from": "answers.jsonl", "kind": "category"}
    (record,) = read(tmp_path, options)
    assert isinstance(record, Record)
    assert (
        record.facts["question"]["references"] == ["A drawing."]
        and record.facts["question"]["kind"] == "conv"
    )


def test_a_table_is_a_benchmark_in_one_command(tmp_path, monkeypatch, capsys):
    picture(tmp_path / "ward" / "x 1.png", 3)
    table = tmp_path / "ward" / "questions [1].csv"
    table.write_text("image,question,answer,options\nx 1.png,Which?,left,left|right\nx 1.png,Bright?,no,\n")
    monkeypatch.chdir(tmp_path)
    assert medkit("new", "benchmark", "ward", "--csv", str(table), monkeypatch=monkeypatch) == 0
    assert medkit("data", "benchmark", "ward", "--out", "out", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert (
        "test: 2 questions about 1 images, 1 with a yes/no answer" in said
        and "counts: as the card says" in said
    )
    assert check_shelf()[1] == []
    cards = load_recipe("phantom", ["benchmarks=[held-out,ward]"])
    steps = {step.name: step for step in plan(cards)}
    assert steps["benchmark-ward"].external == {"data": str(tmp_path / "ward")}
    assert steps["evaluate-base"].inputs["data:ward"] == "benchmark-ward"
    card = steps["benchmark-ward"].settings["benchmark"]
    questions, dataset = _questions(card, {"data:ward": tmp_path / "out"}, 0)
    assert [(q.text, q.choices) for q in questions if q.control == "none"] == [
        ("Which?\nA. left\nB. right", ["left", "right"]), ("Bright?", []),
    ]  # fmt: skip
    assert dataset.summary["differs"] == []
    assert medkit("new", "benchmark", "none", "--csv", "none.csv", monkeypatch=monkeypatch) != 0
    assert "none.csv is no file" in capsys.readouterr().err


def test_the_audit_finds_copies_twins_and_repeated_rows(tmp_path, monkeypatch, capsys):
    train, test = tmp_path / "a", tmp_path / "b"
    for folder, names in ((train, ("same", "twin")), (test, ("same", "twin", "other"))):
        for name in names:
            side = 64 if (name, folder) != ("twin", test) else 61
            picture(folder / f"{name}.png", {"same": 3, "twin": 5, "other": 9}[name], side)
    (test / "copy1234.png").write_bytes((test / "other.png").read_bytes())

    def row(image, question, answer, language="en"):
        return {"image": f"{image}.png", "question": question, "answer": answer, "lang": language}

    write(train / "rows.jsonl", [row("same", "What is it?", "A lung", "zh"), row("twin", "Bright?", "yes")])
    asked = [
        row("same", "what is it", "lung"), row("same", "What is it?", "liver"), row("twin", "Dark?", "no"),
        row("other", "Bright?", "yes"),
    ]  # fmt: skip
    write(test / "rows.jsonl", asked)
    shelf = tmp_path / "evals" / "own" / "eval.yaml"
    shelf.parent.mkdir(parents=True)
    shelf.write_text(
        "name: own\ntitle: Own\ndescription: d\nlicence: none\n"
        "data: {env: MEDKIT_OWN_ROWS, options: {files: rows.jsonl, language: lang}}\n"
    )
    monkeypatch.chdir(tmp_path)
    benchmark("own", train, tmp_path / "train-set")
    benchmark("own", test, tmp_path / "test-set")
    found = audit_leaks(open_dataset(tmp_path / "train-set"), open_dataset(tmp_path / "test-set"))
    assert (found["images"], found["near_duplicate_images"], found["questions_about_them"]) == (1, 1, 3)
    assert (found["questions"], found["rows"], found["question_texts"]) == (2, 1, 3)
    assert found["by_language"] == {"en > en": 1, "zh > en": 2}
    assert found["examples"]["rows"] == [["rows.jsonl:1", "rows.jsonl:1"]]
    assert "1 of 3 test images are in train, 1 more look the same; 3 of 4" in "\n".join(told(found))
    assert medkit("leaks", "train-set", "test-set", "--json", "leaks.json", monkeypatch=monkeypatch) == 0
    assert json.loads((tmp_path / "leaks.json").read_text()) == found
    assert medkit("leaks", "nowhere", "test-set", monkeypatch=monkeypatch) != 0
    assert "nowhere is no dataset folder" in capsys.readouterr().err


def drawn(out: Path, contents: list[tuple[set[str], bool]]) -> Path:
    with DatasetWriter(out, name="drawn") as to:
        for number, (labels, complete) in enumerate(contents):
            ref = to.add_image(Image.new("RGB", (8, 8), (number, 10, 10)))
            facts = {
                "objects": [{"label": name, "box": [0, 0, 1, 1]} for name in sorted(labels)],
                "complete": complete,
            }
            source = {"split": "test", "kind": "record", "group": str(number)}
            to.add(Sample(f"r{number}", [], [ref], facts, source))
    return out


def test_pope_of_a_domain_is_balanced_and_its_negatives_are_what_they_are_called(tmp_path):
    contents = [({"a", "b"}, True)] * 3 + [
        ({"a"}, True),
        ({"c"}, True),
        ({"c"}, True),
        ({"c"}, True),
        ({"d"}, False),
    ]
    dataset = open_dataset(drawn(tmp_path / "set", contents))
    questions = pope_questions(dataset, "pope")
    for kind in ("random", "popular", "adversarial"):
        gold = [question.references[0] for question in questions if question.kind == kind]
        assert gold.count("yes") == gold.count("no") > 0
    of = {(q.id.split(":")[0], q.kind, q.references[0]): q.text for q in questions if q.id.startswith("r3")}
    assert of["r3", "popular", "no"] == "Is there a b in the image?" or of["r3", "popular", "no"].startswith(
        "Is there a c"
    )
    assert of["r3", "adversarial", "no"] == "Is there a b in the image?"  # b comes with a, c never does
    assert of["r3", "random", "yes"] == "Is there an a in the image?"
    truth = {f"r{number}": labels for number, (labels, _) in enumerate(contents)}
    for question in questions:
        record, _, name = question.id.split(":")
        assert (name in truth[record]) == (question.references == ["yes"])
    assert not any(q.id.startswith("r7") for q in questions)  # its boxes are known to be incomplete
    assert pope_questions(dataset, "pope") == questions
    with pytest.raises(DataError, match="has no complete annotations of 'grade'"):
        pope_questions(dataset, "pope", of="grade")


def test_pope_asks_a_recipes_ingested_annotations():
    steps = {step.name: step for step in plan(load_recipe("phantom", ["benchmarks=[held-out,pope]"]))}
    assert steps["evaluate-base"].inputs["data:pope"] == "ingest"
    assert steps["evaluate-base"].inputs["data:held-out"] == "teach"


def test_the_official_split_of_the_real_vqa_rad_leaks_what_is_known(tmp_path):
    root = real_set("vqa_rad")
    rows = {
        part: json.loads((root / "original" / f"{part}set.json").read_text()) for part in ("train", "test")
    }
    for part, found in rows.items():
        summary = benchmark("vqa-rad", root, tmp_path / part, part=part)
        assert summary["found"]["questions"] == len(found)
        assert summary["found"]["closed"] == sum(row["answer_type"].strip() == "CLOSED" for row in found)
        assert summary["defects"].get("answer is a number", 0) == sum(
            not isinstance(r["answer"], str) for r in found
        )
    audit = audit_leaks(open_dataset(tmp_path / "train"), open_dataset(tmp_path / "test"))
    names = {part: {row["image_name"] for row in found} for part, found in rows.items()}
    asked = {
        part: [(r["image_name"], r["question"], str(r["answer"])) for r in found]
        for part, found in rows.items()
    }
    listed = [row for found in splits_of(root, "images_*.jsonl").values() for row in found]
    content = {Path(row["image"]).name: row["sha256"] for row in listed}
    shared = {content[name] for name in names["train"]} & {content[name] for name in names["test"]}
    assert audit["images"] == len(shared) > 0
    assert audit["rows"] >= sum(row in set(asked["train"]) for row in asked["test"]) > 0
    assert audit["questions_about_them"] >= sum(r["image_name"] in names["train"] for r in rows["test"])


def rows_of_two_languages(out: Path, language: str, rows: list[dict]) -> Path:
    with DatasetWriter(out, name=out.name) as to:
        for number, row in enumerate(rows):
            asked = {"question": {"kind": row["content_type"], "references": [row["answer"]]}}
            source = {
                "split": "test", "kind": "question", "group": row["img_name"], "image_name": row["img_name"],
                "language": language, "closed": row["answer_type"] == "CLOSED", "question": row["question"],
            }  # fmt: skip
            turns = [user_turn(row["question"]), assistant_turn(row["answer"])]
            to.add(Sample(str(row.get("qid", number)), turns, [], asked, source))
    return out


def test_a_question_in_another_language_is_found_by_picture_kind_and_the_texts_that_stand_for_each_other(
    tmp_path,
):
    def row(number, kind, question, answer, qid):
        return {
            "img_name": f"xmlab{number}/source.jpg", "content_type": kind, "answer_type": "OPEN", "question": question,
            "answer": answer, "qid": qid,
        }  # fmt: skip

    english = [row(n, "Modality", "Which modality?", "CT", n) for n in range(4)]
    english += [row(0, "Organ", "Which organ?", "liver", 10), row(1, "Organ", "Which organ?", "liver", 11)]
    english += [row(9, "Organ", "Which organ?", "liver", 12)]
    chinese = [row(n, "Modality", "成像方式是什么?", "CT", 100 + n) for n in range(3)]
    chinese += [row(3, "Modality", "是CT吗?", "是", 103), row(0, "Organ", "主要器官是什么?", "肝", 10)]
    chinese += [row(1, "Position", "在哪里?", "左", 111)]
    test = open_dataset(rows_of_two_languages(tmp_path / "en", "en", english))
    train = open_dataset(rows_of_two_languages(tmp_path / "zh", "zh", chinese))
    found = audit_leaks(train, test)
    # Pictures 0 to 3 are asked about in both; the organ of picture 1 is not, and that of 0 once only.
    assert found["across_languages"] == {
        "questions": 6, "same_kind": 5, "paired": 3, "same_id": 1,
        "pairs": [["which modality", "成像方式是什么", 3]],
    }  # fmt: skip
    assert "6 questions are about a picture that train asks about in another" in "\n".join(told(found))
    same = audit_leaks(test, test)["across_languages"]
    assert same == {"questions": 0, "same_kind": 0, "paired": 0, "same_id": 0, "pairs": []}


def test_the_languages_of_the_real_slake_share_pictures_and_questions(tmp_path):
    root = real_set("slake_text")
    rows = [row for found in splits_of(root, "questions_*.jsonl").values() for row in found]
    own = {language: [row for row in rows if row["q_lang"] == language] for language in ("en", "zh")}
    sides = {
        language: open_dataset(rows_of_two_languages(tmp_path / language, language, found))
        for language, found in own.items()
    }
    shared = {row["img_name"] for row in own["en"]} & {row["img_name"] for row in own["zh"]}
    if len(shared) < 10:
        pytest.skip("the part of SLAKE that is here has too few pictures in both languages")
    found = audit_leaks(sides["zh"], sides["en"])["across_languages"]
    assert found["questions"] == sum(row["img_name"] in shared for row in own["en"]) > 0
    assert 0 < found["paired"] <= found["same_kind"] <= found["questions"]
    assert found["same_id"] == 0  # SLAKE numbers its languages apart
    mirrored = audit_leaks(sides["en"], sides["zh"])["across_languages"]
    assert {(a, b) for a, b, _ in mirrored["pairs"]} == {(b, a) for a, b, _ in found["pairs"]}


def test_the_real_slake_texts_pass_in_both_languages():
    root = real_set("slake_text")
    options = find_benchmark("slake-en", str(root))["benchmark"]["data"]["options"]
    every = {split: rows for split, rows in splits_of(root, "questions_*.jsonl").items() if rows}
    for language in ("en", "zh"):
        own = {**options, "files": "questions_{split}.jsonl", "only": {"q_lang": language}, "text_only": True}
        items = list(read(root, own))
        wanted = [row for rows in every.values() for row in rows if row["q_lang"] == language]
        assert [item for item in items if isinstance(item, Rejected)] == [] and len(items) == len(wanted) > 0
        for item in items:
            assert isinstance(item, Record)
            gold = item.facts["question"]["references"][0]
            assert scorers.normalise(gold)
            scored = scorers.score(gold, [gold], (), item.facts["question"]["answer_type"])
            assert scored["answer"] == 1.0, gold


def test_the_real_vqa_med_texts_pass():
    root = real_set("vqa_med_2019_text")
    items = list(
        read(
            root,
            {"files": "questions_{split}.jsonl", "image": "image_id", "kind": "category", "text_only": True},
        )
    )
    assert len(items) == sum(len(rows) for rows in splits_of(root, "questions_*.jsonl").values()) > 0
    for item in items:
        assert isinstance(item, Record)
        gold = item.facts["question"]["references"][0]
        assert scorers.normalise(gold) and scorers.score("no idea", [gold])["answer"] in (0.0, 1.0)


def test_llava_question_files_pass():
    root = real_set("llava_eval")
    options = {"kind": "category", "text_only": True}
    for path in sorted(root.rglob("qa90_questions.jsonl")):
        answers = path.with_name("qa90_gpt4_answer.jsonl")
        own = {**options, "files": path.name, "answers_from": answers.name}
        items = list(read(path.parent, own))
        assert items and all(isinstance(item, Record) for item in items)
