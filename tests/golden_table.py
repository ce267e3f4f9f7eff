"""Which function of medkit gives what a golden file expects: by file name, case to values by reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medkit.evaluation.scoring import exact, llava_med, medevalkit, slake

Case = dict[str, Any]


def answer(call: Callable[[], Any]) -> Any:
    """Gives what a call returns, or the name of what it raises as the golden files write it."""
    try:
        return call()
    except Exception as error:  # any kind is an outcome here, and its name is compared
        return {"error": type(error).__name__}


def llava_med_scores(folder: Path) -> Callable[[Case], Any]:
    path = folder / "llava_med_candidates.json"
    candidates = json.loads(path.read_text(encoding="utf-8"))["0"] if path.is_file() else []

    def scores(case: Case) -> Any:
        said, gold, closed = case["prediction"], case["reference"], case["answer_type"] == "CLOSED"
        return {
            "normalized": {"prediction": llava_med.normalise(said), "reference": llava_med.normalise(gold)},
            "run_eval": llava_med.run_eval(said, gold, closed, candidates),
            "run_eval_batch": llava_med.run_eval_batch(said, gold, closed),
        }

    return scores


def exact_scores(_: Path) -> Callable[[Case], Any]:
    def scores(case: Case) -> Any:
        said, gold = case["prediction"], case["reference"]
        found: dict[str, Any] = {
            "vlmevalkit_accuracy": exact.vlmevalkit_accuracy(said, gold),
            "vlmevalkit_default_vqa_score_single_answer": 0,
            "medevalkit_judge_close_end_vqa": medevalkit.closed(said, gold),
        }
        for name in case["expected"]:
            if name.startswith("lmms_exact_match["):
                flags = [flag for flag in name[len("lmms_exact_match[") : -1].split(",") if flag]
                found[name] = exact.lmms_exact_match(said, gold, **dict.fromkeys(flags, True))
        return found

    return scores


def slake_scores(_: Path) -> Callable[[Case], Any]:
    return lambda case: {
        "prediction_normalized": slake.normalise(case["prediction"]),
        "reference_normalized": slake.normalise(case["reference"]),
        "correct": slake.slake_match(case["prediction"], case["reference"]),
    }


def medevalkit_scores(_: Path) -> Callable[[Case], Any]:
    def scores(case: Case) -> Any:
        said = medevalkit.extract(case["prediction"]).strip()
        return {
            "response_scored": said,
            "judge_judgement": medevalkit.judgement(said, case["reference"]),
            "judge_open_end_vqa": answer(lambda: medevalkit.open_scores(said, case["reference"])),
        }

    return scores


PER_CASE: dict[str, Callable[[Path], Callable[[Case], Any]]] = {
    "exact_match": exact_scores,
    "llava_med": llava_med_scores,
    "medevalkit_vqa": medevalkit_scores,
    "slake_lmms_eval": slake_scores,
}
