"""Presidio beside the rules: names and numbers that stand in no header and have no label.

Its recognisers of numbers work as they are. Names of people and places need a language model: a spaCy model from this
machine's disk, never fetched. What has so loose a form that vertebrae and lesions fit it is left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from medkit.errors import DataError, MissingExtra

PACKAGE = "presidio_analyzer"
KEYS = ("model", "language", "least")
KINDS = {
    "PERSON": "NAME", "LOCATION": "PLACE", "ORGANIZATION": "PLACE", "PHONE_NUMBER": "PHONE", "DATE_TIME": "DATE",
    "STREET_ADDRESS": "ADDRESS",
}  # fmt: skip
# "T12" and "L4-5" are driver's licences to it, "daily" is a date to a language model; the rules find mail
# addresses and links, for which Presidio would fetch a list of domains.
LEFT_OUT = frozenset((
    "US_DRIVER_LICENSE", "US_BANK_NUMBER", "CRYPTO", "NRP", "AGE", "EMAIL", "EMAIL_ADDRESS", "URL", "UUID", "ID",
))  # fmt: skip
DATES_BY_FORM = "DateRecognizer"


@dataclass(frozen=True)
class Finder:
    """How Presidio is asked.

    Attributes:
        model: Folder or installed package of a spaCy model; "" for the recognisers of numbers alone.
        language: Of the reports, as a two-letter code.
        least: Least confidence, 0 to 1.
    """

    model: str = ""
    language: str = "en"
    least: float = 0.4

    def spans(self, text: str) -> list[tuple[int, int, str]]:
        """Gives (start, end, kind) of what it finds, in order and without overlaps.

        Raises:
            MissingExtra: The extra isn't installed or the model can't be loaded.
        """
        analyser = _analyser(self)
        wanted = [name for name in analyser.get_supported_entities(self.language) if name not in LEFT_OUT]
        found = analyser.analyze(text, language=self.language, entities=wanted, score_threshold=self.least)
        found = [one for one in found if one.entity_type != "DATE_TIME" or _by_form(one)]
        spans: list[tuple[int, int, str]] = []
        for one in sorted(found, key=lambda one: (-one.score, one.start - one.end, one.start)):
            if all(one.end <= start or end <= one.start for start, end, _ in spans):
                spans.append((one.start, one.end, KINDS.get(one.entity_type, "ID")))
        return sorted(spans)


def read_finder(given: Any, who: str) -> Finder | None:
    """Gives what a card's ``presidio`` says.

    Args:
        given: None or false: it isn't asked; true: its defaults; else a mapping of ``KEYS``.
        who: Who asks, for messages.

    Raises:
        DataError: A key or value makes no sense, or the model isn't on this machine.
        MissingExtra: The extra isn't installed.
    """
    if given is None or given is False:
        return None
    if given is not True and not isinstance(given, dict):
        raise DataError(f"{who}: presidio is true or a mapping of {', '.join(KEYS)}")
    values = {} if given is True else dict(given)
    unknown = sorted(str(key) for key in values if key not in KEYS)
    if unknown:
        raise DataError(f"{who}: presidio has no key {', '.join(unknown)}; keys: {', '.join(KEYS)}")
    model, language, least = values.get("model", ""), values.get("language", "en"), values.get("least", 0.4)
    if not isinstance(model, str) or not isinstance(language, str) or len(language) != 2:
        raise DataError(f"{who}: presidio.model is a folder or package, presidio.language a two-letter code")
    if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least <= 1:
        raise DataError(f"{who}: presidio.least {least!r} is no confidence of 0 to 1")
    if importlib.util.find_spec(PACKAGE) is None:
        raise MissingExtra(f'{who}: presidio needs the extra "presidio": pip install "medkit-lmm[presidio]"')
    if model and not Path(model).expanduser().is_dir() and not _is_package(model):
        raise DataError(f"{who}: presidio.model {model} is neither a folder nor an installed spaCy model")
    return Finder(model, language, float(least))


def _is_package(model: str) -> bool:
    return model.isidentifier() and importlib.util.find_spec(model) is not None


def _by_form(found: Any) -> bool:
    return (found.recognition_metadata or {}).get("recognizer_name") == DATES_BY_FORM


@lru_cache(maxsize=4)
def _analyser(finder: Finder) -> Any:
    # Its log may quote what it reads.
    logging.getLogger("presidio-analyzer").setLevel(logging.CRITICAL + 1)
    try:
        analyzer, engines = (importlib.import_module(name) for name in (PACKAGE, f"{PACKAGE}.nlp_engine"))
    except ImportError:
        raise MissingExtra(
            'presidio needs the extra "presidio": pip install "medkit-lmm[presidio]"'
        ) from None
    model = str(Path(finder.model).expanduser()) if "/" in finder.model else finder.model
    engine = engines.SpacyNlpEngine(models=[{"lang_code": finder.language, "model_name": model}])
    # Loaded here and not by the engine, which would fetch a model that is missing.
    engine.nlp = {finder.language: _pipeline(finder, model)}
    return analyzer.AnalyzerEngine(nlp_engine=engine, supported_languages=[finder.language])


def _pipeline(finder: Finder, model: str) -> Any:
    spacy = importlib.import_module("spacy")
    try:
        if model:
            return spacy.load(model)
        pipeline = spacy.blank(finder.language)
    except (OSError, ImportError, ValueError) as error:
        what = f"model {model}" if model else f"language {finder.language}"
        raise MissingExtra(f"presidio: spaCy can't load the {what} ({type(error).__name__})") from None
    # Context words ("SSN", "phone") are compared with lemmas, which a blank pipeline lacks.
    language = importlib.import_module("spacy.language").Language
    if not language.has_factory("medkit_lower"):
        language.component("medkit_lower", func=_lower)
    pipeline.add_pipe("medkit_lower")
    return pipeline


def _lower(document: Any) -> Any:
    for token in document:
        token.lemma_ = token.lower_
    return document
