"""Which file holds a figure's picture: by the rules under which publishers and PMC name them, else none.

A wrong picture is worse than no picture: a name never matches by its beginning ("fig1" is not "fig10"), and
two files that fit equally well fit not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

from medkit.readers.figures.parts import Picture

# PMC packs a full-size .jpg and a small .gif of the same picture.
ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif")
# Endings that a name may have although the file has another one: TIFF and vector originals are converted.
_WRITTEN = (*ENDINGS, ".eps", ".ps", ".pdf", ".svg", ".ai", ".ppt", ".pptx", ".jp2", ".wmf", ".emf")
_PLACE = re.compile(r"g\d{3}")


@dataclass(frozen=True)
class Found:
    """The file of a picture, or why there is none.

    Attributes:
        name: A key of the files that were given, or "".
        rule: How it was found ("exact", "ending", "case", "doi"), or the reason for the ledger.
    """

    name: str
    rule: str


def find(picture: Picture, files: Mapping[str, str]) -> Found:
    """Finds a picture's file.

    Args:
        picture: Its names, the best form first.
        files: Lower-case name -> name, of the files that belong to the article; a lower-case name that two
            files share maps to "".
    """
    exact = set(files.values())
    ambiguous = False
    for href in picture.names:
        name = last_part(href)
        if not name:
            continue
        for rule, candidates in _candidates(name, href):
            for candidate in candidates:
                if candidate in exact:
                    return Found(candidate, rule)
                lower = candidate.lower()
                if lower in files:
                    if files[lower]:
                        return Found(files[lower], "case" if rule == "exact" else rule)
                    ambiguous = True
    return Found("", "image ambiguous" if ambiguous else "image missing")


def last_part(href: str) -> str:
    """Gives the file name that a link ends in: of ``info:doi/10.1371/x.g001`` it is ``x.g001``."""
    path = unquote(href.strip()).split("#")[0].split("?")[0].replace("\\", "/")
    return PurePosixPath(path).name if not path.endswith("/") else ""


def index(names: Iterable[str]) -> dict[str, str]:
    """Gives lower-case name -> name; a lower-case name of two files maps to ""."""
    files: dict[str, str] = {}
    for name in names:
        lower = name.lower()
        files[lower] = "" if lower in files and files[lower] != name else name
    return files


def belongs(name: str, article: Iterable[str]) -> bool:
    """Says whether a file in a folder of many articles is certainly of this one: it has its number in its name.

    Args:
        name: The picture's file name.
        article: The article's file name and identifiers.
    """
    numbers = {max(runs, key=len) for text in article if (runs := re.findall(r"\d{4,}", text))}
    return any(re.search(rf"(?<!\d){number}(?!\d)", name) for number in numbers)


def _candidates(name: str, href: str) -> Iterable[tuple[str, list[str]]]:
    stem, ending = _split(name)
    yield "exact", [name] if ending in ENDINGS else []
    # PLOS: the XML says info:doi/10.1371/journal.pone.0046493.g001, its packages pone.0046493.g001.tif.
    stems = [stem if ending else name]
    if stems[0].startswith("journal."):
        stems.append(stems[0].removeprefix("journal."))
    elif href.startswith("info:doi/") or _PLACE.search(name):
        stems.append(f"journal.{stems[0]}")
    yield "ending", [stem + suffix for stem in stems for suffix in ENDINGS]
    place = stems[0].rpartition(".")[2]
    if href.startswith("info:doi/") and _PLACE.fullmatch(place):
        yield "doi", [place + suffix for suffix in ENDINGS]


def _split(name: str) -> tuple[str, str]:
    """Splits off a picture's ending; "ABI2008-897019.001" has none."""
    stem, dot, ending = name.rpartition(".")
    lower = f".{ending.lower()}"
    return (stem, lower) if dot and stem and lower in _WRITTEN else (name, "")
