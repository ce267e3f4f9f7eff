"""Ingest at scale: any number of workers, any number of kills, only new files, little memory, the same dataset."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tomllib
import types
from collections import Counter
from pathlib import Path
from typing import Any

import loaders
import numpy as np
import pytest
from loaders import Drawn
from PIL import Image

from medkit import progress
from medkit.arrow_files import ArrowBatches, RefIndex
from medkit.cli import main
from medkit.digests import DigestTable, digest_of
from medkit.errors import DataError
from medkit.images import DEFAULT_LIMITS
from medkit.plan import Step
from medkit.prepared import Prepared
from medkit.readers import READERS, Record
from medkit.readers.duplicates import LOOK_BYTES, coarse_of, greys_of, hashes_of, near_pairs
from medkit.readers.engines import open_engine
from medkit.readers.ingest import _limited, ingest
from medkit.readers.known import DECODERS, key_of
from medkit.readers.prepare import Outcome, Picture, pack
from medkit.readers.splits import rank
from medkit.readers.workers import Here, Processes, in_order
from medkit.run import run
from medkit.store import DatasetWriter, open_dataset

TESTS = Path(__file__).resolve().parent
FILES = ("images.arrow", "samples.arrow", "ledger.jsonl", "dataset.json")


@pytest.fixture(autouse=True)
def _listed(monkeypatch):
    monkeypatch.setitem(READERS, "listed", "loaders")
    monkeypatch.setenv("PYTHONPATH", str(TESTS))  # so that workers find the loaders


def _same(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in FILES)


def _pictures(folder: Path, numbers: range, form: str = "png") -> None:
    for number in numbers:
        coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        path = folder / f"train/abc/{number:03d}.{form}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC).save(path)


def _folders(root: Path) -> dict[str, Any]:
    data = {"reader": "class_folders", "options": {}, "env": "", "where": "", "splits": {}}
    return {"domain": {"name": "d", "licence": "MIT", "data": data}, "data": str(root)}


def _made(records: list[Any], engine) -> dict[str, str]:
    with engine:
        given = in_order(records, None, engine, DEFAULT_LIMITS)
        return {item.id: outcome.reason or "made" for item, _, outcome in given}


def test_the_dataset_is_the_same_whatever_the_number_of_workers(tmp_path):
    for workers in (1, 2, 3, "auto"):
        result = ingest(loaders.settings(tmp_path, 60, workers=workers), {}, tmp_path / str(workers))
        assert result["reading"]["made"] == 52 and result["reading"]["remembered"] == 4
        assert result["fates"] == {"kept": 53, "rejected": 7, "told": 53}
    assert result["rejected"] == {"row unreadable": 4, "unforeseen fault": 3}
    assert b"Doe" not in (tmp_path / "1/ledger.jsonl").read_bytes()
    for workers in (2, 3, "auto"):
        assert _same(tmp_path / "1", tmp_path / str(workers))


@pytest.mark.parametrize(("seed", "workers"), [(1, "0"), (2, "1"), (3, "2")])
def test_twenty_kills_at_any_place_change_nothing_and_lose_little(tmp_path, seed, workers):
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    command = [
        sys.executable,
        str(TESTS / "killed_ingest.py"),
        str(tmp_path / "out"),
        str(seed),
        "20",
        workers,
    ]
    kills = int(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
    assert kills >= 10  # the others came after a shorter second reading had ended
    assert _same(tmp_path / "out", tmp_path / "whole")
    assert not (tmp_path / "out/reading").exists()
    made = Counter((tmp_path / "diary").read_text().split())
    assert set(made) == {f"{drawn.number}{drawn.fault}" for drawn in _drawn(120)}
    # A kill may cost what was under way: one record here, the blocks that workers had.
    assert workers != "0" or sum(made.values()) <= len(made) + kills


def _drawn(count: int) -> list[Drawn]:
    return [item.image for item in loaders.items(count) if isinstance(item, Record)]


def test_a_stopped_reading_goes_on_where_it_was(tmp_path, monkeypatch):
    stop = [30]

    def stopping(root, options):
        for item in loaders.items(60, str(tmp_path / "diary")):
            stop[0] -= 1
            if stop[0] == 0:
                raise KeyboardInterrupt
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(loaders, "read", stopping)
        with pytest.raises(KeyboardInterrupt):
            ingest(loaders.settings(tmp_path, 60), {}, tmp_path / "out")
    settings = loaders.settings(tmp_path, 60, diary=str(tmp_path / "diary"))
    result = ingest(settings, {}, tmp_path / "out")
    assert set(Counter((tmp_path / "diary").read_text().split()).values()) == {1}
    assert result["reading"]["remembered"] == 27 + 4  # 4 pictures come twice in the source
    ingest(settings, {}, tmp_path / "whole")
    assert _same(tmp_path / "out", tmp_path / "whole")


def test_only_new_and_changed_files_are_read_again_and_deleted_ones_leave(tmp_path):
    _pictures(tmp_path / "in", range(10, 40))
    assert ingest(_folders(tmp_path / "in"), {}, tmp_path / "out")["reading"]["made"] == 30
    _pictures(tmp_path / "in", range(5, 8))  # before the others
    _pictures(tmp_path / "in", range(20, 21), "jpg")  # another encoding, and nearly the same picture
    Image.new("RGB", (9, 9)).save(tmp_path / "in/train/abc/015.png")
    (tmp_path / "in/train/abc/030.png").unlink()
    (tmp_path / "in/train/abc/031.png").write_bytes(b"no picture")
    result = ingest(_folders(tmp_path / "in"), {}, tmp_path / "out")
    assert result["reading"]["made"] == 3 + 1 + 1 + 1
    assert result["reading"]["remembered"] == 27
    assert result["rejected"] == {"image unreadable": 1}
    ingest(_folders(tmp_path / "in"), {}, tmp_path / "fresh")
    assert _same(tmp_path / "out", tmp_path / "fresh")
    assert ingest(_folders(tmp_path / "in"), {}, tmp_path / "out")["reading"]["made"] == 0
    assert _same(tmp_path / "out", tmp_path / "fresh")


def test_a_copy_of_equal_pixels_outlives_the_file_that_was_kept(tmp_path):
    _pictures(tmp_path / "in", range(3))
    Image.open(tmp_path / "in/train/abc/000.png").save(tmp_path / "in/train/abc/000b.webp", lossless=True)
    ingest(_folders(tmp_path / "in"), {}, tmp_path / "out")
    (tmp_path / "in/train/abc/000.png").unlink()
    assert ingest(_folders(tmp_path / "in"), {}, tmp_path / "out")["reading"]["made"] == 1
    ingest(_folders(tmp_path / "in"), {}, tmp_path / "fresh")
    assert _same(tmp_path / "out", tmp_path / "fresh")


@pytest.mark.parametrize("name", ["known.bin", "known.jsonl", "images.arrow"])
def test_a_damaged_memory_costs_time_and_nothing_else(tmp_path, name):
    _pictures(tmp_path / "in", range(12))
    ingest(_folders(tmp_path / "in"), {}, tmp_path / "whole")
    ingest(_folders(tmp_path / "in"), {}, tmp_path / "out")
    content = bytearray((tmp_path / "out" / name).read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    (tmp_path / "out" / name).write_bytes(content)
    assert ingest(_folders(tmp_path / "in"), {}, tmp_path / "out")["reading"]["made"] >= 1
    assert _same(tmp_path / "out", tmp_path / "whole")


def test_names_that_are_no_text_are_told_apart(tmp_path):
    _pictures(tmp_path / "in", range(3))
    folder = os.fsencode(tmp_path / "in/train/abc") + b"/"
    for number, name in enumerate((b"\xff.png", b"\xfe.png", b"\xfd.png")):
        os.rename(folder + b"%03d.png" % number, folder + name)
    Path(os.fsdecode(folder + b"\xfd.png")).write_bytes(b"no picture")
    ingest(_folders(tmp_path / "in"), {}, tmp_path / "out")
    names = [sample.id for sample in open_dataset(tmp_path / "out")]
    assert len(names) == 2 and all(re.search(r"\\udcf[ef]", name) for name in names)
    rejected = [row["record"] for row in open_dataset(tmp_path / "out").ledger() if row["fate"] == "rejected"]
    assert len(rejected) == 1 and "\\udcfd" in rejected[0]
    keys = {key_of(Path(os.fsdecode(folder + name)), DEFAULT_LIMITS) for name in (b"\xff.png", b"\xfe.png")}
    assert len(keys) == 2
    few = ingest({**_folders(tmp_path / "in"), "limit": 2}, {}, tmp_path / "few")
    assert few["fates"]["kept"] + few["fates"].get("rejected", 0) == 2
    step = Step(1, "ingest", "ingest", _folders(tmp_path / "in"), {}, {"data": str(tmp_path / "in")})
    assert run([step], tmp_path / "run") == ["ingest"]


def test_the_memory_holds_no_name(tmp_path):
    _pictures(tmp_path / "Doe^Jane", range(3))
    ingest(_folders(tmp_path / "Doe^Jane"), {}, tmp_path / "out")
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"Doe" not in path.read_bytes()


def test_new_files_of_a_run_are_all_that_its_ingest_step_reads(tmp_path):
    _pictures(tmp_path / "in", range(20))
    step = Step(1, "ingest", "ingest", _folders(tmp_path / "in"), {}, {"data": str(tmp_path / "in")})
    run([step], tmp_path / "run")
    _pictures(tmp_path / "in", range(20, 22))
    assert run([step], tmp_path / "run") == ["ingest"]
    text = (tmp_path / "run/1-ingest/summary.json").read_text()
    assert '"made": 2' in text and '"remembered": 20' in text
    other = Step(1, "ingest", "ingest", {**step.settings, "workers": 2}, {}, step.external)
    assert run([other], tmp_path / "run") == []


def test_a_crash_a_hang_and_a_glutton_cost_one_record_each():
    faults = {3: "dies", 9: "hangs", 14: "hungry", 15: "breaks"}
    records = [Record(str(number), Drawn(number, None, faults.get(number, ""))) for number in range(20)]
    found = _made(records, Processes(2, DEFAULT_LIMITS, record_seconds=4.0))
    wrong = {key: reason for key, reason in found.items() if reason != "made"}
    assert list(found) == [str(number) for number in range(20)]
    assert wrong == {
        "3": "worker crashed",
        "9": "worker too slow",
        "14": "image unreadable",
        "15": "unforeseen fault",
    }


@pytest.mark.parametrize("workers", [1, "auto"])
@pytest.mark.parametrize("processors", [1, 2])
def test_no_picture_of_a_file_is_made_in_this_process(tmp_path, monkeypatch, workers, processors):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)), raising=False)
    records = [Record(str(number), Drawn(number, None, "dies" if number == 0 else "")) for number in range(6)]
    engine = open_engine(workers, "local", DEFAULT_LIMITS)
    assert _made(records, engine) == {"0": "worker crashed"} | dict.fromkeys("12345", "made")
    assert len(engine._workers) == 1  # for so little "auto" starts no second one


def test_a_damaged_memory_has_its_pictures_made_by_workers_too(tmp_path, monkeypatch):
    _pictures(tmp_path / "in", range(6))
    settings = {**_folders(tmp_path / "in"), "workers": 1}
    ingest(settings, {}, tmp_path / "out")
    (tmp_path / "out/known.bin").write_bytes(b"")
    monkeypatch.setattr("medkit.readers.workers.prepare", None)
    assert ingest(settings, {}, tmp_path / "out")["reading"]["made"] == 6


def test_a_worker_that_crashed_is_asked_again_after_a_stop(tmp_path, monkeypatch):
    def reader(fault, breaks_off):
        def read(root, options):
            yield from (
                Record(str(number), Drawn(number, None, fault * (number == 2))) for number in range(4)
            )
            if breaks_off:
                raise DataError("the disk is gone")

        return read

    settings = loaders.settings(tmp_path, 4, workers=1)
    monkeypatch.setattr(loaders, "read", reader("dies", True))
    with pytest.raises(DataError, match="the disk is gone"):
        ingest(settings, {}, tmp_path / "out")
    lines = (tmp_path / "out/reading/outcomes.jsonl").read_text().splitlines()
    assert len(lines) == 4 and sum("worker crashed" in line for line in lines) == 1
    monkeypatch.setattr(loaders, "read", reader("dies", False))
    result = ingest(settings, {}, tmp_path / "out")
    assert result["reading"]["made"] == 1 and result["reading"]["remembered"] == 3


def test_a_loader_that_only_this_process_knows_is_called_here(monkeypatch):
    module = types.ModuleType("only_here")
    exec("class Loader:\n    def __call__(self):\n        return self.drawn()", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    loader = module.Loader()
    loader.drawn = Drawn(1)
    records = [Record("a", Drawn(2)), Record("b", loader), Record("c", Drawn(3))]
    assert _made(records, Processes(1, DEFAULT_LIMITS)) == dict.fromkeys("abc", "made")


def test_workers_that_cannot_be_started_stop_the_step_and_reject_nothing():
    engine = Processes(1, DEFAULT_LIMITS, command=[sys.executable, "-c", "raise SystemExit(1)"])
    with pytest.raises(DataError, match="a worker process can't be started"):
        _made([Record("a", Drawn(1))], engine)


def test_a_record_that_hangs_alone_is_waited_for_once(tmp_path):
    records = [Record("a", Drawn(1, str(tmp_path / "diary"), "hangs"))]
    assert _made(records, Processes(1, DEFAULT_LIMITS, record_seconds=1.0)) == {"a": "worker too slow"}
    assert (tmp_path / "diary").read_text() == "1hangs\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x09",
        b"\x02\0\0\0{}",
        b"\x02\0\0\0[]",
        b"\x03\0\0\0[5]",
        pack([Outcome((Picture(Prepared("0" * 63 + "x", bytes(32), 8, 8, b"data"), bytes(LOOK_BYTES)),))]),
        pack([Outcome((Picture(Prepared("0" * 64, bytes(32), 8, 1 << 40, b"data"), bytes(LOOK_BYTES)),))]),
        pack([Outcome((Picture(Prepared("0" * 64, bytes(32), 8, 8, b"data"), bytes(LOOK_BYTES)),))])[:-1],
        None,
    ],
)
def test_whatever_a_worker_in_hostile_hands_answers_costs_its_record(answer):
    told = (1 << 60).to_bytes(8, "little") if answer is None else len(answer).to_bytes(8, "little") + answer
    code = f"import sys; o = sys.stdout.buffer; o.write(bytes(8)); o.flush(); sys.stdin.buffer.read(9); o.write({told})"
    engine = Processes(1, DEFAULT_LIMITS, command=[sys.executable, "-c", code])
    assert _made([Record("a", Drawn(1))], engine) == {"a": "worker crashed"}


def test_a_rejected_record_leaves_none_of_its_pictures(tmp_path, monkeypatch):
    good = np.full((8, 8, 3), 90, np.uint8)
    records = [Record("a", [good, b"no picture"]), Record("b", [good + 1])]
    monkeypatch.setattr(loaders, "read", lambda root, options: iter(records))
    ingest(loaders.settings(tmp_path, 2), {}, tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert dataset.summary["rejected"] == {"image unreadable": 1}
    assert dataset.refs() == dataset[0].images and len(dataset) == 1


def test_what_no_worker_can_be_sent_is_made_here():
    here = Drawn(1)
    records = [Record("a", lambda: here()), Record("b", Drawn(2)), Record("c", functools.partial(Drawn(3)))]
    assert _made(records, Processes(2, DEFAULT_LIMITS)) == dict.fromkeys("abc", "made")


def test_readers_are_not_read_far_ahead_of_the_work():
    taken = [0]

    def endless():
        while True:
            taken[0] += 1
            yield Record(str(taken[0]), Drawn(taken[0]))

    given = in_order(endless(), None, Here(DEFAULT_LIMITS), DEFAULT_LIMITS)
    for _ in range(50):
        next(given)
    assert taken[0] <= 52


def test_an_unknown_engine_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no engine 'slurm'; engines: local, ray"):
        open_engine(1, "slurm", DEFAULT_LIMITS)


def test_ray_makes_the_same_dataset(tmp_path):
    pytest.importorskip("ray.data", reason="the extra ray isn't installed")
    ingest(loaders.settings(tmp_path, 60), {}, tmp_path / "local")
    ingest(loaders.settings(tmp_path, 60, engine="ray", workers=2), {}, tmp_path / "ray")
    assert _same(tmp_path / "local", tmp_path / "ray")


def test_without_ray_the_engine_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DataError, match=r"pip install 'medkit-lmm\[ray\]', or take ingest.engine=local"):
        open_engine("auto", "ray", DEFAULT_LIMITS)


def test_a_source_that_breaks_off_loses_nothing_that_was_made(tmp_path, monkeypatch):
    def failing(root, options):
        for number, item in enumerate(loaders.items(60, str(tmp_path / "diary"))):
            if number == 30:
                raise DataError("the disk is gone")
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(loaders, "read", failing)
        with pytest.raises(DataError, match="the disk is gone"):
            ingest(loaders.settings(tmp_path, 60), {}, tmp_path / "out")
    assert not (tmp_path / "out/dataset.json").exists()
    ingest(loaders.settings(tmp_path, 60, diary=str(tmp_path / "diary")), {}, tmp_path / "out")
    assert set(Counter((tmp_path / "diary").read_text().split()).values()) == {1}


def test_the_engine_of_the_command_line_is_the_recipe_s(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["medkit", "run", "phantom", "--engine", "slurm"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "ingest.engine" in capsys.readouterr().err


def test_progress_without_a_known_end_says_how_many_a_second(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_EVERY_S", -1.0)
    with progress.bar("slides", None) as shown:
        shown.advance(5)
    assert re.search(r"slides 5 .*\d a second", capsys.readouterr().err)


def test_keys_change_with_what_makes_the_picture(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"12345678")
    first = key_of(path, DEFAULT_LIMITS)
    assert first == key_of(path, DEFAULT_LIMITS) and first is not None
    time = path.stat()
    path.write_bytes(b"87654321")
    os.utime(path, ns=(time.st_atime_ns, time.st_mtime_ns))  # same size, same time of writing
    assert key_of(path, DEFAULT_LIMITS) != first
    assert key_of([path, path], DEFAULT_LIMITS) != key_of([path], DEFAULT_LIMITS)
    assert key_of(Drawn(1), DEFAULT_LIMITS) != key_of(Drawn(2), DEFAULT_LIMITS)
    assert key_of(lambda: None, DEFAULT_LIMITS) is None
    assert key_of(tmp_path / "missing.png", DEFAULT_LIMITS) is None
    pixels = np.zeros((4, 4), np.uint8)
    assert key_of(pixels, DEFAULT_LIMITS) != key_of(pixels.reshape(2, 8), DEFAULT_LIMITS)


def test_keys_change_with_every_package_that_makes_pictures():
    extras = tomllib.loads((TESTS.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in ("dicom", "ocr", "slides", "video", "volumes"):
        assert {re.split(r"[<>=]", package)[0] for package in extras[extra]} <= set(DECODERS)


def test_a_limit_takes_the_records_of_lowest_rank_without_holding_all():
    records = [Record(f"r{n}", Drawn(n), split=("train", "test", "valid")[n % 3]) for n in range(300)]
    kept = [item.id for item in _limited(iter(records), {}, 20, 10, seed=4) if isinstance(item, Record)]
    expected: set[str] = set()
    for split, most in (("train", 10), ("test", 20), ("valid", 20)):
        names = [record.id for record in records if record.split == split]
        expected |= set(sorted(names, key=lambda name: rank(4, name))[:most])
    assert kept == [record.id for record in records if record.id in expected]


def test_digest_tables_agree_with_dicts():
    random, table, truth = np.random.default_rng(0), DigestTable(), {}
    names = DigestTable(values=False)
    for number in random.integers(0, 4000, 9000).tolist():
        digest = digest_of(str(number))
        assert table.get(digest) == truth.get(digest)
        assert (digest in names) == (digest in truth)
        assert table.setdefault(digest, number) == truth.setdefault(digest, number)
        new = digest not in names
        assert names.add(digest) is new and digest in names
    assert len(table) == len(names) == len(truth)
    assert all(table.get(digest) == number for digest, number in truth.items())
    assert digest_of("absent") not in table and digest_of("absent") not in names
    assert table.get(bytes(16)) is None


def test_references_are_found_by_their_rows(tmp_path):
    with DatasetWriter(tmp_path / "d", "d") as to:
        refs = [to.add_image(np.full((2, 2, 3), number, np.uint8)) for number in range(200)]
    index = RefIndex(ArrowBatches(tmp_path / "d/images.arrow"))
    assert [index.get(ref) for ref in refs] == list(range(200))
    assert index.get("0" * 64) is None and index.get("no hex") is None and index.get("") is None
    assert index.get(refs[0][:-1] + "x") is None
    assert open_dataset(tmp_path / "d").refs() == refs


@pytest.mark.parametrize("max_peak", [255.0, 16.0, 5.0])
def test_near_duplicates_are_those_of_comparing_all_with_all(max_peak):
    random = np.random.default_rng(3)
    looks = random.integers(0, 256, (30, LOOK_BYTES), dtype=np.uint8)[random.integers(0, 30, 900)]
    for look in looks:
        for _ in range(random.integers(0, 5)):
            look[random.integers(0, 8)] ^= np.uint8(1 << random.integers(0, 8))
        change = random.integers(-6, 7, LOOK_BYTES - 8) * random.integers(0, 3)
        look[8:] = np.clip(look[8:].astype(int) + change, 0, 255)
    greys = looks[:, 8:].copy()
    looks[:, 8:] = np.diff(greys, axis=1, prepend=np.uint8(0))  # as they are kept
    assert np.array_equal(greys_of(looks), greys)
    first = random.choice(900, 200, replace=False)
    second = random.choice(900, 600, replace=False)
    hashes = hashes_of(looks)
    found = list(
        near_pairs(hashes, coarse_of(looks), lambda rows: greys_of(looks[rows]), (first, second), max_peak)
    )
    expected = []
    for row in first.tolist():
        # The same picture first, then the nearest hash, then the first in order: min keeps the earliest.
        near = [
            (other != row, distance, other)
            for other in second.tolist()
            if (distance := int(np.bitwise_count(hashes[row] ^ hashes[other]))) <= 6
            and _alike(greys, row, other, max_peak)
        ]
        if near:
            _, distance, other = min(near, key=lambda one: one[:2])
            expected.append((row, other, distance))
    assert found == expected
    assert len(found) > 50


def _alike(greys: np.ndarray, one: int, two: int, max_peak: float) -> bool:
    a, b = greys[one].astype(float), greys[two].astype(float)
    cells = np.abs(a - b)
    return bool(np.corrcoef(a, b)[0, 1] >= 0.985 and cells.mean() <= 5.0 and cells.max() <= max_peak)


@pytest.mark.slow
def test_memory_grows_by_less_than_a_kilobyte_a_record(tmp_path):
    code = (
        "import sys, resource, loaders; from pathlib import Path; from medkit.readers import READERS\n"
        "from medkit.readers.ingest import ingest; READERS['listed'] = 'loaders'\n"
        "ingest(loaders.settings(Path('.'), int(sys.argv[1])), {}, Path(sys.argv[2]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    most = {}
    for count in (5_000, 30_000):
        command = [sys.executable, "-c", code, str(count), str(tmp_path / str(count))]
        done = subprocess.run(command, env=environment, check=True, capture_output=True)
        most[count] = int(done.stdout) * 1024
    assert (most[30_000] - most[5_000]) / 25_000 < 1024
