"""Work on untrusted files in a process of its own: a crash, a hang or a bomb costs one file.

A task is a function of this package, named "module:function", that gets an order (a JSON object) with the bytes that
go along and gives (a JSON object, arrays). The child answers with a JSON head and raw bytes, never with a pickle: it
may be in the hands of a hostile file. Run as a module it is that child.

Several orders travel in one message and every one is answered by itself, so the deadline counts for each file, and
the file that killed the child is the first one without an answer.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from medkit.readers.refusal import Refusal

HEAD = struct.Struct("<I")
MOST_HEAD = 1 << 20
START_SECONDS = 60.0
PIPE_BYTES = 1 << 20
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


class Worker:
    """A process for one task that is started when it is needed and again after it died.

    Args:
        task: "module:function" of medkit.
        command: What is started in place of this module.
    """

    def __init__(self, task: str, command: list[str] | None = None) -> None:
        self._command = command or [sys.executable, "-m", __name__, task]
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

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
            child = self._started(bounds)
            assert child.stdin is not None
            text = json.dumps({"orders": orders, "sizes": [len(one) for one in payloads]}).encode()
            child.stdin.write(HEAD.pack(len(text)) + text)
            for payload in payloads:
                child.stdin.write(payload)
            child.stdin.flush()
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
            child, deadline = self._child, time.monotonic() + bounds.seconds
            if child is None:
                raise EOFError
            (length,) = HEAD.unpack(_read(child, HEAD.size, deadline))
            if length > MOST_HEAD:
                raise EOFError
            head = json.loads(bytes(_read(child, length, deadline)))
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
                arrays.append(np.frombuffer(_read(child, size, deadline), kind).reshape(shape))
            return Answer(head, arrays)
        except TimeoutError:
            self.stop()
            raise refused(TOO_SLOW, f"stopped after {bounds.seconds:g} s") from None
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, struct.error):
            self.stop()
            raise refused(CRASHED) from None

    @property
    def alive(self) -> bool:
        """Whether the process that got the last message still runs."""
        return self._child is not None and self._owner == os.getpid()

    def stop(self) -> None:
        """Ends the process."""
        child, self._child = self._child, None
        if child is not None and self._owner == os.getpid():
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()

    def _started(self, bounds: Bounds) -> subprocess.Popen[bytes]:
        """Gives the running child, started and ready."""
        if self._owner != os.getpid():  # a forked process must not talk into its parent's pipes
            self._child, self._owner = None, os.getpid()
        if self._child is not None and self._child.poll() is None:
            return self._child
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        self._child = subprocess.Popen(
            [*self._command, str(bounds.memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        _widen(self._child.stdout)
        _read(self._child, HEAD.size, time.monotonic() + START_SECONDS)
        return self._child


_shared: dict[str, Worker] = {}


def shared(task: str) -> Worker:
    """Gives this process's own worker for a task."""
    if task not in _shared:
        _shared[task] = Worker(task)
        atexit.register(_shared[task].stop)
    return _shared[task]


def _read(child: subprocess.Popen[bytes], count: int, deadline: float) -> memoryview:
    """Reads exactly so many bytes of the child's answer, or raises at the deadline."""
    assert child.stdout is not None
    pipe = child.stdout.fileno()
    view, at = np.empty(count, np.uint8).data, 0  # not filled with zeros first
    while at < count:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError
        got = os.readv(pipe, [view[at:]])
        if got == 0:
            raise EOFError
        at += got
    return view


def _widen(pipe: IO[bytes] | None) -> None:
    """Lets a whole picture wait in the pipe, so that the child goes on while its answer is used (Linux only)."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        if pipe is not None:
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _serve(task: Task, orders: IO[bytes], answers: IO[bytes]) -> None:
    answers.write(HEAD.pack(0))  # ready: the time limit counts from here
    answers.flush()
    while head := orders.read(HEAD.size):
        message = json.loads(orders.read(HEAD.unpack(head)[0]))
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
            answers.write(HEAD.pack(len(text)) + text)
            for one in arrays:
                answers.write(one.reshape(-1).view(np.uint8).data)
            answers.flush()


def _main() -> None:
    module, function = sys.argv[1].split(":")
    task = getattr(importlib.import_module(module), function)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        most = int(sys.argv[2])
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb")
    # What a codec prints must not get between the answers.
    os.dup2(2, 1)
    _serve(task, sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main()
