"""Decodes compressed pixels in a process of its own: a crash, a hang or a bomb costs one file.

The child answers with a JSON head and raw bytes, never with a pickle: it may be in the hands of a hostile file.
Run as a module it is that child.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import struct
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from medkit.readers.dicom.files import DEFAULT_LIMITS, Limits
from medkit.readers.dicom.reasons import REASONS, Refused, one_file

HEAD = struct.Struct("<I")
MOST_HEAD = 1 << 20
START_SECONDS = 60.0


class Worker:
    """A decoding process that is started when it is needed and again after it died.

    Args:
        command: What is started; None: this module.
    """

    def __init__(self, command: list[str] | None = None) -> None:
        self._command = command or [sys.executable, "-m", __name__]
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    def decode(
        self,
        path: Path | str,
        wanted: list[int] | None,
        limits: Limits = DEFAULT_LIMITS,
        side: int | None = None,
    ) -> Any:
        """Decodes frames of a file as ``decode.decode`` does, within the limits' time and memory.

        Raises:
            Refused: As ``decode``, or the decoder was too slow or crashed.
        """
        from medkit.readers.dicom.decode import Stored

        order = {"path": str(Path(path).absolute()), "wanted": wanted, "limits": asdict(limits), "side": side}
        try:
            child = self._started(limits)
            assert child.stdin is not None
            deadline = time.monotonic() + limits.seconds
            data = json.dumps(order).encode()
            child.stdin.write(HEAD.pack(len(data)) + data)
            child.stdin.flush()
            (length,) = HEAD.unpack(self._read(child, HEAD.size, deadline))
            if length > MOST_HEAD:
                raise EOFError
            head = json.loads(self._read(child, length, deadline))
            if "reason" in head:
                reason = head["reason"]
                raise Refused(reason if reason in REASONS else "decoder failed", str(head.get("detail", "")))
            kind = np.dtype(head["dtype"])
            size = int(np.prod(head["shape"], dtype=np.int64)) * kind.itemsize
            if not 0 <= size <= max(limits.decoded_bytes, 1) * 8:
                raise EOFError
            values = np.frombuffer(self._read(child, size, deadline), kind).reshape(head["shape"])
        except TimeoutError:
            self.stop()
            raise Refused("decoder too slow", f"stopped after {limits.seconds:g} s") from None
        except (OSError, EOFError, ValueError, KeyError, struct.error):
            self.stop()
            raise Refused("decoder crashed") from None
        return Stored(values, head["photometric"], tuple((one, two) for one, two in head["notes"]))

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

    def _started(self, limits: Limits) -> subprocess.Popen[bytes]:
        """Gives the running child, started and ready."""
        if self._owner != os.getpid():  # a forked process must not talk into its parent's pipes
            self._child, self._owner = None, os.getpid()
        if self._child is not None and self._child.poll() is None:
            return self._child
        root = str(Path(__file__).resolve().parents[3])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        self._child = subprocess.Popen(
            [*self._command, str(limits.worker_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self._read(self._child, HEAD.size, time.monotonic() + START_SECONDS)
        return self._child

    @staticmethod
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


_shared = Worker()
atexit.register(_shared.stop)


def decode_apart(
    path: Path | str, wanted: list[int] | None, limits: Limits = DEFAULT_LIMITS, side: int | None = None
) -> Any:
    """Decodes frames of a file in this process's own worker, see ``Worker.decode``."""
    return _shared.decode(path, wanted, limits, side)


def _serve(orders: IO[bytes], answers: IO[bytes]) -> None:
    from medkit.readers.dicom.decode import decode
    from medkit.readers.dicom.files import read_file

    answers.write(HEAD.pack(0))  # ready: the time limit counts from here
    answers.flush()
    while head := orders.read(HEAD.size):
        order = json.loads(orders.read(HEAD.unpack(head)[0]))
        limits = Limits(**order["limits"])
        content = b""
        try:
            with one_file():
                stored = decode(read_file(order["path"], limits), order["wanted"], limits, order["side"])
            values = np.ascontiguousarray(stored.values)
            answer = {
                "shape": values.shape,
                "dtype": values.dtype.str,
                "photometric": stored.photometric,
                "notes": stored.notes,
            }
            content = values.data.cast("B")
        except Refused as refused:
            answer = {"reason": refused.reason, "detail": refused.detail}
        text = json.dumps(answer).encode()
        answers.write(HEAD.pack(len(text)) + text)
        answers.write(content)
        answers.flush()


def _main() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        most = int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb")
    # What a codec prints must not get between the answers.
    os.dup2(2, 1)
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main()
