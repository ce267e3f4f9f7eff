"""The soft accuracy of VQAv2 and TextVQA: how many of the other annotators said the same, in five forms.

Source: Antol et al. 2015, VQA, section 3 (min(1, matches / 3), averaged over the subsets of nine annotators);
Singh et al. 2019, TextVQA.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence

from .words import clear_punctuation, clear_words

ENOUGH = 3  # annotators who agree
TEXTVQA_ANNOTATORS = 10
_LONE_PERIOD = re.compile(r"(?<!\d)\.(?!\d)")


def official(said: str, references: Sequence[str]) -> float:
    """Gives the VQA challenge's accuracy. Text is cleaned only where the annotators differ among themselves.

    Raises:
        ZeroDivisionError: There are no references.
    """
    said, *golds = (_one_line(text) for text in (said, *references))
    if len(set(golds)) > 1:
        said, *golds = (_cleared(text) for text in (said, *golds))
    shares = _leave_one_out(said, golds)
    return sum(shares) / len(shares)


def lmms_vqav2(said: str, references: Sequence[str], answer_ids: bool = True) -> float:
    """Gives lmms-eval's VQAv2 accuracy: text is always cleaned.

    Args:
        said: The reply.
        references: The annotators' answers.
        answer_ids: Whether the answers carry ids. Without, equal answers are taken for one annotator's and
            all left out together.

    Raises:
        StatisticsError: There are no references.
    """
    said, *golds = (_cleared(_one_line(text)) for text in (said, *references))
    if answer_ids:
        return statistics.mean(_leave_one_out(said, golds))
    matches = golds.count(said)
    return statistics.mean(0.0 if gold == said else min(1.0, matches / ENOUGH) for gold in golds)


def lmms_textvqa(said: str, references: Sequence[str]) -> float:
    """Gives lmms-eval's TextVQA accuracy: words are tokenised before they are cleaned.

    Raises:
        StatisticsError: There are no references.
    """
    said, *golds = (_tokenised(text) for text in (said, *references))
    return statistics.mean(_leave_one_out(said, golds))


def llava_textvqa(said: str, references: Sequence[str]) -> float:
    """Gives LLaVA's TextVQA accuracy, which equals lmms-eval's for ten references.

    Raises:
        AssertionError: The references are not ten, as in the reference script.
    """
    if len(references) != TEXTVQA_ANNOTATORS:
        raise AssertionError(f"LLaVA's TextVQA accuracy needs ten references, got {len(references)}")
    return lmms_textvqa(said, references)


def vlmevalkit(said: str, references: Sequence[str]) -> float:
    """Gives VLMEvalKit's ``vqa_score``; a full stop after a digit stays. One reference always gives 0.

    Without references the score is NaN.
    """
    said, *golds = (_cleared(_one_line(text), _LONE_PERIOD) for text in (said, *references))
    shares = _leave_one_out(said, golds)
    return sum(shares) / len(shares) if shares else float("nan")


DEFINITIONS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "official_vqa": official,
    "lmms_eval_vqav2": lmms_vqav2,
    "lmms_eval_textvqa": lmms_textvqa,
    "llava_textvqa": llava_textvqa,
    "vlmevalkit_textvqa": vlmevalkit,
}


def _leave_one_out(said: str, golds: Sequence[str]) -> list[float]:
    matches = golds.count(said)
    return [min(1.0, (matches - (gold == said)) / ENOUGH) for gold in golds]


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _cleared(text: str, periods: re.Pattern[str] | None = None) -> str:
    return clear_words(clear_punctuation(text, periods) if periods else clear_punctuation(text))


def _tokenised(text: str) -> str:
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return _cleared(_one_line(text))
