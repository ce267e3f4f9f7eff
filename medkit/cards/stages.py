"""What must hold between the stages of a curriculum."""

from __future__ import annotations

import re

from ..errors import Problem
from .faults import did_you_mean
from .models import Curriculum, Stage
from .strict_yaml import Document

# Step and role names that a stage would collide with in a run folder.
RESERVED = {
    "base",
    "build",
    "compare",
    "data",
    "ingest",
    "model",
    "records",
    "replay",
    "report",
    "start",
    "teach",
}
_STAGE_NAME = re.compile(r"(?!(evaluate|ingest|teach|data)-)[a-z][a-z0-9-]*")


def stage_problems(curriculum: Curriculum, document: Document) -> list[Problem]:
    """Gives the faults that no single value shows: unknown starts, circles, parts that nothing trains."""
    stages = curriculum.stages
    problems: list[Problem] = []
    if curriculum.final not in stages:
        hint = did_you_mean(curriculum.final, stages)
        problems.append(document.problem(("final",), f"there is no stage {curriculum.final}", hint))
    elif stages[curriculum.final].objective == "see":
        problems.append(document.problem(("final",), "a stage that learns to see gives no answers",
                                         "end with a stage of objective answer"))  # fmt: skip
    for name, stage in stages.items():
        trail = ("stages", name)
        if name in RESERVED or not _STAGE_NAME.fullmatch(name):
            hint = "use lower-case letters, digits and '-'"
            problems.append(document.problem(trail, "can't be a stage's name", hint))
        if stage.start != "base" and stage.start not in stages:
            hint = did_you_mean(stage.start, [*stages, "base"])
            problems.append(document.problem((*trail, "start"), f"there is no stage {stage.start}", hint))
        problems += [
            document.problem((*trail, *inner), message, hint) for inner, message, hint in _faults(stage)
        ]
    return problems + _circles(curriculum, document)


def stage_order(curriculum: Curriculum) -> list[str]:
    """Gives the stage names so that each comes after the one it starts from, else as written."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            start = curriculum.stages[name].start
            if start != "base":
                visit(start)
            order.append(name)

    for name in curriculum.stages:
        visit(name)
    return order


def _faults(stage: Stage) -> list[tuple[tuple[str, ...], str, str]]:
    """Gives (trail, message, hint) of values of one stage that contradict each other."""
    faults = []
    rates = stage.train
    if rates.vision == rates.projector == rates.language == 0:
        hint = "give vision, projector or language a learning rate"
        faults.append((("train",), "every part is frozen, so the stage trains nothing", hint))
    if stage.objective == "see" and rates.vision == 0 and rates.projector + rates.language > 0:
        faults.append(
            (("train", "vision"), "a stage that learns to see must train vision", "give it a learning rate")
        )
    if stage.objective == "see" and (stage.pack or stage.turns == "apart"):
        key = "pack" if stage.pack else "turns"
        faults.append(((key,), "a stage that learns to see reads no text", "leave it out"))
    if stage.micro_batch and stage.micro_batch > stage.batch:
        message = f"must be at most batch ({stage.batch}), not {stage.micro_batch}"
        faults.append((("micro_batch",), message, ""))
    if stage.patience and not stage.validate_every:
        faults.append((("patience",), "needs validation losses", "set validate_every"))
    return faults


def _circles(curriculum: Curriculum, document: Document) -> list[Problem]:
    """Says each circle once, at the stage of it that is written first."""
    problems: list[Problem] = []
    told: set[str] = set()
    for first in curriculum.stages:
        path = [first]
        while path[-1] in curriculum.stages:
            start = curriculum.stages[path[-1]].start
            if start in path:
                circle = path[path.index(start) :]
                if not told.intersection(circle):
                    told.update(circle)
                    message = f"stages start from one another in a circle: {' -> '.join([*circle, start])}"
                    trail = ("stages", circle[0], "start")
                    problems.append(document.problem(trail, message, "let one of them start from base"))
                break
            path.append(start)
    return problems
