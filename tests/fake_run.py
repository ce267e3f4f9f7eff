"""Makes an invented but plausible run folder for the report's tests, in the layout that a real run leaves.

No number in it was measured. The steps can be chosen, to make a run that stopped halfway.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from medkit.sample import Sample, assistant_turn, user_turn
from medkit.store import DatasetWriter

KINDS = {
    "count": ("number", "2"),
    "presence": ("yes_no", "yes"),
    "position": ("choice", "left"),
    "class": ("open", "lung"),
}
STAGES = ("align", "instruct", "instruct-no-replay")
EVIL = "<script>alert('x')</script>"
RECIPE = """name: fake
title: Phantoms for a test
base: tiny-general
domain: phantom
curriculum: align-instruct
adapter: {kind: full}
benchmarks: [held-out, general-scenes]
replay: {domain: scenes, count: 600}
seed: 3
"""
ALL = (
    "ingest", "teach", "ingest-general", "teach-general", *STAGES,
    "evaluate-base", *(f"evaluate-{stage}" for stage in STAGES), "compare",
)  # fmt: skip
RATES = {"base": 0.41, "align": 0.55, "instruct": 0.93, "instruct-no-replay": 0.94}
GENERAL = {"base": 0.91, "align": 0.90, "instruct": 0.87, "instruct-no-replay": 0.52}
IMAGES = 60
QUESTIONS_PER_IMAGE = 10


def make_run(folder: Path, steps: tuple[str, ...] = ALL, rates: dict[str, float] | None = None) -> Path:
    """Writes a run folder with the finished steps given and gives its path.

    Args:
        folder: Where it goes.
        steps: Names of the steps that finished; the others leave no folder.
        rates: Accuracy on held-out of base, align, instruct and instruct-no-replay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    _write(folder / "resolved.json", _resolved())
    rates = {**RATES, **(rates or {})}
    refs: dict[str, list[str]] = {}
    for name in steps:
        step = folder / f"{ALL.index(name) + 1}-{name}"
        step.mkdir()
        _write(step / "started.json", {"fingerprint": "0" * 64})
        settings: dict[str, Any] = {}
        if name.startswith("ingest"):
            refs[name], result = _ingest(step, general=name.endswith("general"))
            settings = {"domain": _domain(name.endswith("general"))}
        elif name.startswith("teach"):
            source = name.replace("teach", "ingest")
            result = _teach(step, folder / f"{ALL.index(source) + 1}-{source}", refs[source])
            settings = {"teacher": {"version": 2}, "conversations_per_image": 1}
        elif name.startswith("evaluate"):
            model = name.removeprefix("evaluate-")
            result = _evaluate(step, model, rates[model], refs.get("ingest", []))
            settings = {"name": model}
        elif name == "compare":
            result = _compare(step, rates)
        else:
            result = _train(step, STAGES.index(name))
            start = "base" if name == "align" else "align"
            settings = {"stage": name, "start": start, "replay": 0.2 if name == "instruct" else 0.0}
        summary = {
            "step": name,
            "verb": _verb(name),
            "fingerprint": f"{ALL.index(name):02d}" + "ab" * 31,
            "settings": settings,
        }
        _write(
            step / "summary.json",
            {**summary, "inputs": {}, "seconds": 12.5, "finished": "2026-01-02T03:04:05Z", "result": result},
        )
    if "instruct" in steps:
        (folder / "model").mkdir()
    return folder


