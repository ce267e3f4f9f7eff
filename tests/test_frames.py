"""Frames: which ones are taken of a video or stack, in which colours and which way up, and what is refused."""

from __future__ import annotations

import csv
import importlib.util
import os
import signal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medkit.errors import DataError
from medkit.readers import Loaded, Merged, Record, Rejected, get_reader, worker
from medkit.readers.frames import reader as frames_reader
from medkit.readers.frames import work
from medkit.readers.frames.reasons import REASONS, Refused

ROOT = Path(__file__).resolve().parent.parent
with_video = pytest.mark.skipif(
    importlib.util.find_spec("av") is None, reason="needs PyAV: pip install medkit-lmm[video]"
)


def items(root: Path, **options: Any) -> list[Any]:
    return list(get_reader("frames")(root, {"names": "kept", **options}))


def records(root: Path, **options: Any) -> list[Record]:
    return [one for one in items(root, **options) if isinstance(one, Record)]


def rejected(root: Path, **options: Any) -> dict[str, str]:
    return {one.record: one.reason for one in items(root, **options) if isinstance(one, Rejected)}


def pictures(record: Record) -> list[np.ndarray]:
    assert callable(record.image)
    loaded = record.image()
    assert isinstance(loaded, Loaded)
    return [np.asarray(one) for one in loaded.images]


def grey(frame: np.ndarray) -> int:
    return round(float(frame.mean()))


def video(
    path: Path, frames: list[np.ndarray], rate: int = 10, codec: str = "mpeg4", **settings: Any
) -> Path:
    """Writes frames as a video; ``settings`` are set on the stream."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = frames[0].shape[1], frames[0].shape[0]
        stream.pix_fmt = settings.pop("pix_fmt", "yuv420p")
        stream.bit_rate = 4_000_000
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        container.metadata["title"] = "Jane Doe 1950-01-01"
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def ramp(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frames whose grey value is four times their number."""
    return [np.full((height, width, 3), 4 * number, np.uint8) for number in range(count)]


# --- stacks -------------------------------------------------------------------------------------------------------


def test_pages_of_a_tiff_are_taken_evenly_and_counted_from_one(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (8, 6), (10 * number,) * 3) for number in range(9)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    found = records(tmp_path, frames=3)
    assert [one.id for one in found] == ["a:page 1", "a:page 5", "a:page 9"]
    assert [grey(pictures(one)[0]) for one in found] == [0, 40, 80]
    assert found[1].facts["frame"] == {"page": 5, "of": 9}
    assert {one.group for one in found} == {"a"}
    (told,) = [one for one in items(tmp_path, frames=3) if isinstance(one, Merged)]
    assert (told.record, told.detail) == ("a", "Pages 1, 5, 9 of 9.")


def test_a_clip_is_one_record_that_says_what_it_shows(tmp_path: Path) -> None:
    pages = [Image.new("L", (8, 6), 20 * number) for number in range(5)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "words", "kind"], ["a.tif", "A sweep.", "liver"]])
    (record,) = items(
        tmp_path, records="clip", frames=3, table="t.csv", caption="words", labels=["kind"], modality="US"
    )
    assert record.facts["shows"] == "Pages 1, 3, 5 of 5."
    assert record.facts["clip"] == {"pages": [1, 3, 5], "of": 5}
    assert (record.caption, record.facts["labels"], record.facts["modality"]) == (
        "A sweep.",
        {"kind": "liver"},
        "US",
    )
    assert [grey(one) for one in pictures(record)] == [0, 40, 80]


def test_animations_are_stacks(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (16, 16), (0, 50 * number, 0)) for number in range(4)]
    pages[0].save(tmp_path / "a.gif", save_all=True, append_images=pages[1:], duration=100)
    pages[0].save(tmp_path / "b.webp", save_all=True, append_images=pages[1:], duration=100, lossless=True)
    pages[0].save(tmp_path / "c.png", save_all=True, append_images=pages[1:], duration=100)
    for name in ("a", "b", "c"):
        found = [one for one in records(tmp_path, frames=2) if one.id.startswith(name)]
        assert [one.id for one in found] == [f"{name}:page 1", f"{name}:page 4"]
        assert [int(pictures(one)[0][8, 8, 1]) for one in found] == [0, 150]


def test_deep_pages_are_scaled_and_not_clamped(tmp_path: Path) -> None:
    values = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
    pages = [Image.fromarray(values), Image.fromarray(values[::-1].copy())]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    first, second = (pictures(one)[0] for one in records(tmp_path))
    assert first.min() == 0 and first.max() == 255 and 120 < first.mean() < 135
    assert np.abs(first[::-1].astype(int) - second).max() <= 1


# --- videos -------------------------------------------------------------------------------------------------------


