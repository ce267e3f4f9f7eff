"""Loads a recipe with every card that it names, and says all their faults at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ..errors import CardError, Problem
from .adapters import adapter_problems
from .faults import did_you_mean, shown, validate
from .models import NAME, Benchmark, Curriculum, Domain, Recipe
from .settings import apply_settings, overlay_stages, unknown_settings
from .shelf import LAYOUT, Shelf, open_shelf, shown_path
from .sources import Base, benchmark_path, count_problems, data_path, resolve_base, texts_of
from .stages import stage_problems
from .strict_yaml import Document, read_card

MODELS: dict[str, type[BaseModel]] = {
    "recipe": Recipe,
    "curriculum": Curriculum,
    "domain": Domain,
    "benchmark": Benchmark,
}
Inspect = Callable[[Domain, Document, Document], list[Problem]]


@dataclass(frozen=True)
class DomainOnShelf:
    """A domain with its folder, its teacher card and the data that the recipe or the environment names."""

    card: Domain
    folder: Path
    teacher: dict[str, Any]
    data: Path | None = None


@dataclass(frozen=True)
class Cards:
    """A recipe and every card that it names, all valid.

    Attributes:
        recipe: The recipe with ``--set`` applied.
        curriculum: The curriculum with the recipe's ``stages`` applied.
        domains: Every domain that a step reads, by name.
        benchmarks: The recipe's benchmarks in its order.
        base: Where training starts.
        words: Texts of the teacher cards whose words a tokenizer that is built must cover.
        benchmark_data: Benchmark with data of its own -> its folder, or ``hub:ID@REVISION``.
        file: The recipe's path as the user would type it.
        text: The recipe as it was written.
        settings: The ``--set`` texts.
    """

    recipe: Recipe
    curriculum: Curriculum
    domains: dict[str, DomainOnShelf]
    benchmarks: dict[str, Benchmark]
    base: Base
    file: str
    text: str
    settings: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    benchmark_data: dict[str, str] = field(default_factory=dict)


@dataclass
class _Reading:
    """What one loading passes along."""

    shelf: Shelf
    document: Document
    inspect: Inspect | None
    need_data: bool
    problems: list[Problem] = field(default_factory=list)


def load_recipe(
    recipe: str | Path,
    settings: Sequence[str] = (),
    *,
    shelf: Shelf | None = None,
    inspect: Inspect | None = None,
    need_data: bool = True,
) -> Cards:
    """Loads a recipe and the cards that it names.

    Args:
        recipe: A path, or a name on the shelf.
        settings: Changes such as ``instruct.epochs=2``.
        shelf: Where to look; the process's shelf when None.
        inspect: Gives the faults of a domain that only higher rooms can see (its reader, its teacher card).
        need_data: Whether a domain without its data folder is a fault.

    Raises:
        CardError: With every fault of every card.
    """
    shelf = shelf or open_shelf()
    path = find_recipe(recipe, shelf)
    document = read_card(path, shown_path(path))
    if document.problems:
        raise CardError(document.problems)
    reading = _Reading(shelf, document, inspect, need_data)
    pending, faults = apply_settings(document, settings, Recipe.model_fields, set())
    reading.problems += faults
    curriculum = _load_curriculum(reading, pending)
    card, faults = validate(Recipe, document)
    reading.problems += faults
    reading.problems += _name_problem("recipe", document, path)
    base, faults = resolve_base(document, shelf)
    reading.problems += faults
    reading.problems += adapter_problems(document, curriculum, base.path if base else None)
    benchmarks = _load_benchmarks(reading)
    domains = _load_domains(reading, curriculum, benchmarks)
    rows = _benchmark_data(reading, benchmarks)
    words = _load_words(reading, base)
    if reading.problems or card is None or curriculum is None or base is None:
        raise CardError(_in_order(reading.problems, document.file))
    text = path.read_text("utf-8-sig")
    return Cards(
        card, curriculum, domains, benchmarks, base, document.file, text, tuple(settings), words, rows
    )


def find_recipe(recipe: str | Path, shelf: Shelf) -> Path:
    """Gives the file of a recipe named by path or by name.

    Raises:
        CardError: There is none.
    """
    path = Path(recipe).expanduser()
    if path.is_file():
        return path
    found = shelf.find("recipe", str(recipe).removesuffix(".yaml").removeprefix("recipes/"))
    if found:
        return found
    hint = did_you_mean(path.stem, shelf.names("recipe"))
    raise CardError([Problem(str(recipe), 0, "", "there is no such recipe", hint)])


def load_card(kind: str, path: Path, inspect: Inspect | None = None) -> tuple[Any, list[Problem]]:
    """Loads one card of the shelf by itself.

    Returns:
        (card or None, its faults); what a domain card points to is checked along.
    """
    document = read_card(path, shown_path(path))
    card, problems = validate(MODELS[kind], document)
    problems += _name_problem(kind, document, path)
    if isinstance(card, Curriculum):
        problems += stage_problems(card, document)
    if isinstance(card, Domain):
        problems += load_domain(card, document, path.parent, inspect)[1]
    if isinstance(card, Benchmark) and card.fixture and not (path.parent / card.fixture).exists():
        hint = "add a tiny invented fixture or leave the key out"
        problems.append(document.problem(("fixture",), f"{card.fixture} is not in the folder", hint))
    return card, problems


def load_domain(
    card: Domain, document: Document, folder: Path, inspect: Inspect | None
) -> tuple[DomainOnShelf | None, list[Problem]]:
    """Reads what a domain card points to in its folder: the teacher card, the fixture, domain.py."""
    problems: list[Problem] = []
    teacher_file = folder / card.teacher
    teacher = None
    if not teacher_file.is_file():
        message = f"{card.teacher} is not in the domain's folder"
        problems.append(document.problem(("teacher",), message, f"write {shown_path(teacher_file)}"))
    else:
        teacher = read_card(teacher_file, shown_path(teacher_file))
        problems += teacher.problems
        if inspect and not teacher.problems:
            problems += inspect(card, document, teacher)
    if card.fixture and not (folder / card.fixture).exists():
        message = f"{card.fixture} is not in the domain's folder"
        problems.append(
            document.problem(("fixture",), message, "add a tiny invented fixture or leave the key out")
        )
    if card.data.needs_path and not card.data.where:
        hint = "add 'where: one sentence'"
        problems.append(document.problem(("data",), "does not say where the set can be had", hint))
    if card.data.reader == "drawn" and not (folder / "domain.py").is_file():
        problems.append(document.problem(("data", "reader"), "drawn needs domain.py in the domain's folder"))
    if problems or teacher is None:
        return None, problems
    return DomainOnShelf(card, folder, teacher.value), []


def _load_curriculum(reading: _Reading, pending: list[str]) -> Curriculum | None:
    """Loads the curriculum and lays the recipe's stages and the pending --set values over it."""
    document = reading.document
    name = document.value.get("curriculum")
    found = _find(reading, "curriculum", name, ("curriculum",))
    stages: set[str] = set()
    lower = read_card(found, shown_path(found)) if found else None
    if lower:
        reading.problems += _name_problem("curriculum", lower, found) if found else []
        if isinstance(lower.value.get("stages"), dict):
            stages = set(lower.value["stages"])
    pending, faults = apply_settings(document, pending, Recipe.model_fields, stages)
    reading.problems += faults + unknown_settings(pending, Recipe.model_fields, stages)
    if lower is None:
        return None
    reading.problems += overlay_stages(lower, document, stages)
    curriculum, faults = validate(Curriculum, lower)
    reading.problems += faults
    if curriculum:
        reading.problems += stage_problems(curriculum, lower)
    return curriculum


