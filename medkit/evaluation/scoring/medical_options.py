"""Which option a reply names in the medical multiple-choice benchmarks.

Likeness is difflib's ratio, so that nearly every reply is some option: garbage scores about chance.

Source: Zhang et al. 2023, PMC-VQA, section 4; Hu et al. 2024, OmniMedVQA, section 4.1; Zuo et al. 2025,
MedXpertQA, ``eval``; MedEvalKit, revision 9b12e3b3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from .medevalkit import after_lead_in, extract


def most_similar(said: str, texts: Sequence[str]) -> int | None:
    """Gives the index of the text most like the reply, the first of equals; None where nothing is alike."""
    ratios = [SequenceMatcher(None, text, said).ratio() for text in texts]
    best = max(ratios, default=0.0)
    return ratios.index(best) if best else None


def pmc_vqa_last_character(said: str, options: dict[str, str]) -> int | None:
    """Gives the option that PMC-VQA's decoder model names: only the reply's last character is compared.

    Raises:
        IndexError: The reply is empty.
    """
    return most_similar(said[-1], [f" {letter}:{text} " for letter, text in options.items()])


def omnimedvqa(said: str, options: dict[str, str], gold: str) -> bool | None:
    """Says whether the option text most like the reply is the gold one; None where nothing is alike.

    A lone letter is compared as a text, not read as a letter.
    """
    index = most_similar(said, list(options.values()))
    return None if index is None else list(options.values())[index] == options[gold]


def medevalkit(said: str, options: dict[str, str], gold: str) -> bool:
    """Says whether MedEvalKit counts a reply as the gold option: by letter, by text, else by likeness."""
    letters = [letter.lower() for letter in options]
    texts = [f"{letter}. {text}".lower() for letter, text in options.items()]
    said = extract(said)
    paragraphs = said.split("\n\n")
    if paragraphs[0] in letters:
        said = paragraphs[0]
    elif paragraphs[-1].split(".")[0] in letters:
        said = paragraphs[-1].split(".")[0]
    said = after_lead_in(said).strip()
    short = said.split(".")[0].split(":")[-1]
    gold = gold.lower()
    if short in letters:
        return short == gold
    if said in texts:
        return letters[texts.index(said)] == gold
    return letters[most_similar(said, texts) or 0] == gold


def medxpertqa(said: str, letters: Sequence[str]) -> str | None:
    """Gives the first stand-alone capital letter of an option behind the trigger; an article "A" is one too."""
    last = letters[-1]
    trigger = f"Therefore, among A through {last}, the answer is"
    tail = said.split(trigger)[-1] if trigger in said else said.split(" answer is ")[-1]
    tail = tail.replace("I understand", "").replace(f"A through {last}", "")
    found = re.search(rf"\b[A-{last}]\b", tail)
    return found[0] if found else None
