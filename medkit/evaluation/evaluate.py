"""The evaluation step: every question of every benchmark, with its image and under each control."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medkit.errors import DataError, ModelError
from medkit.evaluation.controls import blank_image, changes_image, shown_image
from medkit.evaluation.corruptions import Corruption
from medkit.evaluation.pope import pope_questions
from medkit.evaluation.questions import Question, limited, read_questions, with_controls
from medkit.evaluation.replicas import answer_in_processes, gather_replies
from medkit.evaluation.replies import Key
from medkit.evaluation.scoring.rescore import score_rows
from medkit.evaluation.summarise import answer_row, summarise
from medkit.models.contract import stored_render
from medkit.models.renders import differences, renders_of
from medkit.store import Dataset, open_dataset, write_atomically

if TYPE_CHECKING:
    from PIL import Image

SMALL_MODEL, SMALL_BATCH, LARGE_BATCH = 100_000_000, 32, 16  # measured: more is slower on a CPU


def evaluate(settings: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Asks a model all questions of the benchmarks and writes ``answers.jsonl`` and ``scores.json``.

    Called again on the folder of a killed evaluation it asks only what has no answer yet.

    Args:
        settings: ``name`` of the model in reports, ``benchmarks`` (resolved cards), and optionally ``seed``,
            ``batch_size``, ``hardware`` (device, precision), ``batch_check`` (so many questions are asked alone
            too, and must have the same answer) and ``endpoint`` (an ``EndpointCard`` that is asked).
        inputs: ``model`` (a model folder, or a training step's folder; not with an endpoint), ``data``
            (dataset folder with questions), and ``data:BENCHMARK`` for a benchmark with data of its own.
        out: The step's folder.

    Returns:
        ``{model, answers, benchmarks: {name: {value, low, high}}, seconds}``.

    Raises:
        DataError: A benchmark has no questions.
        ModelError: The model can't be loaded, the endpoint can't be asked, or answers depend on the batch.
    """
    start = time.perf_counter()
    name, seed, hardware = (
        settings.get("name", "model"),
        settings.get("seed", 0),
        settings.get("hardware") or {},
    )
    cards = settings["benchmarks"]
    asked: dict[str, list[Question]] = {}
    datasets: dict[str, Dataset] = {}
    for card in cards:
        asked[card["name"]], datasets[card["name"]] = _questions(card, inputs, seed)
    if settings.get("endpoint") is not None:
        for card in cards:
            if card.get("answering", "generate") != "generate":
                raise ModelError(
                    f"benchmark {card['name']}: answering {card['answering']} needs the probabilities of a model "
                    f"folder, and an endpoint gives none; use --set answering=generate"
                )
        from medkit.evaluation.remote import ask_questions

        replies, decoding = ask_questions(settings["endpoint"], cards, asked, datasets, out / PARTIAL)
    else:
        rest, processes = (cards, datasets, _model_folder(inputs["model"])), hardware.get("processes", 1)
        gather_replies(out, PARTIAL)  # of a killed run with other processes
        if processes > 1:
            replies, decoding = answer_in_processes(
                _answer_all, processes, settings, asked, rest, out, PARTIAL
            )
        else:
            replies, decoding = _answer_all(settings, asked, *rest, out)
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
        if card.get("answering", "generate") != "generate":
            about["answering"] = card["answering"]
        if card.get("data"):
            about["data"] = _counts(datasets[card["name"]])
        if used := renders_of(zip(*map(datasets[card["name"]].column, ("source", "facts")), strict=True)):
            about["render"] = used
            trained = (
                [] if settings.get("endpoint") is not None else stored_render(_model_folder(inputs["model"]))
            )
            if apart := differences(trained, used):
                about["render_differs"] = apart
        scores["benchmarks"][card["name"]] = about | summarise(rows, scorer, seed)
        profile = card.get("profile", "medkit")
        scores["benchmarks"][card["name"]]["profiles"] = score_rows(rows, profile, seed)
        scores["benchmarks"][card["name"]]["metrics"] = list(card.get("metrics", ()))
    write_atomically(out / "answers.jsonl", "".join(line + "\n" for line in lines))
    write_atomically(out / "scores.json", json.dumps(scores, indent=1, ensure_ascii=False))
    if settings.get("endpoint") is not None:
        (out / PARTIAL).replace(out / REPLIES)  # raw replies of what can't be asked again for nothing
    (out / PARTIAL).unlink(missing_ok=True)
    return {
        "model": name,
        "answers": len(lines),
        "benchmarks": {bench: entry["accuracy"] for bench, entry in scores["benchmarks"].items()},
        "seconds": round(time.perf_counter() - start, 3),
    }


# Not "answers.jsonl.partial": that is the name under which write_atomically prepares the finished file.
PARTIAL = "replies.partial.jsonl"
REPLIES = "replies.jsonl"
ALONE = "alone.partial.jsonl"


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
    corruptions = [
        Corruption(kind, severity)
        for kind in card.get("corruptions", ())
        for severity in sorted(card.get("severities", ()))
    ]
    controls = card.get("controls", ("blank", "shuffled"))
    return with_controls(questions, controls, seed, corruptions), dataset


def _counts(dataset: Dataset) -> dict[str, Any]:
    """Gives what reading a benchmark told about it: counts, what differs from its card, the hub's commit."""
    told = dataset.summary
    return {key: told[key] for key in ("part", "found", "expected", "differs", "revision") if key in told}


