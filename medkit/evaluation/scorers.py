"""Scorers: pure functions from an answer and its references to a number between 0 and 1.

Every scorer compares normalised words (see ``normalise``). A scorer that does not apply to a question (yes/no
for an open question) gives None, never 0: an average is taken over the questions that it applies to.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

DEFINITIONS: dict[str, str] = {
    "answer": (
        "An answer is right when its yes or no (whole words, simple negation understood), its one number or "
        "its one named choice is the reference's; to an open question, when its normalised text equals a "
        "reference."
    ),
    "exact": "The answer's normalised text equals a reference's.",
    "contained": "The words of a reference stand in the answer, whole and in order.",
    "token_recall": "The share of a reference's words in the answer, repeats clipped; the best reference.",
    "f1": "Harmonic mean of word precision and word recall, repeats clipped; the best reference.",
    "yes_no": "The answer's yes or no, read as whole words with simple negation, is the reference's.",
    "number": "The answer names one number, in digits or words, and it is the reference's.",
    "choice": "The answer names one choice, by letter or by text, and it is the reference's.",
}
SCORERS: tuple[str, ...] = tuple(name for name in DEFINITIONS if name != "answer")

_ARTICLES = frozenset({"a", "an", "the"})
_UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_NUMBER_WORDS: dict[str, int] = {word: value for value, word in enumerate(_UNITS)}
_NUMBER_WORDS |= {word: 10 * tens for tens, word in enumerate(_TENS, start=2)}
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")

_YES = frozenset({"yes", "yeah", "yep", "yup", "true", "correct"})
_NO = frozenset({"no", "nope", "false", "incorrect"})
_NEGATORS = frozenset({"no", "not", "none", "never", "without", "absent", "neither", "nor"})
_AFFIRMING = re.compile(r"\b(?:there (?:is|are)|it (?:is|does)|they are|present|visible|seen|shown)\b")
_UNSURE = re.compile(
    r"\b(?:unsure|uncertain|unclear|unknown|not (?:sure|certain|clear)|do not know"
    r"|(?:can not|unable to|impossible to|hard to) (?:be )?(?:tell|say|determined?|answer))\b"
)
_BOTH = re.compile(r"\b(?:yes\s*(?:/|or|and)\s*no|no\s*(?:/|or|and)\s*yes)\b")
_LEAD_IN = re.compile(r"^.*\banswer\b\W*(?:is\b|:)", re.DOTALL)


def score(
    answer: str, references: Sequence[str], choices: Sequence[str] = (), answer_type: str = "open"
) -> dict[str, float | None]:
    """Gives the value of every scorer for one answer.

    Args:
        answer: The model's reply, as it came.
        references: Gold answers, any of which is right; at least one.
        choices: The options of a multiple-choice question, in the order of their letters; else empty.
        answer_type: ``yes_no``, ``number``, ``choice`` or ``open``.

    Returns:
        Scorer name to a value in 0..1, or None where the scorer does not apply. ``answer`` always has a
        value.
    """
    scores = {
        "exact": exact(answer, references),
        "contained": contained(answer, references),
        "token_recall": token_recall(answer, references),
        "f1": f1(answer, references),
        "yes_no": yes_no(answer, references) if answer_type == "yes_no" else None,
        "number": number(answer, references) if answer_type == "number" else None,
        "choice": choice(answer, references, choices) if choices else None,
    }
    decided = scores.get(answer_type)  # None for "open", and where the references don't fit the stated type
    return {"answer": scores["exact"] if decided is None else decided, **scores}


def is_parsed(answer: str, answer_type: str, choices: Sequence[str] = ()) -> bool:
    """Says whether the headline scorer found a decision in the reply; open questions always are."""
    if answer_type == "yes_no":
        return parse_yes_no(answer) is not None
    if answer_type == "number":
        return parse_number(answer) is not None
    if answer_type == "choice" and choices:
        return parse_choice(answer, choices) is not None
    return True


def exact(answer: str, references: Sequence[str]) -> float:
    """Gives 1.0 when the normalised answer equals a normalised reference; an empty answer is never right."""
    text = normalise(answer)
    return float(bool(text) and any(text == normalise(reference) for reference in references))


def contained(answer: str, references: Sequence[str]) -> float:
    """Gives 1.0 when a reference's words stand in the answer, in order ("no" is not in "normal")."""
    text = f" {normalise(answer)} "
    return float(any(words and f" {words} " in text for words in map(normalise, references)))


