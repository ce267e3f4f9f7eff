"""What ``medkit list`` prints."""

from __future__ import annotations

from rich.table import Table

from .cards.shelf import LAYOUT, Shelf, shown_path
from .cards.strict_yaml import read_card


def shelf_table(shelf: Shelf) -> Table:
    """Gives every card of the shelf with its title and where it lies."""
    table = Table(box=None, pad_edge=False)
    for name in ("kind", "name", "title", "file"):
        table.add_column(name, overflow="fold", style="dim" if name in ("kind", "file") else "")
    for kind in LAYOUT:
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
