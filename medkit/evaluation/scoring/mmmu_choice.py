"""MMMU's reading of a multiple-choice reply, and the copies of it that read differently.

All look for candidates by one form of a letter after another, the next only where none was found, and take
the candidate whose last occurrence comes last. Where nothing is found the references draw an option by chance;
here that is ``RANDOM``, which is right for no answer.

Source: Yue et al. 2024, MMMU, appendix (evaluation); lmms-eval 0.7; MedEvalKit, revision 9b12e3b3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .medevalkit import extract

RANDOM = "__RANDOM__"
_ENDS = ",.!?;:'"
_WORDS_FOR_TEXT = 5  # an option's text is looked for only in longer replies

_BRACKETS, _SPACES, _SPACE_AFTER, _PERIOD_AFTER = "({})", " {} ", "{} ", "{}."


def official(said: str, options: Mapping[str, str]) -> str:
    """Gives the letter of "(B)", else of " B ", else of the option's text, else ``RANDOM``."""
    return _parse(said, options, (_BRACKETS, _SPACES))


def lmms_eval(said: str, options: Mapping[str, str]) -> str:
    """Gives lmms-eval's reading: a letter that ends a word counts ("DNA is" is an A), and so does "B."."""
    return _parse(said, options, (_BRACKETS, _SPACE_AFTER, _PERIOD_AFTER))


def lmms_medqa(said: str, options: Mapping[str, str]) -> str:
    """Gives the reading of lmms-eval's MedQA: "(B)", " B ", "B.", and never by an option's text."""
    return _parse(said.strip(), options, (_BRACKETS, _SPACES, _PERIOD_AFTER), by_text=False)


def medevalkit(said: str, options: Mapping[str, str]) -> str:
    r"""Gives the official reading of what stands in ``\boxed{}`` or ``<answer>``, else of the whole reply."""
    return official(extract(said, lower=False).strip(), options)


def _parse(said: str, options: Mapping[str, str], forms: Sequence[str], by_text: bool = True) -> str:
    for sign in _ENDS:
        said = said.strip(sign)
    said = f" {said} "
    for form in forms:
        last = {letter: said.rfind(form.format(letter)) for letter in options}
        if max(last.values()) >= 0:
            return max(last, key=last.__getitem__)
    if by_text and len(said.split()) > _WORDS_FOR_TEXT:
        last = {letter: said.lower().rfind(text.lower()) for letter, text in options.items()}
        if max(last.values()) >= 0:
            return max(last, key=last.__getitem__)
    return RANDOM
