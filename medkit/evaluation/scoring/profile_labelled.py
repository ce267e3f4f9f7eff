"""Scores of reports from what the user's own labellers said of them: CheXbert's labels, RadGraph's annotations.

They are no profile of ``--profile``: they apply where a file of annotations is given.

Source: Smit et al. 2020, CheXbert; f1chexbert 0.0.2; LLaVA-Rad's report (uncertain as negative); Delbrouck et
al. 2022 (RadGraph rewards).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import findings
from .profile import CorpusScores, Given, Item, Profile, Score, Sums, mean_of

CHEXBERT, RADGRAPH = "chexbert", "radgraph"


def _has(kind: str) -> Callable[[Item], bool]:
    return lambda item: kind in item.labelled


def _reward(name: str, fold_case: bool) -> Callable[[Item], Given]:
    def value(item: Item) -> Given:
        if RADGRAPH not in item.labelled:
            return None
        return findings.radgraph_rewards(*item.labelled[RADGRAPH], fold_case=fold_case)[name]

    return value


def _five_equal(item: Item) -> Given:
    return float(findings.five_equal(*item.labelled[CHEXBERT])) if CHEXBERT in item.labelled else None


def _f1_numbers(
    tool: str, uncertain_is_positive: bool, averages: Sequence[str]
) -> Callable[[Sequence[Item]], dict[str, float | Sums]]:
    def numbers(items: Sequence[Item]) -> dict[str, float | Sums]:
        found: dict[str, float | Sums] = {}
        for conditions in (findings.CONDITIONS, findings.MAIN_FIVE):
            said, gold = (
                findings.binary_labels(
                    [item.labelled[CHEXBERT][side] for item in items], uncertain_is_positive, conditions
                )
                for side in (0, 1)
            )
            made = label_sums(said, gold)
            found |= {f"{tool}_{len(conditions)}_{name}_f1": made[name] for name in averages}
        return found

    return numbers


def label_sums(said: np.ndarray, gold: np.ndarray) -> dict[str, Sums]:
    """Gives the F1 averages of ``findings.label_f1`` in the form in which groups can be resampled.

    A condition that nobody names in a whole set counts 0 in the macro average, as in the references. One that
    is missing from a resample alone is left out of that resample's average: else rare conditions would draw
    the interval below the score.

    Args:
        said: bool, [reports, conditions].
        gold: bool, [reports, conditions].
    """
    rows = np.concatenate([said & gold, said, gold], axis=1).astype(np.float64)
    width = said.shape[1]
    named = float((rows[:, width:].sum(0).reshape(2, width).sum(0) > 0).mean())

    def parts(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        hits, both = sums[:, :width], sums[:, width : 2 * width] + sums[:, 2 * width :]
        return np.divide(2 * hits, both, out=np.zeros(both.shape), where=both > 0), both, hits

    def micro(sums: np.ndarray) -> np.ndarray:
        _, both, hits = parts(sums)
        return 2 * hits.sum(1) / np.maximum(both.sum(1), 1)

    def macro(sums: np.ndarray) -> np.ndarray:
        f1, both, _ = parts(sums)
        return named * f1.sum(1) / np.maximum((both > 0).sum(1), 1)

    def weighted(sums: np.ndarray) -> np.ndarray:
        support = sums[:, 2 * width :]
        return (parts(sums)[0] * support).sum(1) / np.maximum(support.sum(1), 1)

    each = 2 * (said & gold).sum(1) / np.maximum(said.sum(1) + gold.sum(1), 1)
    averages = {"micro": Sums(rows, micro), "macro": Sums(rows, macro), "weighted": Sums(rows, weighted)}
    return averages | {"samples": mean_of(each.tolist())}


def _radgraph(name: str, about: str) -> tuple[Score, ...]:
    return (
        Score(f"radgraph_{name}", f"{about}; case folded, as in the repository.", _reward(name, True)),
        Score(f"radgraph_{name}_pypi", f"{about}; with case, as radgraph 0.1.18.", _reward(name, False)),
    )


_RULE: dict[str, Any] = {
    "f1chexbert": "F1 of CheXbert's labels, all fourteen or the main five, uncertain as positive (f1chexbert, and "
    "LLaVA-Rad's numbers with a plus).",
    "llava_rad": "F1 of CheXbert's labels, all fourteen or the main five, uncertain as negative (LLaVA-Rad's main "
    "numbers).",
}

LABELLED = Profile(
    "labelled",
    1,
    "Labels and annotations of the reports, as the file gives them",
    (
        Score(
            "f1chexbert_5_accuracy",
            "All of the five main labels agree, uncertain as positive.",
            _five_equal,
        ),
        *_radgraph("simple", "F1 of entities as a set"),
        *_radgraph(
            "partial", "F1 of entities with whether they have a relation, the number usually reported"
        ),
        *_radgraph("complete", "F1 of entities with each of their relations"),
    ),
    (
        CorpusScores(
            _RULE["f1chexbert"],
            _has(CHEXBERT),
            _f1_numbers("f1chexbert", True, ("micro", "macro", "weighted", "samples")),
        ),
        CorpusScores(_RULE["llava_rad"], _has(CHEXBERT), _f1_numbers("llava_rad", False, ("micro", "macro"))),
    ),
)
