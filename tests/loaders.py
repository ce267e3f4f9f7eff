"""Loaders of records for the tests of ingest; worker processes import them, so they stand in a module of their own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medkit.readers import Loaded, Record, Rejected


@dataclass(frozen=True)
class Drawn:
    """A picture of its number; every making of it is written down in a file.

    Attributes:
        number: What is drawn.
        diary: The file, or None.
        fault: "", or what goes wrong: dies, hangs, hungry, breaks.
    """

    number: int
    diary: str | None = None
    fault: str = ""

    def __call__(self) -> Loaded:
        if self.diary:
            with open(self.diary, "ab") as diary:
                diary.write(f"{self.number}{self.fault}\n".encode())
        if self.fault == "dies":
            os.kill(os.getpid(), 9)
        if self.fault == "hangs":
            time.sleep(60)
        if self.fault == "hungry":
            return Loaded([np.zeros((1 << 20, 1 << 20), np.uint8)])
        if self.fault == "breaks":
            raise RuntimeError("patient Doe")
        coarse = np.random.default_rng(self.number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        return Loaded([np.kron(coarse, np.ones((4, 4, 1), np.uint8))], (("drawn", f"as {self.number % 3}"),))


def items(count: int, diary: str | None = None) -> Iterator[Record | Rejected]:
    """Gives records with equal pictures among them, and some that fail."""
    for number in range(count):
        if number % 17 == 5:
            yield Rejected(f"r{number}", "row unreadable", f"line {number}")
            continue
        drawn = Drawn(number % (count - 7), diary, "breaks" if number % 23 == 7 else "")
        yield Record(f"r{number}", drawn, {"labels": {"n": number % 5}}, group=f"g{number // 2}")


def read(root: Path, options: dict[str, Any]) -> Iterator[Record | Rejected]:
    """The reader ``listed``: as many records as the option says."""
    yield from items(options["count"], options.get("diary"))


def settings(root: Path, count: int, **more: Any) -> dict[str, Any]:
    """Gives the settings of an ingest step that reads them."""
    options = {"count": count, **({"diary": more.pop("diary")} if "diary" in more else {})}
    data = {"reader": "listed", "options": options, "env": "", "where": "", "splits": {}}
    return {"domain": {"name": "d", "licence": "MIT", "data": data}, "data": str(root), **more}
