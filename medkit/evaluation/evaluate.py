"""The evaluation step: every question of every benchmark, with its image and under each control."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medkit.errors import DataError
from medkit.evaluation.controls import blank_image
from medkit.evaluation.pope import pope_questions
from medkit.evaluation.questions import Question, limited, read_questions, with_controls
from medkit.evaluation.scoring.rescore import score_rows
from medkit.evaluation.summarise import answer_row, summarise
from medkit.store import Dataset, open_dataset, write_atomically

if TYPE_CHECKING:
    from PIL import Image

SMALL_MODEL, SMALL_BATCH, LARGE_BATCH = 100_000_000, 32, 16  # measured: more is slower on a CPU


def evaluate(settings: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Asks a model all questions of the benchmarks and writes ``answers.jsonl`` and ``scores.json``.

    Called again on the folder of a killed evaluation it asks only what has no answer yet.

    Args:
        settings: ``name`` of the model in reports, ``benchmarks`` (resolved cards), and optionally ``seed``,
            ``batch_size`` and ``hardware`` (device, precision).
        inputs: ``model`` (a model folder, or a training step's folder), ``data`` (dataset folder with
            questions), and ``data:BENCHMARK`` for a benchmark with data of its own.
        out: The step's folder.

    Returns:
        ``{model, answers, benchmarks: {name: {value, low, high}}, seconds}``.

    Raises:
        DataError: A benchmark has no questions.
        ModelError: The model can't be loaded.
    """
    start = time.perf_counter()
    name, seed = settings.get("name", "model"), settings.get("seed", 0)
    cards = settings["benchmarks"]
    asked: dict[str, list[Question]] = {}
    datasets: dict[str, Dataset] = {}
    for card in cards:
        asked[card["name"]], datasets[card["name"]] = _questions(card, inputs, seed)
    replies, decoding = _answer_all(settings, cards, asked, datasets, _model_folder(inputs["model"]), out)
    scores: dict[str, Any] = {"model": name, "decoding": decoding, "benchmarks": {}}
    lines: list[str] = []
    for card in cards:
        questions, scorer = asked[card["name"]], card.get("scorer", "answer")
        own = {question.id: question.images for question in questions if question.control == "none"}
        rows = [
            answer_row(question, own[question.id], replies[question.key], scorer) for question in questions
        ]
        lines += [json.dumps(row, ensure_ascii=False) for row in rows]
        about = {"title": card.get("title", card["name"]), "source": card.get("source", {})}
        if card.get("data"):
            about["data"] = _counts(datasets[card["name"]])
        scores["benchmarks"][card["name"]] = about | summarise(rows, scorer, seed)
        profile = card.get("profile", "medkit")
        scores["benchmarks"][card["name"]]["profiles"] = score_rows(rows, profile, seed)
    write_atomically(out / "answers.jsonl", "".join(line + "\n" for line in lines))
    write_atomically(out / "scores.json", json.dumps(scores, indent=1, ensure_ascii=False))
    (out / PARTIAL).unlink(missing_ok=True)
    return {
        "model": name,
        "answers": len(lines),
        "benchmarks": {bench: entry["accuracy"] for bench, entry in scores["benchmarks"].items()},
        "seconds": round(time.perf_counter() - start, 3),
    }


# Not "answers.jsonl.partial": that is the name under which write_atomically prepares the finished file.
PARTIAL = "replies.partial.jsonl"


def _questions(card: dict[str, Any], inputs: dict[str, Path], seed: int) -> tuple[list[Question], Dataset]:
    folder = inputs.get(f"data:{card['name']}") or inputs.get("data")
    if folder is None:
        raise DataError(
            f"benchmark {card['name']}: the evaluation was given no data; this plan needs a teach step"
        )
    dataset = open_dataset(folder)
    source = card.get("source", {})
    # A benchmark's own rows were read for the part that is asked; they are all in the test split.
    split = "test" if card.get("data") else source.get("split", "test")
    if source.get("ask") == "pope":
        made = pope_questions(dataset, card["name"], split, source.get("of", "label"), seed)
        questions = limited(made, card.get("limit"))
    else:
        questions = read_questions(dataset, card["name"], split, card.get("limit"))
    return with_controls(questions, card.get("controls", ("blank", "shuffled")), seed), dataset


