"""ScienceQA's letters as LLaVA's script and lmms-eval read them.

Source: Liu et al. 2023, LLaVA, section 5.2, ``eval_science_qa``; lmms-eval 0.7, task ``scienceqa``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

FAILED = "FAILED"
_LETTERS = "ABCDE"
# The dot is any character: a letter at the very end of the reply is missed.
_SENTENCE = re.compile(r"The answer is ([A-Z]).")


def llava(said: str) -> str:
    """Gives the letter of a bare "B", of "B. ...", or of the only "The answer is B."; else ``FAILED``."""
    if said and said[0] in _LETTERS and (len(said) == 1 or said[1:3] == ". "):
        return said[0]
    found = _SENTENCE.findall(said)
    return found[0] if len(found) == 1 else FAILED


def llava_index(letter: str, letters: Sequence[str]) -> int:
    """Gives the index of the option, -1 for a letter that is none and for ``FAILED``."""
    return list(letters).index(letter) if letter in letters else -1


def lmms(said: str, gold: str) -> float:
    """Gives 1 for the gold letter in any case, or for a reply that begins with it and a full stop."""
    said = said.strip()
    begins = len(said) > 1 and said[0].isupper() and said[1] == "." and said[0] == gold
    return float(said.lower() == gold.lower() or begins)