def _verb(name: str) -> str:
    head = name.split("-")[0]
    return head if head in ("ingest", "teach", "evaluate", "compare") else "train"


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def _resolved() -> dict[str, Any]:
    return {
        "recipe": {
            "name": "fake", "title": "Phantoms for a test", "base": "tiny-general", "domain": "phantom",
            "curriculum": "align-instruct", "adapter": {"kind": "full", "rank": 16}, "seed": 3,
        },
        "curriculum": {"name": "align-instruct", "final": "instruct"},
        "final": "instruct",
        "steps": [{"folder": f"{number + 1}-{name}", "verb": _verb(name)} for number, name in enumerate(ALL)],
        "command": ["medkit", "run", "recipes/fake.yaml", "--set", "instruct.epochs=2"],
        "versions": {"medkit": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0"},
        "machine": {"system": "Linux", "processor": "x86_64", "cores": 2},
        "git": {"commit": "1234567", "changed": False},
    }  # fmt: skip


def _domain(general: bool) -> dict[str, Any]:
    name, title = ("scenes", "Drawn scenes") if general else ("phantom", "Drawn phantoms")
    return {
        "name": name, "title": title, "description": "Pictures that medkit draws, with the facts in them.",
        "licence": "Apache-2.0", "data": {"reader": "drawn", "options": {"train": IMAGES}},
    }  # fmt: skip


def _picture(index: int, general: bool) -> np.ndarray:
    rng = np.random.default_rng(index + 1000 * general)
    image = Image.new("RGB", (64, 64), tuple(int(v) for v in rng.integers(10, 60, 3)))
    draw = ImageDraw.Draw(image)
    for _ in range(2 + index % 3):
        x, y, r = (int(v) for v in rng.integers((12, 12, 5), (52, 52, 13)))
        fill = tuple(int(v) for v in rng.integers(90, 250, 3)) if general else (180, 180, 190)
        (draw.rectangle if general and index % 2 else draw.ellipse)((x - r, y - r, x + r, y + r), fill=fill)
    return np.asarray(image) // 1 + rng.integers(0, 5, (64, 64, 1), dtype=np.uint8)


def _ingest(step: Path, general: bool) -> tuple[list[str], dict[str, Any]]:
    refs = []
    with DatasetWriter(step, "scenes" if general else "phantom") as writer:
        for index in range(IMAGES):
            ref = writer.add_image(_picture(index, general))
            refs.append(ref)
            split = "test" if index % 3 == 0 else "train"
            writer.add(
                Sample(f"r{index}", [], [ref], {"labels": {"class": "lung"}}, _source(index, split, "record"))
            )
        if not general:
            writer.reject("r900", "image can't be read", f"r900.png is cut off {EVIL}")
            writer.reject("r901", "image can't be read", "r901.png is cut off")
            writer.tell(
                "r7", "near duplicate across splits", "r7 (train) and r9 (test) differ by 2 bits of 64"
            )
    return refs, {**writer.summary, "near_duplicates_across_splits": 0 if general else 1}


def _teach(step: Path, ingested: Path, refs: list[str]) -> dict[str, Any]:
    texts = {
        "caption": [("Describe it briefly.", "A phantom with two round opacities.")],
        "conversation": [("How many are there?", "2"), ("Is one on the left?", "yes")],
        "description": [("Describe it in detail.", "Two round opacities; the larger one lies to the left.")],
        "reasoning": [("Which one is larger, and why?", "The left one: its box covers more of the image.")],
    }  # fmt: skip
    with DatasetWriter(step, "taught", images_from=[ingested]) as writer:
        for index, ref in enumerate(refs):
            for kind, turns in texts.items():
                messages = [turn for q, a in turns for turn in (user_turn(q), assistant_turn(a))]
                messages[0] = user_turn(turns[0][0], images=1)
                writer.add(Sample(f"{kind}-{index}", messages, [ref], {}, _source(index, "train", kind)))
    return writer.summary


def _source(index: int, split: str, kind: str) -> dict[str, Any]:
    return {
        "dataset": "phantom",
        "record": f"r{index}",
        "licence": "Apache-2.0",
        "group": f"g{index}",
        "split": split,
        "kind": kind,
    }


def _train(step: Path, place: int) -> dict[str, Any]:
    rows = []
    for number in range(1, 201):
        loss = 0.12 + (4.2 - place) * math.exp(-number / 30) + 0.03 * math.sin(number * 1.7)
        row = {
            "step": number,
            "epoch": number / 100,
            "loss": loss,
            "lr": 1e-3,
            "tokens_per_s": 4200.0,
            "samples_per_s": 90.0,
        }
        if number % 25 == 0:
            row["valid_loss"] = (
                0.15 + (4.2 - place) * math.exp(-number / 30) + (0.05 * (number > 150) if place == 2 else 0)
            )
        rows.append(row)
    (step / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {
        "model": "model", "steps": 200, "samples_seen": 3200, "supervised_tokens": 41234, "seconds": 95.2,
        "loss_first": rows[0]["loss"], "loss_last": rows[-1]["loss"], "valid_loss": rows[-1]["valid_loss"],
        "trainable": {"vision": 0, "projector": 73920, "language": 1500000 if place else 0}, "dropped": 0,
    }  # fmt: skip


def _right(model: str, place: int, rate: float) -> int:
    """Whether a model is right on the question at a place: fixed draws, so that base and stage are paired."""
    salt = 0.0 if model == "base" else 0.1
    return int(((place * 0.6180339887 + salt) % 1.0) < rate)


def _evaluate(step: Path, model: str, rate: float, refs: list[str]) -> dict[str, Any]:
    rows = []
    kinds = list(KINDS)
    for place in range(IMAGES // 3 * QUESTIONS_PER_IMAGE):
        kind = kinds[place % len(kinds)]
        answer_type, gold = KINDS[kind]
        right = _right(model, place, rate)
        question = (
            f"What is in {EVIL} place {place}?"
            if kind == "class"
            else f"How is the {kind} of object {place}?"
        )
        rows.append(
            {
                "benchmark": "held-out", "control": "none", "id": f"q{place}", "group": f"g{place // 10}",
                "kind": kind,
                "image": refs[3 * (place // QUESTIONS_PER_IMAGE)] if refs else "", "answer_type": answer_type,
                "question": question, "prompt": question, "references": [gold], "choices": [],
                "answer": gold if right else f"wrong{EVIL}", "correct": right,
                "scores": {"exact": right}, "truncated": False,
            }
        )  # fmt: skip
    (step / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    scores = {
        "model": model,
        "decoding": {
            "method": "greedy",
            "precision": "fp32",
            "device": "cpu",
            "batch_size": 32,
            "batch_check": {"asked_alone": 8, "same": 8},
        },
        "benchmarks": {
            "held-out": {
                **_scored(rate, len(rows), IMAGES // 3, 0.38 if model == "base" else 0.46, "same"),
                **_trusted(rate, len(rows)),
            },
            "general-scenes": _scored(GENERAL[model], 400, 100, 0.4, "scenes"),
        },
    }
    _write(step / "scores.json", scores)
    return {"benchmarks": {"held-out": rate}}


def _around(value: float, width: float = 0.03) -> dict[str, float]:
    return {"value": value, "low": max(0.0, value - width), "high": min(1.0, value + width)}


_SHIFTS = (("count", 0.02, 0.3), ("presence", 0.04, 0.5), ("position", -0.03, 0.35), ("class", -0.05, 0.95))


def _scored(rate: float, questions: int, images: int, control: float, domain: str) -> dict[str, Any]:
    kinds = {
        kind: {"count": questions // 4, **_around(min(1.0, rate + shift), 0.05), "majority": majority}
        for kind, shift, majority in _SHIFTS
    }  # fmt: skip
    types = {
        name: {"count": questions // 4, **_around(rate, 0.05), "majority": 0.4}
        for name in ("number", "yes_no", "choice", "open")
    }
    scorers = {
        name: _around(min(1.0, rate + extra))
        for name, extra in (("answer", 0), ("exact", -0.02), ("token_recall", 0.02))
    }
    return {
        "source": {"domain": domain, "split": "test"}, "count": questions, "images": images,
        "scorer": "answer", "definition": "Exact after normalisation against the references.",
        "accuracy": _around(rate), "by_scorer": scorers, "slices": {"kind": kinds, "answer_type": types},
        "controls": {
            "blank": {**_around(control - 0.02), "survives": 0.44, "gain_kept": -0.04},
            "noise": {**_around(control - 0.01), "survives": 0.45, "gain_kept": -0.02},
            "shuffled": {**_around(control), "survives": 0.47, "gain_kept": 0.0},
            "text": {**_around(control + 0.05), "survives": 0.52, "gain_kept": 0.1},
        },
        "empty": 0, "truncated": 1, "unparsed": 0, "majority": 0.44,
    }  # fmt: skip


def _trusted(rate: float, questions: int) -> dict[str, Any]:
    """What a full evaluation has beside accuracy: poor pictures, calibration, a profile, the data as read."""
    worse = {}
    for kind, fall in (("blur", 0.06), ("noise", 0.10), ("contrast", 0.03), ("jpeg", 0.01), ("window", 0.08)):
        worse[kind] = {}
        for severity in (1, 3, 5):
            change = -min(fall * severity, rate - 0.3) if rate > 0.45 else -0.005 * severity
            ends = {"low": change - 0.03, "high": change + 0.03}
            worse[kind][str(severity)] = {
                "count": questions,
                **_around(rate + change),
                "change": {"value": change, **ends},
            }
    bins = [
        {
            "low": place / 10, "high": (place + 1) / 10, "count": questions // 8,
            "confidence": place / 10 + 0.06, "accuracy": min(1.0, (place / 10 + 0.05) * rate + 0.1),
            "accuracy_low": max(0.0, (place / 10 - 0.05) * rate), "accuracy_high": min(1.0, place / 10 * rate + 0.3),
        }
        for place in range(2, 10)
    ]  # fmt: skip
    at = [
        {"coverage": step / 20, "count": questions * step // 20, "accuracy": rate + (1 - rate) * (1 - step / 20) / 2,
         "threshold": 1 - step / 20}
        for step in range(1, 21)
    ]  # fmt: skip
    score = {
        "count": questions, "empty": 0, "truncated": 1, "unparsed": 3, "would_be_random": 0, "refused": 0,
        "failed": 0, "definition": "Its yes or no, read as a whole word.",
    }  # fmt: skip
    return {
        "corruptions": worse,
        "calibration": {"ece": 0.124, "mce": 0.2, "brier": 0.1, "confidence": rate + 0.05, "accuracy": rate,
                        "count": questions, "bins": bins},
        "selective": {"at": at, "area": rate + 0.03},
        "profiles": {
            "medkit": {
                "version": 1, "title": "medkit: corrected definitions",
                "scores": {"answer": {**_around(rate), **score}, "yes_no": {**_around(rate), **score, "count": 50}},
                "corpus": {"pope_f1": {**_around(rate), "count": 50, "definition": "F1 of yes."},
                           "cider": {"value": 1.234, "low": 1.1, "high": 1.4, "count": 50, "definition": "CIDEr."}},
            }
        },
        "data": {
            "part": "test", "found": {"questions": questions, "images": 20}, "expected": {"questions": 203},
            "differs": [f"questions: {questions} found, 203 expected"], "revision": "abc1234",
        },
    }  # fmt: skip


def _compare(step: Path, rates: dict[str, float]) -> dict[str, Any]:
    def paired(of: dict[str, float], questions: int) -> dict[str, Any]:
        stages = {}
        for stage in STAGES:
            change = of[stage] - of["base"]
            stages[stage] = {
                "accuracy": _around(of[stage]),
                "difference": {"value": change, "low": change - 0.03, "high": change + 0.03},
                "p_value": 0.62 if abs(change) < 0.03 else 1e-12, "test": "exact McNemar",
                "wins": round(questions * max(change, 0)) + 4,
                "losses": round(questions * max(-change, 0)) + 4,
            }  # fmt: skip
        return {"general": of is GENERAL, "base": _around(of["base"]), "stages": stages}

    comparisons = {
        "benchmarks": {"held-out": paired(rates, 200), "general-scenes": paired(GENERAL, 400)},
        "leaks": {"images": 0, "near_duplicate_images": 2, "questions": 0},
        "budget": {stage: {"samples_seen": 3200, "tokens": 41234, "seconds": 95.2} for stage in STAGES},
        "note": "The stages saw the same number of samples.",
    }
    _write(step / "comparisons.json", comparisons)
    return {"stages": len(STAGES)}
