"""Exchange with lmms-eval and VLMEvalKit: tasks, tables, replays, answers. The tools themselves run where they are.

``MEDKIT_LMMS_EVAL`` and ``MEDKIT_VLMEVALKIT`` name the Python of an environment with lmms-eval (and medkit) and of one
with VLMEvalKit; without them the tests that run these tools are skipped.
"""

from __future__ import annotations

import base64
import csv
import importlib.util
import io
import json
import os
import re
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_evaluation
import yaml
from PIL import Image
from typer.testing import CliRunner

from medkit.cli import app
from medkit.errors import DataError, MedkitError
from medkit.evaluation.questions import read_questions
from medkit.evaluation.scoring import documents, options, slake
from medkit.evaluation.scoring.rescore import score_file, score_rows
from medkit.evaluation.standalone import evaluate_alone, find_benchmarks
from medkit.exchange.predictions import LONGEST_CELL, import_answers
from medkit.exchange.replay import Stored
from medkit.exchange.rows import answered, question_row
from medkit.exchange.task_functions import ANSWERED, TaskFolder, mean, set_level
from medkit.exchange.tasks import write_tasks
from medkit.exchange.vlmevalkit import GUARD, MISSING, read_tables, write_tables
from medkit.sample import Sample, assistant_turn, user_turn
from medkit.store import DatasetWriter, open_dataset

ROOT = Path(__file__).resolve().parent.parent
NASTY = (
    "None", "NA", "null", "nan", "N/A", "", "5", "007", "5.0", "1e3", "True", "false", "inf", " padded ", "tab\there",
    'say "no"', "two\nlines", "carriage\rreturn", "ends in a space\u00a0", "[a, b]", "x" * 40_000, "左肺", "=1+1", "'",
)  # fmt: skip


def cards(*settings: str) -> list[Any]:
    return find_benchmarks(["held-out"], ["controls=[]", "profile=lmms_eval", *settings])


def tool(name: str) -> Path:
    """Gives the Python of another tool's environment, or skips the test."""
    place = os.environ.get(name)
    if not place:
        pytest.skip(f"{name} names no Python of an environment with the tool; see docs/exchange.md")
    return Path(place)


def proof() -> Any:
    """Gives benchmarks/exchange.py as a module."""
    spec = importlib.util.spec_from_file_location("exchange_proof", ROOT / "benchmarks" / "exchange.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_questions(folder: Path, asked: list[dict[str, Any]]) -> Path:
    """Writes questions about three pictures, each of several; ``asked`` gives text, gold, choices, answer_type."""
    rng = np.random.default_rng(1)
    with DatasetWriter(folder, "nasty") as writer:
        refs = [writer.add_image(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)) for _ in range(3)]
        for number, one in enumerate(asked):
            facts = {
                "kind": one.get("kind", "kind"),
                "answer_type": one.get("answer_type", "open"),
                "choices": one.get("choices", []),
                "references": one["gold"] if isinstance(one["gold"], list) else [one["gold"]],
            }
            images = [refs[number % 3]] * one.get("images", 1)
            source = {"dataset": "nasty", "record": str(number), "split": "test", "kind": "question"}
            source["group"] = f"g{number % 3}"
            turns = [user_turn(one["text"], images=len(images)), assistant_turn(facts["references"][0])]
            writer.add(Sample(one.get("id", f"{number:03d}"), turns, images, {"question": facts}, source))
    return folder


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


