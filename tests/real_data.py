"""Where the real data sets lie that some tests read when they are there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


def real_set(name: str) -> Path:
    """Gives a data set's folder, or skips the test with the place where it was looked for."""
    root = Path(os.environ.get("MEDKIT_SHARED") or Path(__file__).resolve().parent.parent.parent / "shared")
    folder = root / "data" / name
    if not folder.is_dir():
        pytest.skip(f"real set {name} is not in {folder}; set MEDKIT_SHARED to the folder that holds data/")
    return folder


def splits_of(folder: Path, pattern: str) -> dict[str, list[dict]]:
    """Gives the rows of every listing whose name fits ``items_*.jsonl`` or the like, by split name."""
    head, tail = pattern.split("*")
    found = {}
    for path in sorted(folder.glob(pattern)):
        split = path.name.removeprefix(head).removesuffix(tail)
        found[split] = [
            json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    return found
