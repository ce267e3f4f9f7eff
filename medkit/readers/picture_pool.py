"""Decodes picture files in worker processes: a crash, a hang or a bomb costs one file.

Orders go in batches and every file is answered by itself, so a worker decodes the next file while the last one is
used, and the message costs next to nothing. Files go to the workers in turn; results come in the files' order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medkit import images
from medkit.errors import DataError
from medkit.readers import worker
from medkit.readers.refusal import Refusal, within_one_file

TASK = f"{__name__}:work"
# Orders of a message to one worker, and the bytes that it may hold.
BATCH = 32
BATCH_BYTES = 32 << 20


class Refused(Refusal):
    """A file that gives no picture."""

    reasons = {
        "image unreadable": "The file is missing, too large, broken, or no picture.",
        **worker.REASONS,
        "unforeseen fault": "Something in the file that medkit didn't foresee; the detail names the kind of error.",
    }


@dataclass(frozen=True)
class Limits:
    """What one picture may cost.

    Attributes:
        picture: What is refused before decoding.
        seconds: Longest time to decode.
        worker_bytes: Address space of a process.
    """

    picture: images.Limits = images.DEFAULT_LIMITS
    seconds: float = 30.0
    worker_bytes: int = 4 << 30


DEFAULT_LIMITS = Limits()


class PicturePool:
    """Processes that decode pictures; a context manager that ends them.

    Args:
        processes: How many.
        limits: What one picture may cost.
        scale: How more than 8 bits are brought to 8, see ``medkit.images``.
    """

    def __init__(
        self, processes: int = 1, limits: Limits = DEFAULT_LIMITS, scale: images.Scale = "percentile"
    ):
        self._workers = [worker.Worker(TASK) for _ in range(max(1, processes))]
        self._limits, self._scale = limits, scale
        self._bounds = worker.Bounds(limits.seconds, limits.worker_bytes)
        self._settings = {"limits": asdict(limits.picture), "scale": scale}

    def __enter__(self) -> PicturePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the processes."""
        for one in self._workers:
            one.stop()

    def decode(self, files: Iterable[bytes | Path]) -> Iterator[images.Decoded | Refused]:
        """Decodes files as ``medkit.images.decode`` does.

        Args:
            files: Encoded pictures, or paths of them; read as they are needed.

        Yields:
            For every file, in order, its picture or why there is none. A generator that isn't used up leaves answers
            behind: ``stop`` the pool then.
        """
        waiting = iter(files)
        while block := self._block(waiting):
            lanes = [block[number :: len(self._workers)] for number in range(len(self._workers))]
            done = [self._lane(child, lane) for child, lane in zip(self._workers, lanes, strict=True)]
            # Every worker gets its orders before the first answer is awaited.
            for answers in done:
                next(answers)
            for number in range(len(block)):
                yield next(done[number % len(done)])

    def _block(self, waiting: Iterator[bytes | Path]) -> list[bytes | Path]:
        """Takes the files of the next messages."""
        block, size = [], 0
        for one in islice(waiting, BATCH * len(self._workers)):
            block.append(one)
            size += len(one) if isinstance(one, bytes) else 0
            if size >= BATCH_BYTES:
                break
        return block

    def _lane(self, child: worker.Worker, files: list[bytes | Path]) -> Iterator[Any]:
        """Gives None when the orders are sent, then every file's result; after a crash the rest is sent again."""
        done = 0
        fault = self._send(child, files)
        yield None
        while done < len(files):
            if fault is not None:
                yield fault
                done += 1
                fault = self._send(child, files[done:])
                continue
            try:
                result = _decoded(child.receive(Refused, self._bounds))
            except Refused as refused:
                result = refused
            yield result
            done += 1
            if not child.alive:
                fault = self._send(child, files[done:])

    def _send(self, child: worker.Worker, files: list[bytes | Path]) -> Refused | None:
        if not files:
            return None
        orders = [
            self._settings | ({} if isinstance(one, bytes) else {"path": str(Path(one).absolute())})
            for one in files
        ]
        payloads = [one if isinstance(one, bytes) else b"" for one in files]
        try:
            child.send(orders, payloads, Refused, self._bounds)
        except Refused as refused:
            return refused
        return None


def decode_pictures(
    files: Iterable[bytes | Path], processes: int = 1, limits: Limits = DEFAULT_LIMITS
) -> Iterator[images.Decoded | Refused]:
    """Decodes files in worker processes that end with the last file; see ``PicturePool.decode``."""
    with PicturePool(processes, limits) as pool:
        yield from pool.decode(files)


def work(order: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Does one order."""
    limits = images.Limits(**order["limits"])
    with within_one_file(Refused, Refused("image unreadable", "more memory than the limit")):
        try:
            data = images.read_limited(Path(order["path"]), limits) if "path" in order else payload
            decoded = images.decode(data, limits, order["scale"])
        except DataError as error:
            raise Refused("image unreadable", str(error)) from None
        return {"plain": decoded.plain, "note": decoded.note}, [np.asarray(decoded.image)]


def _decoded(answer: worker.Answer) -> images.Decoded | Refused:
    try:
        (pixels,) = answer.arrays
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ValueError
        return images.Decoded(Image.fromarray(pixels), bool(answer.head["plain"]), str(answer.head["note"]))
    except (KeyError, ValueError):
        return Refused(worker.CRASHED)
