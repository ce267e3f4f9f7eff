"""Pictures are made by several processes, and come back in the order of their records whatever their number."""

from __future__ import annotations

import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from medkit.images import Limits
from medkit.readers import Merged, Record, Rejected
from medkit.readers.child import Child
from medkit.readers.known import Known, key_of
from medkit.readers.prepare import NOT_THERE, Outcome, order_of, prepare, unpack

Item = Record | Rejected | Merged
RECORD_SECONDS = 600.0
WORKER_BYTES = 8 << 30
BLOCK_SECONDS = 0.1
BLOCK_RECORDS = 64
BLOCK_BYTES = 4 * 1024 * 1024
MOST_WAITING = 4096
WAIT_SECONDS = 0.05


class Engine(AbstractContextManager["Engine"], Protocol):
    """Where pictures are made.

    Attributes:
        most: Blocks that may be under way.
        size: Records that a block should have.
    """

    most: int
    size: int

    def submit(self, images: list[Any]) -> Future[list[Outcome]]:
        """Takes a block of records' images; the future gives their outcomes."""
        ...

    def push(self) -> None:
        """Starts what was submitted and still waits for company."""
        ...


@dataclass
class _Waiting:
    """An item in the order of the source; ``block`` and ``index`` say where its outcome will be."""

    item: Item
    key: bytes | None = None
    block: _Block | None = None
    index: int = 0


class _Block:
    def __init__(self) -> None:
        self.images: list[Any] = []
        self.bytes = 0
        self.future: Future[list[Outcome]] | None = None


def in_order(
    items: Iterable[Item], known: Known | None, engine: Engine, limits: Limits
) -> Iterator[tuple[Item, bytes | None, Outcome | None]]:
    """Makes the pictures of records whose outcome isn't known.

    Args:
        items: What a reader gives; read no further ahead than the workers need.
        known: What was made before; None: nothing.
        engine: Where the work is done.
        limits: What is refused of encoded files.

    Yields:
        (item, the key of its pictures or None, their outcome or None where ``known`` has it), in order.
    """
    waiting: deque[_Waiting] = deque()
    block, under_way = _Block(), 0

    def send() -> None:
        nonlocal block, under_way
        if block.images:
            block.future, under_way = engine.submit(block.images), under_way + 1
            block = _Block()

    def first() -> tuple[Item, bytes | None, Outcome | None]:
        nonlocal under_way
        one = waiting.popleft()
        if one.block is None:
            return one.item, one.key, None
        if one.block.future is None:
            send()
        assert one.block.future is not None
        if not one.block.future.done():
            engine.push()
        outcomes = one.block.future.result()
        if one.index == len(outcomes) - 1:
            under_way -= 1
        assert isinstance(one.item, Record)
        return one.item, one.key, _here_at_last(outcomes[one.index], one.item.image, limits)

    for item in items:
        if not isinstance(item, Record):
            waiting.append(_Waiting(item))
        else:
            key = key_of(item.image, limits) if known is not None else None
            if key is not None and known is not None and known.has(key):
                waiting.append(_Waiting(item, key))
            else:
                if key is not None and known is not None:
                    known.expect(key)
                waiting.append(_Waiting(item, key, block, len(block.images)))
                block.images.append(item.image)
                block.bytes += _size(item.image)
                if len(block.images) >= engine.size or block.bytes > BLOCK_BYTES:
                    send()
        while waiting and (under_way >= engine.most or len(waiting) > MOST_WAITING or _is_ready(waiting[0])):
            yield first()
    send()
    engine.push()
    while waiting:
        yield first()


def made_by(engine: Engine, image: Any, limits: Limits) -> Outcome:
    """Has an engine make one record's pictures, and waits for them."""
    future = engine.submit([image])
    engine.push()
    return _here_at_last(future.result()[0], image, limits)


def _here_at_last(outcome: Outcome, image: Any, limits: Limits) -> Outcome:
    """Makes here what no worker could load; by the main thread, as other workers are spoken to by loaders."""
    return prepare(image, limits) if outcome.reason == NOT_THERE else outcome


class Here:
    """Makes the pictures in this process: for tests, and for files that can't be hostile."""

    most, size = 1, 1

    def __init__(self, limits: Limits):
        self._limits = limits

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, images: list[Any]) -> Future[list[Outcome]]:
        """Makes the pictures at once."""
        future: Future[list[Outcome]] = Future()
        future.set_result([prepare(image, self._limits) for image in images])
        return future

    def push(self) -> None:
        """Does nothing: nothing waits."""


