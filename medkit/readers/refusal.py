"""Why one file of a source gives nothing: a reason from a reader's table, and no error beyond that file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from medkit.errors import DataError, MissingExtra


class Refusal(DataError):
    """A file that gives no picture; ``detail`` holds numbers and medkit's own words, no header text.

    Attributes:
        reasons: The reader's reasons, with what each means.
    """

    reasons: ClassVar[dict[str, str]] = {}

    def __init__(self, reason: str, detail: str = ""):
        if reason not in self.reasons:
            raise KeyError(reason)
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


@contextmanager
def within_one_file(refused: type[Refusal], too_much: Refusal) -> Iterator[None]:
    """Keeps whatever a hostile file raises within that file; an error's text may quote a value and is dropped.

    Args:
        refused: The reader's kind of refusal.
        too_much: What is raised when memory runs out.

    Raises:
        Refusal: In place of any error.
        MissingExtra: What is missing is missing for every file.
    """
    try:
        yield
    except (refused, MissingExtra):
        raise
    except MemoryError:
        raise too_much from None
    except Exception as error:
        raise refused("unforeseen fault", type(error).__name__) from None
