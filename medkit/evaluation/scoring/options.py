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
    said = said.lower()  # before its length is taken: "İ" becomes two signs
    if len(said) > 2 * sum(len(text) for text in options.values()):
        return None
    named = [letter for letter, text in options.items() if text.lower() in said]
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


# What lmms-eval takes for the words before an answer; of each the first occurrence counts.
_THE = ("answer is", "correct answer is", "best answer is", "correct option is", "best option is", "choice is",
        "correct choice is")  # fmt: skip
_BEFORE = (
    *_THE, *(f"the {words}" for words in _THE), "i choose", "i select", "i pick", "my answer is", "my choice is",
    "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは",
)  # fmt: skip
_START, _END, _PHRASE, _ANYWHERE = 10, 9, 7, 0  # which form outranks which
_FORMS = {"({})": 6, "{}.": 5, "{}:": 4, "{})": 3, "{} ": 2}


def lmms_option(said: str, letters: Sequence[str]) -> str:
    """Gives lmms-eval's ``extract_mcq_answer``: the letter in the form that ranks highest, of these the last one.

    The order: a letter that begins the reply, one that ends it, one behind words like "answer is" (even within a word:
    "answer is Because" is a B), "(B)", "B.", "B:", "B)", "B " (also at the end of a word: "MRI shows" is an I). Without
    any of them the last letter anywhere.

    Source: lmms-eval 0.7.3, ``tasks/_task_utils/mcq_extract.py``.
    """
    bare = said.strip()
    for sign in ",.!?;:'\"":
        bare = bare.strip(sign)
    bare, text = bare.strip(), f" {bare} "
    lowered = text.lower()
    behind = [found + len(words) for words in _BEFORE if (found := lowered.find(words)) >= 0]
    ranks: list[tuple[int, int, str]] = []
    for letter in letters:
        ranks += [
            (rank, text.rfind(form.format(letter)), letter)
            for form, rank in _FORMS.items()
            if form.format(letter) in text
        ]
        ranks += [(_PHRASE, place, letter) for start in behind if (place := text.find(letter, start)) >= 0]
        if bare.startswith(letter) and not bare[1:2].isalpha():
            ranks.append((_START, 0, letter))
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            ranks.append((_END, len(text) - 1, letter))
    ranks = ranks or [(_ANYWHERE, text.rfind(letter), letter) for letter in letters if letter in text]
    return max(ranks, key=lambda one: one[:2])[2] if ranks else ""