@with_video
@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "mpeg4"), ("a.avi", "mjpeg"), ("a.mkv", "ffv1"), ("a.ts", "mpeg2video")],
)
def test_frames_stand_in_the_middle_of_equal_parts(tmp_path: Path, name: str, codec: str) -> None:
    formats = {"mjpeg": "yuvj420p", "ffv1": "yuv420p"}
    rate = 25 if codec == "mpeg2video" else 10
    video(tmp_path / name, ramp(50), rate, codec, pix_fmt=formats.get(codec, "yuv420p"))
    found = records(tmp_path, frames=5)
    assert len(found) == 5
    for number, one in enumerate(found):
        (frame,) = pictures(one)
        assert frame.shape == (48, 64, 3)
        assert abs(grey(frame) / 4 - (5 + 10 * number)) <= 1.5, (number, grey(frame))
    (clip,) = records(tmp_path, frames=5, records="clip")
    assert [grey(one) for one in pictures(clip)] == [grey(pictures(one)[0]) for one in found]


@with_video
def test_a_video_says_when_its_frames_were(tmp_path: Path) -> None:
    video(tmp_path / "a.mp4", ramp(40))
    (record,) = items(tmp_path, frames=2, records="clip")
    assert record.facts["clip"] == {"length_s": 4.0, "seconds": [1.0, 3.0]}
    assert record.facts["shows"] == "Frames of one video at 1, 3 of 4 s."


@with_video
def test_frames_far_into_a_video_are_sought(tmp_path: Path) -> None:
    frames = [np.full((32, 32, 3), (number * 7) % 250, np.uint8) for number in range(400)]
    video(tmp_path / "a.mp4", frames)
    (record,) = records(tmp_path, frames=3, records="clip")
    wanted = [grey(frames[int(second * 10 + 1e-6)]) for second in record.facts["clip"]["seconds"]]
    assert np.abs(np.array([grey(one) for one in pictures(record)]) - wanted).max() <= 3


@with_video
@pytest.mark.parametrize(("height", "tag"), [(480, None), (720, None), (64, 1), (720, 6)])
def test_colours_are_those_of_the_videos_standard(tmp_path: Path, height: int, tag: int | None) -> None:
    import av

    colour = np.full((height, 64, 3), (40, 160, 60), np.uint8)
    high = tag == 1 or (tag is None and height >= 720)
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, height, "yuv444p"
        if tag is not None:
            stream.codec_context.colorspace = tag
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(colour, format="rgb24")
            frame = frame.reformat(format="yuv444p", dst_colorspace="ITU709" if high else "ITU601")
            frame.colorspace = 2 if tag is None else tag
            frame.pts, frame.time_base = number, Fraction(1, 10)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    (record,) = records(tmp_path, frames=1)
    assert np.abs(pictures(record)[0].astype(int) - colour).max() <= 4


@with_video
def test_a_turned_telephone_gives_upright_frames(tmp_path: Path) -> None:
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:, :32] = 250  # the left half is bright
    path = video(tmp_path / "a.mp4", [frame] * 10)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    turn = [0, 0x00010000, 0, 0xFFFF0000, 0, 0]  # a quarter turn clockwise, as telephones write it
    data[at : at + 24] = b"".join(one.to_bytes(4, "big") for one in turn)
    path.write_bytes(bytes(data))
    (shown,) = pictures(records(tmp_path, frames=1)[0])
    assert shown.shape == (64, 48, 3)
    assert shown[:28].mean() > 200 and shown[36:].mean() < 50  # left has become the top


@with_video
def test_oblong_pixels_are_made_square(tmp_path: Path) -> None:
    video(tmp_path / "a.mp4", ramp(5), sample_aspect_ratio=Fraction(2, 1))
    assert pictures(records(tmp_path, frames=1)[0])[0].shape == (48, 128, 3)


@with_video
def test_what_a_video_says_of_itself_stays_in_it(tmp_path: Path) -> None:
    video(tmp_path / "Jane Doe.mp4", ramp(10))
    (tmp_path / "Jane Doe 2.mp4").write_bytes(b"Jane Doe" * 100)
    told = repr([(one, getattr(one, "id", "")) for one in items(tmp_path, names="hashed", frames=2)])
    assert "Doe" not in told.replace(f"'{tmp_path}/Jane Doe.mp4'", "")


@with_video
def test_playlists_are_not_followed(tmp_path: Path) -> None:
    video(tmp_path / "real.ts", ramp(20), codec="mpeg2video", rate=25)
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:1,", "real.ts", "#EXT-X-ENDLIST"]
    (tmp_path / "list.mp4").write_text("\n".join(lines))
    (tmp_path / "concat.mkv").write_text("ffconcat version 1.0\nfile real.ts\n")
    assert rejected(tmp_path) == {"list": "video unreadable", "concat": "video unreadable"}


