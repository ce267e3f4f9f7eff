"""What kind of picture a figure shows: by the words of its caption, or by an installed classifier.

A classifier is a function ``(caption, picture) -> (modality, confidence 0..1)`` that an installed package
offers under the entry point group ``medkit.modality``; a card names it, it can't name code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from medkit.errors import DataError

GROUP = "medkit.modality"
Classifier = Callable[[str, Any], tuple[str, float]]

# A modality's words. Short names are matched in capitals only: "CT" is a scan, "Ct" a cycle of a PCR.
_WORDS: dict[str, tuple[str, ...]] = {
    "mammography": (r"mammogra\w+", r"tomosynthesis"),
    "chest X-ray": (r"chest (?:x-?\s?rays?|radiogra\w+|films?)", r"(?-i:\bCXRs?\b)"),
    "angiography": (r"angiogra(?:m|ms|phy|phic)", r"venogra\w+", r"arteriogra\w+"),
    "X-ray": (
        r"(?<!chest )x-?\s?ray (?:images?|films?|views?)",
        r"(?<!chest )\bradiogra(?:phs?|phic)\b",
        r"orthopantomogra\w+",
        r"fluoroscop\w+",
    ),
    "CT": (
        r"computed tomogra\w+",
        r"computerized tomogra\w+",
        r"(?-i:\b(?:HR|CB|MD|PET/|PET-|SPECT/|micro-|µ)?CT\b)(?! values?| cycles?)",
    ),
    "MRI": (
        r"magnetic resonance imag\w+",
        r"(?-i:\bf?MRIs?\b|\bMR (?:images?|imaging|scans?)\b|\bFLAIR\b)",
        r"\bT[12]\*?-weighted",
    ),
    "PET": (r"positron emission", r"scintigra\w+", r"(?-i:\bPET\b|\bSPECT\b)"),
    "ultrasound": (r"ultraso(?:und|nogra\w+)", r"sonogra\w+", r"echocardiogra\w+", r"\bdoppler\b"),
    "endoscopy": (r"(?:end|colon|gastr|bronch|lapar|cyst)oscop\w+",),
    "fundus": (r"fundus", r"fundoscop\w+", r"fluorescein angiogra\w+"),
    "OCT": (r"optical coherence tomogra\w+", r"(?-i:\b(?:SD-|AS-)?OCT\b)"),
    "gross pathology": (
        r"gross (?:patholog\w+|specimens?|appearance|morpholog\w+)",
        r"macroscop\w+",
        r"resected specimens?",
        r"cut surface",
    ),
    "histology": (
        r"histolog\w+",
        r"histopatholog\w+",
        r"ha?ematoxylin",
        r"\bh\s?&\s?e\b",
        r"immunohistochem\w+",
        r"(?-i:\bIHC\b)",
        r"photomicrogra\w+",
        r"stained sections?",
    ),
    "electron microscopy": (r"electron micro(?:gra|scop)\w+", r"(?-i:\b(?:[ST]EM|cryo-?EM)\b)(?! \()"),
    "fluorescence microscopy": (
        r"immunofluorescen\w+",
        r"confocal",
        r"fluorescen\w+ (?:microscop\w+|images?|microgra\w+)",
        r"(?-i:\bDAPI\b)",
    ),
    "blot or gel": (
        r"(?:western|northern|southern|immuno)[ -]?blots?",
        r"(?-i:\bSDS-PAGE\b)",
        r"agarose gels?",
    ),
    "photograph": (r"photographs?\b", r"clinical (?:picture|image|photo)s?"),
    "plot": (
        r"kaplan-?meier",
        r"\bROC curves?",
        r"scatter ?plots?",
        r"box ?plots?",
        r"bar (?:graph|chart)s?",
        r"histograms?",
        r"\bheat ?maps?",
        r"error bars",
        r"forest plots?",
        r"dose[- ]response curves?",
    ),
    "diagram": (
        r"flow ?(?:chart|diagram)s?",
        r"schematic\w*",
        r"(?:diagram|illustration|cartoon) of",
        r"phylogenetic tree",
    ),
}
_RULES = [(name, re.compile("|".join(words), re.IGNORECASE)) for name, words in _WORDS.items()]
MODALITIES = tuple(_WORDS)
# A picture of the first is one of the second too.
_WITHIN = {("chest X-ray", "X-ray"), ("OCT", "CT"), ("mammography", "X-ray"), ("angiography", "fundus")}
# What surrounds pictures in a compound figure says little about them.
_COMPANIONS = {"plot", "diagram", "photograph"}


def by_caption(caption: str, picture: Any = None) -> tuple[str, float]:
    """Gives (modality, confidence) by a caption's words; ("", 0.0) where they name none.

    0.9 where they name one kind alone, 0.6 where a plot or drawing goes with it, 0.3 where they name several
    (the first named wins).
    """
    found = {name: match.start() for name, rule in _RULES if (match := rule.search(caption))}
    for inner, outer in _WITHIN:
        if inner in found and outer in found:
            del found[outer]
    if not found:
        return "", 0.0
    main = {name: start for name, start in found.items() if name not in _COMPANIONS}
    named = min(main or found, key=lambda name: found[name])
    if len(found) == 1:
        return named, 0.9
    return named, 0.6 if len(main) == 1 else 0.3


def classifier(name: str) -> Classifier:
    """Gives a classifier: "rules" is ``by_caption``, other names are looked up among installed packages.

    Raises:
        DataError: No installed package offers the name, or it can't be loaded.
    """
    if name == "rules":
        return by_caption
    offered = {point.name: point for point in entry_points(group=GROUP)}
    if name not in offered:
        known = ", ".join(["rules", *sorted(offered)])
        raise DataError(f"no installed package offers the modality classifier {name!r}; there are: {known}")
    try:
        return offered[name].load()
    except Exception as error:
        raise DataError(
            f"the modality classifier {name!r} can't be loaded ({type(error).__name__})"
        ) from error
