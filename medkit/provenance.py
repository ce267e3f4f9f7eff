"""What a run ran with: every value, versions, machine and git state, for ``resolved.json``."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from . import __version__
from .cards.load import Cards
from .plan import final_stage
from .state import State

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "tokenizers",
    "numpy",
    "pillow",
    "pyarrow",
    "datasets",
)


def resolved(cards: Cards, found: Sequence[State], command: Sequence[str]) -> dict[str, Any]:
    """Gives the JSON form of everything that a run depends on."""
    recipe = {**cards.recipe.model_dump(), "file": cards.file}
    recipe["base_path"] = str(cards.base.path) if cards.base.path else cards.base.name
    return {
        "recipe": recipe,
        "curriculum": cards.curriculum.model_dump(),
        "benchmarks": {name: card.model_dump() for name, card in cards.benchmarks.items()},
        "domains": {name: domain.card.model_dump() for name, domain in cards.domains.items()},
        "final": final_stage(cards),
        "command": list(command),
        "set": list(cards.settings),
        "versions": versions(),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
        },
        "git": git_state(Path(__file__).resolve().parent.parent),
        "steps": [
            {"folder": state.step.folder, "verb": state.step.verb, "fingerprint": state.identity.fingerprint}
            for state in found
        ],
    }


def versions() -> dict[str, str]:
    """Gives the installed versions without importing anything."""
    found = {"medkit": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, Any]:
    """Gives the commit of a checkout and whether files differ from it; {} outside of one."""
    if not (folder / ".git").exists():
        return {}
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def command_line() -> list[str]:
    """Gives the command as the user could type it again."""
    return ["medkit", *sys.argv[1:]]
