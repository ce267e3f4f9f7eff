"""The caption metrics BLEU, ROUGE-L and CIDEr as pycocoevalcap counts them, and ROUGE as rouge-score does.

METEOR and the PTB tokenizer are Java programs of pycocoevalcap: ``meteor`` runs the first, where the package
(medkit-lmm[evaluate]) and Java are there.

Source: Papineni et al. 2002, BLEU; Lin 2004, ROUGE; Vedantam et al. 2015, CIDEr, section 4; pycocoevalcap
1.2; rouge-score 0.1.2.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from medkit.errors import DataError

from .bleu import ngrams
from .report_text import rouge_words
from .rouge import lcs_table

ORDERS = 4
_TINY, _SMALL = 1e-15, 1e-9
_ROUGE_BETA = 1.2
_CIDER_SIGMA = 6.0


def bleu_counts(said: str, references: Sequence[str]) -> np.ndarray:
    """Gives [2 + 2 * 4]: words said, words of the nearest reference, matches by order, n-grams by order.

    Counts of several replies add up to the corpus's.
    """
    words, golds = said.split(), [gold.split() for gold in references]
    nearest = min((abs(len(gold) - len(words)), len(gold)) for gold in golds)[1]
    matches, guesses = [], []
    for order in range(1, ORDERS + 1):
        most: Counter[tuple[str, ...]] = Counter()
        for gold in golds:
            most |= ngrams(gold, order)
        matches.append((ngrams(words, order) & most).total())
        guesses.append(max(0, len(words) - order + 1))
    return np.array([len(words), nearest, *matches, *guesses], dtype=np.float64)


def bleu_from_counts(counts: np.ndarray) -> list[float]:
    """Gives BLEU-1 to BLEU-4, cumulative, from the counts of a reply or of a corpus."""
    return [float(value) for value in bleu_of_sums(counts[None])[0]]


def bleu_of_sums(counts: np.ndarray) -> np.ndarray:
    """Gives BLEU-1 to BLEU-4, cumulative, [R, 4], from counts of R corpora, [R, 10]."""
    ratio = (counts[:, :1] + _TINY) / (counts[:, 1:2] + _SMALL)
    penalty = np.where(ratio < 1, np.exp(1 - 1 / np.minimum(ratio, 1.0)), 1.0)
    shares = (counts[:, 2 : 2 + ORDERS] + _TINY) / (counts[:, 2 + ORDERS :] + _SMALL)
    return np.cumprod(shares, axis=1) ** (1 / np.arange(1, ORDERS + 1)) * penalty


def rouge_l(said: str, references: Sequence[str]) -> float:
    """Gives ROUGE-L with beta 1.2, from the best precision and the best recall over the references."""
    words = said.split(" ")
    shared = [(lcs_table(gold.split(" "), words)[-1][-1], len(gold.split(" "))) for gold in references]
    precision = max(length for length, _ in shared) / len(words)
    recall = max(length / size for length, size in shared)
    if not precision or not recall:
        return 0.0
    weight = _ROUGE_BETA**2
    return (1 + weight) * precision * recall / (recall + weight * precision)


def cider(said: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Gives CIDEr-D of every reply; the weights of n-grams come from the references of all of them.

    Args:
        said: The replies of a corpus.
        references: Of each reply, its references.
    """
    golds = [[_all_ngrams(gold) for gold in own] for own in references]
    spread: Counter[tuple[str, ...]] = Counter()
    for own in golds:
        spread.update({gram for gold in own for gram in gold})
    total = math.log(len(golds))
    scores = []
    for text, own in zip(said, golds, strict=True):
        vectors, norms, length = _weighted(_all_ngrams(text), spread, total)
        similar = [_similarity(vectors, norms, length, *_weighted(gold, spread, total)) for gold in own]
        scores.append(10 * float(np.mean(similar)))
    return scores