def _counts(dataset: Dataset) -> dict[str, Any]:
    """Gives what reading a benchmark told about it: counts, what differs from its card, the hub's commit."""
    told = dataset.summary
    return {key: told[key] for key in ("part", "found", "expected", "differs", "revision") if key in told}


def _answer_all(
    settings: dict[str, Any],
    cards: Sequence[dict[str, Any]],
    asked: dict[str, list[Question]],
    datasets: dict[str, Dataset],
    model_folder: Path,
    out: Path,
) -> tuple[dict[tuple[str, str, str], dict[str, Any]], dict[str, Any]]:
    import torch

    from medkit.evaluation.generate import answer_questions
    from medkit.models.load import load_model, pick_device, pick_precision
    from medkit.training.encode import render_prompt

    hardware = settings.get("hardware") or {}
    device = pick_device(hardware.get("device", "auto"))
    precision = hardware.get("precision", "auto")
    # On a CPU float32 costs little for short answers, and plain transformers then gives the same ones.
    precision = "fp32" if precision == "auto" and device.type == "cpu" else pick_precision(precision, device)
    loaded = load_model(model_folder, device.type, torch.bfloat16 if precision == "bf16" else torch.float32)
    small = sum(weight.numel() for weight in loaded.model.parameters()) < SMALL_MODEL
    batch_size = settings.get("batch_size") or (SMALL_BATCH if small else LARGE_BATCH)
    replies: dict[tuple[str, str, str], dict[str, Any]] = {}
    for card in cards:
        answered = answer_questions(
            loaded.model,
            loaded.processor,
            _as_asked(asked[card["name"]], loaded.contract.answer_formats),
            _images_of(datasets[card["name"]], loaded.contract),
            prompt_of=lambda messages: render_prompt(loaded.processor, messages),
            partial=out / PARTIAL,
            batch_size=batch_size,
            max_new_tokens=card.get("max_new_tokens", 16),
        )
        replies |= {key: _stopped(reply, loaded.contract.stop) for key, reply in answered.items()}
    decoding = {"method": "greedy", "precision": precision, "device": device.type, "batch_size": batch_size}
    return replies, decoding


def _as_asked(questions: list[Question], formats: dict[str, str]) -> list[Question]:
    """Gives the questions with the response-format prompts of the checkpoint's contract."""
    from medkit.models.conversations import as_asked

    return [
        replace(question, messages=as_asked(question.messages, bool(question.choices), formats))
        for question in questions
    ]


def _stopped(reply: dict[str, Any], stop: Sequence[str]) -> dict[str, Any]:
    """Ends a reply at the contract's stop strings, for checkpoints whose turns end with text."""
    from medkit.models.contract import cut_at_stop

    text = cut_at_stop(reply["answer"], stop)
    return reply if text == reply["answer"] else {**reply, "answer": text.strip(), "truncated": False}


def _images_of(dataset: Dataset, contract: Any) -> Callable[[Question], list[Image.Image]]:
    from medkit.models.contract import prepare_image

    @lru_cache(maxsize=256)  # questions of like length about one image come side by side
    def prepared(ref: str, blank: bool) -> Image.Image:
        image = dataset.image(ref)
        return prepare_image(blank_image(image.size, contract.mean_colour) if blank else image, contract)

    return lambda question: [prepared(ref, question.control == "blank") for ref in question.images]


def _model_folder(folder: Path) -> Path:
    names = ("config.json", "adapter_config.json")
    inner = folder / "model"
    if inner.is_dir() and not any((folder / name).is_file() for name in names):
        return inner
    return folder
