"""SLAKE as lmms-eval scores it: equality of normalised text, in English and Chinese.

Source: Liu et al. 2021, SLAKE; lmms-eval 0.7, tasks ``slake``, ``slake_en``, ``slake_zh``.
"""

from __future__ import annotations

import re
import string

_BRACKETED = re.compile(r"\([^)]*\)|（[^）]*）")
# Full-width forms of ASCII's signs but the full stop, and CJK's own.
_WIDE = "".join(chr(ord(sign) + 0xFEE0) for sign in string.punctuation if sign != ".") + "。｡、《》【】"
_PUNCTUATION = re.compile("[" + re.escape(string.punctuation + _WIDE) + "]")

_SAME: dict[str, str] = {"x ray": "xray"}
_SAME |= dict.fromkeys(
    ["yes", "yeah", "yep", "true", "是", "是的", "有", "包含", "可以", "能", "会", "正常"], "yes"
)
# "Abnormal" counts as a no whatever was asked: the definition is the published one.
_SAME |= dict.fromkeys(
    ["no", "nope", "false", "否", "不是", "没有", "无", "不包含", "不能", "不会", "不可以", "不正常", "异常"],
    "no",
)


def normalise(text: str | None) -> str:
    """Gives the text as it is compared.

    Case, outer spaces, bracketed parts and punctuation go. A text that is a yes or a no as a whole becomes
    that word. Numbers, articles, plurals and the order of words stay.
    """
    words = _PUNCTUATION.sub(" ", _BRACKETED.sub(" ", (text or "").strip().lower())).split()
    joined = " ".join(words)
    return _SAME.get(joined, joined)


def slake_match(said: str, gold: str | None) -> bool:
    """Says whether reply and reference are equal once normalised."""
    return normalise(said) == normalise(gold)