class Processes:
    """Makes the pictures in worker processes with limits of time and memory; a crash costs one record.

    One process works in turn with this one, several work beside it.

    Args:
        count: Processes.
        limits: What is refused of encoded files.
        patience_seconds: For so long one process has to do, and arrays, of which nothing is left to decode, are
            encoded here.
        command: What a worker is; None: ``medkit.readers.prepare``.
        record_seconds: Longest time for one record.
    """

    def __init__(
        self,
        count: int,
        limits: Limits,
        patience_seconds: float = 0.0,
        command: list[str] | None = None,
        record_seconds: float = RECORD_SECONDS,
    ):
        self.most, self.size = 3 * count if count > 1 else 1, 4
        self._count, self._limits, self._patience = count, limits, patience_seconds
        self._new_worker = lambda: Worker(limits, command, record_seconds)
        self._workers: list[Worker] = []
        self._free: list[Worker] = []
        self._change = threading.Condition()
        self._begun, self._ended = 0.0, False
        self._left_here = patience_seconds
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="ingest")

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._change:
            self._ended = True
        for worker in self._workers:
            worker.stop()
        self._threads.shutdown(wait=True)

    def submit(self, images: list[Any]) -> Future[list[Outcome]]:
        """Sends a block to the next free worker."""
        here = self._left_here > 0 and all(isinstance(image, np.ndarray) for image in images)
        packed = None if here else packed_images(images)
        if packed is not None:
            return self._threads.submit(self._work, packed)
        future: Future[list[Outcome]] = Future()
        begun = time.monotonic()
        future.set_result([prepare(image, self._limits) for image in images])
        self._left_here -= time.monotonic() - begun
        return future

    def push(self) -> None:
        """Does nothing: every block starts at once."""

    def _work(self, packed: list[bytes]) -> list[Outcome]:
        worker = self._take()
        try:
            begun = time.monotonic()
            outcomes = worker.made(packed)
            seconds = (time.monotonic() - begun) / len(packed)
            self.size = max(1, min(BLOCK_RECORDS, round(BLOCK_SECONDS / max(seconds, 1e-6))))
            return outcomes
        finally:
            with self._change:
                self._free.append(worker)
                self._change.notify()

    def _take(self) -> Worker:
        """Gives a free worker, or a new one where there may be one more."""
        with self._change:
            self._begun = self._begun or time.monotonic()
            while not self._free and not self._may_start():
                self._change.wait(WAIT_SECONDS)
            if self._ended:
                raise CancelledError
            if not self._free:
                self._workers.append(self._new_worker())
                return self._workers[-1]
            return self._free.pop()

    def _may_start(self) -> bool:
        most = self._count if time.monotonic() - self._begun >= self._patience else 1
        return self._ended or len(self._workers) < most


class Worker:
    """A process that makes pictures within limits of time and memory.

    Args:
        limits: What is refused of encoded files.
        command: What is started; None: ``medkit.readers.prepare``.
        record_seconds: Longest time for one record.
    """

    def __init__(
        self, limits: Limits, command: list[str] | None = None, record_seconds: float = RECORD_SECONDS
    ):
        command = command or [sys.executable, "-m", "medkit.readers.prepare", str(WORKER_BYTES)]
        self._limits, self._seconds, self._child = limits, record_seconds, Child(command)
        self._stopped = False

    def stop(self) -> None:
        """Ends the process for good."""
        self._stopped = True
        self._child.stop()

    def made(self, packed: list[bytes]) -> list[Outcome]:
        """Gives the outcome of each pickled image; one that kills the process or takes too long is rejected."""
        try:
            return self._ask(packed)
        except (TimeoutError, EOFError, ValueError) as error:
            if len(packed) == 1 and isinstance(error, TimeoutError):
                return [self._too_slow()]  # it had all the time of one record
            # Which record it was shows when each is alone; one that was only unlucky gets its second try.
            return [self._alone(image) for image in packed]

    def _alone(self, image: bytes) -> Outcome:
        try:
            return self._ask([image])[0]
        except TimeoutError:
            return self._too_slow()
        except (EOFError, ValueError):
            return Outcome((), (), "worker crashed")

    def _too_slow(self) -> Outcome:
        return Outcome((), (), "worker too slow", f"stopped after {self._seconds:g} s")

    def _ask(self, packed: list[bytes]) -> list[Outcome]:
        if self._stopped:
            raise CancelledError
        outcomes = unpack(self._child.ask(order_of(packed, self._limits), self._seconds))
        if len(outcomes) != len(packed):
            raise ValueError("another number of outcomes than images")
        return outcomes


def packed_images(images: list[Any]) -> list[bytes] | None:
    """Gives records' images as pickles for a worker, None where one can't be pickled."""
    try:
        return [pickle.dumps(image, protocol=pickle.HIGHEST_PROTOCOL) for image in images]
    except Exception:  # a Pillow image is decoded by it, with all the errors of decoding
        return None


def _is_ready(one: _Waiting) -> bool:
    return one.block is None or (one.block.future is not None and one.block.future.done())


def _size(image: Any) -> int:
    """Gives about how many bytes an image takes on its way to a worker."""
    if isinstance(image, list):
        return sum(_size(one) for one in image)
    if isinstance(image, np.ndarray):
        return image.nbytes
    return len(image) if isinstance(image, bytes) else 1024
