"""BLEU, ROUGE-L and CIDEr of a set of reports, in the form in which groups of reports can be resampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from . import captions
from .profile import Item, Sums, mean_of


def caption_numbers(items: Sequence[Item], clean: Callable[[str], str]) -> dict[str, float | Sums]:
    """Gives BLEU-1 to BLEU-4 of the set, and the means of ROUGE-L and CIDEr.

    CIDEr's weights are those of the whole set in every resample: its interval says how much the mean depends
    on which reports were drawn, not how much the weights do.

    Args:
        items: The reports.
        clean: Text to words apart by spaces.
    """
    said = [clean(item.answer) for item in items]
    golds = [[clean(gold) for gold in item.references] for item in items]
    pairs = list(zip(said, golds, strict=True))
    counts = np.stack([captions.bleu_counts(text, own) for text, own in pairs])
    bleu: dict[str, float | Sums] = {
        f"bleu_{order}": Sums(counts, _bleu(order)) for order in range(1, captions.ORDERS + 1)
    }
    return bleu | {
        "rouge_l": mean_of([captions.rouge_l(text, own) for text, own in pairs]),
        "cider": mean_of(captions.cider(said, golds)),
    }


def _bleu(order: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda sums: captions.bleu_of_sums(sums)[:, order - 1]
