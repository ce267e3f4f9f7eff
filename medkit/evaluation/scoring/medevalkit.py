"""MedEvalKit's scores of short answers: yes/no by substring, open answers by overlap, choices by likeness.

Source: MedEvalKit (alibaba-damo-academy), revision 9b12e3b3, ``utils``.
"""

from __future__ import annotations

import re

from .bleu import CUMULATIVE, sentence_bleu
from .rouge import rouge_sets

_BOXED = re.compile(r"\\boxed\{(.*?)\}", re.DOTALL)
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)

_LEAD_INS = (
    "**answer**:", "**answer**", "*answer*:", "**answer:**", "answer is", "answer:", "答案:", "final answer",
)  # fmt: skip


def extract(reply: str, lower: bool = True) -> str:
    r"""Gives what stands in ``\boxed{}`` or ``<answer>``, lower-cased if wanted; else the whole reply."""
    text = reply.lower() if lower else reply
    for pattern in (_BOXED, _TAGGED):
        found = pattern.search(text)
        if found:
            return found[1]
    return text


def after_lead_in(text: str) -> str:
    """Gives what follows the last lead-in ("answer is", "**answer**:", "答案:" ...), one after another."""
    for lead_in in _LEAD_INS:
        text = text.split(lead_in)[-1]
    return text


def judgement(said: str, gold: str) -> bool:
    """Says whether a closed reply is right: it holds exactly one of "yes" and "no", and it is the gold one.

    Both are looked for as substrings: "normal" is a no.

    Args:
        said: The reply, as ``extract`` gives it, stripped.
        gold: "yes" or "no".
    """
    text = _bare(said)
    return ("yes" in text) != ("no" in text) and gold.lower() in text


def closed(said: str, gold: str) -> bool:
    """Says whether a closed reply equals its reference, newlines and full stops apart (in the reply only)."""
    return _bare(after_lead_in(extract(said))) == gold.lower()


def open_scores(said: str, gold: str) -> dict[str, float]:
    """Gives the scores of an open reply, 0..1, under the keys that MedEvalKit writes them to.

    Its columns are mislabelled: ``precision`` holds F1, ``recall`` holds precision and ``f1`` recall, all
    over distinct words.

    Args:
        said: The reply, as ``extract`` gives it, stripped.
        gold: The reference.

    Raises:
        ValueError: Reply or reference has no word; MedEvalKit stops there.
    """
    said, gold = after_lead_in(said), gold.lower()
    said_words, gold_words = said.split(), gold.split()
    scores = {"em": float(said == gold)}
    scores |= {
        f"bleu{order}": sentence_bleu(_pieces(gold), _pieces(said), weights)
        for order, weights in enumerate(CUMULATIVE, start=1)
    }
    scores |= {name.replace("-", ""): value for name, value in rouge_sets(said, gold).items()}
    shared = len(set(said_words) & set(gold_words))
    precision = shared / len(set(said_words)) if said_words else 0.0
    recall = shared / len(set(gold_words)) if gold_words else 0.0
    f1 = 2 * precision * recall / (precision + recall) if shared else 0.0
    return scores | {"precision": f1, "recall": precision, "f1": recall}


def _pieces(text: str) -> list[str]:
    # Two spaces make an empty word, and a full stop is a word.
    return text.replace(".", " .").split(" ")


def _bare(text: str) -> str:
    return text.replace("\n", "").replace(".", "")
