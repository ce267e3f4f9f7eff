"""LLaVA-Med v1.0's scores: token recall for open questions, substring tests for closed ones.

Source: Li et al. 2023, LLaVA-Med, section 5 and the repository's tag v1.0.0, ``run_eval`` and
``run_eval_batch``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .bleu import sentence_bleu
from .words import clear_punctuation, clear_words

_SINGLE_ORDERS = {"bleu_1": (1, 0, 0, 0), "bleu_2": (0, 1, 0, 0), "bleu_3": (0, 0, 1, 0)}


def normalise(text: str) -> str:
    """Gives the text as the scores compare it: lower case, cleared, number words as digits ("none" is 0)."""
    return clear_words(clear_punctuation(text.lower())).replace(",", "")


def open_scores(said: str, gold: str) -> dict[str, float]:
    """Gives the word scores of a reply to an open question, each 0..1.

    ``recall`` is the "open" column of the papers. Repeats in the reply count as often as they occur, so that
    they raise it. ``exact_match`` is the share of the reply's words, in number, that distinct reference words
    make up: a precision. ``bleu_k`` looks at one order of n-grams only.

    Args:
        said: The reply, normalised once.
        gold: The reference, normalised once.
    """
    said_words, gold_words = normalise(said).split(), normalise(gold).split()
    scores = {"exact_match": _distinct_found(said_words, gold_words), **_overlap(said_words, gold_words)}
    # BLEU alone takes the words as they are after one pass of the cleaner; the others clean them again.
    said_words, gold_words = said.split(), gold.split()
    scores["bleu"] = sentence_bleu(gold_words, said_words)
    return scores | {
        name: sentence_bleu(gold_words, said_words, weights) for name, weights in _SINGLE_ORDERS.items()
    }


def nearest_candidate(said: str, candidates: Sequence[object]) -> str:
    """Gives the candidate with the largest share of its words in the reply, the first of equals."""
    words = set(normalise(said).split())
    best, best_share = "", -1.0
    for candidate in candidates:
        text = normalise(str(candidate))
        own = text.split()
        share = sum(word in words for word in own) / len(own) if own else 0.0
        if share > best_share:
            best, best_share = text, share
    return best


def run_eval(said: str, gold: str, closed: bool, candidates: Sequence[object] = ()) -> dict[str, float]:
    """Gives the scores of ``run_eval`` for one reply.

    Args:
        said: The reply as it came.
        gold: The reference.
        closed: Whether the question is annotated as closed.
        candidates: Answers among which the open accuracy picks; without them that score is left out.
    """
    said, gold = normalise(said), normalise(gold)
    if closed:
        return {"closed_accuracy": float(("yes" in said or "no" in said) and gold in said)}
    scores = open_scores(said, gold)
    if candidates:
        scores["open_accuracy"] = float(nearest_candidate(said, candidates) == normalise(gold))
    return scores


def run_eval_batch(said: str, gold: str, closed: bool) -> dict[str, float]:
    """Gives the scores of ``run_eval_batch``, the form that the published tables came from, for one reply."""
    said, gold = normalise(said), normalise(gold)
    found = float(gold in said)
    if closed:
        recall = _overlap(normalise(said).split(), normalise(gold).split())["recall"]
        return {"closed_accuracy": found, "recall_closed": recall}
    return open_scores(said, gold) | {"open_accuracy": found}


def _distinct_found(said: Sequence[str], gold: Sequence[str]) -> float:
    return len(set(gold) & set(said)) / len(said) if said else 0.0


def _overlap(said: Sequence[str], gold: Sequence[str]) -> dict[str, float]:
    said_counts, gold_counts = Counter(said), Counter(gold)
    shared = sum(count for word, count in said_counts.items() if word in gold_counts)
    missed = sum(count for word, count in gold_counts.items() if word not in said_counts)
    if not shared:
        return {"f1": 0.0, "precision": 0.0, "recall": 0.0}
    precision, recall = shared / len(said), shared / (shared + missed)
    return {"f1": 2 * precision * recall / (precision + recall), "precision": precision, "recall": recall}
