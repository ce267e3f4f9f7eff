"""One article: what it is, under which licence, and its figures with captions, pictures and mentions."""

from __future__ import annotations

import re
from collections.abc import Iterator

from medkit.readers.figures.licence import licence_of, normalised, strictest, third_party
from medkit.readers.figures.mentions import mentions_of
from medkit.readers.figures.parts import Article, Figure, Picture
from medkit.readers.figures.text import plain, sentence
from medkit.readers.figures.xml import XLINK, XML, Element, XmlError, local
from medkit.readers.licences import RESERVED

RETRACTED_BY = ("retraction-forward", "retraction", "retracted", "removal-forward", "withdrawal-forward")
_RETRACTED_TITLE = re.compile(
    r"\s*[\[(]?(?:RETRACTED|Retracted|WITHDRAWN|Withdrawn)\b(?: article| paper)?\s*[:\])]"
)
# What stands between a figure and a graphic that isn't the figure's picture.
_FOREIGN = {
    "fig", "fig-group", "table-wrap", "table", "disp-formula", "disp-formula-group", "inline-formula",
    "chem-struct-wrap", "supplementary-material", "caption",
}  # fmt: skip
_SMALL = re.compile(r"thumb|icon|preview", re.IGNORECASE)


def read_article(root: Element) -> Article:
    """Reads an article's tree.

    Raises:
        XmlError: The root is no JATS or NLM article.
    """
    # OAI and some archives wrap the article.
    article = root if local(root) == "article" else next(root.iter("{*}article"), None)
    if article is None:
        raise XmlError(f"the root element is {local(root)!r}, no JATS or NLM article")
    front = _child(article, "front")
    meta = _child(front, "article-meta") if front is not None else None
    licence = licence_of(_children(meta, "permissions")) if meta is not None else ""
    if not licence and meta is not None:
        # NLM 2 has the copyright statement and licence outside of permissions.
        licence = strictest(
            name for tag in ("license", "copyright-statement") for one in _children(meta, tag)
            if (name := normalised(plain(one)))
        )  # fmt: skip
    title = _title(meta)
    figures, elements = _figures(article, licence)
    by_element = dict(zip(elements, figures, strict=True))
    mentions_of(article, by_element)
    return Article(
        ids=_ids(meta),
        kind=article.get("article-type") or "",
        title=title,
        journal=_journal(front),
        language=(article.get(f"{XML}lang") or "").lower(),
        licence=licence,
        retracted=_retracted(article, meta, title),
        figures=figures,
    )


def _figures(article: Element, licence: str) -> tuple[list[Figure], list[Element]]:
    figures: list[Figure] = []
    elements: list[Element] = []
    taken: set[str] = set()
    for node in article.iter("{*}fig", "{*}fig-group"):
        is_group = local(node) == "fig-group"
        # A group is a figure of its own only where it holds the picture itself.
        if is_group and not any(local(child) in ("graphic", "alternatives") for child in node):
            continue
        figure = _figure(node, licence, is_group)
        figure.id = _unique(node.get("id") or f"fig-{len(figures) + 1}", taken)
        figures.append(figure)
        elements.append(node)
    return figures, elements


def _figure(node: Element, licence: str, is_group: bool) -> Figure:
    label_node = _child(node, "label")
    label = plain(label_node) if label_node is not None else ""
    own = _caption(node)
    group = node.getparent()
    group = group if group is not None and local(group) == "fig-group" else None
    shared = _caption(group) if group is not None else ""
    if is_group:
        subs = [_labelled(child) for child in node if local(child) == "fig"]
        caption = " ".join(filter(None, [sentence(own), *subs]))
    else:
        caption = " ".join(filter(None, [sentence(shared) if own else shared, own]))
    permissions = [one for one in node.iter("{*}permissions") if _owner(one) is node]
    credits = [plain(one) for one in node.iter("{*}attrib") if _owner(one) is node]
    statements = [plain(one) for one in permissions]
    foreign = any(third_party(text) for text in (caption, *credits)) or bool(permissions)
    stated = licence_of(permissions)
    if permissions and stated and stated == licence:
        foreign = any(third_party(text) for text in (caption, *credits))
    return Figure(
        id="",
        label=label,
        caption=caption,
        own_caption=own,
        pictures=_pictures(node),
        licence=stated or (RESERVED if foreign and any(statements) else licence),
        third_party=foreign and not stated,
        group=group.get("id") or "" if group is not None else "",
    )


