"""A small shelf that the tests of cards, command line and run write into a folder and then break."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medkit.cli import main
from medkit.scaffold import write_domain

REPOSITORY = Path(__file__).resolve().parent.parent

RECIPE = """\
name: small
title: A small recipe
base: little
domain: cells
data: cells-data
curriculum: two
adapter: {kind: lora, rank: 8}
hardware: {device: cpu}
benchmarks: [asked]
stages:
  instruct:
    epochs: 2
seed: 1
"""
CURRICULUM = """\
name: two
description: Two stages.
final: instruct
stages:
  align:
    start: base
    on: [caption]
    train: {projector: 1.0e-3}
  instruct:
    start: align
    train: {projector: 1.0e-3, language: 2.0e-4}
    epochs: 3
    batch: 8
"""
BENCHMARK = """\
name: asked
title: Asked
description: Questions.
licence: Apache-2.0
"""


def write_shelf(root: Path) -> Path:
    """Writes one card of every kind, all of them right, and gives the folder."""
    write_domain("cells", root)
    texts = {
        "recipes/small.yaml": RECIPE,
        "curricula/two.yaml": CURRICULUM,
        "evals/asked/eval.yaml": BENCHMARK,
        "checkpoints/little/config.json": "{}",
        "cells-data/first/1.png": "",
    }
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def replace_in(path: Path, old: str, new: str) -> None:
    """Replaces text that must be there once."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {path.name}"
    path.write_text(text.replace(old, new), encoding="utf-8")


def medkit(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs the command line in this process and gives its exit code."""
    monkeypatch.setattr(sys, "argv", ["medkit", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def python(code: str, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh interpreter that finds this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"}
    environment.pop("MEDKIT_SHELF", None)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
