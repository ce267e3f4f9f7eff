"""The licence that an article or a figure states, by one name; what it allows says ``medkit.readers.licences``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from medkit.readers.figures.text import plain
from medkit.readers.figures.xml import XLINK, Element, local
from medkit.readers.licences import RESERVED

_URL = re.compile(
    r"creativecommons\.org/(?:licen[cs]es/(?P<terms>by(?:-n[cd]|-sa)*)|publicdomain/(?P<public>zero|mark))"
    r"(?:/(?P<version>\d\.\d))?",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"\bCC[ -]?(?:(?P<zero>0|Zero)|(?P<terms>BY(?:[ -]N[CD]|[ -]SA)*))\b(?:[ -]?(?P<version>\d\.\d))?",
    re.IGNORECASE,
)
_VERSION = re.compile(r"\b([1-4]\.0)\b")
_PERMISSION = re.compile(
    r"\b(?:(?:re)?(?:produced|printed|published|used|adapted|modified|taken)\b[^.;]{0,120}?"
    r"\b(?:with|by|under)\s+(?:kind\s+|the\s+|written\s+)*permission)|©|\(c\)\s*(?:19|20)\d\d|\bcopyright\b",
    re.IGNORECASE,
)
# The more of these a licence has, the less it allows.
_STRICT = ("NC", "ND", "SA")


def licence_of(permissions: Iterable[Element]) -> str:
    """Gives the licence that ``permissions`` elements state: "CC BY 4.0", "CC0 1.0", "Public domain", or "".

    A figure's permissions without any licence mean ``RESERVED`` to its caller. Of several licences the one
    that allows least counts.
    """
    found: list[str] = []
    for node in permissions:
        for licence in node.iter("{*}license"):
            found.append(_of_licence(licence))
        # PMC also tags licences without a ``license`` element.
        found += [normalised("".join(one.itertext())) for one in node.iter("{*}license_ref")]
    named = [name for name in found if name]
    return strictest(named)


def normalised(text: str) -> str:
    """Gives the licence that a URL, a code ("CC BY-NC") or a sentence names, or ""."""
    match = _URL.search(text) or _CODE.search(text)
    if match:
        groups = match.groupdict()
        version = groups["version"] or ""
        if groups.get("public") == "mark":
            return "Public domain"
        if groups.get("public") or groups.get("zero"):
            return f"CC0 {version or '1.0'}"
        terms = groups["terms"].upper().replace(" ", "-").removeprefix("BY").strip("-")
        return " ".join(filter(None, ("CC BY" + (f"-{terms}" if terms else ""), version)))
    low = text.lower()
    if "creative commons" in low or "creativecommons" in low:
        if "zero" in low or "cc0" in low or "public domain dedication" in low:
            return "CC0 1.0"
        if "attribution" in low:
            parts = ["CC BY"]
            if re.search(r"non-?\s?commercial", low):
                parts.append("NC")
            if re.search(r"no-?\s?deriv", low):
                parts.append("ND")
            elif re.search(r"share-?\s?alike", low):
                parts.append("SA")
            version = _VERSION.search(text)
            return "-".join(parts) + (f" {version.group(1)}" if version else "")
    if "public domain" in low:
        return "Public domain"
    return ""


def strictest(names: Iterable[str]) -> str:
    """Gives the licence that allows least; of the same terms the one with a version."""
    kept = ""
    for name in names:
        if not kept or _rank(name) > _rank(kept):
            kept = name
    return kept


def third_party(text: str) -> bool:
    """Says whether a caption or credit line names a right that the article's licence can't pass on."""
    return _PERMISSION.search(text) is not None


def _of_licence(node: Element) -> str:
    links = [node.get(f"{XLINK}href") or ""]
    links += [one.get(f"{XLINK}href") or "" for one in node.iter() if local(one) in ("ext-link", "uri")]
    links += ["".join(one.itertext()) for one in node.iter("{*}license_ref")]
    by_link = strictest(name for link in links if (name := normalised(link)))
    text = plain(node)
    by_text = normalised(text)
    if not by_link or _terms(by_link) == _terms(by_text):
        return max(by_link, by_text, key=len)
    # A sentence that forbids more than its link: the sentence was written for this article.
    return strictest([by_link, by_text]) if by_text else by_link


def _terms(licence: str) -> list[str]:
    return licence.split(" ")[1].split("-") if licence.startswith("CC BY") else []


def _rank(licence: str) -> tuple[int, int, int]:
    if licence == RESERVED:
        return (-1, 99, 0)
    if licence.startswith(("CC BY", "CC0", "Public domain")):
        terms = _terms(licence)
        order = 0 if licence.startswith("Public") else 1 if licence.startswith("CC0") else 2
        strict = sum(4 - index for index, term in enumerate(_STRICT) if term in terms)
        return (0, order + strict, len(licence.split(" ")))
    return (-1, 50, 0)