@with_video
def test_damaged_videos_cost_a_row_or_their_records(tmp_path: Path) -> None:
    data = video(tmp_path / "a.mp4", ramp(50)).read_bytes()
    (tmp_path / "short.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "zero.mp4").write_bytes(bytes(1000))
    found = rejected(tmp_path)
    assert set(found) == {"short", "empty", "zero"} and set(found.values()) == {"video unreadable"}
    random = np.random.default_rng(0)
    for number in range(20):
        broken = bytearray(data)
        for place in random.integers(0, len(data), 40):
            broken[place] = random.integers(256)
        (tmp_path / "a.mp4").write_bytes(bytes(broken))
        for one in records(tmp_path, frames=2):
            try:
                assert len(pictures(one)) == 1
            except Refused as refused:
                assert refused.reason in REASONS, number


@with_video
def test_limits_of_videos(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", ramp(50))
    for limits, reason in (
        (work.Limits(length_s=4), "too long"),
        (work.Limits(pixels=1000), "too many pixels"),
        (work.Limits(file_bytes=100), "file too large"),
    ):
        with pytest.raises(Refused, match=reason):
            work.survey_apart(path, limits)
    assert rejected(tmp_path, longest=2) == {"a": "too long"}


def test_a_decoder_that_hangs_costs_one_record(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tif")
    (record,) = records(tmp_path)
    child = worker.shared(work.TASK)._child
    assert child is not None
    os.kill(child.pid, signal.SIGSTOP)
    with pytest.raises(Refused, match="decoder too slow"):
        work.survey_apart(tmp_path / "a.tif", work.Limits(seconds=0.3))
    assert len(pictures(record)) == 1


# --- refusals -----------------------------------------------------------------------------------------------------


def test_without_pyav_stacks_are_read_and_videos_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames_reader, "is_installed", lambda: False)
    (tmp_path / "a.mp4").write_bytes(bytes(99))
    Image.new("RGB", (8, 8)).save(tmp_path / "b.tif")
    assert rejected(tmp_path) == {"a": "decoder not installed"}
    assert [one.id for one in records(tmp_path)] == ["b:page 1"]


def test_every_file_ends_somewhere(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tif")
    (tmp_path / "b.tif").write_bytes(b"II*\0" + bytes(50))
    (tmp_path / "c.txt").write_text("words")
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "kind"], ["a", "x"], ["gone", "y"], ["", "z"]])
    assert rejected(tmp_path, table="t.csv", labels=["kind"]) == {
        "b": "video unreadable",
        "c": "not a video",
        "t.csv:3": "video missing",
        "t.csv:4": "row unreadable",
    }


def test_limits_of_stacks(tmp_path: Path) -> None:
    pages = [Image.new("L", (40, 30))] * 4
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(Refused, match="too long: 4 pages, limit 3"):
        work.survey_apart(tmp_path / "a.tif", work.Limits(pages=3))
    with pytest.raises(Refused, match="too many pixels: 40 x 30 pixels, limit 1000"):
        work.frames_apart(tmp_path / "a.tif", [0], work.Limits(pixels=1000))
    with pytest.raises(Refused, match="video unreadable"):
        work.frames_apart(tmp_path / "a.tif", [7])
    os.remove(tmp_path / "a.tif")
    with pytest.raises(Refused, match="video unreadable"):
        work.survey_apart(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "frames 0 is no whole number from 1 to 10000"),
        ({"records": "file"}, "records 'file' is none of frame, clip"),
        ({"longest": -1}, "longest -1 is no time above 0"),
        ({"seconds": True}, "seconds True is no time above 0"),
        ({"caption": "words", "table": "t.csv"}, "give records: clip"),
        ({"group": "who"}, "group need table"),
        ({"frame": 3}, "did you mean 'frames'"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "t.csv").write_text("file,words\na,b\n")
    with pytest.raises(DataError, match=message):
        items(tmp_path, **options)


def test_the_page_lists_every_reason() -> None:
    page = (ROOT / "docs" / "frames.md").read_text(encoding="utf-8")
    rows = page.split("<!-- reasons -->\n")[1].split("\n\n")[0].splitlines()[2:]
    assert [tuple(row.strip("| ").split(" | ")) for row in rows] == list(REASONS.items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group_pattern": "("}, "is no regular expression"),
        ({"mapping": ["x"]}, "mapping .* is no text"),
        ({"table": "t.csv", "labels": "kind"}, "labels 'kind' is no list of words"),
        ({"table": "t.csv", "key": ["file"]}, "key .* is no text"),
        ({"table": "t.csv", "unknown": 3}, "unknown 3 is no list of words"),
    ],
)
def test_an_option_of_the_wrong_kind_is_refused_before_a_file_is_read(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    (tmp_path / "t.csv").write_text("file,kind\na.gif,x\n")
    with pytest.raises(DataError, match=said):
        next(iter(get_reader("frames")(tmp_path, options)))


def test_a_video_of_no_length_gives_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    monkeypatch.setattr("medkit.readers.frames.reader.is_installed", lambda: True)
    monkeypatch.setattr(
        "medkit.readers.frames.reader.survey_apart", lambda path, limits: work.Survey(0.0, None)
    )
    found = [one.id for one in get_reader("frames")(tmp_path, {"names": "kept"}) if isinstance(one, Record)]
    assert found == ["a:second 0"]
