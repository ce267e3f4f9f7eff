"""What a recipe names outside the shelf's cards: its base model and the folder of its data."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import Problem
from .faults import did_you_mean, shown
from .models import Benchmark, Build, Domain
from .shelf import Shelf
from .strict_yaml import Document

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Base:
    """Where training starts: a model folder, a hub id, or a model built from nothing."""

    kind: str  # "folder", "hub" or "build"
    name: str
    path: Path | None = None
    build: Build | None = None


def resolve_base(document: Document, shelf: Shelf) -> tuple[Base | None, list[Problem]]:
    """Finds where training starts: a shipped checkpoint, a model folder, a hub id, or a model to build."""
    problems: list[Problem] = []
    name, sizes = document.value.get("base"), document.value.get("build")
    if sizes is not None and name != "build":
        problems.append(document.problem(("build",), f"is read only with base: build, not {shown(name)}"))
    if not isinstance(name, str) or not name:
        return None, problems
    if name == "build":
        return Base("build", name, build=_valid_build(sizes)), problems
    shipped = shelf.find("checkpoint", name)
    path = shipped.parent if shipped else Path(name).expanduser()
    if shipped or (
        path.is_dir() and any((path / file).is_file() for file in ("config.json", "adapter_config.json"))
    ):
        return Base("folder", name, path.absolute()), problems
    if path.is_dir():
        hint = "name the folder that holds config.json"
        problems.append(document.problem(("base",), f'"{name}" is a folder without a model', hint))
    elif _HUB_ID.fullmatch(name):
        return Base("hub", name), problems
    else:
        near = did_you_mean(name, [*shelf.names("checkpoint"), "build"])
        hint = f"{near} (or a model folder, or a hub id such as owner/model)"
        problems.append(document.problem(("base",), f"there is no model {shown(name)}", hint))
    return None, problems


def data_path(
    card: Domain, given: Any, document: Document, trail: tuple[str | int, ...], needed: bool = True
) -> tuple[Path | None, list[Problem]]:
    """Finds a domain's data: the recipe's ``data``, else the domain's environment variable."""
    source = card.data
    if not source.needs_path:
        if given:
            hint = "leave data out"
            return None, [document.problem(("data",), f"the domain {card.name} reads no folder", hint)]
        return None, []
    # The recipe's data is its own domain's; those of replay and benchmarks come from the environment.
    ways = ["give --set data=FOLDER"] if trail == ("domain",) else []
    ways += [f"set the environment variable {source.env}=FOLDER"] if source.env else []
    hint = f"{' or '.join(ways)}; where to get it: {source.where}"
    text = given if isinstance(given, str) and given else os.environ.get(source.env, "") if source.env else ""
    if not text:
        fault = document.problem(trail, f"the domain {card.name} needs the folder of its data", hint)
        return None, [fault] if needed else []
    path = Path(text).expanduser()
    if not path.exists():
        if given:
            return None, [document.problem(("data",), f'"{text}" does not exist', hint)]
        return None, [
            document.problem(trail, f'{source.env}="{text}" does not exist', hint)
        ] if needed else []
    return path.absolute(), []


def benchmark_path(
    card: Benchmark, document: Document, trail: tuple[str | int, ...], needed: bool = True
) -> tuple[str, list[Problem]]:
    """Finds a benchmark's own data: its folder, the environment variable's, or else ``hub:ID@REVISION``."""
    data = card.data
    if data is None:
        return "", []
    text = os.environ.get(data.env, "") if data.env else ""
    text = text or data.path
    path = Path(text).expanduser()
    if text and path.is_dir():
        return str(path.absolute()), []
    if data.hub and not text:
        return f"hub:{data.hub}@{data.revision or 'main'}", []
    ways = f"set the environment variable {data.env}=FOLDER" if data.env else "give data.path in its card"
    hint = f"{ways}; where to get it: {data.where}" if data.where else ways
    what = f'"{text}" is no folder' if text else "it needs the folder of its data"
    return "", [document.problem(trail, f"benchmark {card.name}: {what}", hint)] if needed else []


def count_problems(document: Document) -> list[Problem]:
    """Pictures can be ordered by number only where they are drawn."""
    ingest = document.value.get("ingest")
    given = [
        key for key in ("train", "valid", "test") if isinstance(ingest, dict) and ingest.get(key) is not None
    ]
    hint = "use limit"
    return [
        document.problem(("ingest", key), "is read only for domains that medkit draws", hint) for key in given
    ]


def texts_of(value: Any) -> Iterable[str]:
    """Gives every text in a card's value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from texts_of(key)
            yield from texts_of(inner)


def _valid_build(sizes: Any) -> Build | None:
    """Gives the sizes, or None where the recipe's own validation says what is wrong with them."""
    try:
        return Build.model_validate(sizes if sizes is not None else {})
    except ValueError:
        return None
