"""The answer cleaners that descend from the VQA challenge: punctuation, number words, articles, contractions.

Source: Antol et al. 2015, VQA: Visual Question Answering, section 3 and the challenge's evaluation page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
ARTICLES = frozenset({"a", "an", "the"})
DIGITS: Mapping[str, str] = {"none": "0"} | {
    word: str(value)
    for value, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
}

_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
# The references give a flag where the count belongs: only so many periods go in one pass.
PERIODS_A_PASS = 32

_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _missing_one_apostrophe() -> dict[str, str]:
    table = {}
    for whole in _CONTRACTED.split():
        for place, sign in enumerate(whole):
            if sign == "'":
                table[whole[:place] + whole[place + 1 :]] = whole
    return table


# One form of the references' table is upside down and stays so.
CONTRACTIONS: Mapping[str, str] = _missing_one_apostrophe() | {"somebody'd": "somebodyd"}


def clear_punctuation(text: str, periods: re.Pattern[str] = _PERIOD) -> str:
    """Gives the text without punctuation; each sign either vanishes or becomes a space, in all its places.

    A sign vanishes where one of its places touches a space or where the text has a comma between digits;
    else it becomes a space. Then the first 32 periods that no digit follows vanish.
    """
    joined = bool(_DIGIT_COMMA_DIGIT.search(text))
    cleared = text
    for sign in PUNCTUATION:
        touches = f"{sign} " in text or f" {sign}" in text
        cleared = cleared.replace(sign, "" if touches or joined else " ")
    return periods.sub("", cleared, count=PERIODS_A_PASS)


def clear_words(text: str) -> str:
    """Gives lower-cased words with number words as digits, without articles, contractions repaired."""
    words = (DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)
