"""Changes to a recipe: ``--set a.b=c`` on the command line, and the recipe's changes to curriculum stages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import Problem
from .faults import did_you_mean
from .strict_yaml import Document, parse_value

_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def apply_settings(
    document: Document, settings: Sequence[str], keys: Iterable[str], stages: set[str]
) -> tuple[list[str], list[Problem]]:
    """Puts ``key=value`` texts into a recipe.

    Args:
        document: The recipe, changed in place.
        settings: Texts such as ``adapter.kind=lora``; the last of two for one key counts.
        keys: The recipe's own keys.
        stages: The curriculum's stages: ``instruct.epochs=2`` is short for ``stages.instruct.epochs=2``.

    Returns:
        (texts whose first word is neither a recipe key nor a stage, faults).
    """
    known = set(keys)
    pending: list[str] = []
    problems: list[Problem] = []
    for text in settings:
        file = f"--set {text}"
        key, equals, raw = text.partition("=")
        key = key.strip()
        if not equals or not _KEY.fullmatch(key):
            problems.append(Problem(file, 0, "", "must be key=value", "for example --set instruct.epochs=2"))
            continue
        trail = tuple(key.split("."))
        if trail[0] not in known:
            if trail[0] not in stages:
                pending.append(text)
                continue
            trail = ("stages", *trail)
        value, fault = parse_value(raw.strip())
        if fault:
            problems.append(Problem(file, 0, ".".join(trail), fault))
            continue
        document.put(trail, value, (file, 0))
    return pending, problems


def unknown_settings(pending: Iterable[str], keys: Iterable[str], stages: Iterable[str]) -> list[Problem]:
    """Gives the faults of ``--set`` texts that name neither a recipe key nor a stage."""
    known = [*keys, *stages]
    problems = []
    for text in pending:
        key = text.partition("=")[0].strip()
        problems.append(
            Problem(f"--set {text}", 0, key, "unknown key", did_you_mean(key.split(".")[0], known))
        )
    return problems


def overlay_stages(curriculum: Document, recipe: Document, stages: set[str]) -> list[Problem]:
    """Lays the recipe's ``stages`` over the curriculum, each value keeping its own line."""
    changes = recipe.value.get("stages")
    problems: list[Problem] = []
    if not isinstance(changes, dict):
        return problems
    for name, stage in changes.items():
        if name not in stages:
            message = f"the curriculum has no stage {name}"
            problems.append(recipe.problem(("stages", name), message, did_you_mean(name, stages)))
        elif isinstance(stage, dict):
            for trail, value in _leaves(stage, ("stages", name)):
                curriculum.put(trail, value, recipe.place(trail))
    return problems


def _leaves(value: dict[str, Any], trail: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    leaves: list[tuple[tuple[str, ...], Any]] = []
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            leaves += _leaves(inner, (*trail, key))
        else:
            leaves.append(((*trail, key), inner))
    return leaves