def _load_benchmarks(reading: _Reading) -> dict[str, Benchmark]:
    names = reading.document.value.get("benchmarks", ["held-out"])
    loaded: dict[str, Benchmark] = {}
    for position, name in enumerate(names if isinstance(names, list) else []):
        trail = ("benchmarks", position)
        if name in loaded:
            reading.problems.append(
                reading.document.problem(trail, f"{shown(name)} is listed twice", "keep one")
            )
            continue
        path = _find(reading, "benchmark", name, trail)
        if path:
            card, faults = load_card("benchmark", path)
            reading.problems += faults
            if isinstance(card, Benchmark):
                loaded[name] = card
    return loaded


def _benchmark_data(reading: _Reading, benchmarks: dict[str, Benchmark]) -> dict[str, str]:
    found = {}
    for position, (name, card) in enumerate(benchmarks.items()):
        if card.data is not None:
            trail = ("benchmarks", position)
            found[name], faults = benchmark_path(card, reading.document, trail, reading.need_data)
            reading.problems += faults
    return found


def _load_domains(
    reading: _Reading, curriculum: Curriculum | None, benchmarks: dict[str, Benchmark]
) -> dict[str, DomainOnShelf]:
    """Loads the recipe's domain, the replay domain when a stage replays, and the benchmarks' domains."""
    value = reading.document.value
    wanted: dict[str, tuple[str | int, ...]] = {}
    if isinstance(value.get("domain"), str):
        wanted[value["domain"]] = ("domain",)
    if curriculum and any(stage.replay > 0 for stage in curriculum.stages.values()):
        replay = value.get("replay")
        name = replay.get("domain", "scenes") if isinstance(replay, dict) else "scenes"
        wanted.setdefault(name, ("replay", "domain"))
    for position, benchmark in enumerate(benchmarks.values()):
        if benchmark.source.domain != "same":
            wanted.setdefault(benchmark.source.domain, ("benchmarks", position))
    loaded: dict[str, DomainOnShelf] = {}
    for name, trail in wanted.items():
        path = _find(reading, "domain", name, trail)
        if not path:
            continue
        document = read_card(path, shown_path(path))
        card, faults = validate(Domain, document)
        reading.problems += faults + _name_problem("domain", document, path)
        if not card:
            continue
        domain, faults = load_domain(card, document, path.parent, reading.inspect)
        reading.problems += faults
        own = value.get("data") if trail == ("domain",) else None
        data, faults = data_path(card, own, reading.document, trail, reading.need_data)
        reading.problems += faults
        if trail == ("domain",) and card.data.reader != "drawn":
            reading.problems += count_problems(reading.document)
        if domain:
            loaded[name] = DomainOnShelf(card, domain.folder, domain.teacher, data)
    return loaded


