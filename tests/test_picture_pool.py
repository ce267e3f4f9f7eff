"""Pictures decoded in worker processes: the same pixels in the same order, and a bad file costs itself only."""

from __future__ import annotations

import io
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medkit import images
from medkit.errors import DataError
from medkit.readers.picture_pool import BATCH, Limits, PicturePool, Refused, decode_pictures


def encoded(form: str, image: Image.Image, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=form, **settings)
    return file.getvalue()


def shade(number: int, size: tuple[int, int] = (20, 10)) -> Image.Image:
    return Image.new("RGB", size, (number % 256, number // 256, 77))


def kinds() -> list[bytes]:
    deep = Image.fromarray(np.arange(200, dtype=np.uint16).reshape(10, 20) * 300)
    return [
        encoded("PNG", shade(1)),
        encoded("JPEG", shade(2)),
        encoded("WEBP", shade(3)),
        encoded("TIFF", shade(4)),
        encoded("PNG", deep),
        encoded("TIFF", deep),
        encoded("PNG", shade(5).convert("RGBA")),
        encoded("JPEG", shade(6).convert("CMYK")),
    ]


@pytest.mark.parametrize("processes", [1, 2])
def test_the_same_pixels_as_in_this_process(tmp_path: Path, processes: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(kinds()[0])
    for file, given in zip([*kinds(), path], decode_pictures([*kinds(), path], processes), strict=True):
        here = images.decode(file if isinstance(file, bytes) else file.read_bytes())
        assert isinstance(given, images.Decoded)
        assert (given.plain, given.note) == (here.plain, here.note)
        assert np.array_equal(np.asarray(given.image), np.asarray(here.image))


@pytest.mark.parametrize("processes", [1, 3])
def test_results_come_in_the_order_of_the_files(processes: int) -> None:
    count = 2 * BATCH * processes + 7
    given = list(decode_pictures((encoded("PNG", shade(number)) for number in range(count)), processes))
    assert [one.image.getpixel((3, 3)) for one in given if isinstance(one, images.Decoded)] == [
        (number % 256, number // 256, 77) for number in range(count)
    ]


def test_files_are_taken_as_they_are_needed() -> None:
    taken = []

    def files():
        for number in range(10 * BATCH):
            taken.append(number)
            yield encoded("PNG", shade(number))

    with PicturePool() as pool:
        assert isinstance(next(pool.decode(files())), images.Decoded)
        assert len(taken) == BATCH


def test_bad_files_are_refused_as_in_this_process(tmp_path: Path) -> None:
    bomb = encoded("PNG", Image.new("1", (12_000, 12_000)))
    bad = [b"", b"no picture", kinds()[0][:45], bomb, tmp_path / "gone.png"]
    given = list(decode_pictures([*bad, kinds()[0]]))
    assert all(isinstance(one, Refused) for one in given[:-1]) and isinstance(given[-1], images.Decoded)
    for file, one in zip(bad, given, strict=False):
        with pytest.raises(DataError) as here:
            images.decode(file if isinstance(file, bytes) else images.read_limited(file))
        assert isinstance(one, Refused)
        assert (one.reason, one.detail) == ("image unreadable", str(here.value))


@pytest.mark.parametrize("processes", [1, 2])
def test_a_crash_costs_the_file_that_was_next_and_no_other(processes: int) -> None:
    # Each is larger than a pipe holds, so that answers wait in the child.
    files = [encoded("PNG", shade(number, (700, 700))) for number in range(40)]
    with PicturePool(processes) as pool:
        results = pool.decode(files)
        given = [next(results) for _ in range(5)]
        child = pool._workers[0]._child
        assert child is not None
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        given += list(results)
        assert len(given) == 40
        lost = [number for number, one in enumerate(given) if isinstance(one, Refused)]
        assert len(lost) == 1 and lost[0] >= 5
        one = given[lost[0]]
        assert isinstance(one, Refused) and one.reason == "decoder crashed"
        for number, one in enumerate(given):
            if number not in lost:
                assert isinstance(one, images.Decoded)
                assert one.image.getpixel((0, 0)) == (number, 0, 77)


def test_a_hang_costs_one_file() -> None:
    files = [encoded("PNG", shade(number)) for number in range(3)]
    with PicturePool(limits=Limits(seconds=0.5)) as pool:
        assert all(isinstance(one, images.Decoded) for one in pool.decode(files))
        child = pool._workers[0]._child
        assert child is not None
        os.kill(child.pid, signal.SIGSTOP)
        begun = time.monotonic()
        given = list(pool.decode(files))
        assert time.monotonic() - begun < 20
        assert [getattr(one, "reason", "") for one in given] == ["decoder too slow", "", ""]


def test_memory_is_limited() -> None:
    big = encoded("PNG", Image.new("L", (9000, 9000)))
    small = encoded("PNG", shade(9))
    given = list(decode_pictures([small, big, small], limits=Limits(worker_bytes=700 << 20)))
    assert isinstance(given[0], images.Decoded) and isinstance(given[2], images.Decoded)
    assert isinstance(given[1], Refused)


def test_mutated_files_end_with_a_picture_or_a_reason() -> None:
    random = np.random.default_rng(0)
    files = []
    for number in range(400):
        data = bytearray(kinds()[number % len(kinds())])
        for place in random.integers(0, len(data), random.integers(1, 12)):
            data[place] = random.integers(256)
        files.append(bytes(data))
    given = list(decode_pictures(files))
    assert len(given) == 400
    assert {one.reason for one in given if isinstance(one, Refused)} <= set(Refused.reasons)
    assert sum(isinstance(one, images.Decoded) for one in given) > 50


def test_the_processes_end_with_the_pool() -> None:
    with PicturePool(2) as pool:
        list(pool.decode([kinds()[0]] * 4))
        children = [one._child for one in pool._workers]
    assert all(child is not None and child.poll() is not None for child in children)
