"""Decodes compressed pixels in a process of its own (``medkit.readers.worker``)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from medkit.readers import worker
from medkit.readers.dicom.decode import Stored, decode
from medkit.readers.dicom.files import DEFAULT_LIMITS, Limits, read_file
from medkit.readers.dicom.reasons import Refused, one_file

TASK = f"{__name__}:work"


class Worker(worker.Worker):
    """A decoding process.

    Args:
        command: What is started; None: the decoder.
    """

    def __init__(self, command: list[str] | None = None) -> None:
        super().__init__(TASK, command)

    def decode(
        self,
        path: Path | str,
        wanted: list[int] | None,
        limits: Limits = DEFAULT_LIMITS,
        side: int | None = None,
    ) -> Stored:
        """Decodes frames of a file as ``decode.decode`` does, within the limits' time and memory.

        Raises:
            Refused: As ``decode``, or the decoder was too slow or crashed.
        """
        return _decode(self, path, wanted, limits, side)


def decode_apart(
    path: Path | str, wanted: list[int] | None, limits: Limits = DEFAULT_LIMITS, side: int | None = None
) -> Stored:
    """Decodes frames of a file in this process's own worker, see ``Worker.decode``."""
    return _decode(worker.shared(TASK), path, wanted, limits, side)


def work(order: dict[str, Any], _: bytes) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Does an order of ``Worker.decode``."""
    limits = Limits(**order["limits"])
    with one_file():
        stored = decode(read_file(order["path"], limits), order["wanted"], limits, order["side"])
    return {"photometric": stored.photometric, "notes": stored.notes}, [stored.values]


def _decode(
    by: worker.Worker, path: Path | str, wanted: list[int] | None, limits: Limits, side: int | None
) -> Stored:
    order = {"path": str(Path(path).absolute()), "wanted": wanted, "limits": asdict(limits), "side": side}
    bounds = worker.Bounds(limits.seconds, limits.worker_bytes, max(limits.decoded_bytes, 1) * 8)
    answer = by.ask(order, Refused, bounds)
    try:
        (values,), photometric = answer.arrays, str(answer.head["photometric"])
        notes = tuple((str(one), str(two)) for one, two in answer.head["notes"])
    except (KeyError, TypeError, ValueError):
        by.stop()
        raise Refused(worker.CRASHED) from None
    return Stored(values, photometric, notes)
