"""What ``medkit list`` prints."""

from __future__ import annotations

from rich.table import Table

from .cards.models import Benchmark
from .cards.shelf import LAYOUT, Shelf, shown_path
from .cards.strict_yaml import read_card
from .errors import MedkitError

PLURALS = {"curriculum": "curricula"}


def shelf_table(shelf: Shelf, plural: str = "") -> Table:
    """Gives every card of the shelf with its title and where it lies.

    Args:
        shelf: The shelf.
        plural: A kind of cards ("domains"); all of them for "".

    Raises:
        MedkitError: There is no such kind.
    """
    kinds = {PLURALS.get(kind, f"{kind}s"): kind for kind in LAYOUT}
    if plural and plural not in kinds:
        raise MedkitError(f"medkit list {plural}: must be one of {', '.join(kinds)}, or nothing")
    table = Table(box=None, pad_edge=False)
    for name in ("kind", "name", "title", "file"):
        table.add_column(name, overflow="fold", style="dim" if name in ("kind", "file") else "")
    for kind in [kinds[plural]] if plural else LAYOUT:
        for position, (name, path) in enumerate(shelf.names(kind).items()):
            if position == 0 and table.row_count:
                table.add_section()
            title = ""
            if kind != "checkpoint":
                document = read_card(path)
                title = str(document.value.get("title") or document.value.get("description") or "").strip()
                title = title.split(". ")[0].rstrip(".")
                if document.problems:
                    title = f"[red]can't be read: {document.problems[0].message}[/red]"
            place = path.parent if kind == "checkpoint" else path
            table.add_row(kind, name, title, shown_path(place))
    return table


def benchmark_table(shelf: Shelf) -> Table:
    """Gives every benchmark with its count of questions, licence, published score and where its rows come from."""
    table = Table(box=None, pad_edge=False)
    for name in ("name", "title", "questions", "published score", "licence", "rows from"):
        right = name == "questions"
        table.add_column(name, overflow="fold", justify="right" if right else "left", no_wrap=name == "name")
    for name, path in shelf.names("benchmark").items():
        document = read_card(path)
        try:
            card = Benchmark.model_validate(document.value)
        except ValueError:
            table.add_row(name, f"[red]can't be read; medkit check says why of {shown_path(path)}[/red]")
            continue
        count = card.data.expected.get("questions") if card.data else None
        metrics = ", ".join(card.metrics) or card.scorer
        table.add_row(
            name,
            card.title,
            f"{count:,}" if count else "",
            f"{card.profile}: {metrics}",
            card.licence,
            _rows_from(card),
        )
    return table


def _rows_from(card: Benchmark) -> str:
    if card.data is None:
        domain = "the recipe's domain" if card.source.domain == "same" else f"domain {card.source.domain}"
        return f"{domain} ({card.source.ask})"
    own = f"${card.data.env}" if card.data.env else card.data.path
    return " or ".join(part for part in (own, "the hub" if card.data.hub else "") if part)