def _load_words(reading: _Reading, base: Base | None) -> tuple[str, ...]:
    """Gathers the texts of the teacher cards that ``build.words_from`` names."""
    words: set[str] = set()
    for position, name in enumerate(base.build.words_from if base and base.build else []):
        path = _find(reading, "domain", name, ("build", "words_from", position))
        if path:
            card, _ = validate(Domain, read_card(path, shown_path(path)))
            teacher = path.parent / (card.teacher if card else "teacher.yaml")
            words.update(texts_of(read_card(teacher, shown_path(teacher)).value))
    return tuple(sorted(words))


def _find(reading: _Reading, kind: str, name: Any, trail: tuple[str | int, ...]) -> Path | None:
    """Gives the file of a named card; what can't be a name is left to the model's own message."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return None
    path = reading.shelf.find(kind, name)
    if path is None:
        where = f"{LAYOUT[kind][0]}/{LAYOUT[kind][1].format(name=name)}"
        hint = did_you_mean(name, reading.shelf.names(kind))
        message = f"there is no {kind} {shown(name)} ({where} is not on the shelf)"
        reading.problems.append(reading.document.problem(trail, message, hint))
    return path


def _name_problem(kind: str, document: Document, path: Path) -> list[Problem]:
    """A card's name must be its file's (or folder's), else two cards can claim one name."""
    expected = path.stem if kind in ("recipe", "curriculum") else path.parent.name
    name = document.value.get("name")
    changed = document.place(("name",))[0] != document.file
    if document.problems or not isinstance(name, str) or name == expected or changed:
        return []
    what = "file" if kind in ("recipe", "curriculum") else "folder"
    hint = f"write 'name: {expected}' or rename the {what}"
    return [document.problem(("name",), f'"{name}" is not the name of its {what} ({expected})', hint)]


def _in_order(problems: Iterable[Problem], first: str) -> list[Problem]:
    """Sorts faults by file and line, the recipe's own first, each said once."""
    unique = dict.fromkeys(problems)
    return sorted(
        unique, key=lambda problem: (problem.line > 0, problem.file != first, problem.file, problem.line)
    )
