"""Pictures that a domain draws itself: the ``draw(seed, index)`` of its ``domain.py``.

Only code that lies in a shelf folder is loaded; ingest gives the folder, a card can't name one.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from medkit.errors import DataError
from medkit.readers import Record, Rejected, check_options

OPTIONS = ("train", "valid", "test", "seed", "workers", "licence")
# Every split counts from its own start, so that drawing more of one never repeats a picture of another.
STARTS = {"train": 0, "valid": 500_000_000, "test": 1_000_000_000}
CHUNK = 64

Draw = Callable[[int, int], tuple[np.ndarray, dict[str, Any]]]


def read(root: Path, options: dict[str, Any]) -> Iterator[Record | Rejected]:
    """Draws the pictures of a shelf domain.

    Options:
        train, valid, test: How many pictures of each split (0).
        seed: Seed of the series; picture i of a split depends on (seed, split, i) alone.
        workers: Drawing processes: 1 draws here; 0 takes one per processor. The result is the same.

    Args:
        root: The domain's folder on the shelf, with ``domain.py``.
        options: See above.

    Raises:
        DataError: There is no usable ``domain.py``.
    """
    check_options("drawn", options, OPTIONS)
    path = Path(root) / "domain.py"
    draw = load_draw(path)
    seed = int(options.get("seed", 0))
    jobs = [(split, index) for split in STARTS for index in range(int(options.get(split, 0)))]
    chunks = [jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK)]
    workers = int(options.get("workers", 1)) or os.cpu_count() or 1
    licence = options.get("licence", "")
    if workers == 1 or len(chunks) < 2:
        for chunk in chunks:
            yield from (_as_record(drawn, licence) for drawn in _draw_chunk(draw, seed, chunk))
        return
    # spawn: a forked child of a process that has threads (OpenMP, Arrow) may hang.
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start, initargs=(path,)
    ) as pool:
        for drawn_chunk in pool.map(_draw_in_worker, [seed] * len(chunks), chunks):
            yield from (_as_record(drawn, licence) for drawn in drawn_chunk)


def load_draw(path: Path) -> Draw:
    """Loads ``draw`` from a domain's ``domain.py``.

    Raises:
        DataError: The file is missing, can't be imported or has no ``draw``.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing; a drawn domain needs domain.py with draw(seed, index)")
    spec = importlib.util.spec_from_file_location(f"medkit_domain_{path.parent.name}", path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path} can't be imported")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DataError(f"{path} can't be imported ({type(error).__name__}: {error})") from error
    if not callable(getattr(module, "draw", None)):
        raise DataError(f"{path} has no function draw(seed, index)")
    return module.draw


_Drawn = tuple[str, str, np.ndarray | None, dict[str, Any] | str]
_worker_draw: Draw | None = None


def _start(path: Path) -> None:
    global _worker_draw
    _worker_draw = load_draw(path)


def _draw_in_worker(seed: int, chunk: list[tuple[str, int]]) -> list[_Drawn]:
    assert _worker_draw is not None
    return _draw_chunk(_worker_draw, seed, chunk)


def _draw_chunk(draw: Draw, seed: int, chunk: list[tuple[str, int]]) -> list[_Drawn]:
    drawn: list[_Drawn] = []
    for split, index in chunk:
        record_id = f"{split}-{index:06d}"
        try:
            pixels, facts = draw(seed, STARTS[split] + index)
            drawn.append((record_id, split, pixels, facts))
        except Exception as error:
            drawn.append((record_id, split, None, f"{type(error).__name__}: {error}"))
    return drawn


def _as_record(drawn: _Drawn, licence: str) -> Record | Rejected:
    record_id, split, pixels, facts = drawn
    if pixels is None or isinstance(facts, str):
        return Rejected(record_id, "drawing failed", str(facts))
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        return Rejected(
            record_id, "drawing failed", f"draw gave {pixels.dtype} {list(pixels.shape)}, not uint8 [H,W,3]"
        )
    return Record(record_id, pixels, facts, group=record_id, split=split, licence=licence)
