"""docs/recipes.md names every key of every card, with the default that the code has."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.main import get_command

from medkit.cards import models
from medkit.cli import app
from medkit.readers import READERS
from medkit.teacher import card as teacher_card

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", re.MULTILINE)
CARDS = {
    card.__name__: card
    for card in (
        *(one for one in vars(models).values() if isinstance(one, type) and issubclass(one, models.Card)),
        teacher_card.TeacherCard,
        teacher_card.Question,
    )
    if card is not models.Card
}


def rows_below(mark: str) -> list[tuple[str, str, str]]:
    """Gives (first, second, third cell) of the table under a comment."""
    section = PAGE.split(f"<!-- {mark} -->\n", 1)[1].split("\n\n", 1)[0]
    return ROW.findall(section)


def written(default: Any) -> str:
    """Writes a default as the page does."""
    if isinstance(default, models.Card):
        return "below"
    if default is None:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, list | tuple):
        return "[" + ", ".join(written(one) for one in default) + "]"
    if isinstance(default, str) and (default == "" or "{" in default):
        return f'"{default}"'
    return str(default)


def test_every_card_has_a_table() -> None:
    assert set(re.findall(r"<!-- keys: (\w+) -->", PAGE)) == set(CARDS)
    assert {"Recipe", "Curriculum", "Stage", "Domain", "Benchmark"} < set(CARDS)


@pytest.mark.parametrize("name", CARDS)
def test_the_table_gives_every_key_with_its_default(name: str) -> None:
    card: type[BaseModel] = CARDS[name]
    wanted = {
        key: "required" if field.is_required() else written(field.get_default(call_default_factory=True))
        for key, field in card.model_fields.items()
    }
    assert {key: default for key, default, _ in rows_below(f"keys: {name}")} == wanted


@pytest.mark.parametrize("name", CARDS)
def test_every_key_has_a_meaning(name: str) -> None:
    assert [key for key, _, meaning in rows_below(f"keys: {name}") if len(meaning.strip()) < 5] == []


def test_every_reader_is_listed_with_its_options() -> None:
    listed = {name: re.findall(r"`(\w+)`", options) for name, _, options in rows_below("readers")}
    assert listed == {name: list(importlib.import_module(path).OPTIONS) for name, path in READERS.items()}


def test_links_inside_the_page_lead_to_headings() -> None:
    headings = {
        head.strip().lower().replace(" ", "-") for head in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= headings


def test_the_checkpoint_page_shows_options_that_exist() -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "bring-your-checkpoint.md").read_text()
    commands = re.findall(r"`medkit import ([^`]*)`", page)
    assert len(commands) >= 7
    known = {option for one in get_command(app).commands["import"].params for option in one.opts}  # type: ignore[attr-defined]
    for command in commands:
        assert set(re.findall(r"--[\w-]+", command)) <= known, command
        assert "--out" in command
