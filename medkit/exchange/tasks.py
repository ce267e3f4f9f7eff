"""Benchmarks as tasks of lmms-eval: a folder for its ``--include_path`` that reads a local dataset folder."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from medkit.cards.models import Benchmark
from medkit.errors import DataError
from medkit.exchange.rows import question_row, questions_of
from medkit.exchange.task_functions import ANSWERED, COLUMN, PROFILE, SETTINGS, metrics_of
from medkit.store import write_atomically

DOCS = "docs.jsonl"

_UTILS = '''"""What lmms-eval calls for this task; written by medkit, which must be installed beside lmms-eval."""

from pathlib import Path

from medkit.exchange import task_functions

TASK = task_functions.TaskFolder(Path(__file__).parent)
mean = task_functions.mean
'''
_FUNCTION = """

def {name}({arguments}):
    return TASK.{name}({arguments})
"""
_AGGREGATE = "{name} = task_functions.set_level({name!r})\n"


def write_tasks(cards: Sequence[Benchmark], data: Path, out: Path) -> list[str]:
    """Writes a task folder for each benchmark.

    Args:
        cards: The benchmarks; their ``limit`` and ``max_new_tokens`` hold.
        data: The dataset folder with their questions; the tasks read its pictures where it lies.
        out: Folder of the tasks; a benchmark's own folder in it is written anew.

    Returns:
        The tasks' names.

    Raises:
        DataError: There are no questions, or something else lies in a task's place.
    """
    if out.is_file():
        raise DataError(f"{out} is a file; give --out a folder")
    return [_write_task(card, data, out / card.name) for card in cards]


def task_name(benchmark: str) -> str:
    """Gives the name that ``--tasks`` takes: ``medkit_vqa_rad``."""
    return "medkit_" + re.sub(r"[^a-z0-9]+", "_", benchmark.lower())


def _write_task(card: Benchmark, data: Path, folder: Path) -> str:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / SETTINGS).is_file()):
        raise DataError(f"{folder} is there and is no task of medkit's; give --out another folder")
    questions, dataset = questions_of(card, data)
    rows = [question_row(question) for question in questions]
    scores, numbers = metrics_of(rows)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"benchmark": card.name, "data": str(dataset.folder.absolute()), "questions": len(rows)}
    lines = (json.dumps({COLUMN: json.dumps(row, ensure_ascii=False)}, ensure_ascii=False) for row in rows)
    write_atomically(folder / DOCS, "".join(line + "\n" for line in lines))
    write_atomically(folder / SETTINGS, json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
    write_atomically(folder / "utils.py", _utils(numbers))
    name = task_name(card.name)
    write_atomically(folder / f"{name}.yaml", _yaml(name, card, scores, numbers))
    return name


def _utils(numbers: Sequence[str]) -> str:
    functions = [(f"doc_to_{what}", "doc") for what in ("visual", "messages", "text", "target")]
    functions.append(("process_results", "doc, results"))
    text = _UTILS + "".join(_AGGREGATE.format(name=name) for name in numbers)
    return text + "".join(_FUNCTION.format(name=name, arguments=given) for name, given in functions)


def _yaml(name: str, card: Benchmark, scores: Sequence[str], numbers: Sequence[str]) -> str:
    quoted = {key: json.dumps(value, ensure_ascii=False) for key, value in _about(card).items()}
    lines = [
        f"task: {name}",
        "dataset_path: json",
        "dataset_kwargs:",
        "  data_files:",
        f"    test: {DOCS}",
        "test_split: test",
        "output_type: generate_until",
        *(
            f"doc_to_{what}: !function utils.doc_to_{what}"
            for what in ("visual", "messages", "text", "target")
        ),
        "process_results: !function utils.process_results",
        "generation_kwargs:",
        f"  max_new_tokens: {card.max_new_tokens}",
        "  temperature: 0",
        "  do_sample: false",
        "  until: []",  # else lmms-eval adds an empty line as an end
        "cluster_key: group",
        "metric_list:",
    ]
    for metric, function in [(one, "mean") for one in (*scores, ANSWERED)] + [(one, one) for one in numbers]:
        lines += [f"  - metric: {metric}", f"    aggregation: !function utils.{function}"]
        lines.append("    higher_is_better: true")
    return "\n".join([*lines, "metadata:", *(f"  {key}: {value}" for key, value in quoted.items())]) + "\n"


def _about(card: Benchmark) -> dict[str, object]:
    return {
        "version": PROFILE.version,
        "profile": PROFILE.name,
        "benchmark": card.name,
        "title": card.title,
        "licence": card.licence,
        "citation": card.citation,
    }
