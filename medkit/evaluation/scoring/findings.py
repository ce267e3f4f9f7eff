"""Report scores from labels and annotations: CheXbert F1 and RadGraph rewards.

The labellers themselves are not run here: what the user's own labeller wrote is scored.

Source: Smit et al. 2020, CheXbert; Jain et al. 2021, RadGraph; Delbrouck et al. 2022 (rewards); LLaVA-Rad.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

CONDITIONS: tuple[str, ...] = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
    "Support Devices", "No Finding",
)  # fmt: skip
MAIN_FIVE: tuple[str, ...] = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
BLANK, POSITIVE, NEGATIVE, UNCERTAIN = range(4)


def binary_labels(
    classes: Sequence[Sequence[int]], uncertain_is_positive: bool, conditions: Sequence[str] = CONDITIONS
) -> np.ndarray:
    """Gives bool [reports, conditions] from CheXbert classes (0 blank, 1 positive, 2 negative, 3 uncertain)."""
    columns = [CONDITIONS.index(name) for name in conditions]
    array = np.asarray(classes, dtype=np.int64).reshape(-1, len(CONDITIONS))[:, columns]
    return (array == POSITIVE) | ((array == UNCERTAIN) & uncertain_is_positive)


def five_equal(said: Sequence[int], gold: Sequence[int]) -> bool:
    """Says whether the five main conditions agree, uncertain taken as positive (f1chexbert's accuracy)."""
    rows = binary_labels([said, gold], True, MAIN_FIVE)
    return bool((rows[0] == rows[1]).all())


def label_f1(said: np.ndarray, gold: np.ndarray) -> dict[str, dict[str, float]]:
    """Gives precision, recall, F1 and support, averaged in four ways; 0 where a ratio has no denominator.

    Args:
        said: bool, [reports, conditions].
        gold: bool, [reports, conditions].

    Returns:
        ``micro``, ``macro``, ``weighted`` (by support) and ``samples`` (over reports).
    """
    hits = said & gold
    by_label = _ratios(hits.sum(0), said.sum(0), gold.sum(0))
    by_report = _ratios(hits.sum(1), said.sum(1), gold.sum(1))
    support = gold.sum(0).astype(np.float64)
    weights = support / support.sum() if support.sum() else np.zeros(len(support))
    averages = {
        "micro": {name: float(v) for name, v in _ratios(hits.sum(), said.sum(), gold.sum()).items()},
        "macro": {name: float(value.mean()) for name, value in by_label.items()},
        "weighted": {name: float(value @ weights) for name, value in by_label.items()},
        "samples": {name: float(value.mean()) for name, value in by_report.items()},
    }
    return {name: scores | {"support": float(support.sum())} for name, scores in averages.items()}


def radgraph_rewards(
    said: Mapping[str, Any], gold: Mapping[str, Any], fold_case: bool = True
) -> dict[str, float]:
    """Gives the F1 of two annotations as sets; 0 where a side has no entities.

    ``simple`` compares entities, ``partial`` entities with whether they have a relation (the number usually
    reported), ``complete`` entities with each of their relations.

    Args:
        said: Annotation of the reply, ``{entities: {id: {tokens, label, relations}}}``.
        gold: Annotation of the reference.
        fold_case: Whether tokens are compared without case, as in the repository; 0.1.18 on PyPI
            does so only within relations.
    """
    forms = {"simple": _simple, "partial": _partial, "complete": _complete}
    return {name: _set_f1(form(said, fold_case), form(gold, fold_case)) for name, form in forms.items()}


def _ratios(hits: Any, said: Any, gold: Any) -> dict[str, np.ndarray]:
    precision = np.divide(hits, said, out=np.zeros(np.shape(hits)), where=np.asarray(said) > 0)
    recall = np.divide(hits, gold, out=np.zeros(np.shape(hits)), where=np.asarray(gold) > 0)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros(np.shape(hits)), where=both > 0)
    return {"precision": precision, "recall": recall, "f1": f1}


def _set_f1(said: set[tuple[Any, ...]], gold: set[tuple[Any, ...]]) -> float:
    return 2 * len(said & gold) / (len(said) + len(gold)) if said and gold else 0.0


def _token(entity: Mapping[str, Any], fold: bool) -> str:
    return entity["tokens"].lower() if fold else entity["tokens"]


def _simple(annotation: Mapping[str, Any], fold: bool) -> set[tuple[Any, ...]]:
    return {(_token(entity, fold), entity["label"]) for entity in annotation["entities"].values()}


def _partial(annotation: Mapping[str, Any], fold: bool) -> set[tuple[Any, ...]]:
    entities = annotation["entities"].values()
    return {(_token(entity, fold), entity["label"], bool(entity["relations"])) for entity in entities}


def _complete(annotation: Mapping[str, Any], fold: bool) -> set[tuple[Any, ...]]:
    entities = annotation["entities"]
    found: set[tuple[Any, ...]] = set()
    for entity in entities.values():
        subject = (_token(entity, True), entity["label"])
        relations = {(*subject, kind, _token(entities[to], True)) for kind, to in entity["relations"]}
        found |= relations or {(_token(entity, fold), entity["label"])}
    return found
