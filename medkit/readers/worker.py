"""Work on untrusted files in a process of its own: a crash, a hang or a bomb costs one file.

A task is a function of this package, named "module:function", that gets an order (a JSON object) with the bytes that
go along and gives (a JSON object, arrays). The child answers with a JSON head and raw bytes, never with a pickle: it
may be in the hands of a hostile file. Run as a module it is that child.

Several orders travel in one message and every one is answered by itself, so the deadline counts for each file, and
the file that killed the child is the first one without an answer.
"""

from __future__ import annotations

import atexit
import importlib
import json
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from medkit.readers.child import LENGTH, Process, pipes
from medkit.readers.refusal import Refusal

MOST_HEAD = 1 << 20
TOO_SLOW, CRASHED, FAILED = "decoder too slow", "decoder crashed", "decoder failed"
# What a room that works apart adds to its reasons.
REASONS = {
    FAILED: "The decoder refused the pixels.",
    TOO_SLOW: "The decoder was stopped at the time limit.",
    CRASHED: "The decoder's process died; only this file is lost.",
}

Task = Callable[[dict[str, Any], bytes], tuple[dict[str, Any], Sequence[np.ndarray]]]


@dataclass(frozen=True)
class Bounds:
    """What one order may cost.

    Attributes:
        seconds: Longest time until its answer.
        memory_bytes: Address space of the process; holds from its start to its end.
        answer_bytes: Largest answer.
    """

    seconds: float = 60.0
    memory_bytes: int = 6 << 30
    answer_bytes: int = 1 << 30


@dataclass(frozen=True)
class Answer:
    """What a task gave: JSON values, and arrays that are read-only."""

    head: dict[str, Any]
    arrays: list[np.ndarray]


class Worker(Process):
    """A process for one task that is started when it is needed and again after it died.

    Args:
        task: "module:function" of medkit.
        command: What is started in place of this module.
    """

    def __init__(self, task: str, command: list[str] | None = None) -> None:
        super().__init__(command or [sys.executable, "-m", __name__, task])

    def ask(
        self, order: dict[str, Any], refused: type[Refusal], bounds: Bounds, payload: bytes = b""
    ) -> Answer:
        """Has one order done.

        Args:
            order: JSON-able values.
            refused: What is raised; its reasons contain ``REASONS``.
            bounds: What it may cost.
            payload: Bytes that go along.

        Raises:
            Refusal: Of the kind ``refused``: the task's own reason, or that it was too slow or crashed.
        """
        self.send([order], [payload], refused, bounds)
        return self.receive(refused, bounds)

    def send(
        self,
        orders: list[dict[str, Any]],
        payloads: list[bytes],
        refused: type[Refusal],
        bounds: Bounds,
    ) -> None:
        """Sends orders, whose answers must all be received before the next message.

        Raises:
            Refusal: The child can't be started or spoken to.
        """
        try:
            self._start(str(bounds.memory_bytes))
            text = json.dumps({"orders": orders, "sizes": [len(one) for one in payloads]}).encode()
            self._write(LENGTH.pack(len(text)), text, *payloads)
        except (OSError, EOFError, TimeoutError):
            self.stop()
            raise refused(CRASHED) from None

    def receive(self, refused: type[Refusal], bounds: Bounds) -> Answer:
        """Gives the answer to the first order that has none yet.

        After "too slow" or "crashed" the process is gone, and the orders behind this one have to be sent again.

        Raises:
            Refusal: As ``ask``.
        """
        try:
            deadline = time.monotonic() + bounds.seconds
            (length,) = LENGTH.unpack(self._read(LENGTH.size, deadline))
            if length > MOST_HEAD:
                raise EOFError
            head = json.loads(bytes(self._read(length, deadline)))
            if "reason" in head:
                reason = head["reason"]
                raise refused(reason if reason in refused.reasons else FAILED, str(head.get("detail", "")))
            arrays, left = [], bounds.answer_bytes
            for shape, name in head.pop("arrays"):
                kind = np.dtype(name)
                size = int(np.prod([int(one) for one in shape], dtype=object)) * kind.itemsize
                if not 0 <= size <= left or kind.hasobject:
                    raise EOFError
                left -= size
                arrays.append(np.frombuffer(self._read(size, deadline), kind).reshape(shape))
            return Answer(head, arrays)
        except TimeoutError:
            self.stop()
            raise refused(TOO_SLOW, f"stopped after {bounds.seconds:g} s") from None
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, struct.error):
            self.stop()
            raise refused(CRASHED) from None


_shared: dict[str, Worker] = {}


def shared(task: str) -> Worker:
    """Gives this process's own worker for a task."""
    if task not in _shared:
        _shared[task] = Worker(task)
        atexit.register(_shared[task].stop)
    return _shared[task]


def _serve(task: Task, orders: IO[bytes], answers: IO[bytes]) -> None:
    while head := orders.read(LENGTH.size):
        message = json.loads(orders.read(LENGTH.unpack(head)[0]))
        payloads = [orders.read(size) for size in message["sizes"]]
        for number, order in enumerate(message["orders"]):
            arrays: Sequence[np.ndarray] = ()
            try:
                answer, arrays = task(order, payloads[number])
                arrays = [np.ascontiguousarray(one) for one in arrays]
                answer = {**answer, "arrays": [(one.shape, one.dtype.str) for one in arrays]}
            except Refusal as refused:
                answer = {"reason": refused.reason, "detail": refused.detail}
            payloads[number] = b""
            text = json.dumps(answer).encode()
            answers.write(LENGTH.pack(len(text)) + text)
            for one in arrays:
                answers.write(one.reshape(-1).view(np.uint8).data)
            answers.flush()


def _main() -> None:
    module, function = sys.argv[1].split(":")
    task = getattr(importlib.import_module(module), function)
    _serve(task, *pipes(int(sys.argv[2])))


if __name__ == "__main__":
    _main()
