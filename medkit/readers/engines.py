"""Which engine makes the pictures of a source."""

from __future__ import annotations

import os

from medkit.errors import DataError
from medkit.images import Limits
from medkit.readers.on_ray import OnRay
from medkit.readers.workers import Engine, Here, Processes

# A small source is read before a second worker would have earned its start.
PATIENCE_SECONDS = 1.0


def open_engine(workers: int | str | None, engine: str, limits: Limits) -> Engine:
    """Gives what makes the pictures.

    Args:
        workers: Processes beside this one; "auto" takes one, and after a second one a processor; None works in this
            process, where a hostile file can do harm.
        engine: "local", or "ray" for a Ray cluster.
        limits: What is refused of encoded files.

    Raises:
        DataError: There is no such engine, or its package isn't installed.
    """
    if engine == "ray":
        return OnRay(limits, None if workers in ("auto", None) else int(workers))
    if engine != "local":
        raise DataError(f"there is no engine {engine!r}; engines: local, ray")
    if workers is None:
        return Here(limits)
    if workers == "auto":
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return Processes(count, limits, PATIENCE_SECONDS)
    return Processes(int(workers), limits)
