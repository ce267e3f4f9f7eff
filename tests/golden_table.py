"""Which function of medkit gives what a golden file expects: by file name, case to values by reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medkit.evaluation.scoring import llava_med

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


PER_CASE: dict[str, Callable[[Path], Callable[[Case], Any]]] = {
    "llava_med": llava_med_scores,
}
