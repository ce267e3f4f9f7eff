"""BLEU of one sentence without smoothing, as NLTK counts it."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Sequence

CUMULATIVE: tuple[tuple[float, ...], ...] = ((1,), (1 / 2, 1 / 2), (1 / 3, 1 / 3, 1 / 3), (0.25,) * 4)


def sentence_bleu(
    reference: Sequence[str], said: Sequence[str], weights: Sequence[float] = CUMULATIVE[3]
) -> float:
    """Gives the BLEU of a reply against one reference; 0 where no word is shared.

    An order of n-grams without a match counts as the smallest normal double, so that short replies get
    values like 1e-155: compare such scores with an absolute tolerance.

    Args:
        reference: Words of the reference.
        said: Words of the reply.
        weights: Weight of each order of n-grams in the geometric mean.

    Source: Papineni et al. 2002, BLEU; NLTK 3.9, ``translate.bleu_score``, without smoothing.
    """
    if not said or not Counter(said) & Counter(reference):
        return 0.0
    total = 0.0
    for order, weight in enumerate(weights, start=1):
        matches = (ngrams(said, order) & ngrams(reference, order)).total()
        share = matches / max(1, len(said) - order + 1) if matches else sys.float_info.min
        total += weight * math.log(share)
    brevity = 1.0 if len(said) > len(reference) else math.exp(1 - len(reference) / len(said))
    return brevity * math.exp(total)


def ngrams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    """Gives how often each run of ``order`` words occurs."""
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))
