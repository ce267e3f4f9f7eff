"""Choices, gold answers and prompts of benchmark rows, from the forms in which sets write them."""

from __future__ import annotations

import ast
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

from medkit.errors import DataError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FIELDS = ("question", "context", "choices", "list", "count")
CHOICE = "{letter}. {text}"
Notes = list[tuple[str, str]]

_TEXT, _TEXTS, _MAPPING, _EITHER = (str,), (str, list), (dict,), (str, dict)
NAMES = {
    _TEXT: "text",
    _TEXTS: "text or list of texts",
    _MAPPING: "mapping",
    _EITHER: "text or mapping",
    (bool,): "truth",
}
# What kind of value an option has.
FORMS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("only", "open", "known_from", "facts"), _MAPPING),
    **dict.fromkeys(("files", "archive", "image", "choices"), _TEXTS),
    **dict.fromkeys(("base64", "text_only"), (bool,)),
    **dict.fromkeys(
        (
            "images", "id", "question", "ask", "cut", "answer", "answers_from", "answer_is", "answer_type", "context",
            "known", "prompt", "choice", "between", "kind", "closed", "language", "group", "split", "licence",
        ),
        _TEXT,
    ),
    "suffix": _EITHER,
}  # fmt: skip

_LETTERED = re.compile(r"(?:^|(?<=[\s,;\[\"']))\(?([A-Z])[:.)]\s*")
_NAMED = re.compile(r"\(?([A-Za-z])\)?\s*(?:[:.)].*)?", re.DOTALL)


def listed(text: str) -> list[str] | None:
    """Gives the texts of a list that is written out (``['left', 'right']``), None where the text is no such list."""
    if not text.strip().startswith("["):
        return None
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    fine = isinstance(value, list) and all(isinstance(one, str) for one in value)
    return value if fine else None


def choices_of(value: Any) -> list[str]:
    """Gives the texts of the choices, without the letters that stand before them.

    Args:
        value: A list; letters to texts; or text: a written-out list, "A: one B: two", or "one|two".
    """
    if isinstance(value, dict):
        value = [value[letter] for letter in sorted(value, key=str)]
    if isinstance(value, str):
        value = listed(value) or lettered(value) or value.split("|")
    value = value if isinstance(value, list) else [value]
    texts = [str(one).strip() for one in value if one is not None and str(one).strip()]
    if len(texts) == 1:  # columns for each choice, of which another version of the set has one with all
        texts = lettered(texts[0]) or texts
    before = [text[:2] in (f"{letter}:", f"{letter}.") for letter, text in zip(LETTERS, texts, strict=False)]
    # " A:Right lung" is how PMC-VQA writes a choice; "C. difficile" alone is a name.
    return [text[2:].strip() for text in texts] if before and all(before) else texts


def lettered(text: str) -> list[str]:
    """Gives the parts of "A: one B: two" (also "(A) one (B) two"), none where it isn't such a text."""
    marks: list[re.Match[str]] = []
    for mark in _LETTERED.finditer(text):
        if mark[1] == LETTERS[len(marks) : len(marks) + 1]:
            marks.append(mark)
    if len(marks) < 2:
        return []
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [text[mark.end() : end].strip(" ,;|\n\t") for mark, end in zip(marks, ends, strict=True)]


def gold_of(answer: Any, choices: Sequence[str], kind: str) -> tuple[list[str], Notes]:
    """Gives the accepted answers, the most frequent first, and what should be told of them.

    Args:
        answer: A text, a number, or a list of them; also ``{"answer": ...}``, as VQAv2 keeps each annotator's.
        choices: The choices' texts; a letter or an index is one of them.
        kind: ``text``, ``letter`` or ``index`` (from 0).
    """
    if isinstance(answer, str) and kind == "text":
        answer = listed(answer) or answer
    given = [
        one.get("answer") if isinstance(one, dict) else one
        for one in (answer if isinstance(answer, list) else [answer])
    ]
    given = [one for one in given if one is not None]
    if kind != "text":
        places = [_place(one, choices, kind) for one in given]
        return [choices[place] for place in places if place is not None], []
    notes: Notes = []
    if any(not isinstance(one, str) for one in given):
        notes.append(("answer is a number", f"{answer!r} is read as text"))
    if any(isinstance(one, str) and one != one.strip() for one in given):
        notes.append(("spaces around text", "taken off"))
    texts = [_as_choice(str(one).strip(), choices) for one in given if str(one).strip()]
    strange = [text for text in texts if choices and text not in choices and not _NAMED.fullmatch(text)]
    if strange:
        notes.append(("answer is none of the choices", strange[0]))
    counts = Counter(texts)
    return sorted(texts, key=lambda text: -counts[text]), notes


