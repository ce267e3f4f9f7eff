"""Are medkit's scores those of lmms-eval and VLMEvalKit? Runs both tools, each in its own environment.

A checkpoint answers a benchmark three ways (medkit evaluate; lmms-eval with medkit's plug-in; lmms-eval replaying the
stored answers), and its answers are scored by each tool's own functions. Equal means: the same to the six decimals that
scores.json keeps.

    python benchmarks/exchange.py --data runs/phantom/4-teach-general --benchmark general-scenes \\
        --lmms ~/venv-lmms/bin/python --vlmevalkit ~/venv-vlm/bin/python --out exchange-proof

The environment of lmms-eval has medkit too (docs/exchange.md); that of VLMEvalKit needs VLMEvalKit alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from medkit.evaluation.questions import read_questions
from medkit.evaluation.scoring.answer_files import items_of
from medkit.evaluation.scoring.profiles import find_profiles
from medkit.evaluation.scoring.rescore import score_file
from medkit.evaluation.standalone import evaluate_alone, find_benchmarks
from medkit.exchange.predictions import import_answers
from medkit.exchange.rows import question_row, questions_of
from medkit.exchange.tasks import write_tasks
from medkit.exchange.vlmevalkit import read_tables, write_tables
from medkit.store import open_dataset

TOOLS = Path(__file__).resolve().parent / "exchange_tools.py"
sys.path.insert(0, str(TOOLS.parent))  # also where this file is imported from elsewhere

from exchange_tools import made_up  # noqa: E402

DECIMALS = 6
Rows = list[tuple[str, str, float, float]]  # (where, score, medkit's, the tool's)


def run_lmms(
    python: Path, task: str, tasks: Path, model: list[str], out: Path
) -> tuple[dict[str, float], Path]:
    """Runs lmms-eval on an exported task and gives its numbers by metric and its samples file.

    Raises:
        SystemExit: It ended without results.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(out / "hf"),
        "PYTHONUTF8": "1",
    }
    command = [str(python), "-m", "lmms_eval", "eval", *model, "--tasks", task, "--include_path", str(tasks)]
    command += ["--log_samples", "--output_path", str(out), "--device", "cpu"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    results = sorted(out.rglob("*_results.json"))
    if not results:
        raise SystemExit(f"lmms-eval gave no results:\n{(done.stdout + done.stderr)[-3000:]}")
    found = json.loads(results[-1].read_text(encoding="utf-8"))["results"][task]
    numbers = {key.removesuffix(",none"): value for key, value in found.items() if key.endswith(",none")}
    samples = sorted(out.rglob(f"*_samples_{task}.jsonl"))[-1]
    return {key: value for key, value in numbers.items() if "_stderr" not in key}, samples


def run_tool(python: Path, *given: str) -> Any:
    """Runs a command of exchange_tools.py and gives what it prints."""
    done = subprocess.run([str(python), str(TOOLS), *given], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{TOOLS.name} {given[0]} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def medkit_scores(answers: Path, benchmark: str, profile: str) -> dict[str, float]:
    """Gives the profile's numbers, set-level ones too."""
    found = score_file(answers, profile)["benchmarks"][benchmark]["profiles"][profile]
    return {name: one["value"] for part in ("scores", "corpus") for name, one in found[part].items()}


def against_lmms(python: Path, asked: dict[str, Any], out: Path) -> tuple[Rows, list[str]]:
    """Compares with lmms-eval: its run of the plug-in, of the replay, and its own functions."""
    name, answers = asked["name"], asked["answers"]
    (task,) = write_tasks(asked["cards"], asked["data"], out / "tasks")
    ours = medkit_scores(answers, name, "lmms_eval")
    rows: Rows = []
    told = []
    models = {
        "plug-in": [
            "--model",
            "medkit",
            "--model_args",
            f"pretrained={asked['model']}",
            "--batch_size",
            "32",
        ],
        "replay": ["--model", "medkit_replay", "--model_args", f"answers={answers},model=replay"],
    }
    for place, model in models.items():
        numbers, samples = run_lmms(python, task, out / "tasks", model, out / place)
        numbers.pop("medkit_answered")
        rows += [(f"lmms-eval, {place}", key, ours[key], value) for key, value in numbers.items()]
        imported = out / f"{place}.jsonl"
        import_answers([samples], imported)
        before, after = texts(answers), texts(imported)
        same = sum(before[key] == after.get(key) for key in before)
        told.append(f"{place}: {same} of {len(before)} answers the same as medkit evaluate's")
        if medkit_scores(imported, name, "lmms_eval") != ours:
            told.append(f"{place}: the imported answers score DIFFERENTLY")
    theirs = run_tool(python, "lmms-score", str(answers))
    rows += [("lmms-eval's functions", key, ours[key], value) for key, value in theirs.items()]
    fuzz = run_tool(python, "lmms-fuzz", str(asked["fuzz"]))
    told.append(compared("lmms-eval", fuzz["cases"], fuzz["differ"]))
    return rows, told


def against_vlmevalkit(python: Path, asked: dict[str, Any], out: Path) -> tuple[Rows, list[str]]:
    """Compares with VLMEvalKit: its classes read the tables and score predictions; tables and predictions come back."""
    name, answers = asked["name"], asked["answers"]
    told = write_tables(asked["cards"], asked["data"], out)
    theirs = run_tool(python, "vlm-score", str(out), str(answers))
    ours = medkit_scores(answers, name, "vlmevalkit")
    rows: Rows = [("VLMEvalKit's own", key, ours[key], value) for key, value in theirs["scores"].items()]
    before = texts(answers)
    for form in ("tsv", "xlsx", "json"):
        files = [Path(file) for file in theirs["files"] if file.endswith(form)]
        import_answers(files, out / f"{form}.jsonl")
        after = texts(out / f"{form}.jsonl")
        same = sum(before[key] == after.get(key) for key in before)
        told.append(f"predictions as {form}: {same} of {len(before)} answers come back as they were")
    read_tables(sorted(out.glob("*.tsv")), out / "dataset")
    own = {
        one.id: question_row(one) for card in asked["cards"] for one in questions_of(card, asked["data"])[0]
    }
    asked_there = sum(bool(row["images"]) for row in own.values())
    back = [question_row(one) for one in read_questions(open_dataset(out / "dataset"), name)]
    equal = sum(row == own[row["id"]] for row in back)
    told.append(
        f"tables read back: {equal} of {asked_there} questions equal in text, answers and pictures' bytes"
    )
    old = open_dataset(asked["data"])
    shown = [
        Image.open(path).convert("RGB").tobytes() == old.image(ref).tobytes()
        for one, paths in theirs["pictures"].items()
        for path, ref in zip(paths, own[one]["images"], strict=True)
    ]
    told.append(f"pictures that VLMEvalKit shows: {sum(shown)} of {len(shown)} equal in every pixel")
    told.append(fuzz_vlmevalkit(python, asked["fuzz"], out))
    return rows, told


def fuzz_vlmevalkit(python: Path, count: int, out: Path) -> str:
    """Compares the profile vlmevalkit with VLMEvalKit's functions over made-up replies."""
    rows = list(made_up(count))
    path = out / "made-up.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (profile,) = find_profiles("vlmevalkit")
    cases: dict[str, int] = {}
    differ: dict[str, list[Any]] = {}
    for row, theirs in zip(rows, run_tool(python, "vlm-values", str(path)), strict=True):
        ((item,),) = items_of([row], "made up").values()
        for score in profile.scores:
            mark = score.mark(item) if score.name in theirs else None
            if mark is not None:
                cases[score.name] = cases.get(score.name, 0) + 1
                if abs(mark.value - theirs[score.name]) > 1e-9:
                    found = [item.answer, list(item.references), mark.value, theirs[score.name]]
                    differ.setdefault(score.name, []).append(found)
    return compared("VLMEvalKit", cases, differ)


def compared(tool: str, cases: dict[str, int], differ: dict[str, list[Any]]) -> str:
    """Says how many scores of made-up replies were compared, and which differ, with the shortest reply."""
    line = (
        f"made-up replies, {tool}: {sum(cases.values()):,} scores of {len(cases)} kinds compared, differing: "
    )
    shortest = {name: (len(found), min(found, key=lambda one: len(one[0]))) for name, found in differ.items()}
    return line + (json.dumps(shortest, ensure_ascii=False) if differ else "0")


def texts(answers: Path) -> dict[str, str]:
    """Gives the answers of a file by question, controls left out."""
    rows = [json.loads(line) for line in answers.read_text(encoding="utf-8").split("\n") if line]
    return {row["id"]: row["answer"] for row in rows if row.get("control", "none") == "none"}


def main() -> None:
    """Runs what environments are given for and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="dataset folder with the questions")
    parser.add_argument("--benchmark", default="held-out")
    parser.add_argument("--model", type=Path, default=Path("checkpoints/tiny-general"))
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument(
        "--fuzz", type=int, default=200_000, help="made-up replies against lmms-eval's functions"
    )
    parser.add_argument("--lmms", type=Path, help="Python of lmms-eval's environment, with medkit")
    parser.add_argument("--vlmevalkit", type=Path, help="Python of VLMEvalKit's environment")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    given = parser.parse_args()
    if given.out.exists():
        raise SystemExit(f"{given.out} is there; name a new folder")
    cards = find_benchmarks([given.benchmark], [f"limit={given.limit}", "controls=[]", "profile=lmms_eval"])
    evaluate_alone(given.model, cards, given.data, given.out / "medkit")
    asked: dict[str, Any] = {
        "name": given.benchmark, "cards": cards, "data": given.data.absolute(), "model": given.model.absolute(),
        "answers": (given.out / "medkit" / "answers.jsonl").absolute(), "fuzz": given.fuzz,
    }  # fmt: skip
    rows: Rows = []
    told: list[str] = []
    for python, compare, place in (
        (given.lmms, against_lmms, "lmms"),
        (given.vlmevalkit, against_vlmevalkit, "vlmevalkit"),
    ):
        if python is not None:
            found, lines = compare(python.absolute(), asked, (given.out / place).absolute())
            rows, told = rows + found, told + lines
    for where, score, ours, theirs in rows:
        same = "equal" if round(ours, DECIMALS) == round(theirs, DECIMALS) else "DIFFERENT"
        print(f"{where:24} {score:16} {ours:.6f} {theirs:.6f} {same}")
    print("\n".join(told))
    if any(round(ours, DECIMALS) != round(theirs, DECIMALS) for _, _, ours, theirs in rows):
        sys.exit("some numbers differ")


if __name__ == "__main__":
    main()
