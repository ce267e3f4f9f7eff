"""Errors that a user can act on. The command line prints them without a traceback; anything else is a bug."""

from __future__ import annotations

from dataclasses import dataclass


class MedkitError(Exception):
    """Something the user can mend; the message says what is wrong, where, and what to do."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One fault of a card, with its place.

    Attributes:
        file: The card's path as the user would type it.
        line: 1-based line number, 0 when the fault has no line (a value given with --set).
        path: Dotted path of the faulty value, for example ``stages.instruct.epochs``.
        message: What is wrong, with the value.
        hint: What to do, or "".
    """

    file: str
    line: int
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        where = f"{place}: {self.path}" if self.path else place
        return f"{where}: {self.message}" + (f"; {self.hint}" if self.hint else "")


class CardError(MedkitError):
    """A card (recipe, curriculum, domain, benchmark) has faults: all of them at once."""

    exit_code = 2

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class DataError(MedkitError):
    """The data as a whole can't be used (a missing folder, no readable record)."""


class MissingExtra(DataError):
    """A package of an extra that is not installed is needed, or its model; the message says which."""


class ModelError(MedkitError):
    """A checkpoint can't be loaded, or does not fit its contract."""


class TrainingError(MedkitError):
    """Training can't start or go on (no supervised token, a loss that is not finite)."""