def _answer_all(
    settings: dict[str, Any],
    asked: dict[str, list[Question]],
    cards: Sequence[dict[str, Any]],
    datasets: dict[str, Dataset],
    model_folder: Path,
    out: Path,
) -> tuple[dict[Key, dict[str, Any]], dict[str, Any]]:
    import torch

    from medkit.models.load import load_model, pick_device, pick_precision

    hardware = settings.get("hardware") or {}
    device = pick_device(hardware.get("device", "auto"))
    precision = hardware.get("precision", "auto")
    # On a CPU float32 costs little for short answers, and plain transformers then gives the same ones.
    precision = "fp32" if precision == "auto" and device.type == "cpu" else pick_precision(precision, device)
    loaded = load_model(model_folder, device.type, torch.bfloat16 if precision == "bf16" else torch.float32)
    small = sum(weight.numel() for weight in loaded.model.parameters()) < SMALL_MODEL
    batch_size = settings.get("batch_size") or (SMALL_BATCH if small else LARGE_BATCH)
    replies: dict[Key, dict[str, Any]] = {}
    decoding = {"method": "greedy", "precision": precision, "device": device.type, "batch_size": batch_size}
    for card in cards:
        answers = _asker(loaded, card, datasets[card["name"]])
        replies |= answers(asked[card["name"]], out / PARTIAL, batch_size)
        sample = _sample(asked[card["name"]], settings.get("batch_check", 0))
        if sample:
            alone = answers(sample, out / ALONE, 1)
            (out / ALONE).unlink()
            other = [key for key in alone if alone[key]["answer"] != replies[key]["answer"]]
            decoding["batch_check"] = _checked(decoding, len(sample), other)
    return replies, decoding


def _asker(
    loaded: Any, card: dict[str, Any], dataset: Dataset
) -> Callable[[Sequence[Question], Path, int], dict[Key, dict[str, Any]]]:
    """Gives the function that asks a benchmark's questions in batches and keeps the replies in a file."""
    from medkit.evaluation.generate import answer_questions
    from medkit.evaluation.likelihood import candidates_of, choose_answers
    from medkit.training.encode import render_prompt

    show, way = _images_of(dataset, loaded.contract), card.get("answering", "generate")

    def prompt_of(messages: list[dict[str, Any]]) -> str:
        return render_prompt(loaded.processor, messages)

    def answers(questions: Sequence[Question], partial: Path, batch_size: int) -> dict[Key, dict[str, Any]]:
        asked = _as_asked(questions, loaded.contract.answer_formats)
        closed = [question for question in asked if way != "generate" and candidates_of(question)]
        chosen = {question.key for question in closed}
        answered = answer_questions(
            loaded.model,
            loaded.processor,
            [question for question in asked if question.key not in chosen],
            show,
            prompt_of=prompt_of,
            partial=partial,
            batch_size=batch_size,
            max_new_tokens=card.get("max_new_tokens", 16),
        )
        replies = {key: _stopped(reply, loaded.contract.stop) for key, reply in answered.items()}
        if closed:
            replies |= choose_answers(
                loaded.model,
                loaded.processor,
                closed,
                show,
                prompt_of=prompt_of,
                partial=partial,
                per_token=way == "likelihood_per_token",
                batch_size=batch_size,
            )
        return replies

    return answers


def _as_asked(questions: Sequence[Question], formats: dict[str, str]) -> list[Question]:
    """Gives the questions with the response-format prompts of the checkpoint's contract."""
    from medkit.models.conversations import as_asked

    return [
        replace(question, messages=as_asked(question.messages, bool(question.choices), formats))
        for question in questions
    ]


def _sample(questions: Sequence[Question], count: int) -> list[Question]:
    """Picks questions by the hash of their keys, the same ones in every run."""
    return sorted(questions, key=lambda one: hashlib.sha256(repr(one.key).encode()).digest())[:count]


def _checked(decoding: dict[str, Any], asked: int, other: Sequence[Key]) -> dict[str, int]:
    """Adds up how many answers a batch changed. In float32 none may; bfloat16 rounds a tie either way."""
    if other and decoding["precision"] == "fp32":
        raise ModelError(
            f"{len(other)} of {asked} answers are others in a batch of {decoding['batch_size']} than alone, for "
            f"example that of {' '.join(other[0])}; no number can be trusted: report it, with the model's family"
        )
    before = decoding.get("batch_check", {"asked_alone": 0, "same": 0})
    return {
        "asked_alone": before["asked_alone"] + asked,
        "same": before["same"] + asked - len(other),
    }


def _stopped(reply: dict[str, Any], stop: Sequence[str]) -> dict[str, Any]:
    """Ends a reply at the contract's stop strings, for checkpoints whose turns end with text."""
    from medkit.models.contract import cut_at_stop

    text = cut_at_stop(reply["answer"], stop)
    return reply if text == reply["answer"] else {**reply, "answer": text.strip(), "truncated": False}


def _images_of(dataset: Dataset, contract: Any) -> Callable[[Question], list[Image.Image]]:
    from medkit.models.contract import prepare_image

    @lru_cache(maxsize=256)  # questions about one image come side by side
    def prepared(ref: str, control: str) -> Image.Image:
        return prepare_image(shown_image(dataset.image(ref), ref, control), contract)

    @lru_cache(maxsize=256)  # one object for all of a size: the same object is read once
    def blank(size: tuple[int, int]) -> Image.Image:
        return prepare_image(blank_image(size, contract.mean_colour), contract)

    def shown(question: Question) -> list[Image.Image]:
        if question.control == "blank":
            return [blank(dataset.image_size(ref)) for ref in question.images]
        control = question.control if changes_image(question.control) else "none"
        return [prepared(ref, control) for ref in question.images]

    return shown


def _model_folder(folder: Path) -> Path:
    names = ("config.json", "adapter_config.json")
    inner = folder / "model"
    if inner.is_dir() and not any((folder / name).is_file() for name in names):
        return inner
    return folder
