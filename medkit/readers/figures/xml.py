"""Article XML from bytes, without network, DTD or external entity, and within limits."""

from __future__ import annotations

import re
from html.entities import html5
from typing import TypeAlias

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]  # compiled, without stubs

MAX_BYTES = 32 * 1024 * 1024
XLINK = "{http://www.w3.org/1999/xlink}"
XML = "{http://www.w3.org/XML/1998/namespace}"

Element: TypeAlias = etree._Element
Entity: TypeAlias = etree._Entity

# Character entities that a publisher's file takes from its DTD: the DTD is never read, so they are written
# as characters. JATS and NLM use the ISO sets, whose names HTML has too.
_ENTITY = re.compile(rb"&([A-Za-z][A-Za-z0-9.]*);")
_PARSER = etree.XMLParser(
    resolve_entities=False,
    no_network=True,
    load_dtd=False,
    dtd_validation=False,
    huge_tree=False,
    remove_comments=True,
    remove_pis=True,
)
_KEPT = {b"amp", b"lt", b"gt", b"quot", b"apos"}


class XmlError(Exception):
    """The bytes are no article that may be read; the message says why, without quoting the text."""


def parse(data: bytes, most_bytes: int = MAX_BYTES) -> Element:
    """Gives the root element of an article's XML.

    Entities are never resolved from a file or the network, and those that the document declares itself are
    not expanded: a reference that isn't a known character stays an entity node, which ``character`` reads.

    Raises:
        XmlError: Too many bytes, not well formed, or nested or expanded beyond the parser's limits.
    """
    if len(data) > most_bytes:
        raise XmlError(f"{len(data)} bytes, more than the limit of {most_bytes}")
    try:
        return _root(data)
    except etree.XMLSyntaxError as error:
        if error.code != etree.ErrorTypes.ERR_UNDECLARED_ENTITY:
            raise XmlError(_said(error)) from None
    # Without a DOCTYPE an unknown entity is an error of the whole document.
    try:
        return _root(_ENTITY.sub(_as_reference, data))
    except etree.XMLSyntaxError as error:
        raise XmlError(_said(error)) from None


def character(name: str) -> str:
    """Gives the characters of a named entity, "" for one that no standard set knows."""
    return html5.get(f"{name};", "")


def local(node: Element) -> str:
    """Gives an element's name without its namespace; "" for comments and processing instructions."""
    tag = node.tag
    if not isinstance(tag, str):
        return ""
    return tag.rpartition("}")[2] if tag[0] == "{" else tag


def _root(data: bytes) -> Element:
    root = etree.fromstring(data, _PARSER)
    if root is None:
        raise XmlError("holds no element")
    return root


def _as_reference(match: re.Match[bytes]) -> bytes:
    name = match.group(1)
    if name in _KEPT:
        return match.group(0)
    return "".join(f"&#{ord(one)};" for one in character(name.decode("ascii"))).encode() or b" "


def _said(error: etree.XMLSyntaxError) -> str:
    # libxml2 quotes names of the document at most; a line's place is enough to find the fault.
    line, column = error.position
    return f"not well formed at line {line}, column {column} ({etree.ErrorTypes._getName(error.code)})"