def check_forms(options: dict[str, Any]) -> None:
    """Refuses values of options that can't be used, before a row is read.

    Raises:
        DataError: An option has another type than its form, or a prompt has other places than ``FIELDS``.
    """
    for name, form in FORMS.items():
        if name in options and not isinstance(options[name], form):
            raise DataError(f"reader questions: {name} {options[name]!r} is no {NAMES[form]}")
    suffix = options.get("suffix")
    if isinstance(suffix, dict) and not set(suffix) <= {"choice", "open"}:
        raise DataError(f"reader questions: suffix {suffix!r} has other keys than choice and open")
    known_from = options.get("known_from")
    if known_from is not None and set(known_from) != {"file", "key", "column"}:
        raise DataError(f"reader questions: known_from {known_from!r} has not the keys file, key and column")
    for name, known in (("prompt", FIELDS), ("choice", ("letter", "text"))):
        try:
            places = [place for _, place, _, _ in string.Formatter().parse(options.get(name, ""))]
            strange = next((place for place in places if place is not None and place not in known), None)
            if strange is None:
                options.get(name, "").format(**dict.fromkeys(known, ""))
        except (ValueError, KeyError, IndexError) as error:
            raise DataError(f"reader questions: {name} {options[name]!r}: {error}") from None
        if strange is not None:
            there = ", ".join(f"{{{one}}}" for one in known)
            raise DataError(f"reader questions: {name} has no place {{{strange}}}; there are {there}")


def asked_as(question: str, context: str, choices: Sequence[str], options: dict[str, Any]) -> str:
    """Gives a question's text as it is asked: with context, choices and the format of the answer.

    Args:
        question: The question's own text.
        context: What is put before it, or "".
        choices: The choices' texts.
        options: The reader's ``prompt``, ``choice``, ``between`` and ``suffix``.
    """
    together = options_block(choices, options.get("choice", CHOICE), options.get("between", "\n"))
    if "prompt" in options:
        text = options["prompt"].format(
            question=question,
            context=context or "N/A",
            choices=together,
            list=str(list(choices)),
            count=len(choices),
        )
    else:
        text = "\n".join(part for part in (context, question, together) if part)
    suffix = options.get("suffix", "")
    if isinstance(suffix, dict):
        suffix = suffix.get("choice" if choices else "open", "")
    return f"{text}\n{suffix}" if suffix else text


def options_block(choices: Sequence[str], form: str = CHOICE, between: str = "\n") -> str:
    """Writes choices as prompts list them: ``A. left``, a line each, or in another form."""
    return between.join(
        form.format(letter=letter, text=text) for letter, text in zip(LETTERS, choices, strict=False)
    )


def _as_choice(text: str, choices: Sequence[str]) -> str:
    """Gives the choice that a text is in other letters, else the text."""
    same = [choice for choice in choices if choice.lower() == text.lower()]
    return same[0] if len(same) == 1 else text


def _place(answer: Any, choices: Sequence[str], kind: str) -> int | None:
    text = str(answer).strip()
    if kind == "index":
        place = int(text) if text.isdigit() else -1
    elif text in choices:
        place = list(choices).index(text)
    else:
        named = _NAMED.fullmatch(text)
        place = LETTERS.find(named[1].upper()) if named else -1
    return place if 0 <= place < len(choices) else None
