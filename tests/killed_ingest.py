"""Ingests in child processes that are killed at given places, and then to the end.

    killed_ingest.py OUT SEED KILLS WORKERS

A place is the number of a call of a function of medkit, so that the kills fall into every part of the step. Prints the
number of kills that came before the end.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import loaders
import numpy as np

from medkit.readers import READERS, known
from medkit.readers.ingest import ingest

RECORDS = 120


def main() -> None:
    out, (seed, kills, workers) = Path(sys.argv[1]), map(int, sys.argv[2:])
    more = {"workers": workers} if workers else {}
    np.random.default_rng(0).random()  # what is imported on first use is imported here
    READERS["listed"] = "loaders"
    known.COMMIT_SECONDS = 0.0
    settings = loaders.settings(out.parent, RECORDS, diary=str(out.parent / "diary"), **more)
    ingest(loaders.settings(out.parent, RECORDS), {}, out.parent / "whole")
    counted = loaders.settings(out.parent, RECORDS, **more)
    total = count_calls(lambda: ingest(counted, {}, out.parent / "counted"))
    order, done = random.Random(seed), 0
    for _ in range(kills):
        place = order.randrange(total)
        child = os.fork()
        if child == 0:
            die_at(place)
            ingest(settings, {}, out)
            os._exit(0)
        done += os.waitpid(child, 0)[1] == signal.SIGKILL
    ingest(settings, {}, out)
    print(done)


def count_calls(work) -> int:
    """Gives the number of calls of medkit's functions in a piece of work."""
    calls = [0]

    def look(frame, event, _) -> None:
        calls[0] += event == "call" and "medkit" in frame.f_code.co_filename

    sys.setprofile(look)
    work()
    sys.setprofile(None)
    return calls[0]


def die_at(place: int) -> None:
    """Kills this process at its so-manieth call of a function of medkit."""
    calls = [0]

    def look(frame, event, _) -> None:
        calls[0] += event == "call" and "medkit" in frame.f_code.co_filename
        if calls[0] > place:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(look)


if __name__ == "__main__":
    main()
