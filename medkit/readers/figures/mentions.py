"""Which sentences of an article speak of which figure: by cross-reference, by range, by panel, by group."""

from __future__ import annotations

import re

from medkit.readers.figures.parts import Figure, Mention
from medkit.readers.figures.text import plain
from medkit.readers.figures.xml import Element, local

MOST_CHARACTERS = 1_000
MOST_IN_RANGE = 50
_SCOPES = ("article", "sub-article", "response")
# Each cross-reference of a paragraph gets a character of its own. Symbol fonts leave characters of the first
# private use area in articles; nobody uses the plane that these are of.
_FIRST, _LAST = 0xF0000, 0xFFFFD
_SIGN = re.compile("[\U000f0000-\U000ffffd]")
_DASH = r"\s*[-–—−‐‑‒]\s*"
_BETWEEN = re.compile(rf"(?:{_DASH}|\s+(?:to|through)\s+)(?:Fig(?:ure)?s?\.?\s*)?", re.IGNORECASE)
_RANGE = re.compile(
    rf"(?P<low>S?\d+)(?:\s*[A-Za-z])?(?:{_DASH}|\s+(?:to|through)\s+)(?P<high>S?\d+)(?![\d.])", re.IGNORECASE
)
_NUMBER = re.compile(r"(?:(?<![A-Z])(?P<prefix>[A-Z]))?(?P<number>\d+)")
_KIND = re.compile(r"[A-Za-z]{3,}")
_ENDING = re.compile(r"[.!?][)\]\"'”’]*\s+(?=[\"'“‘(\[]?[A-Z0-9\U000f0000-\U000ffffd])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Figs?|figs?|Eqs?|Refs?|Tabs?|Nos?|no|vs|cf|ca|al|approx|resp|Dr|Prof|St|sp|spp|subsp|var|Suppl|Supp|Vol|"
    r"pp|e\.g|i\.e|a\.k\.a|b\.w|i\.v|i\.p)|(?<![\w.])[A-Z])\.$"
)


def mentions_of(article: Element, figures: dict[Element, Figure]) -> None:
    """Gives every figure the sentences that refer to it, in the order of the text."""
    targets = _Targets(article, figures)
    seen: set[Element] = set()
    for xref in article.iter("{*}xref"):
        if not targets.may_be(xref):
            continue
        block, quiet = _block(xref)
        if block in seen:
            continue
        seen.add(block)
        _read_block(block, quiet, targets)


class _Targets:
    """What cross-references may point at, by the part of the document that their ids belong to."""

    def __init__(self, article: Element, figures: dict[Element, Figure]) -> None:
        self.ids: dict[Element, dict[str, list[tuple[Figure, str]]]] = {}
        self.order: dict[Element, dict[tuple[str, str, int], Figure]] = {}
        self.known: set[str] = set()
        for node, figure in figures.items():
            scope = _scope(node)
            self._add(scope, node.get("id"), figure, "rid")
            key = _numbered(figure.label)
            if key:
                self.order.setdefault(scope, {}).setdefault(key, figure)
        for group in article.iter("{*}fig-group"):
            # An empty reference to the group is one to each of its figures.
            name, scope = group.get("id"), _scope(group)
            if name and group not in figures:
                for child in group:
                    if child in figures:
                        self._add(scope, name, figures[child], "group")

    def _add(self, scope: Element, name: str | None, figure: Figure, by: str) -> None:
        if name:
            self.known.add(name)
            self.ids.setdefault(scope, {}).setdefault(name, []).append((figure, by))

    def may_be(self, xref: Element) -> bool:
        return xref.get("ref-type") in ("fig", "figure") or any(
            name in self.known for name in (xref.get("rid") or "").split()
        )

    def of(self, xref: Element) -> list[tuple[Figure, str]]:
        """Gives the figures that a reference names, with how."""
        scope = _scope(xref)
        found: list[tuple[Figure, str]] = []
        for name in (xref.get("rid") or "").split():
            exact = self._lookup(scope, name)
            if exact:
                found += exact
                continue
            # Some files give panels ids of their own that stand nowhere: fig2A, fig2-B, fig2_c.
            whole = re.sub(r"(?<=\d)[-_.]?[A-Za-z]$", "", name)
            if xref.get("ref-type") in ("fig", "figure") and whole != name:
                found += [(figure, "panel") for figure, _ in self._lookup(scope, whole)[:1]]
        return found

    def between(self, xref: Element, low: str, high: str, ends: bool = False) -> list[Figure]:
        """Gives the figures between two labels; none where either end is no figure of the same kind."""
        order = self.order.get(_scope(xref), {})
        first, last = _numbered(low), _numbered(high)
        if first is None or last is None or first[:2] != last[:2] or first not in order or last not in order:
            return []
        if not 0 < last[2] - first[2] <= MOST_IN_RANGE:
            return []
        numbers = range(first[2] + (not ends), last[2] + ends)
        return [order[key] for number in numbers if (key := (*first[:2], number)) in order]

    def _lookup(self, scope: Element, name: str) -> list[tuple[Figure, str]]:
        own = self.ids.get(scope, {}).get(name)
        if own:
            return own
        # A reply refers to the main article's figures; ids that stand in several other parts are no answer.
        others = [ids[name] for ids in self.ids.values() if name in ids]
        return others[0] if len(others) == 1 else []


