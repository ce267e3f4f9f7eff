"""Turns a recipe into steps: a pure function of the cards, with no look at the disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .cards.load import Cards, DomainOnShelf
from .cards.models import Stage
from .cards.stages import stage_order

# A verb's number goes up when its code gives other outputs for the same settings: its steps are then redone.
REVISIONS = {"ingest": 6, "teach": 1, "build": 1, "train": 4, "evaluate": 4, "compare": 2, "benchmark": 2}


@dataclass(frozen=True)
class Step:
    """One step of a run: what is called, with what, on the outputs of which steps.

    Attributes:
        number: Its place in the run, from 1.
        name: Unique in the run; the folder is ``number-name``.
        verb: A key of ``REVISIONS``.
        settings: JSON-able values that the verb gets.
        inputs: Role -> name of the step whose folder is read. ``start`` and ``model`` mean its model folder.
        external: Role -> path, or hub id, of what lies outside the run.
        about: A few words for the table.
    """

    number: int
    name: str
    verb: str
    settings: dict[str, Any]
    inputs: dict[str, str] = field(default_factory=dict)
    external: dict[str, str] = field(default_factory=dict)
    about: str = ""

    @property
    def folder(self) -> str:
        """The step's folder name inside the run folder."""
        return f"{self.number}-{self.name}"


def plan(cards: Cards) -> list[Step]:
    """Gives the steps of a recipe in the order in which they run.

    Args:
        cards: The loaded recipe.

    Returns:
        ingest and teach of the recipe's domain and of every other domain that is read, build when the base is
        built, a training step a stage, an evaluation of the base and of every stage that answers, compare.
    """
    return _Planner(cards).steps()


def final_stage(cards: Cards) -> str:
    """Gives the name of the stage whose model is the result."""
    return cards.curriculum.final


