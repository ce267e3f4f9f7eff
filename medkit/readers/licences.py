"""Licences by one name, what each allows, and the filter that keeps what a domain may not use out of a dataset.

A record's licence is the record's own or, where it states none, the domain card's. What isn't in the table is
unknown, and unknown allows nothing: a licence that nobody could read is no permission.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from medkit.readers import Merged, Record, Rejected

USES = ("any", "research", "commercial")
RESERVED = "all rights reserved"


@dataclass(frozen=True)
class Licence:
    """What a licence allows.

    Attributes:
        name: Its one name; "" for a licence that isn't known.
        research: Whether a model may be trained on it for research.
        commercial: Whether it may also be sold or used in a business, adapted as training adapts it.
        hub: Its name on the Hugging Face hub, "" where that has none.
        also: Other spellings; case and punctuation don't count.
    """

    name: str = ""
    research: bool = False
    commercial: bool = False
    hub: str = ""
    also: tuple[str, ...] = ()

    def allows(self, use: str) -> bool:
        """Says whether it allows one of ``USES``."""
        return use == "any" or (self.commercial if use == "commercial" else self.research)


UNKNOWN = Licence()
# Sources: the licences' own texts; names as in the SPDX list (spdx.org/licenses) where it has them.
LICENCES = (
    Licence("Public domain", True, True, "pddl", ("publicdomain", "public domain mark", "public domain mark 1.0",
            "PDM", "PDM 1.0", "CC PDM 1.0", "US government work", "creativecommons.org/publicdomain/mark/1.0")),
    Licence("MIT", True, True, "mit", ("opensource.org/licenses/MIT", "expat", "MIT-0")),
    Licence("Apache-2.0", True, True, "apache-2.0", ("apache 2", "apache license 2.0", "apache license version 2.0",
            "apache.org/licenses/LICENSE-2.0")),
    Licence("BSD-2-Clause", True, True, "bsd-2-clause", ("opensource.org/licenses/BSD-2-Clause",)),
    Licence("BSD-3-Clause", True, True, "bsd-3-clause", ("bsd", "opensource.org/licenses/BSD-3-Clause")),
    Licence("ISC", True, True, "isc"),
    Licence("Unlicense", True, True, "unlicense", ("the unlicense",)),
    Licence("MPL-2.0", True, True, "mpl-2.0"),
    Licence("GPL-2.0", True, True, "gpl-2.0", ("GPL-2.0-only", "GPL-2.0-or-later")),
    Licence("GPL-3.0", True, True, "gpl-3.0", ("GPL-3.0-only", "GPL-3.0-or-later")),
    Licence("LGPL-3.0", True, True, "lgpl-3.0", ("LGPL-3.0-only", "LGPL-3.0-or-later")),
    Licence("AGPL-3.0", True, True, "agpl-3.0", ("AGPL-3.0-only", "AGPL-3.0-or-later")),
    Licence("GFDL", True, True, "gfdl", ("GFDL-1.2", "GFDL-1.3", "GFDL-1.2-or-later", "GFDL-1.3-or-later")),
    Licence("PDDL-1.0", True, True, "pddl", ("opendatacommons.org/licenses/pddl/1.0",)),
    Licence("ODC-By-1.0", True, True, "odc-by", ("ODC-By", "opendatacommons.org/licenses/by/1.0")),
    Licence("ODbL-1.0", True, True, "odbl", ("ODbL", "opendatacommons.org/licenses/odbl/1.0")),
    Licence("CDLA-Permissive-1.0", True, True, "cdla-permissive-1.0"),
    Licence("CDLA-Permissive-2.0", True, True, "cdla-permissive-2.0"),
    Licence("CDLA-Sharing-1.0", True, True, "cdla-sharing-1.0"),
    Licence("C-UDA-1.0", True, True, "c-uda"),
    Licence("OGL-UK-3.0", True, True, "", ("open government licence v3.0",)),
    Licence("etalab-2.0", True, True, "etalab-2.0", ("licence ouverte 2.0",)),
    Licence("PhysioNet Credentialed Health Data License 1.5.0", True, False, "", (
            "physionet credentialed health data license", "physionet.org/content/view-license")),
    Licence("PhysioNet Restricted Health Data License 1.5.0", True, False, "", (
            "physionet restricted health data license",)),
    Licence("Stanford University Dataset Research Use Agreement", True, False),
    Licence("research only", True, False, "", ("for research only", "research use only", "for research use only",
            "non-commercial", "noncommercial", "non-commercial use only", "for non-commercial use only",
            "academic use only", "for academic use only", "non-commercial research", "research")),
    Licence("yours", True, True, "", ("own", "own data", "ours")),
    Licence(RESERVED, False, False, "", ("proprietary", "copyrighted", "copyright", "closed")),
)  # fmt: skip
# Words that say no more about a Creative Commons licence than its terms do. Any other word may limit it.
_FILLERS = frozenset((
    "creative", "commons", "cc", "license", "licence", "public", "international", "unported", "generic", "universal",
    "legalcode", "deed", "igo", "this", "work", "dataset", "data", "image", "article", "is", "are", "licensed",
    "available", "distributed", "released", "under", "a", "the", "terms", "of",
    "us", "uk", "de", "fr", "it", "es", "nl", "at", "ch", "au", "ca", "jp", "br",
))  # fmt: skip
_URL = re.compile(r"(?:https?://)?(?:www\.)?(?P<place>[\w-]+(?:\.[\w-]+)+/\S*?)(?:\.txt|\.html?)?/?")
_CC_PLACE = re.compile(
    r"creativecommons\.org/(?:licen[cs]es/(?P<terms>by(?:-n[cd]|-sa)*)|publicdomain/(?P<zero>zero))"
    r"(?:/(?P<version>\d\.\d))?(?:/[a-z]{2,3})?(?:/(?:deed|legalcode)(?:\.[a-z-]+)?)?",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def read_licence(text: str) -> Licence:
    """Gives what a name, an SPDX expression, a Creative Commons code or a licence's address stands for.

    Of ``A AND B`` both must allow a use, of ``A OR B`` one. A text of which a word isn't understood is
    ``UNKNOWN``: "CC BY, except figure 2" isn't CC BY.
    """
    parts = re.split(r"\s+OR\s+", text.strip())
    if len(parts) > 1:
        found = [read_licence(part) for part in parts]
        known = [one for one in found if one.name]
        name = " OR ".join(one.name for one in known)
        return Licence(name, any(one.research for one in known), any(one.commercial for one in known))
    parts = re.split(r"\s+AND\s+|\s*;\s*", text.strip())
    if len(parts) > 1:
        found = [read_licence(part) for part in parts]
        if not all(one.name for one in found):
            return UNKNOWN
        name = " AND ".join(one.name for one in found)
        return Licence(name, all(one.research for one in found), all(one.commercial for one in found))
    return _names().get(_plain(text)) or _by_address(text.strip()) or _creative_commons(text) or UNKNOWN


def allows(licence: str, use: str) -> bool:
    """Says whether a licence allows a use: ``research`` any open one, ``commercial`` none with NC or ND.

    An unknown licence allows neither; ``any`` asks nothing.
    """
    return read_licence(licence).allows(use)


def licensed(
    items: Iterable[Record | Rejected | Merged], domain: dict[str, Any]
) -> Iterator[Record | Rejected | Merged]:
    """Gives a reader's items with records that the card's ``data.license`` leaves out as rejected ones.

    A figure that is a third party's has another licence than its article, so it stays for ``any`` alone. The
    ledger names licences of the table; a text outside of it may hold a person's name and isn't repeated.

    Args:
        items: What a reader gives.
        domain: The domain card as a mapping: ``licence`` of the whole, ``data.license`` as the use.
    """
    use = domain.get("data", {}).get("license", "any")
    for item in items:
        if use == "any" or not isinstance(item, Record):
            yield item
            continue
        stated = item.licence or str(domain.get("licence", ""))
        licence = read_licence(stated)
        if item.extra.get("third_party"):
            detail = f"the licence of its article isn't the figure's, for license: {use}"
            yield Rejected(item.id, "licence not allowed", detail)
        elif licence.allows(use):
            yield item
        else:
            why = licence.name or ("a licence that is in no table" if stated else "no licence stated")
            yield Rejected(item.id, "licence not allowed", f"{why}, for license: {use}")


@lru_cache(maxsize=1)
def _names() -> dict[str, Licence]:
    return {_plain(name): one for one in LICENCES for name in (one.name, *one.also)}


def _plain(text: str) -> str:
    words = [word.strip(".") for word in re.sub(r"[^a-z0-9.+]+", " ", text.lower()).split()]
    return " ".join(word for word in words if word not in ("", "license", "licence", "the", "version"))


def _by_address(text: str) -> Licence | None:
    match = _URL.fullmatch(text)
    if match is None:
        return None
    found = _CC_PLACE.fullmatch(match["place"])
    if found is None:
        return _names().get(_plain(match["place"]))
    if found["zero"]:
        return _cc_zero(found["version"])
    terms = [term.upper() for term in found["terms"].split("-")[1:]]
    return _cc_by(terms, found["version"] or "")


def _creative_commons(text: str) -> Licence | None:
    """Gives the licence of a code or a sentence all of whose words are understood."""
    low = re.sub(r"non[\s-]*commercial", " nc ", text.lower())
    low = re.sub(r"no[\s-]*deriv(?:ative)?s?(?:[\s-]*works)?", " nd ", low)
    low = re.sub(r"share[\s-]*alike", " sa ", low).replace("attribution", " by ")
    low = re.sub(r"\bcc[\s-]*(?:0|zero)\b|\bcreative commons zero\b", " cc zero ", low)
    words = re.sub(r"[^a-z0-9.]+", " ", low).split()
    version = ""
    terms: set[str] = set()
    for word in (one.strip(".") for one in words):
        if re.fullmatch(r"v?[1-4]\.[05]", word):
            version = word.removeprefix("v")
        elif word in ("by", "nc", "nd", "sa", "zero"):
            terms.add(word)
        elif word not in _FILLERS:
            return None
    if not {"cc", "creative"} & set(words) or len(terms & {"by", "zero"}) != 1:
        return None
    if "zero" in terms:
        return _cc_zero(version) if terms == {"zero"} else None
    return _cc_by([term.upper() for term in ("nc", "nd", "sa") if term in terms], version)


def _cc_zero(version: str | None) -> Licence:
    return Licence(f"CC0 {version or '1.0'}", True, True, "cc0-1.0")


def _cc_by(terms: list[str], version: str) -> Licence:
    # A picture that is rendered, scaled and taught from is adapted, so ND goes the way of NC.
    code = "-".join(["CC BY", *terms])
    hub = "-".join([code.lower().replace(" ", "-"), version]) if version else ""
    return Licence(" ".join(filter(None, (code, version))), True, not {"NC", "ND"} & set(terms), hub)