def _read_block(block: Element, quiet: bool, targets: _Targets) -> None:
    references: list[Element] = []

    def mark(xref: Element) -> str:
        if not targets.may_be(xref) or len(references) >= _LAST - _FIRST:
            return ""
        references.append(xref)
        return chr(_FIRST + len(references) - 1)

    text = plain(block, mark)
    spans = _spans(text, len(references))
    pointed: list[tuple[int, Figure, str]] = []
    named = [targets.of(xref) for xref in references]
    for index, xref in enumerate(references):
        if index not in spans:
            continue
        start, end = spans[index]
        pointed += [(start, figure, by) for figure, by in named[index]]
        own = _RANGE.search(_SIGN.sub("", text[start:end]))
        if own and named[index]:
            kind = _kind(named[index][0][0].label)
            low, high = f"{kind} {own['low']}", f"{kind} {own['high']}"
            pointed += [(start, figure, "range") for figure in targets.between(xref, low, high, ends=True)]
        after = spans.get(index + 1)
        if after and named[index] and named[index + 1] and _BETWEEN.fullmatch(text[end : after[0]]):
            ends_at = named[index][-1][0].label, named[index + 1][0][0].label
            pointed += [(start, figure, "range") for figure in targets.between(xref, *ends_at)]
    sentences = None
    for start, figure, by in pointed:
        figure.referenced.add(by)
        if quiet:
            continue
        if sentences is None:
            sentences = _sentences(text)
        found = next((text[low:high] for low, high in sentences if low <= start < high), "")
        clean = _labelled(found, references, named)
        if clean and clean not in (one.text for one in figure.mentions):
            figure.mentions.append(Mention(clean[:MOST_CHARACTERS], by))


def _spans(text: str, count: int) -> dict[int, tuple[int, int]]:
    """Gives where each reference's text stands, its signs included."""
    spans: dict[int, tuple[int, int]] = {}
    for match in _SIGN.finditer(text):
        index = ord(match.group()) - _FIRST
        if index < count:
            start = spans[index][0] if index in spans else match.start()
            spans[index] = (start, match.end())
    return spans


def _labelled(text: str, references: list[Element], named: list[list[tuple[Figure, str]]]) -> str:
    """Takes the signs out; an empty reference is said by its figure's label."""

    def said(match: re.Match[str]) -> str:
        index = ord(match.group()[0]) - _FIRST
        figures = named[index] if index < len(named) else []
        return figures[0][0].label.rstrip(".:") if figures else ""

    text = re.sub("([\U000f0000-\U000ffffd])\\1", said, text)
    return " ".join(_SIGN.sub("", text).split())


def _sentences(text: str) -> list[tuple[int, int]]:
    cuts = [0]
    for match in _ENDING.finditer(text):
        before = _SIGN.sub("", text[max(0, match.start() - 30) : match.start() + 1])
        if text[match.start()] == "." and _ABBREVIATION.search(before):
            continue
        cuts.append(match.end())
    return list(zip(cuts, [*cuts[1:], len(text)], strict=True))


def _block(xref: Element) -> tuple[Element, bool]:
    """Gives the paragraph or cell that a reference stands in, and whether it is no running text."""
    block: Element | None = None
    quiet = False
    for above in xref.iterancestors():
        name = local(above)
        if block is None and name in ("p", "title", "td", "th", "label", "term", "subject", "article-title"):
            block = above
        if name in ("caption", "table-wrap", "ref-list", "title"):
            quiet = True
        if name in ("fig", "sec", "body", "back"):
            break
    parent = xref.getparent()
    return (block if block is not None else parent if parent is not None else xref), quiet


def _scope(node: Element) -> Element:
    top = node
    for above in node.iterancestors():
        top = above
        if local(above) in _SCOPES:
            return above
    return top


def _numbered(label: str) -> tuple[str, str, int] | None:
    """Gives ("fig", "S", 3) of "Fig. S3.", so that ranges count within one kind of figure."""
    match = _NUMBER.search(label.upper())
    if match is None or _NUMBER.search(label.upper(), match.end()):
        return None
    return _kind(label[: match.start()]), match["prefix"] or "", int(match["number"])


def _kind(label: str) -> str:
    word = _KIND.search(label)
    kind = word.group().lower() if word else "fig"
    return "fig" if kind.startswith("fig") else kind
