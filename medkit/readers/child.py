"""Processes beside this one that answer over pipes: what crashes or hangs there is told here as an error.

``Child`` answers bytes with bytes; ``medkit.readers.worker`` builds on the same process and pipes.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from medkit.errors import DataError

LENGTH = struct.Struct("<Q")
START_SECONDS = 60.0
PIPE_BYTES = 1 << 20
MOST_ANSWER = 8 << 30


class Process:
    """A process that is started when it is needed and again after it died.

    It writes a ``LENGTH`` when it is ready, gets orders on its standard input and answers on its standard output. It
    ends when its input does, so it never outlives this process by more than one order.

    Args:
        command: What is started.
    """

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    @property
    def alive(self) -> bool:
        """Whether the process that got the last order still runs."""
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

    def _start(self, *more: str) -> None:
        """Sees that the process runs and is ready; ``more`` ends the command of a new one.

        Raises:
            OSError, EOFError, TimeoutError: It doesn't.
        """
        if self._owner != os.getpid():  # a forked process must not talk into its parent's pipes
            self._child, self._owner = None, os.getpid()
        if self._child is not None and self._child.poll() is None:
            return
        self.stop()
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._child = subprocess.Popen(
            [*self._command, *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        )
        _widen(self._child.stdout)
        self._read(LENGTH.size, time.monotonic() + START_SECONDS)

    def _write(self, *parts: bytes) -> None:
        if self._child is None or self._child.stdin is None:
            raise EOFError
        for part in parts:
            self._child.stdin.write(part)
        self._child.stdin.flush()

    def _read(self, count: int, deadline: float) -> memoryview:
        """Reads exactly so many bytes of the answer.

        Raises:
            TimeoutError: At the deadline.
            EOFError, OSError: The process died.
        """
        if self._child is None or self._child.stdout is None:
            raise EOFError
        pipe = self._child.stdout.fileno()
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


class Child(Process):
    """A process that answers bytes with bytes, each with its length in front; its other side is ``serve``."""

    def ask(self, order: bytes, seconds: float) -> bytes:
        """Sends an order and gives the answer.

        Raises:
            TimeoutError: No answer came in time; the process is ended.
            EOFError: The process died.
            DataError: The process can't be started, which is no order's fault.
        """
        try:
            self._start()
        except (OSError, EOFError, TimeoutError) as error:
            self.stop()
            raise DataError(
                f"a worker process can't be started ({type(error).__name__}): is there memory left? Fewer need less"
            ) from None
        try:
            deadline = time.monotonic() + seconds
            self._write(LENGTH.pack(len(order)), order)
            (length,) = LENGTH.unpack(self._read(LENGTH.size, deadline))
            if length > MOST_ANSWER:
                raise EOFError
            return bytes(self._read(length, deadline))
        except TimeoutError:
            self.stop()
            raise
        except (OSError, EOFError, MemoryError):
            self.stop()
            raise EOFError from None


def serve(answer: Callable[[bytes], bytes], most_bytes: int) -> None:
    """Answers orders until the input ends: the other side of ``Child``.

    Args:
        answer: Gives the answer to an order.
        most_bytes: Address space of this process; beyond it memory runs out.
    """
    orders, answers = pipes(most_bytes)
    while head := orders.read(LENGTH.size):
        made = answer(orders.read(LENGTH.unpack(head)[0]))
        answers.write(LENGTH.pack(len(made)))
        answers.write(made)
        answers.flush()


def pipes(most_bytes: int) -> tuple[IO[bytes], IO[bytes]]:
    """Limits this process, says that it is ready, and gives the pipes of orders and of answers.

    Args:
        most_bytes: Address space of this process; beyond it memory runs out.
    """
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end closes the input
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb")
    # What a codec prints must not get between the answers.
    os.dup2(2, 1)
    answers.write(LENGTH.pack(0))  # ready: the time limit counts from here
    answers.flush()
    return sys.stdin.buffer, answers


def _widen(pipe: IO[bytes] | None) -> None:
    """Lets a whole picture wait in the pipe, so that the child goes on while its answer is used (Linux only)."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        if pipe is not None:
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