def token_recall(answer: str, references: Sequence[str]) -> float:
    """Gives the best share, over the references, of a reference's words in the answer (repeats clipped)."""
    return max((_overlap(answer, reference)[1] for reference in references), default=0.0)


def f1(answer: str, references: Sequence[str]) -> float:
    """Gives the best word F1 over the references, with clipped counts.

    Source: Rajpurkar et al. 2016, SQuAD, section 6.1 (macro-averaged F1 over bags of tokens).
    """
    best = 0.0
    for reference in references:
        precision, recall = _overlap(answer, reference)
        if precision + recall:
            best = max(best, 2 * precision * recall / (precision + recall))
    return best


def yes_no(answer: str, references: Sequence[str]) -> float | None:
    """Gives 1.0 when the answer's yes or no is the reference's, None when no reference is a yes or no."""
    gold = {parsed for parsed in map(parse_yes_no, references) if parsed}
    return float(parse_yes_no(answer) in gold) if gold else None


def number(answer: str, references: Sequence[str]) -> float | None:
    """Gives 1.0 when the answer's one number is a reference's, None when no reference is a number."""
    gold = {parsed for parsed in map(parse_number, references) if parsed is not None}
    return float(parse_number(answer) in gold) if gold else None


def choice(answer: str, references: Sequence[str], choices: Sequence[str]) -> float | None:
    """Gives 1.0 when the answer names the reference's choice, None when no reference is a choice."""
    gold = {parsed for reference in references if (parsed := parse_choice(reference, choices)) is not None}
    return float(parse_choice(answer, choices) in gold) if gold else None


def parse_yes_no(text: str) -> str | None:
    """Reads a reply as "yes" or "no"; None when it says neither, both, or that it does not know.

    A leading yes or no decides. Otherwise the first clause that decides counts: one with a negation ("there
    is no fracture", "not true") is a no, one that affirms ("a fracture is seen") a yes. "not false" is a yes.
    """
    folded = re.sub(r"\bcan(?:'t|not)\b", "can not", _fold(text))
    folded = re.sub(r"n't\b", " not", folded)
    folded = _BOTH.sub(" ", _LEAD_IN.sub(" ", folded))
    if _UNSURE.search(folded):
        return None
    for clause in re.split(r"[.;,:!?\n]|\bbut\b", folded):
        words = re.findall(r"\w+", clause)
        decided = _decide(words, " ".join(words))
        if decided:
            return decided
    return None


def parse_number(text: str) -> float | None:
    """Reads the one number of a reply ("three cells", "There are 3."); None when it has none or several.

    A reply that is only "none", "no" or "nothing" is 0.
    """
    normal = normalise(text)
    if normal in ("none", "no", "nothing"):
        return 0.0
    values = {float(word) for word in normal.split() if _NUMBER.fullmatch(word)}
    return values.pop() if len(values) == 1 else None


