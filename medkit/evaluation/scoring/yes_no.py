"""Yes/no replies as POPE, MME and the harnesses read them, and what they count from that.

Source: Li et al. 2023, POPE, section 4; Fu et al. 2023, MME, section 2; LLaVA, lmms-eval 0.7, VLMEvalKit.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from .words import clear_punctuation

_LONE_PERIOD = re.compile(r"(?<!\d)\.(?!\d)")
_PREFIX = 4  # characters in which lmms-eval looks for yes and no

MME_PERCEPTION: tuple[str, ...] = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
MME_COGNITION: tuple[str, ...] = (
    "commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning",
)  # fmt: skip

_MME_NAMES = {name.lower(): name for name in (*MME_PERCEPTION, *MME_COGNITION)}


def mme_category(name: str) -> str:
    """Gives MME's own spelling of a category ("ocr" is "OCR"), "" for a name that is none."""
    return _MME_NAMES.get(name.lower(), "")


def pope_official(said: str) -> str:
    """Gives "no" where a word before the first full stop is No, not or no; everything else is a "yes"."""
    words = said.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def pope_lmms(said: str) -> str:
    """Gives the reply stripped and lower-cased; only a bare "yes" or "no" can be right."""
    return said.strip().lower()


def yes_no_vlmevalkit(said: str) -> str:
    """Gives "Yes" or "No" where exactly one of the words occurs, else "Unknown" (or a judge is asked)."""
    words = clear_punctuation(said.lower(), _LONE_PERIOD).split()
    if ("yes" in words) == ("no" in words):
        return "Unknown"
    return "Yes" if "yes" in words else "No"


def mme_lmms(said: str) -> str:
    """Gives "yes", "no" or "other"; a yes or no among the first four characters is enough ("None" is a no)."""
    text = said.lower().strip().replace(".", "")
    if len(text) == 1:
        return {"y": "yes", "n": "no"}.get(text, "other")
    return next((word for word in ("yes", "no") if word in text[:_PREFIX]), "other")


def confusion_scores(
    pairs: Iterable[tuple[str, str]], *, other_is_no: bool = False, ratio_of_gold: bool = False
) -> dict[str, float]:
    """Gives POPE's numbers, with yes as the positive class; 0 where a ratio has no denominator.

    Args:
        pairs: Prediction and label, each lower case.
        other_is_no: Whether a prediction that is neither counts as a no in precision and recall
            (VLMEvalKit). Else it is no error of either kind there (lmms-eval). In the accuracy it is wrong.
        ratio_of_gold: Whether ``yes_ratio`` is of the labels (lmms-eval) and not of the predictions.
    """
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for pair in pairs:
        counts[pair] += 1
    total = sum(counts.values())
    said_yes, gold_yes = (sum(n for pair, n in counts.items() if pair[side] == "yes") for side in (0, 1))
    hits, false = counts["yes", "yes"], counts["yes", "no"]
    missed = gold_yes - hits if other_is_no else counts["no", "yes"]
    precision, recall = _ratio(hits, hits + false), _ratio(hits, hits + missed)
    return {
        "accuracy": _ratio(hits + counts["no", "no"], total),
        "precision": precision,
        "recall": recall,
        "f1": _ratio(2 * precision * recall, precision + recall),
        "yes_ratio": _ratio(gold_yes if ratio_of_gold else said_yes, total),
    }


def mme_scores(rows: Sequence[tuple[str, str, bool]]) -> dict[str, float]:
    """Gives MME's points: of each category, 100 x questions right + 100 x images with all questions right.

    ``perception`` is the sum of ten categories (at most 2000), ``cognition`` of four (at most 800).

    Args:
        rows: Category, image and whether the reply is right.
    """
    images: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for category, image, right in rows:
        images[category][image].append(right)
    points: dict[str, float] = {}
    for category, asked in images.items():
        answers = [right for rights in asked.values() for right in rights]
        both = [all(rights) for rights in asked.values()]
        points[category] = 100 * (sum(answers) / len(answers) + sum(both) / len(both))
    parts = (("perception", MME_PERCEPTION), ("cognition", MME_COGNITION))
    return points | {name: sum(points.get(one, 0.0) for one in members) for name, members in parts}


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
