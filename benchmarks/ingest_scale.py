"""What ingest costs at scale: memory and time of many small records, and two worker processes against one.

    OMP_NUM_THREADS=1 python benchmarks/ingest_scale.py --records 1000000
    OMP_NUM_THREADS=1 python benchmarks/ingest_scale.py --slices 300

``--records`` ingests so many invented 32 px JPEG pictures, each its own group with a label, and tells for every tenth
the processor time a record (main process and workers, from /proc: another program on the machine shows little), the
clock, and the largest resident memory of all processes together, looked at four times a second. Making a picture, some
60 microseconds, is part of the reading; it is the same work every time, so the cost in such units shows what a busy
machine's caches and clock hide. ``--slices`` ingests an invented CT series slice by slice, with three windows
and lossless WebP, by one worker process and by two, the clock's best of the rounds; it needs two idle cores.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medkit.readers import READERS, Record
from medkit.readers.ingest import ingest

TENTHS = 10
TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=0)
    parser.add_argument("--slices", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="Where the data set goes; a temporary folder else.")
    arguments = parser.parse_args()
    print(
        f"\n{date.today()}, {platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    )
    with tempfile.TemporaryDirectory(dir=arguments.out) as folder:
        if arguments.records:
            many_records(arguments.records, arguments.workers, Path(folder))
        if arguments.slices:
            one_and_two(arguments.slices, arguments.rounds, Path(folder))


def many_records(count: int, workers: int, folder: Path) -> None:
    """Ingests small records and prints what every tenth cost."""
    READERS["invented"] = __name__  # this very module
    watch = Watch()
    Source.count, Source.watch = count, watch
    begun = time.perf_counter()
    result = ingest(settings("invented", folder, workers), {}, folder / "out")
    watch.mark()
    watch.stop()
    seconds = time.perf_counter() - begun
    sizes = {path.name: path.stat().st_size for path in (folder / "out").iterdir() if path.is_file()}
    print(f"{result['samples']} samples, {result['images']} pictures, {workers} workers, {seconds:.0f} s")
    print(f"files: {', '.join(f'{name} {size / 1e6:.0f} MB' for name, size in sorted(sizes.items()))}\n")
    print(
        "| part | processor us a record | of it making | all in units of making | clock us | most resident MiB |"
    )
    print("|---|---|---|---|---|---|")
    part = count / TENTHS
    spans = list(zip(watch.marks, watch.marks[1:], strict=False))
    for number, (one, two) in enumerate(spans, 1):
        name = f"tenth {number}" if number <= TENTHS else "splits, near-duplicates, files"
        each = part if number <= TENTHS else count
        cpu, clock, making = ((two[k] - one[k]) / each * 1e6 for k in (0, 1, 3))
        units = f"{making:.0f} | {cpu / making:.2f}" if making else "- | -"
        print(f"| {name} | {cpu:.0f} | {units} | {clock:.0f} | {two[2] / 2**20:.0f} |")
    costs = [two[0] - one[0] for one, two in spans[:TENTHS]]
    units = [(two[0] - one[0]) / (two[3] - one[3]) for one, two in spans[:TENTHS]]
    print(
        f"\nlast tenth / first tenth: {costs[-1] / costs[0]:.3f}, in units of making {units[-1] / units[0]:.3f}"
    )
    print(f"most memory: {watch.most_ever / 2**20:.0f} MiB")


def one_and_two(slices: int, rounds: int, folder: Path) -> None:
    """Ingests a CT series slice by slice with one process and with two."""
    sys.path.insert(0, str(Path(__file__).parent))
    from ingest import write_series

    write_series(folder / "series", slices)
    os.environ.setdefault("MEDKIT_PATIENT_KEY", "invented" * 4)
    best: dict[int, tuple[float, float]] = {}
    for _ in range(rounds):
        for workers in (1, 2):
            shutil.rmtree(folder / "out", ignore_errors=True)
            begun, spent = time.perf_counter(), _processor_seconds()
            card = settings("dicom", folder / "series", workers, profiles={"CT": "ct-medgemma-1.5"})
            ingest(card, {}, folder / "out")
            now = time.perf_counter() - begun, _processor_seconds() - spent
            best[workers] = min(best.get(workers, now), now)
    print(f"| {slices} CT slices to a data set | clock s | slices/s | processor s |\n|---|---|---|---|")
    for workers, (clock, spent) in best.items():
        name = f"{workers} process{'es' if workers > 1 else ''}"
        print(f"| {name} | {clock:.2f} | {slices / clock:.0f} | {spent:.2f} |")
    print(f"\ntwo against one: {best[1][0] / best[2][0]:.2f}x by the clock")


def _processor_seconds() -> float:
    """Gives what this process and its ended children have spent."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def settings(reader: str, root: Path, workers: int, **options: Any) -> dict[str, Any]:
    """Gives the settings of an ingest step."""
    data = {"reader": reader, "options": options, "env": "", "where": "", "splits": {}}
    domain = {"name": "invented", "licence": "none", "data": data}
    return {"domain": domain, "data": str(root), "seed": 0, "workers": workers}


class Watch:
    """Processor time and resident memory of this process and all below it."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float, int, float]] = []
        self.making = 0.0
        self.most, self.most_ever = 0, 0
        self._ended: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def mark(self) -> None:
        """Notes what was spent so far, and the most memory since the last mark."""
        seconds, _ = self._now()
        self.marks.append((seconds, time.perf_counter(), self.most, self.making))
        self.most = 0

    def stop(self) -> None:
        """Ends the thread that looks."""
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.25):
            resident = self._now()[1]
            self.most, self.most_ever = max(self.most, resident), max(self.most_ever, resident)

    def _now(self) -> tuple[float, int]:
        resident, family = 0, {os.getpid()}
        for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            except (OSError, IndexError):
                continue
            if pid == os.getpid() or int(fields[1]) in family:
                family.add(pid)
                self._ended[pid] = (int(fields[11]) + int(fields[12])) / TICK
                resident += pages * os.sysconf("SC_PAGE_SIZE")
        return sum(self._ended.values()), resident


class Source:
    """What the invented reader gives."""

    count = 0
    watch: Watch


def read(root: Path, options: dict[str, Any]) -> Iterator[Record]:
    """Gives invented records: the reader of ``--records``."""
    random = np.random.default_rng(0)
    for number in range(Source.count):
        if number % (Source.count // TENTHS) == 0:
            Source.watch.mark()
        begun = time.thread_time()
        coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((32, 32), Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=90)
        Source.watch.making += time.thread_time() - begun
        facts = {"labels": {"class": "abc"[number % 3]}, "objects": [], "complete": False}
        yield Record(f"record-{number:07d}", buffer.getvalue(), facts, group=f"patient-{number:07d}")
    Source.watch.mark()


if __name__ == "__main__":
    main()
