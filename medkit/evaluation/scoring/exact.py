"""Exact equality as three harnesses define it."""

from __future__ import annotations

import string

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_DIGITS = str.maketrans("", "", string.digits)


def lmms_exact_match(
    said: str,
    gold: str,
    *,
    ignore_case: bool = False,
    ignore_punctuation: bool = False,
    ignore_numbers: bool = False,
) -> float:
    """Gives lmms-eval's ``exact_match``: equality of whole strings, spaces included.

    Source: lmms-eval 0.7, ``api.metrics``; the comparison runs on NumPy strings, which end at trailing NULs.
    """
    sides = [said.rstrip("\0"), gold.rstrip("\0")]
    if ignore_case:
        sides = [side.lower() for side in sides]
    if ignore_punctuation:
        sides = [side.translate(_PUNCTUATION) for side in sides]
    if ignore_numbers:
        sides = [side.translate(_DIGITS) for side in sides]
    return float(sides[0].rstrip("\0") == sides[1].rstrip("\0"))


def vlmevalkit_accuracy(said: str, gold: str) -> float:
    """Gives VLMEvalKit's ``accuracy`` of short answers: equality without case and outer spaces."""
    return float(said.strip().lower() == gold.strip().lower())
