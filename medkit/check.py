"""Looks at cards without running anything: every fault at once, with the fixtures read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from .cards.faults import did_you_mean, validate
from .cards.load import Cards, load_card, load_recipe
from .cards.models import Benchmark, BenchmarkData, Domain, DomainData
from .cards.shelf import Shelf, open_shelf, shown_path
from .cards.strict_yaml import Document, read_card
from .errors import CardError, MedkitError, Problem

# A fixture is tiny; a reader that goes on past this many records reads something else.
_MOST_FIXTURE_RECORDS = 500


def load(recipe: str | Path, settings: Sequence[str] = (), *, need_data: bool = True) -> Cards:
    """Loads a recipe as ``run`` and ``check`` do, with what readers and teacher say about its domains.

    Raises:
        CardError: With every fault.
    """
    return load_recipe(recipe, settings, inspect=inspect_domain, need_data=need_data)


def inspect_domain(card: Domain, document: Document, teacher: Document) -> list[Problem]:
    """Gives the faults that only higher rooms can see: an unknown reader, a faulty teacher card."""
    # The rooms above the cards are imported here: `list` and `--help` need neither.
    from .readers import READERS
    from .teacher.card import TeacherCard

    problems = validate(TeacherCard, teacher)[1]
    if card.data.reader not in READERS:
        message = f"there is no reader {card.data.reader}"
        problems.append(
            document.problem(("data", "reader"), message, did_you_mean(card.data.reader, READERS))
        )
    return problems


def check_recipe(recipe: str | Path, settings: Sequence[str] = ()) -> Cards:
    """Loads a recipe and reads the fixtures of its domains.

    Raises:
        CardError: With every fault.
    """
    cards = load(recipe, settings)
    problems = [
        problem
        for domain in cards.domains.values()
        for problem in fixture_problems(domain.card, domain.folder)
    ]
    shelf = open_shelf()
    for name, card in cards.benchmarks.items():
        path = shelf.find("benchmark", name)
        problems += benchmark_problems(card, path.parent) if path else []
    if problems:
        raise CardError(problems)
    return cards


def check_shelf(shelf: Shelf | None = None) -> tuple[dict[str, list[str]], list[Problem]]:
    """Loads every card of the shelf, and every recipe with the cards that it names.

    Data folders need not be there.

    Returns:
        ({kind: names that are fine}, every fault).
    """
    shelf = shelf or open_shelf()
    fine: dict[str, list[str]] = {}
    problems: list[Problem] = []
    for kind in ("domain", "curriculum", "benchmark"):
        for name, path in shelf.names(kind).items():
            card, faults = load_card(kind, path, inspect_domain)
            if isinstance(card, Domain) and not faults:
                faults = fixture_problems(card, path.parent)
            elif isinstance(card, Benchmark) and not faults:
                faults = benchmark_problems(card, path.parent)
            problems += faults
            fine.setdefault(kind, []).extend([] if faults else [name])
    for name, path in shelf.names("recipe").items():
        try:
            load_recipe(path, shelf=shelf, inspect=inspect_domain, need_data=False)
            fine.setdefault("recipe", []).append(name)
        except CardError as error:
            problems += error.problems
    return fine, list(dict.fromkeys(problems))


def fixture_problems(card: Domain, folder: Path) -> list[Problem]:
    """Reads a domain's fixture with the domain's reader and gives what is wrong with it."""
    document = read_card(folder / "domain.yaml", shown_path(folder / "domain.yaml"))
    return _read_fixture(card.data, card.fixture, folder, document)


def benchmark_problems(card: Benchmark, folder: Path) -> list[Problem]:
    """Reads a benchmark's fixture with its reader and gives what is wrong with it or with its reader."""
    from .readers import READERS

    if card.data is None:
        return []
    document = read_card(folder / "eval.yaml", shown_path(folder / "eval.yaml"))
    if card.data.reader not in READERS or card.data.reader == "drawn":
        message = f"there is no reader {card.data.reader} for a benchmark"
        return [document.problem(("data", "reader"), message, did_you_mean(card.data.reader, READERS))]
    if not (card.data.path or card.data.env or card.data.hub):
        return [document.problem(("data",), "says nowhere to read from", "give path, env or hub")]
    problems = _metric_problems(card, document)
    if problems:
        return problems
    return _read_fixture(card.data, card.fixture, folder, document)


def _metric_problems(card: Benchmark, document: Document) -> list[Problem]:
    from .evaluation.scoring.profiles import score_names

    if not card.metrics:
        return []
    names = score_names(card.profile)
    return [
        document.problem(
            ("metrics", place), f"the profile {card.profile} has no score {name}", did_you_mean(name, names)
        )
        for place, name in enumerate(card.metrics)
        if name not in names
    ]


def _read_fixture(
    data: DomainData | BenchmarkData, fixture: str | None, folder: Path, document: Document
) -> list[Problem]:
    from .readers import Record, get_reader

    options = dict(data.options)
    drawn = data.reader == "drawn"
    if drawn:
        options = {**options, "train": 1, "valid": 0, "test": 1, "workers": 1}
    elif fixture is None:
        return []
    else:
        options["splits"] = list(data.splits)
    root = folder if drawn or fixture is None else folder / fixture
    trail = ("data", "reader") if drawn else ("fixture",)
    kept, rejected = 0, []
    try:
        records = get_reader(data.reader)(root, options)
        for record in itertools.islice(records, _MOST_FIXTURE_RECORDS):
            if isinstance(record, Record):
                kept += 1
            else:
                rejected.append(f"{record.record}: {record.reason} {record.detail}".strip())
    except MedkitError as error:
        return [document.problem(trail, f"can't be read: {error}")]
    if drawn and rejected:
        return [document.problem(trail, f"drawing failed: {rejected[0]}")]
    if not kept:
        why = f" (the first was rejected: {rejected[0]})" if rejected else ""
        return [document.problem(trail, f"holds no record that the reader {data.reader} understands{why}")]
    return []
