"""Licences by one name, what they allow, and the filter that every reader's records pass."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from medkit.cards.load import load_card, load_recipe
from medkit.errors import DataError
from medkit.plan import plan
from medkit.readers import Merged, Record, Rejected, get_reader
from medkit.readers.ingest import ingest
from medkit.readers.licences import LICENCES, allows, licensed, read_licence
from medkit.store import open_dataset
from tests.real_data import real_set, splits_of

DOCS = Path(__file__).resolve().parent.parent / "docs" / "datasets.md"


@pytest.mark.parametrize(
    ("text", "name", "research", "commercial"),
    [
        ("CC-BY-4.0", "CC BY 4.0", True, True),
        ("cc by 3.0", "CC BY 3.0", True, True),
        ("CC-BY-NC-SA-4.0", "CC BY-NC-SA 4.0", True, False),
        ("CC BY-ND 2.0", "CC BY-ND 2.0", True, False),
        ("CC0-1.0", "CC0 1.0", True, True),
        ("https://creativecommons.org/licenses/by-nc/4.0/legalcode", "CC BY-NC 4.0", True, False),
        ("http://creativecommons.org/licenses/by-sa/3.0/us/", "CC BY-SA 3.0", True, True),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0 1.0", True, True),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "Public domain", True, True),
        ("Creative Commons Attribution-NonCommercial 4.0 International License", "CC BY-NC 4.0", True, False),
        ("This work is licensed under a Creative Commons Attribution 4.0 licence.", "CC BY 4.0", True, True),
        ("apache license, version 2.0", "Apache-2.0", True, True),
        ("http://www.apache.org/licenses/LICENSE-2.0.txt", "Apache-2.0", True, True),
        ("https://opensource.org/licenses/MIT", "MIT", True, True),
        ("MIT License", "MIT", True, True),
        ("ODbL", "ODbL-1.0", True, True),
        ("For research use only.", "research only", True, False),
        ("yours", "yours", True, True),
        ("MIT OR CC-BY-NC-4.0", "MIT OR CC BY-NC 4.0", True, True),
        ("MIT OR Something-1.0", "MIT", True, True),
        ("MIT AND CC-BY-NC-4.0", "MIT AND CC BY-NC 4.0", True, False),
        ("All Rights Reserved", "all rights reserved", False, False),
    ],
)
def test_a_licence_has_one_name_and_says_what_it_allows(
    text: str, name: str, research: bool, commercial: bool
) -> None:
    found = read_licence(text)
    assert found.name == name
    assert (allows(text, "research"), allows(text, "commercial")) == (research, commercial)
    assert allows(text, "any")


@pytest.mark.parametrize(
    "text",
    [
        "", "per picture", "CC BY 4.0, except figure 2", "CC BY 4.0 (text); pictures by permission", "not CC BY",
        "CC BY 4.0 AND the hospital's own", "CC NC", "Creative Commons", "commercial", "MIT-like", "CC BY 9.0 x",
        "creativecommons.org.example/licenses/by/4.0", "https://example.org/?creativecommons.org/licenses/by/4.0",
    ],
)  # fmt: skip
def test_what_is_not_wholly_understood_allows_nothing(text: str) -> None:
    assert read_licence(text).name == ""
    assert not allows(text, "research")
    assert not allows(text, "commercial")


def test_the_page_tells_every_licence_as_the_table_has_it() -> None:
    rows = re.findall(r"^\| (.*) \| (yes|no) \| (yes|no) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    told = {
        name: (research == "yes", commercial == "yes")
        for names, research, commercial in rows
        for name in re.findall(r"`([^`]+)`", names)
    }
    ours = {one.name: (one.research, one.commercial) for one in LICENCES}
    assert {name: told.get(name) for name in ours} == ours
    for code in set(told) - set(ours):
        assert told[code] == (allows(f"{code} 4.0", "research"), allows(f"{code} 4.0", "commercial")), code


def test_the_spellings_of_two_licences_never_meet() -> None:
    names = [name.lower() for one in LICENCES for name in (one.name, *one.also)]
    assert len(names) == len(set(names))
    for one in LICENCES:
        assert {read_licence(name) for name in (one.name, *one.also)} == {one}


def picture() -> Image.Image:
    return Image.new("RGB", (4, 4))


def test_the_filter_takes_the_records_licence_before_the_cards() -> None:
    items = [
        Record("own", picture(), licence="CC BY 4.0"),
        Record("card", picture()),
        Record("nc", picture(), licence="CC BY-NC 4.0"),
        Record("unknown", picture(), licence="courtesy of Dr. Erika Mustermann"),
        Record("third", picture(), licence="CC BY 4.0", extra={"third_party": True}),
        Rejected("broken", "image unreadable"),
        Merged("slice", "slice of a series"),
    ]
    card: dict[str, Any] = {"name": "d", "licence": "MIT", "data": {}}

    def fates(use: str) -> dict[str, str]:
        found = licensed(items, {**card, "data": {"license": use}})
        return {
            one.id if isinstance(one, Record) else one.record: getattr(one, "reason", "kept") for one in found
        }

    rest = {"broken": "image unreadable", "slice": "slice of a series"}
    out = "licence not allowed"
    assert list(licensed(items, card)) == items
    assert fates("any") == dict.fromkeys(("own", "card", "nc", "unknown", "third"), "kept") | rest
    kept = {"own": "kept", "card": "kept", "nc": "kept", "unknown": out, "third": out}
    assert fates("research") == kept | rest
    assert fates("commercial") == kept | {"nc": out} | rest
    told = [
        one
        for one in licensed(items, {**card, "data": {"license": "commercial"}})
        if isinstance(one, Rejected)
    ]
    assert "Mustermann" not in repr(told)
    assert {one.record: one.detail for one in told}["nc"] == "CC BY-NC 4.0, for license: commercial"
    silent = list(licensed([Record("card", picture())], {"licence": "", "data": {"license": "research"}}))
    assert silent == [Rejected("card", out, "no licence stated, for license: research")]


def write_set(root: Path, licences: list[str]) -> dict[str, Any]:
    """Writes a table of pictures with a licence each and gives a domain card for it."""
    root.mkdir()
    lines = ["image,caption,licence"]
    for number, licence in enumerate(licences):
        Image.new("RGB", (32, 32), (number * 20, 255 - number * 20, 40 + number)).save(root / f"{number}.png")
        lines.append(f'{number}.png,Picture {number}.,"{licence}"')
    (root / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    options = {"licence_column": "licence"}
    return {
        "name": "d",
        "licence": "per picture",
        "data": {"reader": "table", "options": options, "splits": {}},
    }


def test_an_ingest_leaves_out_what_may_not_be_used(tmp_path: Path) -> None:
    card = write_set(tmp_path / "in", ["CC BY 4.0", "CC BY-NC 4.0", "", "CC0 1.0", "MIT"])
    for use, samples in (("any", 5), ("research", 4), ("commercial", 3)):
        domain = {**card, "data": {**card["data"], "license": use}}
        result = ingest({"domain": domain, "data": str(tmp_path / "in")}, {}, tmp_path / use)
        assert result["samples"] == samples
        assert result["rejected"] == ({"licence not allowed": 5 - samples} if samples < 5 else {})
    left = {
        row["record"] for row in open_dataset(tmp_path / "commercial").ledger() if row["fate"] == "rejected"
    }
    assert len(left) == 2


def test_nothing_that_may_be_used_is_an_error_that_says_so(tmp_path: Path) -> None:
    card = write_set(tmp_path / "in", ["", "CC BY-NC 4.0"])
    card["data"]["license"] = "commercial"
    with pytest.raises(DataError, match=r"no record .* could be used: licence not allowed \(2\)"):
        ingest({"domain": card, "data": str(tmp_path / "in")}, {}, tmp_path / "out")


def test_a_limit_counts_what_may_be_used(tmp_path: Path) -> None:
    card = write_set(tmp_path / "in", ["", "", "", "CC0 1.0", "", "CC0 1.0", ""])
    card["data"] |= {"license": "research", "splits": {}}
    result = ingest({"domain": card, "data": str(tmp_path / "in"), "limit": 2}, {}, tmp_path / "out")
    assert result["samples"] == 2


def test_a_recipe_asks_in_place_of_its_domains() -> None:
    def uses(*settings: str) -> set[str]:
        cards = load_recipe("phantom", settings)
        return {step.settings["domain"]["data"]["license"] for step in plan(cards) if step.verb == "ingest"}

    assert uses() == {"any"}
    assert uses("ingest.license=commercial") == {"commercial"}


def test_a_use_where_the_licence_stands_is_refused(tmp_path: Path) -> None:
    shipped = Path(__file__).resolve().parent.parent / "domains" / "vqa-rad" / "domain.yaml"
    card = yaml.safe_load(shipped.read_text(encoding="utf-8"))
    folder = tmp_path / "vqa-rad"
    folder.mkdir()
    (folder / "domain.yaml").write_text(yaml.safe_dump({**card, "licence": "commercial"}), encoding="utf-8")
    _, problems = load_card("domain", folder / "domain.yaml")
    said = [str(one) for one in problems if "licence" in str(one)]
    assert len(said) == 1
    assert "must be the data's licence; what it is wanted for is data.license" in said[0]


@pytest.mark.parametrize("name", ["covid_cxr", "jats"])
def test_creative_commons_codes_of_real_sets_are_known(name: str) -> None:
    rows = [row for part in splits_of(real_set(name), "items_*.jsonl").values() for row in part]
    stated = {str(row.get("licence") or "") for row in rows}
    codes = {text for text in stated if re.fullmatch(r"(?i)CC[ -]?(BY|0)[\w .-]*", text)}
    assert codes
    assert {text for text in codes if not read_licence(text).name} == set()


def test_a_real_set_keeps_its_commercial_part(tmp_path: Path) -> None:
    root = real_set("covid_cxr")
    shipped = Path(__file__).resolve().parent.parent / "domains" / "chest-xray" / "domain.yaml"
    card = yaml.safe_load(shipped.read_text(encoding="utf-8"))
    options = {**card["data"]["options"], "splits": list(card["data"].get("splits", {}))}
    read = list(get_reader(card["data"]["reader"])(root, options))
    items = list(licensed(read, {**card, "data": {**card["data"], "license": "commercial"}}))
    kept = {one.id for one in items if isinstance(one, Record)}
    by_listing = {
        row["id"]: row["licence"]
        for part in splits_of(root, "items_*.jsonl").values()
        for row in part
        if isinstance(row.get("licence"), str)
    }
    assert kept
    assert all("NC" not in by_listing[one] and "ND" not in by_listing[one] for one in kept)
    assert len(items) == len(read)