class _Planner:
    def __init__(self, cards: Cards):
        self.cards = cards
        self.planned: list[Step] = []
        self.taught: dict[str, str] = {}  # domain name -> name of its teach step
        self.asked: dict[str, str] = {}  # benchmark -> step whose folder holds its questions

    def steps(self) -> list[Step]:
        recipe, stages = self.cards.recipe, self.cards.curriculum.stages
        counts = recipe.ingest.model_dump(include={"train", "valid", "test"}, exclude_none=True)
        self._dataset(recipe.domain, "", {"limit": recipe.ingest.limit}, counts)
        for name in self.cards.domains:
            if name != recipe.domain:
                general = name == recipe.replay.domain
                count = recipe.replay.count if general else None
                self._dataset(name, "-general" if general else f"-{name}", {"count": count}, {})
        for name in self.cards.benchmarks:
            self._benchmark(name)
        if self.cards.base.kind == "build":
            self._build()
        order = stage_order(self.cards.curriculum)
        for name in order:
            self._train(name, stages[name])
        answering = [name for name in order if stages[name].objective == "answer"]
        self._evaluate("base", self._base("model"))
        for name in answering:
            self._evaluate(name, ({"model": name}, {}))
        compared = {name: f"evaluate-{name}" for name in ["base", *answering]}
        trained = {f"train:{name}": name for name in answering}
        self._add(
            "compare", "compare", {}, {**compared, **trained, "data": "teach"}, about="base with every stage"
        )
        return self.planned

    def _dataset(self, domain: str, suffix: str, most: dict[str, int | None], drawn: dict[str, int]) -> None:
        recipe, found = self.cards.recipe, self.cards.domains[domain]
        data = str(found.data) if found.data else None
        card = found.card.model_dump()
        card["data"]["options"] = {**card["data"]["options"], **drawn}
        card["data"]["license"] = recipe.ingest.license or card["data"]["license"]
        settings = {
            "domain": {**card, "folder": str(found.folder.absolute())},
            "data": data,
            **most,
            "seed": recipe.ingest.seed,
            "workers": recipe.ingest.workers,
            "engine": recipe.ingest.engine,
        }
        external = {"data": data} if data else {}
        if found.card.data.reader == "drawn":
            external["code"] = str((found.folder / "domain.py").absolute())
        self._add(f"ingest{suffix}", "ingest", settings, {}, external, _about_data(found, most))
        teacher = {"teacher": found.teacher, **recipe.teacher.model_dump()}
        about = f"{domain}: questions and conversations from its facts"
        self._add(f"teach{suffix}", "teach", teacher, {"ingest": f"ingest{suffix}"}, about=about)
        self.taught[domain] = f"teach{suffix}"

    def _benchmark(self, name: str) -> None:
        """Reads a benchmark with data of its own; others ask what a domain's steps hold."""
        card = self.cards.benchmarks[name]
        if card.data is None:
            own = card.source.domain
            step = self.taught[self.cards.recipe.domain if own == "same" else own]
            # What is made of annotations needs the facts, which taught text does not carry.
            self.asked[name] = step.replace("teach", "ingest", 1) if card.source.ask == "pope" else step
            return
        data = self.cards.benchmark_data.get(name, "")
        about = f"{name}: read as {card.data.reader}"
        settings = {"benchmark": card.model_dump(), "data": data}
        self._add(f"benchmark-{name}", "benchmark", settings, {}, {"data": data} if data else {}, about)
        self.asked[name] = f"benchmark-{name}"

    def _build(self) -> None:
        build = self.cards.base.build
        sizes = build.model_dump(exclude={"words_from"}) if build else {}
        settings = {"sizes": sizes, "words": list(self.cards.words), "seed": self.cards.recipe.seed}
        about = f"a new model for images of {sizes.get('image_px')} px"
        self._add("build", "build", settings, {"data": "teach"}, about=about)

    def _train(self, name: str, stage: Stage) -> None:
        recipe = self.cards.recipe
        inputs, external = ({"start": stage.start}, {}) if stage.start != "base" else self._base("start")
        inputs = {**inputs, "data": "teach"}
        if stage.objective == "see":
            inputs["records"] = "ingest"
        if stage.replay > 0:
            # who learns to see needs the facts, which made text does not carry
            step = self.taught[recipe.replay.domain]
            inputs["replay"] = step.replace("teach", "ingest", 1) if stage.objective == "see" else step
        # An adapter changes the towers only: a stage that trains the projector alone does not depend on it.
        towers = stage.train.vision > 0 or stage.train.language > 0
        settings = {
            "stage": name,
            **stage.model_dump(),
            "adapter": recipe.adapter.model_dump()
            if towers and stage.objective == "answer"
            else {"kind": "full"},
            "hardware": recipe.hardware.model_dump(),
            "seed": recipe.seed,
        }
        self._add(name, "train", settings, inputs, external, _about_stage(stage))

    def _evaluate(self, name: str, model: tuple[dict[str, str], dict[str, str]]) -> None:
        recipe, benchmarks = self.cards.recipe, self.cards.benchmarks
        inputs = {**model[0], "data": "teach"}
        for benchmark in benchmarks:
            inputs[f"data:{benchmark}"] = self.asked[benchmark]
        settings = {
            "name": name,
            "benchmarks": [card.model_dump() for card in benchmarks.values()],
            "hardware": recipe.hardware.model_dump(),
        }
        self._add(f"evaluate-{name}", "evaluate", settings, inputs, model[1], ", ".join(benchmarks))

    def _base(self, role: str) -> tuple[dict[str, str], dict[str, str]]:
        """Gives (inputs, external) for the model that training starts from."""
        base = self.cards.base
        if base.kind == "build":
            return {role: "build"}, {}
        return {}, {role: f"hub:{base.name}" if base.kind == "hub" else str(base.path)}

    def _add(
        self,
        name: str,
        verb: str,
        settings: dict[str, Any],
        inputs: dict[str, str],
        external: dict[str, str] | None = None,
        about: str = "",
    ) -> None:
        self.planned.append(Step(len(self.planned) + 1, name, verb, settings, inputs, external or {}, about))


def _about_data(domain: DomainOnShelf, most: dict[str, int | None]) -> str:
    source = "drawn by medkit" if domain.card.data.reader == "drawn" else f"read as {domain.card.data.reader}"
    limits = "".join(f", {name} {value}" for name, value in most.items() if value)
    return f"{domain.card.name}: {source}{limits}"


def _about_stage(stage: Stage) -> str:
    rates = ", ".join(f"{part} {rate:g}" for part, rate in stage.train.model_dump().items() if rate)
    replay = f", replay {stage.replay:g}" if stage.replay else ""
    return f"{rates}; {stage.epochs:g} epochs from {stage.start}{replay}"
