"""Pictures are made by Ray Data on a cluster, with the function that the workers of one machine run.

Every machine of the cluster must see the files under the same paths and have medkit installed, with the same versions.
"""

from __future__ import annotations

import logging
import pickle
import threading
from concurrent.futures import Future
from functools import cache
from typing import Any

from medkit.clusters import find_ray, start_ray
from medkit.errors import DataError
from medkit.images import Limits
from medkit.readers.prepare import Outcome, order_of, pack, prepare, unpack
from medkit.readers.workers import Worker, packed_images

# Blocks of one Ray data set: enough to keep some dozens of processors busy, few enough to wait for.
WINDOW = 64


class OnRay:
    """Makes the pictures on a Ray cluster: that of ``RAY_ADDRESS``, else one that is started on this machine.

    Args:
        limits: What is refused of encoded files.
        workers: Processors of a cluster that is started here; None: all of this machine.

    Raises:
        DataError: Ray isn't installed, or no cluster can be reached.
    """

    most, size = 4 * WINDOW, 16

    def __init__(self, limits: Limits, workers: int | None = None):
        self._ray, self._limits, self._workers = find_ray("ingest.engine"), limits, workers
        self._window: list[tuple[bytes, Future[list[Outcome]]]] = []
        self._turn = threading.Lock()
        self._started = False

    def __enter__(self) -> OnRay:
        self._started = start_ray(self._ray, self._workers)
        self._ray.data.DataContext.get_current().enable_progress_bars = False  # there is one already
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        return self

    def __exit__(self, *_: object) -> None:
        self._window = []
        if self._started:
            self._ray.shutdown()

    def submit(self, images: list[Any]) -> Future[list[Outcome]]:
        """Takes a block; a full window of blocks starts."""
        future: Future[list[Outcome]] = Future()
        packed = packed_images(images)
        if packed is None:
            future.set_result([prepare(image, self._limits) for image in images])
            return future
        self._window.append((order_of(packed, self._limits), future))
        if len(self._window) >= WINDOW:
            self.push()
        return future

    def push(self) -> None:
        """Starts the blocks that wait, in a thread that sees them through Ray."""
        if self._window:
            window, self._window = self._window, []
            threading.Thread(target=self._run, args=(window,), daemon=True).start()

    def _run(self, window: list[tuple[bytes, Future[list[Outcome]]]]) -> None:
        try:
            with self._turn:  # one data set after the other: each already fills the cluster
                rows = [{"block": number, "order": order} for number, (order, _) in enumerate(window)]
                data = self._ray.data.from_items(rows, override_num_blocks=len(rows))
                for row in data.map(answered).iter_rows():
                    window[row["block"]][1].set_result(unpack(row["answer"]))
        except Exception as error:
            fault = DataError(
                f"Ray couldn't make the pictures ({type(error).__name__}); its own log says why"
            )
            fault.__cause__ = error
            for _, future in window:
                if not future.done():
                    future.set_exception(fault)


def answered(row: dict[str, Any]) -> dict[str, Any]:
    """Answers a row's order in a worker process beside Ray's own: a crash costs one record there too."""
    limits, packed = pickle.loads(row["order"])
    return {"block": row["block"], "answer": pack(_worker(limits).made(packed))}


@cache
def _worker(limits: Limits) -> Worker:
    return Worker(limits)
