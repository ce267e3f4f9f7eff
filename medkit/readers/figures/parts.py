"""The parts of an article that a reader of figures gives."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Mention:
    """A sentence that refers to a figure.

    Attributes:
        text: The sentence.
        by: "rid" named by the reference, "range" between the ends of one, "panel" by an id of one of its
            panels, "group" as a member of the group that is named.
    """

    text: str
    by: str


@dataclass(frozen=True)
class Picture:
    """One picture of a figure: the names under which its file may lie, the best form first."""

    names: tuple[str, ...]


@dataclass
class Figure:
    """One figure.

    Attributes:
        id: Its XML id, or "fig-N" by its place in the document; unique within the article.
        label: As printed: "Figure 2.".
        caption: The group's caption, then its own; "" when neither has text.
        own_caption: Its own caption alone.
        pictures: In document order.
        mentions: Sentences of the text that refer to it.
        referenced: How cross-references name it, in captions too: any of ``Mention.by``; empty for never.
        licence: Its own licence where it states one, else the article's; "" unknown.
        third_party: Whether caption, credit or permissions name someone else's right.
        group: The id of its ``fig-group``, or "".
    """

    id: str
    label: str = ""
    caption: str = ""
    own_caption: str = ""
    pictures: list[Picture] = field(default_factory=list)
    mentions: list[Mention] = field(default_factory=list)
    referenced: set[str] = field(default_factory=set)
    licence: str = ""
    third_party: bool = False
    group: str = ""


@dataclass
class Article:
    """One article's figures and what decides whether they may be used.

    Attributes:
        ids: ``pmcid``, ``pmid``, ``doi`` as far as they are given, without prefixes.
        kind: The article type ("research-article").
        licence: By ``licence.normalised``; "" unknown.
        retracted: Whether this article was retracted (a notice that retracts another is not).
    """

    ids: dict[str, str]
    kind: str
    title: str
    journal: str
    language: str
    licence: str
    retracted: bool
    figures: list[Figure]
