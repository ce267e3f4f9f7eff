"""A process beside this one that answers over pipes: what crashes or hangs there is told here as an error."""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import sys
import time
from pathlib import Path

from medkit.errors import DataError

LENGTH = struct.Struct("<Q")
START_SECONDS = 60.0


class Child:
    """A process that is started when it is needed and again after it died.

    It writes 8 bytes when it is ready, gets orders on its standard input and answers on its standard output, each with
    its length in front. It ends when its input does, so it never outlives this process by more than one order.

    Args:
        command: What is started.
    """

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    def ask(self, order: bytes, seconds: float) -> bytes:
        """Sends an order and gives the answer.

        Raises:
            TimeoutError: No answer came in time; the process is ended.
            EOFError: The process died.
            DataError: The process can't be started, which is no order's fault.
        """
        child = self._started()
        assert child.stdin is not None
        try:
            deadline = time.monotonic() + seconds
            child.stdin.write(LENGTH.pack(len(order)) + order)
            child.stdin.flush()
            (length,) = LENGTH.unpack(_read(child, LENGTH.size, deadline))
            return bytes(_read(child, length, deadline))
        except TimeoutError:
            self.stop()
            raise
        except (OSError, EOFError):
            self.stop()
            raise EOFError from None

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

    def _started(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():  # a forked process must not talk into its parent's pipes
            self._child, self._owner = None, os.getpid()
        if self._child is not None and self._child.poll() is None:
            return self._child
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        try:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
            _read(self._child, LENGTH.size, time.monotonic() + START_SECONDS)
        except (OSError, EOFError, TimeoutError) as error:
            self.stop()
            raise DataError(
                f"a worker process can't be started ({type(error).__name__}): is there memory left? Fewer need less"
            ) from None
        return self._child


def serve(answer, most_bytes: int) -> None:
    """Answers orders until the input ends: the other side of ``Child``.

    Args:
        answer: Gives the answer to an order, both bytes.
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
    orders = sys.stdin.buffer
    answers.write(LENGTH.pack(0))  # ready: the time limit counts from here
    answers.flush()
    while head := orders.read(LENGTH.size):
        made = answer(orders.read(LENGTH.unpack(head)[0]))
        answers.write(LENGTH.pack(len(made)))
        answers.write(made)
        answers.flush()


def _read(child: subprocess.Popen[bytes], count: int, deadline: float) -> bytearray:
    """Reads exactly so many bytes of the child's answer, or raises at the deadline."""
    assert child.stdout is not None
    pipe = child.stdout.fileno()
    data = bytearray(count)
    view, at = memoryview(data), 0
    while at < count:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError
        got = os.readv(pipe, [view[at:]])
        if got == 0:
            raise EOFError
        at += got
    return data
