"""Running text of an article's elements: one space between words, formulas and footnotes treated by rule."""

from __future__ import annotations

import re
from collections.abc import Callable

from medkit.readers.figures.xml import Element, Entity, character, local

# Not part of the running text of a caption or paragraph.
SKIPPED = {
    "tex-math", "graphic", "inline-graphic", "media", "fig", "fig-group", "table-wrap", "table-wrap-group", "table",
    "supplementary-material", "inline-supplementary-material", "fn", "permissions", "attrib", "object-id",
    "alt-text", "long-desc", "label", "kwd-group", "trans-title", "trans-abstract", "annotation",
    "annotation-xml", "private-char",
}  # fmt: skip
BLOCKS = {
    "p", "title", "subtitle", "list", "list-item", "sec", "def-list", "def-item", "def", "term", "disp-formula",
    "disp-quote", "break", "caption", "boxed-text", "verse-group", "speech", "statement", "td", "th", "tr",
}  # fmt: skip
_NUMBER = re.compile(r"[+\-−–]?\d+(?:[.,]\d+)?")
_CITATION = re.compile(r"[\s\d,;\-–—‐‑\[\]()*]*")
_ENDS = (".", "!", "?", ":", ";", "…")
# Thin, hair, figure, no-break ... spaces; zero-width characters and soft hyphens are dropped.
_SPACES = re.compile(r"[\s\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
_NOTHING = re.compile(r"[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
_EMPTY_BRACKETS = re.compile(r"\s*(?:\[[\s,;–—-]*\]|\([\s,;–—-]*\))")
_BEFORE_STOP = re.compile(r"\s+([,.;:!?)\]])")
_TEX_BODY = re.compile(r"\\begin\{document\}(.*?)\\end\{document\}", re.DOTALL)

Mark = Callable[[Element], str]


def plain(node: Element, mark: Mark | None = None) -> str:
    """Gives an element's running text.

    Superscript numbers after a letter or digit are written with ``^`` ("10^-3"), so that powers don't glue;
    numeric citations and what only a browser shows (TeX preambles, inline graphics) are left out.

    Args:
        node: For example a caption or a paragraph.
        mark: Called with every ``xref``; what it gives stands before the reference's own text and, after it,
            is closed by the same text. Characters of Unicode's private use area are free for it.
    """
    parts: list[str] = []
    _collect(node, parts, mark)
    return tidy("".join(parts))


def tidy(text: str) -> str:
    """Brings spaces of every kind to single ones and closes gaps that left-out parts leave."""
    text = _NOTHING.sub("", text)
    text = _SPACES.sub(" ", text)
    text = _EMPTY_BRACKETS.sub("", text)
    return _BEFORE_STOP.sub(r"\1", text).strip()


def sentence(text: str) -> str:
    """Ends a title as a sentence, so that what follows doesn't run into it."""
    return text if not text or text.endswith(_ENDS) else f"{text}."


def _collect(node: Element, parts: list[str], mark: Mark | None) -> None:
    if node.text:
        parts.append(node.text)
    for child in node:
        _child(child, parts, mark)
        if child.tail:
            parts.append(child.tail)


def _child(child: Element, parts: list[str], mark: Mark | None) -> None:
    name = local(child)
    if name == "xref":
        _reference(child, parts, mark)
    elif name == "sup":
        inner = _inner(child, mark)
        glued = bool(parts) and parts[-1][-1:].isalnum() and _NUMBER.fullmatch(inner.strip())
        parts.append(f"^{inner.strip()}" if glued else inner)
    elif name in ("alternatives", "inline-formula", "disp-formula"):
        if name == "disp-formula":
            parts.append(" ")
        parts.append(_formula(child, mark))
        if name == "disp-formula":
            parts.append(" ")
    elif name == "title":
        parts.append(f" {sentence(tidy(_inner(child, mark)))} ")
    elif name in BLOCKS:
        parts.append(" ")
        _collect(child, parts, mark)
        parts.append(" ")
    elif not name:
        if isinstance(child, Entity):
            parts.append(character(child.name))
    elif name not in SKIPPED:
        _collect(child, parts, mark)


def _inner(node: Element, mark: Mark | None) -> str:
    parts: list[str] = []
    _collect(node, parts, mark)
    return "".join(parts)


def _reference(node: Element, parts: list[str], mark: Mark | None) -> None:
    text = _inner(node, None)
    if node.get("ref-type") == "bibr" and _CITATION.fullmatch(text):
        return
    sign = mark(node) if mark else ""
    parts.append(f"{sign}{text}{sign}")


def _formula(node: Element, mark: Mark | None) -> str:
    """Gives one of a formula's forms: MathML's characters, else text, else TeX without its preamble."""
    children = {local(child): child for child in node}
    if "math" in children:
        return "".join("".join(children["math"].itertext()).split())
    if "alternatives" in children:
        return _formula(children["alternatives"], mark)
    if "textual-form" in children:
        return _inner(children["textual-form"], mark)
    if "tex-math" in children:
        tex = "".join(children["tex-math"].itertext())
        body = _TEX_BODY.search(tex)
        return (body.group(1) if body else tex).replace("$", " ")
    return _inner(node, mark)
