"""Progress on long work: a live bar on a terminal, a line every so often in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S = 15.0


class Bar:
    """Counts work done; ``note`` shows figures such as the loss beside the bar."""

    def __init__(self, title: str, total: int, done: int, progress: Progress | None):
        self.title, self.total, self.done, self.note = title, total, done, ""
        self._progress = progress
        self._task = progress.add_task(title, total=total, completed=done, note="") if progress else None
        self._begun, self._begun_at, self._told = time.monotonic(), done, time.monotonic()

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Moves on by ``amount`` and shows ``note``, or the last one that was given."""
        self.done += amount
        self.note = note or self.note
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self.done, note=self.note)
        elif time.monotonic() - self._told > LINE_EVERY_S:
            self._told = time.monotonic()
            rate = (self.done - self._begun_at) / max(self._told - self._begun, 1e-9)
            left_s = (self.total - self.done) / rate if rate > 0 else 0.0
            print(
                f"  {self.title} {self.done}/{self.total} {self.note} · {left_s:.0f} s left",
                file=sys.stderr,
                flush=True,
            )


_hidden = False


def hide_bars() -> None:
    """Shows no bar in this process from now on: another one shows the work of all."""
    global _hidden
    _hidden = True


@contextmanager
def bar(title: str, total: int, done: int = 0, show: bool = True) -> Iterator[Bar]:
    """Opens a progress bar.

    Args:
        title: What is being done.
        total: Units of work.
        done: Units done before (a resumed step).
        show: False on the other ranks of a distributed run.
    """
    console = Console(stderr=True)
    show = show and not _hidden
    if not (show and console.is_terminal):
        hidden = Bar(title, total, done, None)
        if not show:
            hidden._told = float("inf")
        yield hidden
        return
    columns = (
        TextColumn("  {task.description}"), BarColumn(bar_width=28), MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(title, total, done, progress)