def rouge_scores(
    said: str, gold: str, stem: Callable[[str], str] | None = None
) -> dict[str, dict[str, float]]:
    """Gives rouge-score's ``rouge1``, ``rouge2``, ``rougeL`` and ``rougeLsum``, each with p, r and f.

    Args:
        said: The reply.
        gold: The reference.
        stem: Stemmer of words, see ``rouge_words``.
    """
    words, golds = rouge_words(said, stem), rouge_words(gold, stem)
    scores = {}
    for order in (1, 2):
        mine, theirs = ngrams(words, order), ngrams(golds, order)
        scores[f"rouge{order}"] = _prf((mine & theirs).total(), mine.total(), theirs.total())
    scores["rougeL"] = _prf(lcs_table(golds, words)[-1][-1] if golds else 0, len(words), len(golds))
    scores["rougeLsum"] = _rouge_lsum(said, gold, stem)
    return scores


def meteor(said: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Gives METEOR 1.5 of every reply, by pycocoevalcap's Java program.

    Raises:
        DataError: pycocoevalcap is not installed or Java can't be started.
    """
    try:
        from pycocoevalcap.meteor.meteor import Meteor  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise DataError("METEOR needs pycocoevalcap: pip install medkit-lmm[evaluate]") from None

    try:
        scorer = Meteor()
    except OSError as error:
        raise DataError(f"METEOR needs Java on the path: {error}") from None
    # The program reads lines: one inside of a text would make it wait for ever.
    replies = {index: [" ".join(text.split())] for index, text in enumerate(said)}
    golds = {index: [" ".join(one.split()) for one in own] for index, own in enumerate(references)}
    return [float(score) for score in scorer.compute_score(golds, replies)[1]]


def _all_ngrams(text: str) -> Counter[tuple[str, ...]]:
    words = text.split()
    found: Counter[tuple[str, ...]] = Counter()
    for order in range(1, ORDERS + 1):
        found.update(ngrams(words, order))
    return found


def _weighted(
    counts: Counter[tuple[str, ...]], spread: Counter[tuple[str, ...]], total: float
) -> tuple[list[dict[tuple[str, ...], float]], list[float], int]:
    vectors: list[dict[tuple[str, ...], float]] = [{} for _ in range(ORDERS)]
    for gram, count in counts.items():
        vectors[len(gram) - 1][gram] = count * (total - math.log(max(1, spread[gram])))
    norms = [math.sqrt(sum(value**2 for value in vector.values())) for vector in vectors]
    # The length is counted in pairs of words.
    return vectors, norms, sum(count for gram, count in counts.items() if len(gram) == 2)


def _similarity(
    mine: Sequence[dict[tuple[str, ...], float]],
    my_norms: Sequence[float],
    my_length: int,
    theirs: Sequence[dict[tuple[str, ...], float]],
    their_norms: Sequence[float],
    their_length: int,
) -> float:
    parts = []
    for order in range(ORDERS):
        other = theirs[order]
        product = sum(
            min(value, other[gram]) * other[gram] for gram, value in mine[order].items() if gram in other
        )
        norm = my_norms[order] * their_norms[order]
        parts.append(product / norm if norm else product)
    return float(np.mean(parts)) * math.exp(-((my_length - their_length) ** 2) / (2 * _CIDER_SIGMA**2))


def _prf(shared: int, said: int, gold: int) -> dict[str, float]:
    precision, recall = shared / max(said, 1), shared / max(gold, 1)
    f = 2 * precision * recall / (precision + recall) if shared else 0.0
    return {"p": precision, "r": recall, "f": f}


def _rouge_lsum(said: str, gold: str, stem: Callable[[str], str] | None) -> dict[str, float]:
    mine, theirs = ([rouge_words(line, stem) for line in text.split("\n") if line] for text in (said, gold))
    left, needed = (
        Counter(word for line in mine for word in line),
        Counter(w for line in theirs for w in line),
    )
    sizes = left.total(), needed.total()
    hits = 0
    for line in theirs:
        places = sorted({place for other in mine for place in _lcs_places(line, other)})
        for word in (line[place] for place in places):
            if left[word] > 0 and needed[word] > 0:
                hits += 1
                left[word] -= 1
                needed[word] -= 1
    return _prf(hits, *sizes)


def _lcs_places(gold: Sequence[str], said: Sequence[str]) -> list[int]:
    table = lcs_table(gold, said)
    row, column = len(gold), len(said)
    places = []
    while row and column:
        if gold[row - 1] == said[column - 1]:
            row, column = row - 1, column - 1
            places.append(row)
        elif table[row][column - 1] > table[row - 1][column]:
            column -= 1
        else:
            row -= 1
    return places
