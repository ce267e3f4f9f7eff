"""How generated reports and captions are cleaned before their words are compared.

Source: Chen et al. 2020, R2Gen, ``modules.tokenizers``; RadCliQ's ``prep_reports`` as MedEvalKit uses it;
Lin 2004 and the package ``rouge-score`` 0.1.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_R2GEN_SIGNS = re.compile(r"[.,?;*!%^&_+():-\[\]{}\"/\\']")
_R2GEN_NUMBERING = (
    ("1. ", ""),
    *((f". {number}. ", ". ") for number in range(2, 6)),
    *((f" {number}. ", ". ") for number in range(2, 6)),
)
_NOT_PLAIN = re.compile(r"[^a-z0-9]+")
_STEMMED_FROM = 4  # letters of the shortest word that is stemmed


def r2gen_clean(report: str, mimic: bool = True) -> str:
    """Gives R2Gen's form of a report: lower case, no numbering, sentences apart by " . ".

    Hyphens stay, a decimal point goes ("1.2 cm" is "12 cm").

    Args:
        report: The report as it came.
        mimic: The MIMIC-CXR form, which also joins lines and runs of spaces and underscores; else IU X-ray's.
    """
    if mimic:
        report = _squeezed(_squeezed(report.replace("\n", " "), "__", 7), "  ", 7)
    report = _squeezed(report, "..", 8 if mimic else 4)
    for mark, instead in _R2GEN_NUMBERING:
        report = report.replace(mark, instead)
    sentences = report.strip().lower().split(". ")
    return " . ".join(_R2GEN_SIGNS.sub("", _unquoted(sentence).strip()) for sentence in sentences) + " ."


def radcliq_words(report: str) -> list[str]:
    """Gives the words of a report, lower case, full stops apart, split at single spaces."""
    return [word for word in report.lower().replace(".", " .").split(" ") if word]


def rouge_words(text: str, stem: Callable[[str], str] | None = None) -> list[str]:
    """Gives rouge-score's words: lower case, runs of anything but a to z and digits are one space.

    Args:
        text: The text.
        stem: Stemmer of words longer than three letters, for instance NLTK's Porter stemmer.
    """
    words = _NOT_PLAIN.sub(" ", text.lower()).split()
    return [stem(word) if stem and len(word) >= _STEMMED_FROM else word for word in words]


def _squeezed(text: str, double: str, times: int) -> str:
    for _ in range(times):
        text = text.replace(double, double[0])
    return text


def _unquoted(text: str) -> str:
    # These four go before the outer spaces do.
    return re.sub(r"[\"/\\']", "", text)
