"""``medkit show``: looks into a dataset folder or a run."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

from medkit.errors import DataError
from medkit.readers.contact_sheet import Section, choose, html_sheet, png_sheet
from medkit.store import Dataset, is_dataset, open_dataset, write_atomically

SAMPLES = 36


@dataclass(frozen=True)
class Shown:
    """What ``show`` found and wrote; as a string, what a terminal prints.

    Attributes:
        lines: Counts of every dataset folder.
        html, png: The contact sheets, None for one that was not asked for.
    """

    lines: list[str]
    html: Path | None
    png: Path | None

    def __str__(self) -> str:
        return "\n".join([*self.lines, *(f"wrote {path}" for path in (self.html, self.png) if path)])


def show(path: Path | str, out: Path | str | None = None, samples: int = SAMPLES) -> Shown:
    """Counts what a dataset folder or a run holds and writes a contact sheet of its samples.

    Args:
        path: A dataset folder, or a folder with dataset folders in it (a run).
        out: A folder for ``contact-sheet.html`` and ``contact-sheet.png``, or one file that ends in .html
        or .png;
            None writes both into ``path/show``.
        samples: How many samples each dataset shows.

    Raises:
        DataError: There is no finished dataset, or the sheet can't be written.
    """
    path = Path(path)
    found = _datasets(path)
    sections = [Section(title, dataset, choose(dataset, samples)) for title, dataset in found]
    lines = [line for title, dataset in found for line in _counts(title, dataset)]
    target = Path(out) if out is not None else path / "show"
    html = (
        target
        if target.suffix == ".html"
        else None
        if target.suffix == ".png"
        else target / "contact-sheet.html"
    )
    png = (
        target
        if target.suffix == ".png"
        else None
        if target.suffix == ".html"
        else target / "contact-sheet.png"
    )
    try:
        for sheet in filter(None, (html, png)):
            sheet.parent.mkdir(parents=True, exist_ok=True)
        if html is not None:
            write_atomically(html, html_sheet(path.resolve().name, sections))
        if png is not None:
            buffer = io.BytesIO()
            png_sheet(sections).save(buffer, format="PNG")
            partial = png.with_name(png.name + ".partial")
            partial.write_bytes(buffer.getvalue())
            os.replace(partial, png)
    except OSError as error:
        raise DataError(
            f"the contact sheet can't be written to {target} ({error.strerror}); give another place"
        ) from None
    return Shown(lines, html, png)


def _datasets(path: Path) -> list[tuple[str, Dataset]]:
    if is_dataset(path):
        return [(path.resolve().name, open_dataset(path))]
    if not path.is_dir():
        raise DataError(f"{path} is no folder; give a dataset folder or a run")
    folders = sorted((folder for folder in path.iterdir() if is_dataset(folder)), key=_step_order)
    found = [(folder.name, dataset) for folder in folders if len(dataset := open_dataset(folder))]
    if not found:
        raise DataError(
            f"{path} holds no finished dataset; give a dataset folder or a run that has ended its ingest"
        )
    return found


def _step_order(folder: Path) -> tuple[int, str]:
    head = folder.name.split("-")[0]
    return (int(head) if head.isdigit() else 0, folder.name)


def _counts(title: str, dataset: Dataset) -> list[str]:
    summary = dataset.summary
    lines = [f"{title}: {summary['samples']} samples, {summary['images']} images, {summary['groups']} groups"]
    for key in ("splits", "kinds", "rejected"):
        if summary.get(key):
            lines.append(f"  {key}: " + ", ".join(f"{name} {count}" for name, count in summary[key].items()))
    near = summary.get("near_duplicates_across_splits")
    if near:
        lines.append(f"  {near} pictures have a near-duplicate in another split; the ledger names them")
    return lines