def _labelled(fig: Element) -> str:
    label = _child(fig, "label")
    parts = [plain(label) if label is not None else "", _caption(fig)]
    return " ".join(filter(None, parts))


def _caption(node: Element) -> str:
    """Gives the caption that stands directly in a figure, title and paragraphs, in the article's language."""
    captions = list(_children(node, "caption"))
    if len(captions) > 1:
        # A translated caption names its language; the original mostly doesn't.
        captions.sort(key=lambda one: (one.get(f"{XML}lang") or "en").lower()[:2] != "en")
    return plain(captions[0]) if captions else ""


def _pictures(node: Element) -> list[Picture]:
    forms: dict[object, list[tuple[bool, str]]] = {}
    for graphic in node.iter("{*}graphic", "{*}media"):
        href = (graphic.get(f"{XLINK}href") or "").strip()
        if not href or _owner(graphic) is not node:
            continue
        if local(graphic) == "media" and graphic.get("mimetype") != "image":
            continue
        small = any(_SMALL.search(graphic.get(name) or "") for name in ("specific-use", "content-type"))
        parent = graphic.getparent()
        key: object = graphic.get("id") or graphic
        if graphic.get("alternate-form-of") in forms:
            key = graphic.get("alternate-form-of")
        elif parent is not None and local(parent) == "alternatives":
            key = parent
        forms.setdefault(key, []).append((small, href))
    # Sorting is stable: full-size forms in the order of the document, then thumbnails.
    return [
        Picture(tuple(href for _, href in sorted(found, key=lambda one: one[0]))) for found in forms.values()
    ]


def _owner(node: Element) -> Element | None:
    """Gives the figure or group that a descendant belongs to, None where a table or formula stands between."""
    for above in node.iterancestors():
        name = local(above)
        if name in ("fig", "fig-group"):
            return above
        if name in _FOREIGN:
            return None
    return None


def _unique(name: str, taken: set[str]) -> str:
    # A reply or a second part of a document may use the same ids again.
    unique, number = name, 2
    while unique in taken:
        unique, number = f"{name}-{number}", number + 1
    taken.add(unique)
    return unique


def _ids(meta: Element | None) -> dict[str, str]:
    ids: dict[str, str] = {}
    for node in _children(meta, "article-id") if meta is not None else ():
        kind = {"pmc": "pmcid", "pmcaid": "", "pmcid": "pmcid"}.get(
            node.get("pub-id-type") or "", node.get("pub-id-type")
        )
        text = "".join(node.itertext()).strip()
        if kind in ("pmcid", "pmid", "doi") and text:
            ids.setdefault(kind, text.removeprefix("PMC") if kind == "pmcid" else text)
    return ids


def _title(meta: Element | None) -> str:
    group = _child(meta, "title-group") if meta is not None else None
    title = _child(group, "article-title") if group is not None else None
    return plain(title) if title is not None else ""


def _journal(front: Element | None) -> str:
    if front is None:
        return ""
    title = next(front.iter("{*}journal-title"), None)
    return plain(title) if title is not None else ""


def _retracted(article: Element, meta: Element | None, title: str) -> bool:
    if article.get("article-type") == "retraction":  # the notice, not the article that it retracts
        return False
    if article.get("article-type") == "retracted-article" or _RETRACTED_TITLE.match(title):
        return True
    related = meta.iter("{*}related-article", "{*}related-object") if meta is not None else ()
    return any((one.get("related-article-type") or "").lower() in RETRACTED_BY for one in related)


def _children(node: Element | None, name: str) -> Iterator[Element]:
    return (child for child in node if local(child) == name) if node is not None else iter(())


def _child(node: Element | None, name: str) -> Element | None:
    return next(_children(node, name), None)