def parse_choice(text: str, choices: Sequence[str]) -> int | None:
    """Reads which choice a reply names: the index, or None when it names none or several.

    In this order: the choice's whole text, a letter ("B", "(b)", "B. text", "answer is B"), the one choice
    whose words stand in the reply. Where one choice's words are part of another's ("red", "dark red") the
    longer wins.
    """
    normal = normalise(text)
    texts = [normalise(option) for option in choices]
    if normal and texts.count(normal) == 1:
        return texts.index(normal)
    letters = "".join(chr(ord("a") + index) for index in range(min(len(choices), 26)))
    patterns = (
        rf"\W*([{letters}])\W*",
        rf"\W*\(?([{letters}])[).:].*",
        rf".*\b(?:answer|option|choice)\b\W*(?:is\b)?\W*([{letters}])\b(?!(?<=\ba)\s+\w).*",
    )
    for pattern in patterns if letters else ():
        match = re.fullmatch(pattern, _fold(text), re.DOTALL)
        if match:
            return letters.index(match[1])
    named = [index for index, option in enumerate(texts) if option and f" {option} " in f" {normal} "]
    longest = [
        index
        for index in named
        if not any(f" {texts[index]} " in f" {texts[other]} " and other != index for other in named)
    ]
    return longest[0] if len(longest) == 1 else None


@lru_cache(maxsize=65536)
def normalise(text: str) -> str:
    """Gives the words of a text in a form in which equal answers are equal.

    Unicode compatibility forms and case are folded, Latin accents and punctuation dropped ("x-ray" is "x
    ray", "Crohn's" is "crohns"), number words become digits ("twenty-one" is "21", "3.0" is "3", "1,000" is
    "1000"), and articles go, unless nothing else is left. Signs that carry meaning (``<``, ``+``, ``%``) stay
    as words.
    """
    folded = re.sub(r"(?<=\w)'(?=\w)", "", _fold(text))
    folded = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", folded)
    folded = "".join(_spaced(folded, index) for index in range(len(folded)))
    words = _numbers_to_digits(folded.split())
    return " ".join([word for word in words if word not in _ARTICLES] or words)


def _fold(text: str) -> str:
    text = unicodedata.normalize("NFKD", text.replace("’", "'").replace("‘", "'"))
    # Only marks on Latin letters go: in other scripts a combining mark is part of the letter.
    text = re.sub(r"(?<=[A-Za-z])[\u0300-\u036f]+", "", text)
    return unicodedata.normalize("NFKC", text).casefold().replace("−", "-")


def _spaced(text: str, index: int) -> str:
    sign = text[index]
    category = unicodedata.category(sign)
    if category[0] not in "PSZC" and category != "Sk":
        return sign
    before, after = text[index - 1 : index], text[index + 1 : index + 2]
    if sign == "." and after.isdigit() and not before.isalpha():
        return sign if before.isdigit() else " 0."
    if category == "Cf":  # zero-width joiners and soft hyphens stand inside words
        return ""
    if sign == "-" and after.isdigit() and not before.isalnum():
        return f" {sign}"
    return f" {sign} " if sign == "%" or category in ("Sm", "Sc") else " "


def _numbers_to_digits(words: list[str]) -> list[str]:
    digits: list[str] = []
    tens = False
    for word in words:
        value = _NUMBER_WORDS.get(word)
        if tens and value is not None and 1 <= value <= 9:
            digits[-1] = str(int(digits[-1]) + value)
        elif value is not None:
            digits.append(str(value))
        else:
            digits.append(_canonical(word) if _NUMBER.fullmatch(word) else word)
        tens = word in _TENS
    return digits


def _canonical(word: str) -> str:
    whole, _, fraction = word.partition(".")
    sign, whole = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    return sign * (whole + fraction != "0") + whole + (f".{fraction}" if fraction else "")


def _overlap(answer: str, reference: str) -> tuple[float, float]:
    said, gold = Counter(normalise(answer).split()), Counter(normalise(reference).split())
    common = sum((said & gold).values())
    return (common / said.total(), common / gold.total()) if common else (0.0, 0.0)


def _decide(words: list[str], clause: str) -> str | None:
    if words and words[0] in _YES:
        return "yes"
    if words and words[0] in _NO:
        return "no"
    negated = any(word in _NEGATORS for word in words)
    if any(word in ("false", "incorrect") for word in words):
        return "yes" if negated else "no"
    if negated:
        return "no"
    affirmed = any(word in _YES for word in words) or _AFFIRMING.search(clause)
    return "yes" if affirmed else None
