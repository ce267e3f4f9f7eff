"""sacrebleu's BLEU of a report, as LLaVA-Rad reports it.

Source: Post 2018, A Call for Clarity in Reporting BLEU Scores; sacrebleu 2.
"""

from __future__ import annotations

from medkit.errors import DataError


def sentence_bleu_percent(said: str, gold: str) -> float:
    """Gives sacrebleu's sentence BLEU with effective order, 0..100.

    Raises:
        DataError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise DataError("this BLEU needs sacrebleu: pip install medkit-lmm[evaluate]") from None

    return float(BLEU(effective_order=True).sentence_score(said, [gold]).score)
