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
_WORDS: dict[str, str] = {
    "mammography": r"mammogra\w+|tomosynthesis",
    "chest X-ray": r"chest (?:x-?\s?rays?|radiogra\w+|films?)|(?-i:\bCXRs?\b)",
    "angiography": r"angiogra(?:m|ms|phy|phic)|venogra\w+|arteriogra\w+",
    "X-ray": r"(?<!chest )x-?\s?ray (?:images?|films?|views?)|(?<!chest )(?<!auto)\bradiographs?\b|(?<!chest )radiographic|"
    r"orthopantomogra\w+|fluoroscop\w+",
    "CT": r"computed tomogra\w+|computerized tomogra\w+|(?-i:\b(?:HR|CB|MD|PET/|PET-|SPECT/|micro-|µ)?CT\b)(?! values?| cycles?)",
    "MRI": r"magnetic resonance imag\w+|(?-i:\bf?MRIs?\b)|(?-i:\bMR (?:images?|imaging|scans?)\b)|"
    r"(?-i:\bFLAIR\b)|\bT[12]\*?-weighted",
    "PET": r"positron emission|(?-i:\bPET\b)|scintigra\w+|(?-i:\bSPECT\b)",
    "ultrasound": r"ultraso(?:und|nogra\w+)|sonogra\w+|echocardiogra\w+|\bdoppler\b",
    "endoscopy": r"endoscop\w+|colonoscop\w+|gastroscop\w+|bronchoscop\w+|laparoscop\w+|cystoscop\w+",
    "fundus": r"fundus|fundoscop\w+|fluorescein angiogra\w+",
    "OCT": r"optical coherence tomogra\w+|(?-i:\b(?:SD-|AS-)?OCT\b)",
    "gross pathology": r"gross (?:patholog\w+|specimens?|appearance|morpholog\w+)|macroscop\w+|resected specimens?|cut surface",
    "histology": r"histolog\w+|histopatholog\w+|h(?:a?ematoxylin|&e|\s?&\s?e)|immunohistochem\w+|(?-i:\bIHC\b)|"
    r"photomicrogra\w+|biops(?:y|ies) (?:specimen|show|section)\w*|stained sections?",
    "electron microscopy": r"electron microgra\w+|electron microscop\w+|(?-i:\b(?:[ST]EM|cryo-?EM)\b)(?! \()",
    "fluorescence microscopy": r"immunofluorescen\w+|confocal|fluorescen\w+ (?:microscop\w+|images?|microgra\w+)|(?-i:\bDAPI\b)",
    "blot or gel": r"(?:western|northern|southern|immuno)[ -]?blots?|(?-i:\bSDS-PAGE\b)|agarose gels?",
    "photograph": r"photographs?\b|clinical (?:picture|image|photo)s?",
    "plot": r"kaplan-?meier|\bROC curves?|scatter ?plots?|box ?plots?|bar (?:graph|chart)s?|histograms?|\bheat ?maps?|"
    r"error bars|forest plots?|dose[- ]response curves?",
    "diagram": r"flow ?(?:chart|diagram)s?|schematic\w*|(?:diagram|illustration|cartoon) of|phylogenetic tree",
}
_RULES = [(name, re.compile(rf"(?:{words})", re.IGNORECASE)) for name, words in _WORDS.items()]
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
        raise DataError(f"the modality classifier {name!r} can't be loaded ({type(error).__name__})") from error
