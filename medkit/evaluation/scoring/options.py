"""Which option a reply names, as VLMEvalKit and lmms-eval read it.

Source: VLMEvalKit, revision e8e78f05, ``matching_util`` and ``multiple_choice``; lmms-eval 0.7,
``mcq_extract``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

REFUSED = "Z"

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_SIGNS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_LAST_WORDS = 4  # a lone letter counts only among so many words at the end
_VERBOSE = re.compile(r"\banswer is \**([A-D])", re.IGNORECASE)
_LEAD_INS = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is",
    "The correct option is",
    "Best answer:",
    "Best option:",
)


def can_infer_option(said: str, letters: Sequence[str]) -> str | None:
    """Gives the option's letter, ``Z`` for a refusal, or None.

    A letter counts when it is the only option letter among the words and stands among the last four; else
    what follows "answer is" (A to D, any case, also the start of a word) does.
    """
    if any(refusal in said for refusal in _REFUSALS):
        return REFUSED
    words = said.translate(_SIGNS).split()
    named = [letter for letter in letters if letter in words]
    if len(named) == 1 and words.index(named[0]) >= len(words) - _LAST_WORDS:
        return named[0]
    if not named and REFUSED in words:
        return REFUSED
    found = _VERBOSE.search(said)
    return found[1].upper() if found else None


def can_infer_text(said: str, options: Mapping[str, str]) -> str | None:
    """Gives the letter of the one option whose text stands in a reply that is not too long, or None."""
    if len(said) > 2 * sum(len(text) for text in options.values()):
        return None
    named = [letter for letter, text in options.items() if text.lower() in said.lower()]
    return named[0] if len(named) == 1 else None


def can_infer(said: str, options: Mapping[str, str]) -> str | None:
    """Gives VLMEvalKit's reading without a judge: by letter, else by text; None is counted as wrong."""
    return can_infer_option(said, list(options)) or can_infer_text(said, options)


def first_letter(said: str) -> str:
    """Gives VLMEvalKit's ``extract_characters_regex``: the first capital A to E that lead-ins leave over.

    An empty reply is an A, and so is "a".
    """
    said = said.strip()
    for lead_in in _LEAD_INS:
        said = said.replace(lead_in, "")
    found = re.search("[A-E]", said)
    if found:
        return found[0]
    if len(said.split()) > 10:
        return ""
    return next((letter for letter in "ABCDE" if said.lower() in f"({letter.lower()})"), "")


def lmms_option(said: str, letters: Sequence[str]) -> str:
    """Gives lmms-eval's ``extract_mcq_answer``: a letter that begins the reply, else the last one anywhere.

    The last one may be a part of a word ("Because" is a B).
    """
    among = "".join(letters)
    found = re.match(rf"\s*([{among}])\b", said)
    if found:
        return found[1]
    anywhere = re.findall(f"[{among}]", said)
    return anywhere[-1] if anywhere else ""