# --- tasks for lmms-eval


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset and its task."""
    folder = tmp_path_factory.mktemp("tasks")
    data = tiny_evaluation.write_dataset(folder / "data")
    assert write_tasks(cards(), data, folder / "tasks") == ["medkit_held_out"]
    return folder


def loaded_task(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Gives a task's YAML, its functions loaded as lmms-eval loads them, and its documents."""

    class Loader(yaml.SafeLoader):
        pass

    def function(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
        module, name = loader.construct_scalar(node).split(".")
        spec = importlib.util.spec_from_file_location(module, folder / f"{module}.py")
        assert spec is not None and spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return getattr(loaded, name)

    Loader.add_constructor("!function", function)
    (path,) = folder.glob("*.yaml")
    task = yaml.load(path.read_text(encoding="utf-8"), Loader)
    return task, rows_in(folder / task["dataset_kwargs"]["data_files"]["test"])


def test_a_task_asks_what_medkit_asks(tasks: Path) -> None:
    task, docs = loaded_task(tasks / "tasks" / "held-out")
    dataset = open_dataset(tasks / "data")
    questions = read_questions(dataset, "held-out")
    assert len(docs) == len(questions) == 18
    assert task["generation_kwargs"] == {
        "max_new_tokens": 16,
        "temperature": 0,
        "do_sample": False,
        "until": [],
    }
    for doc, question in zip(docs, questions, strict=True):
        ((turn),) = task["doc_to_messages"](doc)
        picture, words = turn["content"]
        assert words == {"type": "text", "text": question.text} and turn["role"] == "user"
        assert picture["url"].tobytes() == dataset.image(question.images[0]).tobytes()
        assert task["doc_to_text"](doc) == question.text
        assert [one.size for one in task["doc_to_visual"](doc)] == [(24, 20)]
        assert task["doc_to_target"](doc) == question.references[0]


def test_a_task_scores_as_the_profile_does(tasks: Path) -> None:
    task, docs = loaded_task(tasks / "tasks" / "held-out")
    said = ["yes", "2", "A", "Yes.", "No", "left", "right", "", "B.", "no", "1.0"]
    questions = read_questions(open_dataset(tasks / "data"), "held-out")
    replies = [
        one.references[0] if place % 4 == 0 else said[place % len(said)]
        for place, one in enumerate(questions)
    ]
    rows = [answered(question_row(one), reply) for one, reply in zip(questions, replies, strict=True)]
    values: dict[str, list[Any]] = {}
    for doc, row in zip(docs, rows, strict=True):
        for metric, value in task["process_results"](doc, [row["answer"]]).items():
            values.setdefault(metric, []).append(value)
    listed = {entry["metric"]: entry["aggregation"] for entry in task["metric_list"]}
    assert set(values) == set(listed)
    found = {metric: listed[metric](given) for metric, given in values.items()}
    assert found.pop(ANSWERED) == pytest.approx(17 / 18)
    wanted = score_rows(rows, "lmms_eval")["lmms_eval"]
    numbers = {name: one["value"] for part in ("scores", "corpus") for name, one in wanted[part].items()}
    assert {name: round(value, 6) for name, value in found.items()} == pytest.approx(numbers, abs=1e-6)
    assert {"slake", "pope", "pope_precision", "mcq", "exact_match"} <= set(found)
    assert 0 < found["slake"] < 1 and 0 < found["pope"] < 1 and 0 < found["mcq"] < 1


def test_a_set_level_number_needs_the_whole_set(tasks: Path) -> None:
    folder = TaskFolder(tasks / "tasks" / "held-out")
    docs = [doc for doc in rows_in(tasks / "tasks" / "held-out" / "docs.jsonl") if "circle" in doc["medkit"]]
    pairs = [folder.process_results(doc, ["yes"])["pope_precision"] for doc in docs]
    assert set_level("pope_precision")(pairs) == 0.5  # half of the six have yes as reference
    assert mean([{"score": 1.0}, {"score": 0.0}, {"score": 0.0}]) == pytest.approx(1 / 3)
    with pytest.raises(DataError, match="no number pope_luck"):
        set_level("pope_luck")(pairs)


def test_a_task_never_replaces_something_else(tasks: Path, tmp_path: Path) -> None:
    (tmp_path / "held-out").mkdir()
    (tmp_path / "held-out" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="no task of medkit's"):
        write_tasks(cards(), tasks / "data", tmp_path)
    assert write_tasks(cards("limit=3"), tasks / "data", tasks / "again") == ["medkit_held_out"]
    assert write_tasks(cards("limit=6"), tasks / "data", tasks / "again") == ["medkit_held_out"]
    assert len(rows_in(tasks / "again" / "held-out" / "docs.jsonl")) == 6


def test_a_task_says_when_its_pictures_are_gone(tasks: Path, tmp_path: Path) -> None:
    data = tiny_evaluation.write_dataset(tmp_path / "data")
    write_tasks(cards(), data, tmp_path / "tasks")
    data.rename(tmp_path / "elsewhere")
    doc = rows_in(tmp_path / "tasks" / "held-out" / "docs.jsonl")[0]
    with pytest.raises(DataError, match=r"dataset folder .* is gone"):
        TaskFolder(tmp_path / "tasks" / "held-out").doc_to_visual(doc)


def test_the_entry_point_leads_to_the_plug_in() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    target = project["entry-points"]["lmms_eval.models"]["medkit"]
    module, name = target.split(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_the_plug_in_answers_as_an_evaluation_does(tasks: Path, tmp_path: Path) -> None:
    from medkit.exchange.answering import Answerer

    tiny_evaluation.build_model(tmp_path / "model")
    evaluate_alone(tmp_path / "model", cards(), tasks / "data", tmp_path / "out")
    wanted = {row["id"]: row["answer"] for row in rows_in(tmp_path / "out" / "answers.jsonl")}
    dataset = open_dataset(tasks / "data")
    questions = read_questions(dataset, "held-out")
    answerer = Answerer(tmp_path / "model", "cpu", batch_size=5)
    said = answerer.answers(questions, lambda one: [dataset.image(ref) for ref in one.images], 16)
    assert dict(zip([one.id for one in questions], said, strict=True)) == wanted
    assert len(set(said)) > 3  # a model that says one thing would prove nothing


# --- replay


def stored(path: Path, *rows: dict[str, Any]) -> Stored:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Stored(path)


def test_a_replay_gives_the_stored_answer(tmp_path: Path) -> None:
    answers = stored(
        tmp_path / "answers.jsonl",
        {"benchmark": "rad", "control": "none", "id": "1", "question": "Is it  big?", "answer": "yes"},
        {"benchmark": "rad", "control": "blank", "id": "1", "question": "Is it big?", "answer": "no"},
        {"benchmark": "slake", "control": "none", "id": "1", "question": "Which organ?", "answer": "liver"},
        {"benchmark": "slake", "control": "none", "id": "2", "question": "Which side?", "answer": "left"},
        {"benchmark": "slake", "control": "none", "id": "3", "question": "Which side?", "answer": "right"},
    )
    assert answers.answer({"benchmark": "rad", "id": "1", "question": "Is it big?"}, "") == "yes"
    assert answers.answer({"benchmark": "slake", "id": "1", "question": "Which organ?"}, "") == "liver"
    assert answers.answer({"qid": 1, "question": "which organ?"}, "") == "liver"  # another tool's document
    assert answers.answer({}, "Which organ?") == "liver"


def test_a_replay_guesses_nothing(tmp_path: Path) -> None:
    answers = stored(
        tmp_path / "answers.jsonl",
        {"benchmark": "slake", "id": "2", "question": "Which side?", "answer": "left"},
        {"benchmark": "slake", "id": "3", "question": "Which side?", "answer": "right"},
    )
    assert answers.answer({}, "Which side?") is None  # two pictures, two answers
    assert answers.answer({"benchmark": "slake", "id": "9", "question": "Which side?"}, "Which side?") is None
    assert (
        answers.answer({"id": "2", "question": "Which organ?"}, "Which organ?") is None
    )  # an id of another set
    for first, second, given in (
        ("a", "b", None),
        ("a", "a", "a"),
    ):  # two benchmarks with one id and one text
        both = [
            {"benchmark": name, "id": "1", "question": "Which side?", "answer": said}
            for name, said in (("rad", first), ("rad-public", second))
        ]
        assert (
            stored(tmp_path / "both.jsonl", *both).answer({"id": "1", "question": "Which side?"}, "") == given
        )
    with pytest.raises(DataError, match="answered twice, and differently"):
        stored(tmp_path / "two.jsonl", {"id": 1, "answer": "a"}, {"id": 1, "answer": "b"})
    failed = stored(
        tmp_path / "failed.jsonl", {"id": "1", "question": "Which side?", "answer": "", "failed": "timeout"}
    )
    assert failed.answer({"id": "1", "question": "Which side?"}, "") is None
    assert failed.answer({}, "Which side?") is None
    with pytest.raises(DataError, match="row 1 has no answer"):
        stored(tmp_path / "none.jsonl", {"id": 1, "text": "a"})


# --- VLMEvalKit's tables


def nasty_questions() -> list[dict[str, Any]]:
    asked: list[dict[str, Any]] = []
    texts = [text for text in NASTY if text.strip()]
    for number, text in enumerate(texts):
        asked.append({"text": f"Which is it, {number}?", "gold": text, "kind": text[:30].strip() or "kind"})
        others = [texts[(number + step) % len(texts)] for step in range(2 + number % 3)]
        asked.append({"text": "Choose:\nA. x", "gold": others[0], "choices": others, "answer_type": "choice"})
    asked.append({"text": "Is it?", "gold": "no.", "answer_type": "yes_no"})
    asked.append({"text": "Many?", "gold": ["None", "5"], "id": "None"})
    asked.append({"text": "Two pictures?", "gold": "yes", "answer_type": "yes_no", "images": 2, "id": "7"})
    return asked


def test_a_table_comes_back_exactly(tmp_path: Path) -> None:
    data = write_questions(tmp_path / "data", nasty_questions())
    told = write_tables(cards(), data, tmp_path / "tables")
    tables = sorted((tmp_path / "tables").glob("*.tsv"))
    assert [path.name for path in tables] == ["held-out_mcq.tsv", "held-out_vqa.tsv", "held-out_yorn.tsv"]
    assert any(line.startswith("guarded: ") for line in told)
    read_tables(tables, tmp_path / "back")
    wanted = {row["id"]: row for row in map(question_row, read_questions(open_dataset(data), "b"))}
    found = {
        row["id"]: row for row in map(question_row, read_questions(open_dataset(tmp_path / "back"), "b"))
    }
    assert found == wanted
    assert len(wanted) == 2 * (len(NASTY) - 1) + 3
    for ref in open_dataset(data).refs():
        assert open_dataset(tmp_path / "back").image_bytes(ref) == open_dataset(data).image_bytes(ref)


def test_pandas_can_not_misread_a_table(tmp_path: Path) -> None:
    """Reads the tables as VLMEvalKit does, with and without the guard: it is needed, and it is enough."""
    pandas = pytest.importorskip("pandas")
    data = write_questions(tmp_path / "data", nasty_questions())
    numbers = [
        {"text": "How many?", "gold": str(n), "choices": [str(n), "9", *["3"] * (n % 2)]} for n in (5, 6, 7)
    ]
    write_tables(cards(), data, tmp_path)
    write_tables(cards(), write_questions(tmp_path / "numbers", numbers), tmp_path / "few")
    misread = 0
    for path in (*tmp_path.glob("*.tsv"), *tmp_path.glob("few/*.tsv")):
        text = path.read_bytes().decode()  # line ends as they are
        guarded = pandas.read_csv(path, sep="\t")
        bare = pandas.read_csv(io.StringIO(text.replace(GUARD + '"', '"')), sep="\t")
        for place, cell in enumerate(guarded["medkit"]):
            row = json.loads(cell)
            line = guarded.iloc[place]
            for letter, choice in zip("ABCDEFGH", row["choices"], strict=False):
                if "A" in guarded:
                    assert str(line[letter]).strip() == choice.strip()
                    misread += str(bare.iloc[place][letter]).strip() != choice.strip()
            golds = row["references"]
            if not row["choices"] and len(golds) == 1 and row["answer_type"] == "open":
                assert str(line["answer"]).strip() == golds[0].strip()
                misread += str(bare.iloc[place]["answer"]).strip() != golds[0].strip()
        assert not guarded[["question", "answer", "category"]].isna().any().any()
    assert misread >= 10


def test_the_list_of_missing_words_is_pandas_own() -> None:
    pandas = pytest.importorskip("pandas")
    from pandas._libs.parsers import STR_NA_VALUES  # type: ignore[import-not-found]

    assert pandas.__version__ and set(STR_NA_VALUES) - {""} == set(MISSING)


def test_a_picture_is_written_once(tmp_path: Path) -> None:
    data = write_questions(tmp_path / "data", [{"text": f"What, {n}?", "gold": "it"} for n in range(9)])
    write_tables(cards(), data, tmp_path)
    lines = (tmp_path / "held-out_vqa.tsv").read_text(encoding="utf-8").split("\n")
    cells = [line.split("\t")[1].strip('"') for line in lines[1:-1]]
    assert [len(cell) > 64 for cell in cells] == [True] * 3 + [False] * 6
    assert cells[3:] == ["0", "1", "2"] * 2


def foreign(path: Path, *rows: list[str]) -> Path:
    path.write_text("\n".join("\t".join(row) for row in rows) + "\n", encoding="utf-8")
    return path


def picture() -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_another_tools_table_is_read(tmp_path: Path) -> None:
    head = ["index", "image", "question", "hint", "A", "B", "C", "answer", "category", "split"]
    table = foreign(
        tmp_path / "Set_VAL.tsv",
        head,
        ["10", picture(), "Which organ?", "An old man.", "None", "liver", "", "A", "organ", "val"],
        ["11", "10", "How many?", "", "", "", "", "['2', 'two']", "count", "val"],
        ["12", "10", "Is it so?", "", "", "", "", "", "count", "val"],
        [
            "13",
            "not base64, but longer than sixty-four signs, so that it must be a picture",
            "What?",
            *[""] * 4,
            "x",
            "",
            "",
        ],
        ["14", "99", "What?", *[""] * 4, "x", "", ""],
    )
    done = CliRunner().invoke(app, ["exchange", "dataset", str(table), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "2 questions about 1 images" in done.output.replace("test: ", "")
    assert "question without answer (1)" in done.output and "image missing (2)" in done.output
    first, second = read_questions(open_dataset(tmp_path / "out"), "x")
    assert first.text == "An old man.\nWhich organ?\nA. None\nB. liver"
    assert (first.choices, first.references, first.kind) == (["None", "liver"], ["None"], "organ")
    assert (second.references, second.answer_type) == (["2", "two"], "number")
    assert first.group == second.group and first.images == second.images


def test_a_row_may_name_the_picture_of_a_later_row(tmp_path: Path) -> None:
    """References may look ahead, or name a row with several pictures; a list of numbers is one answer."""
    two = json.dumps([picture(), picture()])
    rows = [["0", "1", "Where?", "[12, 40]"], ["1", two, "What?", "it"]]
    table = foreign(tmp_path / "t.tsv", ["index", "image", "question", "answer"])
    with table.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(rows)
    read_tables([table], tmp_path / "out")
    first, second = read_questions(open_dataset(tmp_path / "out"), "x")
    assert first.images == second.images and len(first.images) == 2
    assert first.references == ["[12, 40]"]


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_bytes("index\tquestion\tprediction\n1\tGrößer?\tja\n".encode("latin-1"))
    for done in (
        lambda: read_tables([table], tmp_path / "out"),
        lambda: import_answers([table], tmp_path / "a"),
    ):
        with pytest.raises(DataError, match=r"can't be read as a table .*utf-8"):
            done()


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    runner = CliRunner()
    for text, message in (
        ("index\timage\n1\tx\n", "no question column"),
        ("index\tquestion\tanswer\n1\tWhat?\n", "no question of the test part: row unreadable"),
        ("index\tquestion\tanswer\n1\tWhat?\tit\n", "no question of the test part: image missing"),
    ):
        table = tmp_path / "t.tsv"
        table.write_text(text, encoding="utf-8")
        done = runner.invoke(app, ["exchange", "dataset", str(table), "--out", str(tmp_path / "out")])
        assert isinstance(done.exception, MedkitError) and message in str(done.exception), done.exception
    with pytest.raises(DataError, match="is no file"):
        read_tables([tmp_path / "absent.tsv"], tmp_path / "out")


# --- answers of other tools


@pytest.fixture
def predicted(tmp_path: Path) -> tuple[Path, dict[str, str], list[dict[str, str]]]:
    """A table of medkit's with a prediction for each question, as VLMEvalKit writes it (its image column goes)."""
    from medkit.readers.vlmevalkit import table_rows

    asked = [{"text": f"What, {n}?", "gold": "it", "id": f"{n:03d}"} for n in range(len(NASTY))]
    data = write_questions(tmp_path / "data", asked)
    write_tables(cards(), data, tmp_path)
    rows = [row for _, row in table_rows(tmp_path / "held-out_vqa.tsv") if isinstance(row, dict)]
    said = {json.loads(row["medkit"])["id"]: text for row, text in zip(rows, NASTY, strict=True)}
    table = [
        {key: value for key, value in row.items() if key != "image"} | {"prediction": text}
        for row, text in zip(rows, NASTY, strict=True)
    ]
    return tmp_path, said, table


def test_predictions_come_back_as_they_were(
    predicted: tuple[Path, dict[str, str], list[dict[str, str]]],
) -> None:
    pandas = pytest.importorskip("pandas")
    folder, said, table = predicted
    frame = pandas.DataFrame(table)
    frame.to_csv(folder / "model_set.tsv", sep="\t", index=False, quoting=1)
    frame.to_json(folder / "model_set.json", orient="records", force_ascii=False, indent=4)
    for form in ("tsv", "json"):
        told = import_answers([folder / f"model_set.{form}"], folder / "answers.jsonl")
        assert {row["id"]: row["answer"] for row in rows_in(folder / "answers.jsonl")} == said
        assert told[0] == f"{len(NASTY)} answers" and "1 empty" in told
        assert any("5 are words that pandas reads as missing" in line for line in told)
    found = score_file(folder / "answers.jsonl", "vlmevalkit")["benchmarks"]["held-out"]
    assert (found["questions"], found["groups"], found["empty"], found["truncated"]) == (len(NASTY), 3, 1, 1)


def test_an_excel_file_is_read_as_it_was_written(
    predicted: tuple[Path, dict[str, str], list[dict[str, str]]],
) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl (medkit-lmm[exchange]) reads Excel files")
    folder, said, table = predicted
    book = openpyxl.Workbook()
    book.active.append(list(table[0]))
    for row in table:
        # Excel keeps no carriage return: its writers escape it; and it cuts long cells.
        cells = {key: value.replace("\r", "_x000D_")[:LONGEST_CELL] for key, value in row.items()}
        book.active.append([cells[key] for key in table[0]])
        for cell in book.active[book.active.max_row]:
            if isinstance(cell.value, str):
                cell.data_type = "s"  # "=1+1" is a text
    book.active.cell(book.active.max_row + 1, 1).value = ""  # an empty last row
    book.save(folder / "model_set.xlsx")
    told = import_answers([folder / "model_set.xlsx"], folder / "answers.jsonl")
    rows = {row["id"]: row for row in rows_in(folder / "answers.jsonl")}
    assert {key: row["answer"] for key, row in rows.items()} == {
        key: text[:LONGEST_CELL] for key, text in said.items()
    }
    assert sum(row["truncated"] for row in rows.values()) == 1
    assert any("cut at 32,767 signs" in line for line in told)


def test_a_damaged_sheet_is_refused(
    predicted: tuple[Path, dict[str, str], list[dict[str, str]]],
) -> None:
    """The archive opens, and the sheet in it ends early."""
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl (medkit-lmm[exchange]) reads Excel files")
    folder, _, table = predicted
    book = openpyxl.Workbook()
    book.active.append(list(table[0]))
    for row in table[:3]:
        book.active.append(list(row.values()))
    book.save(folder / "whole.xlsx")
    with zipfile.ZipFile(folder / "whole.xlsx") as whole, zipfile.ZipFile(folder / "cut.xlsx", "w") as cut:
        for name in whole.namelist():
            data = whole.read(name)
            cut.writestr(name, data[: len(data) // 2] if name.endswith("sheet1.xml") else data)
    with pytest.raises(DataError, match=r"cut.xlsx can't be read as an Excel file"):
        import_answers([folder / "cut.xlsx"], folder / "answers.jsonl")


def test_what_is_known_of_a_picture_survives_both_tools(tmp_path: Path) -> None:
    """Slices and a judge's context are in an evaluation's answers, so they must be in an imported one's."""
    with DatasetWriter(tmp_path / "data", "known") as writer:
        ref = writer.add_image(np.full((9, 11, 3), 7, dtype=np.uint8))
        asked = {
            "kind": "k",
            "answer_type": "open",
            "choices": [],
            "references": ["it"],
            "context": "A caption.",
        }
        source = {"dataset": "known", "record": "0", "split": "test", "kind": "question", "group": "g"}
        turns = [user_turn("What?", images=1), assistant_turn("it")]
        writer.add(Sample("0", turns, [ref], {"question": asked, "modality": "CT", "organ": "Chest"}, source))
    (question,) = read_questions(open_dataset(tmp_path / "data"), "held-out")
    assert (question.slices, question.context) == ({"modality": "ct", "organ": "chest"}, "A caption.")
    write_tables(cards(), tmp_path / "data", tmp_path / "tables")
    read_tables([tmp_path / "tables" / "held-out_vqa.tsv"], tmp_path / "back")
    (back,) = read_questions(open_dataset(tmp_path / "back"), "held-out")
    assert back == question
    row = answered(question_row(question), "it")
    assert (row["slices"], row["context"]) == (question.slices, question.context)


def test_a_failed_call_is_no_answer(tmp_path: Path) -> None:
    table = foreign(
        tmp_path / "m_Set.tsv",
        ["index", "question", "A", "B", "answer", "category", "prediction"],
        ["1", "Which side?", "left", "right", "B", "side", "B"],
        ["2", "Which side?", "left", "right", "A", "side", "Failed to obtain answer via API."],
    )
    told = import_answers([table], tmp_path / "answers.jsonl")
    assert "1 without a reply: the model's API failed" in told
    found = score_file(tmp_path / "answers.jsonl", "vlmevalkit")["benchmarks"]["m_Set"]
    assert found["failed"] == 1
    score = found["profiles"]["vlmevalkit"]["scores"]["exact_matching"]
    assert (score["value"], score["count"]) == (1.0, 1)


def sample(**given: Any) -> dict[str, Any]:
    """A line of lmms-eval 0.7.3's samples file."""
    line = {
        "doc_id": 0,
        "target": "Liver",
        "filtered_resps": "liver",
        "token_counts": [None],
        "doc_hash": "7423",
    }
    return line | {"input": "Which organ?\nAnswer the question using a single word or phrase."} | given


def test_samples_of_lmms_eval_are_read(tmp_path: Path) -> None:
    path = tmp_path / "20261121_175503_samples_slake_en.jsonl"
    record = {"id": "11934", "prediction": "liver", "is_correct": True}
    lines = [sample(slake_accuracy=record), sample(doc_id=1, filtered_resps=["Yes"], target=["yes", "y"])]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    import_answers([path], tmp_path / "answers.jsonl")
    first, second = rows_in(tmp_path / "answers.jsonl")
    assert (first["benchmark"], first["id"], first["references"], first["answer"]) == (
        "slake_en",
        "11934",
        ["Liver"],
        "liver",
    )
    assert (second["id"], second["references"], second["answer"], second["answer_type"]) == (
        "1",
        ["yes", "y"],
        "Yes",
        "yes_no",
    )
    found = score_file(tmp_path / "answers.jsonl", "lmms_eval")["benchmarks"]["slake_en"]["profiles"][
        "lmms_eval"
    ]
    assert found["scores"]["slake"]["value"] == 1.0


def test_answers_are_joined_with_a_dataset_folder(tmp_path: Path) -> None:
    asked = [{"text": "Which organ?", "gold": "liver", "id": "11934", "kind": "Organ"}]
    data = write_questions(tmp_path / "data", asked)
    path = tmp_path / "samples_slake_en.jsonl"
    path.write_text(json.dumps(sample(x={"id": "11934"}, target=None)) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="1 questions have no gold answer"):
        import_answers([path], tmp_path / "answers.jsonl")
    import_answers([path], tmp_path / "answers.jsonl", data)
    (row,) = rows_in(tmp_path / "answers.jsonl")
    assert (row["benchmark"], row["references"], row["group"], row["kind"]) == (
        "slake_en",
        ["liver"],
        "g0",
        "Organ",
    )
    path.write_text(json.dumps(sample(x={"id": "11934"}, input="Which plane?")) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"'Which plane\?' there and 'Which organ\?' in the dataset"):
        import_answers([path], tmp_path / "answers.jsonl", data)
    path.write_text(json.dumps(sample(x={"id": "5"})) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="question 5 is not in the dataset folder"):
        import_answers([path], tmp_path / "answers.jsonl", data)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.jsonl", '{"doc_id": 0}\n', "no reply"),
        ("x.jsonl", "", "holds no answers"),
        ("x.jsonl", '{"doc_id": 0, "resps": "a", "target": "b"}\n' * 2, "answered more than once"),
        ("x.tsv", "index\tquestion\tanswer\n1\ta\tb\n", "no column prediction"),
        ("x.tsv", "index\tmedkit\tprediction\n1\t{cut\tb\n", "column medkit is damaged"),
        ("x.tsv", "index\tprediction\n1\n", "line 2: another number of fields"),
        ("x.xlsx", "no archive", "can't be read as an Excel file|needs openpyxl"),
        ("x.pkl", "x", "must be .jsonl"),
    ],
)
def test_what_is_no_answers_file_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(MedkitError, match=message):
        import_answers([tmp_path / name], tmp_path / "answers.jsonl")
    assert not (tmp_path / "answers.jsonl").exists()


def test_the_commands_work_together(tmp_path: Path) -> None:
    data = tiny_evaluation.write_dataset(tmp_path / "data")
    runner = CliRunner()
    done = runner.invoke(
        app, ["exchange", "lmms-tasks", "--data", str(data), "--out", str(tmp_path / "tasks")]
    )
    assert done.exit_code == 0 and "wrote the task medkit_held_out" in done.output, done.output
    done = runner.invoke(
        app, ["exchange", "vlmevalkit", "--data", str(data), "--out", str(tmp_path / "tables")]
    )
    assert done.exit_code == 0 and "held-out_mcq.tsv: 6 questions" in done.output.replace("\n", ""), (
        done.output
    )
    lines = (tmp_path / "tables" / "held-out_yorn.tsv").read_text(encoding="utf-8").splitlines()
    head = lines[0] + '\t"prediction"'
    (tmp_path / "m.tsv").write_text(
        "\n".join([head, *(f'{line}\t"Yes"' for line in lines[1:])]), encoding="utf-8"
    )
    out = tmp_path / "answers.jsonl"
    done = runner.invoke(app, ["exchange", "answers", str(tmp_path / "m.tsv"), "--out", str(out)])
    assert done.exit_code == 0 and "6 answers" in done.output, done.output
    done = runner.invoke(app, ["score", str(out), "--profile", "vlmevalkit"])
    assert done.exit_code == 0 and "0.500" in done.output


def test_an_out_that_can_not_be_written_is_said(tmp_path: Path) -> None:
    data = tiny_evaluation.write_dataset(tmp_path / "data")
    (tmp_path / "file").touch()
    for write in (write_tasks, write_tables):
        with pytest.raises(DataError, match="file is a file; give --out a folder"):
            write(cards(), data, tmp_path / "file")
    table = foreign(
        tmp_path / "t.tsv", ["index", "question", "answer", "prediction"], ["1", "What?", "it", "it"]
    )
    for out in (tmp_path / "data", tmp_path / "no" / "answers.jsonl"):
        with pytest.raises(DataError, match=r"can't be written: (Is a directory|No such file)"):
            import_answers([table], out)
    assert not (tmp_path / "data.partial").exists()


def test_the_commands_of_the_page_parse() -> None:
    from test_readme import parsed, words_of

    page = (ROOT / "docs" / "exchange.md").read_text(encoding="utf-8")
    commands = [line.strip() for line in page.splitlines() if line.startswith("    medkit ")]
    assert len(commands) >= 8
    names = {parsed(words_of(command)).info_name for command in commands}
    assert {"lmms-tasks", "vlmevalkit", "dataset", "answers"} <= names


# --- what lmms-eval 0.7.3's own functions gave


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("B", "B"),
        ("The correct answer is (B) because A is smaller", "A"),
        ("MRI shows nothing", ""),
        ("The MRIB shows it", "B"),
        ("A cat is sitting on a mat and D is the best answer", "A"),
        ("I think it is C because B is wrong", "B"),
        ("(A) is wrong, (C) is right", "C"),
        ("so my choice: D", "D"),
        ("the answer is Cancer, not B: no", "B"),
        ("", ""),
        ("BAD", "D"),
    ],
)
def test_multiple_choice_as_lmms_eval_reads_it(said: str, letter: str) -> None:
    assert options.lmms_option(said, "ABCD") == letter


@pytest.mark.parametrize(
    ("said", "as_compared"),
    [
        ("能", "yes"), ("不包含", "no"), ("对", "对"), ("不存在", "不存在"), ("lung(left)lobe", "lung lobe"),
        ("＋－", ""), ("X-Ray", "xray"), ("２．５", "２．５"), ("肝脏（左）", "肝脏"),
    ],
)  # fmt: skip
def test_slake_as_lmms_eval_normalises_it(said: str, as_compared: str) -> None:
    assert slake.normalise(said) == as_compared


def test_the_length_of_a_reply_is_that_of_its_small_letters() -> None:
    choices = {"A": "CT", "B": "MRI"}  # a reply may have ten signs
    assert options.can_infer_text("MRI _______", choices) is None
    assert options.can_infer_text("MRI ______", choices) == "B"
    assert options.can_infer_text("MRI _____İ", choices) is None


def test_anls_divides_by_the_length_in_capitals() -> None:
    assert documents.anls("", ["ß"]) == 0.5


# --- the tools themselves


@pytest.mark.slow
def test_lmms_eval_gives_the_profiles_scores(tmp_path: Path) -> None:
    python = tool("MEDKIT_LMMS_EVAL")
    rows, told = proof().against_lmms(python, proof_of(tmp_path), tmp_path / "lmms")
    assert_equal(rows, told)
    assert {where for where, *_ in rows} == {
        "lmms-eval, plug-in",
        "lmms-eval, replay",
        "lmms-eval's functions",
    }
    assert {"slake", "pope", "pope_f1", "mcq", "exact_match"} <= {score for _, score, *_ in rows}
    assert told[-1].endswith("differing: 0") and "12 kinds" in told[-1]


@pytest.mark.slow
def test_vlmevalkit_gives_the_profiles_scores(tmp_path: Path) -> None:
    python = tool("MEDKIT_VLMEVALKIT")
    rows, told = proof().against_vlmevalkit(python, proof_of(tmp_path), tmp_path / "vlm")
    assert_equal(rows, told)
    assert {score for _, score, *_ in rows} == {"exact_matching", "yes_no", "accuracy", "relaxed", "anls"}
    assert told[-1].endswith("differing: 0") and "6 kinds" in told[-1]


@pytest.mark.slow
def test_a_replay_without_an_answer_gives_no_score(tmp_path: Path) -> None:
    python = tool("MEDKIT_LMMS_EVAL")
    asked = proof_of(tmp_path)
    lines = asked["answers"].read_text(encoding="utf-8").splitlines()
    (tmp_path / "some.jsonl").write_text("\n".join(lines[2:]) + "\n", encoding="utf-8")
    (task,) = write_tasks(asked["cards"], asked["data"], tmp_path / "tasks")
    model = ["--model", "medkit_replay", "--model_args", f"answers={tmp_path / 'some.jsonl'}"]
    with pytest.raises(SystemExit, match="has no answer to 2 of the questions that are asked"):
        proof().run_lmms(python, task, tmp_path / "tasks", model, tmp_path / "out")


FOREIGN_TASK = """
task: foreign
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{docs}"}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: question
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 16, temperature: {temperature}}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}}]
"""
FOREIGN_CODE = "from PIL import Image\n\ndef doc_to_visual(doc):\n    return [Image.open(doc['path'])]\n"


@pytest.mark.slow
def test_a_task_that_knows_nothing_of_medkit_is_answered(tmp_path: Path) -> None:
    """lmms-eval's own metric, pictures as files: the plug-in's and the replay's number is that of the answers."""
    python = tool("MEDKIT_LMMS_EVAL")
    asked = proof_of(tmp_path)
    dataset = open_dataset(asked["data"])
    folder = tmp_path / "foreign"
    folder.mkdir()
    rows = rows_in(asked["answers"])
    docs = []
    for place, row in enumerate(rows):
        path = folder / f"{row['image'][:16]}.png"
        dataset.image(row["image"]).save(path)
        # half of the gold answers are what the model says, so that the score is none of 0 and 1
        gold = row["answer"].upper() if place % 2 else "something else"
        docs.append(
            {"question_id": row["id"], "question": row["question"], "answer": gold, "path": str(path)}
        )
    (folder / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs), encoding="utf-8")
    (folder / "utils.py").write_text(FOREIGN_CODE, encoding="utf-8")
    task = folder / "foreign.yaml"
    task.write_text(FOREIGN_TASK.format(docs=folder / "docs.jsonl", temperature=0), encoding="utf-8")
    ends = [place for place, row in enumerate(rows) if "\n\n" in row["answer"]]  # the end that lmms-eval adds
    assert ends == []
    for name, model in (
        ("medkit", f"pretrained={asked['model']}"),
        ("medkit_replay", f"answers={asked['answers']},model=replay"),
    ):
        given = ["--model", name, "--model_args", model, "--batch_size", "4"]
        numbers, samples = proof().run_lmms(python, "foreign", folder, given, tmp_path / name)
        assert numbers["exact_match"] == 0.5
        assert [line["filtered_resps"] for line in rows_in(samples)] == [row["answer"] for row in rows]
    task.write_text(FOREIGN_TASK.format(docs=folder / "docs.jsonl", temperature=0.7), encoding="utf-8")
    given = ["--model", "medkit", "--model_args", f"pretrained={asked['model']}"]
    with pytest.raises(SystemExit, match="medkit answers greedily"):
        proof().run_lmms(python, "foreign", folder, given, tmp_path / "warm")


def proof_of(folder: Path) -> dict[str, Any]:
    """Gives what benchmarks/exchange.py compares, for the tiny model; a few answers are made right."""
    data = tiny_evaluation.write_dataset(folder / "data")
    tiny_evaluation.build_model(folder / "model")
    evaluate_alone(folder / "model", cards(), data, folder / "medkit")
    return {
        "name": "held-out", "cards": cards(), "data": data, "model": folder / "model", "fuzz": 3000,
        "answers": folder / "medkit" / "answers.jsonl",
    }  # fmt: skip


def assert_equal(rows: list[tuple[str, str, float, float]], told: list[str]) -> None:
    assert [row for row in rows if round(row[2], 6) != round(row[3], 6)] == []
    shares = [found for line in told if (found := re.search(r": (\d+) of (\d+) ", line))]
    assert shares and all(found[1] == found[2] for found in shares), told
    assert not any("DIFFERENT" in line for line in told)
