"""The reader dicom on real and conformance files: exact pixels, a reason for every file, no name anywhere."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import sys
import time
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from dicom_objects import (
    CAPTURE,
    MR,
    NATIVE,
    ULTRASOUND,
    WHOLE_SLIDE,
    ct,
    item,
    picture,
    save,
)
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from real_data import real_set, splits_of

import medkit.readers
from medkit.errors import DataError
from medkit.privacy.report import write_audit
from medkit.readers import Loaded, Merged, Record, Rejected, get_reader
from medkit.readers.dicom.decode import LOSSY, decode, describe
from medkit.readers.dicom.files import Limits, quiet, read_file
from medkit.readers.dicom.identity import KEY_VARIABLE, Pseudonyms
from medkit.readers.dicom.profiles import shipped
from medkit.readers.dicom.reasons import REASONS, Refused
from medkit.readers.dicom.render import modality_transform, render
from medkit.readers.dicom.series import load_values, order_slices, slices_of
from medkit.readers.dicom.worker import Worker, decode_apart
from medkit.readers.ingest import ingest
from medkit.readers.review import write_review
from medkit.readers.show import show
from medkit.report.build import write_report
from medkit.store import open_dataset

KEY = "a key of this test only"
# Stored values of a lossy picture differ between decoders by rounding; in parts of the picture's range.
NEAR_MEAN, NEAR_END = 0.005, 0.04
# What the reader's allow-list may pass on, checked against vocabularies: no identifying values.
ALLOWED = {
    "Modality",
    "BodyPartExamined",
    "ViewPosition",
    "ImageLaterality",
    "Laterality",
    "PatientPosition",
    "ImageType",
}
TEXT = {"PN", "LO", "SH", "ST", "LT", "UT", "UC", "UI", "DA", "DT", "TM", "AE", "UR", "CS", "UN"}
# What the reader says in its own words is no value of a file.
READERS = Path(medkit.readers.__file__).parent
OWN_WORDS = "\n".join(
    path.read_text(encoding="utf-8") for path in READERS.rglob("*") if path.suffix in (".py", ".json")
)
# Shorter values ("1", "CT", "ORIG") are parts of any text.
LEAST_VALUE = 6


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)


def items() -> tuple[Path, list[dict[str, Any]]]:
    root = real_set("dicom")
    rows = [row for split in splits_of(root, "items_*.jsonl").values() for row in split]
    assert rows, f"{root} has no items_*.jsonl"
    return root, rows


def stored_of(path: Path) -> Any:
    dataset = read_file(path)
    return decode(dataset) if describe(dataset).native else decode_apart(path, None)


def fingerprint(values: np.ndarray) -> str:
    little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    return hashlib.sha256(little.tobytes()).hexdigest()


def as_referenced(values: np.ndarray, shape: list[int]) -> np.ndarray:
    return values[0] if list(values.shape[1:]) == shape and len(values) == 1 else values


def test_every_reference_decode_is_met() -> None:
    root, rows = items()
    differ = []
    for row in rows:
        want = row.get("decoded")
        if not want:
            continue
        try:
            values = as_referenced(stored_of(root / row["file"]).values, want["shape"])
        except Refused as refused:
            differ.append((row["file"], str(refused)))
            continue
        if list(values.shape) != want["shape"] or values.dtype != np.dtype(want["dtype"]):
            differ.append((row["file"], f"{values.shape} {values.dtype}"))
        elif fingerprint(values) != want["sha256_raw"]:
            span = max(want["max"] - want["min"], 1)
            off = abs(values.mean() - want["mean"]) / span
            ends = max(abs(values.min() - want["min"]), abs(values.max() - want["max"])) / span
            if row["transfer_syntax"] not in LOSSY or off > NEAR_MEAN or ends > NEAR_END:
                differ.append((row["file"], f"mean off by {off:.4f}, ends by {ends:.4f} of the range"))
    assert differ == []


def test_what_the_reference_could_not_decode_is_refused_proved_or_flagged() -> None:
    root, rows = items()
    family = defaultdict(set)
    for row in rows:
        if row.get("decoded"):
            family[row["family"]].add(row["decoded"]["sha256_raw"])
    unsure = []
    for row in rows:
        if row.get("decoded"):
            continue
        try:
            stored = stored_of(root / row["file"])
        except Refused as refused:
            assert refused.reason in REASONS
            continue
        proved = {fingerprint(stored.values), fingerprint(stored.values[0])} & family[row["family"]]
        flagged = any(reason == "irregular codestream" for reason, _ in stored.notes)
        if not proved and not flagged:
            unsure.append(row["file"])
    assert unsure == []


def test_colours_and_modality_values_meet_their_references() -> None:
    root, rows = items()
    differ = []
    for row in rows:
        want = row.get("decoded") or {}
        if "rgb_mean" not in want and "after_modality_lut_min" not in want:
            continue
        dataset = read_file(root / row["file"])
        about, stored = describe(dataset), stored_of(root / row["file"])
        if "rgb_mean" in want:
            made = np.stack(render(dataset, stored, about, shipped()["window"]).pictures)
            off = np.abs(made.reshape(-1, 3).mean(axis=0) - want["rgb_mean"]).max()
            exact = fingerprint(as_referenced(made, want["shape"])) == want["rgb_sha256"]
            if off > 0.5 or not (exact or row["transfer_syntax"] in LOSSY):
                differ.append((row["file"], off))
        # The reference reads only the top level; enhanced objects keep their rescale in the frames.
        elif "SharedFunctionalGroupsSequence" not in dataset:
            units = modality_transform(dataset, 0, about.signed).apply(stored.values)
            ends = (
                units.min() - want["after_modality_lut_min"],
                units.max() - want["after_modality_lut_max"],
            )
            span = max(want["after_modality_lut_max"] - want["after_modality_lut_min"], 1)
            near = NEAR_END * span if row["transfer_syntax"] in LOSSY else 1e-6 * span
            if max(map(abs, ends)) > near:
                differ.append((row["file"], ends))
    assert differ == []


def read_in(root: Path, out: Path, **options: Any) -> Any:
    """Ingests a folder of DICOM files; splits are the folder's own."""
    names = {folder.name: "train" for folder in root.iterdir() if folder.is_dir()}
    data = {"reader": "dicom", "options": options, "splits": names}
    ingest({"domain": {"name": "hospital", "licence": "none", "data": data}, "data": str(root)}, {}, out)
    return open_dataset(out)


@pytest.mark.parametrize(
    "options",
    [{}, {"burned_in": "keep", "profiles": "window"}, {"series": True, "patient": ["sex", "age_band"]}],
)
@pytest.mark.slow
def test_every_real_file_has_a_fate_and_no_name_leaves(
    options: dict[str, Any], tmp_path: Path, keyed: None, caplog: Any, capfd: Any
) -> None:
    root, rows = items()
    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        made = read_in(root, tmp_path / "out", **options)
    names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    fates = Counter(row["record"] for row in made.ledger() if row["fate"] in ("kept", "rejected", "merged"))
    assert {fates[Pseudonyms().name("file", name)] for name in names} == {1}
    rejected = {row["reason"] for row in made.ledger() if row["fate"] == "rejected"}
    told_of = {row["record"] for row in made.ledger() if row["fate"] in ("rejected", "told")}
    broken = [row["file"] for row in rows if not row.get("decoded")]
    assert [name for name in broken if Pseudonyms().name("file", name) not in told_of] == []
    assert rejected <= {*REASONS, "group in two splits"}

    said = " ".join([caplog.text, *capfd.readouterr(), *(str(one.message) for one in warned)])
    told = said + json.dumps([[one.id, one.messages, one.facts, one.source] for one in made])
    raw = [path.read_bytes() for path in (tmp_path / "out").iterdir()]
    values = values_to_look_for(root, rows)
    assert sorted(value for value in values if holds(told, value)) == []
    assert sorted(value for value in values if any(holds_bytes(data, value.encode()) for data in raw)) == []


@pytest.mark.slow
def test_no_name_is_on_a_page_that_is_made_of_the_real_files(
    tmp_path: Path, keyed: None, capfd: pytest.CaptureFixture
) -> None:
    root, rows = items()
    step = tmp_path / "run" / "1-ingest"
    made = read_in(root, step)
    summary = {"step": "ingest", "verb": "ingest", "settings": {"domain": {"name": "hospital"}}}
    (step / "summary.json").write_text(json.dumps({**summary, "result": made.summary}), encoding="utf-8")
    write_report(tmp_path / "run")
    show(step, tmp_path / "pages")
    print(write_audit(root, "basic", tmp_path / "pages" / "audit.json"))
    print(write_review(root, tmp_path / "holder" / "review.html"))
    # The review's pictures may show a name: its words may not.
    words = re.sub(
        r"data:image/webp;base64,[^\"]+", "", (tmp_path / "holder" / "review.html").read_text("utf-8")
    )
    pages = [
        path for path in tmp_path.rglob("*") if path.is_file() and path.suffix in (".html", ".md", ".json")
    ]
    assert {path.name for path in pages} >= {"report.html", "contact-sheet.html", "README.md", "audit.json"}
    texts = [path.read_text(encoding="utf-8") for path in pages if path.name != "review.html"]
    said = "\n".join([*texts, words, *capfd.readouterr()]).replace(str(tmp_path), "")
    own = OWN_WORDS + "\n".join(path.read_text("utf-8") for path in READERS.parent.rglob("*.html"))
    values = {value for value in values_to_look_for(root, rows) if not holds(own, value)}
    assert sorted(value for value in values if holds(said, value)) == []


def values_to_look_for(root: Path, rows: list[dict[str, Any]]) -> set[str]:
    """Gives the identifying values of a set's headers and its file names, less what medkit says itself."""
    names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    values = set().union(*(identifying_values(root / row["file"]) for row in rows))
    values |= {Path(name).stem for name in names if len(Path(name).stem) > LEAST_VALUE}
    values = {value for value in values if not holds(OWN_WORDS, value)}
    assert len(values) > 10
    return values


def holds(text: str, value: str) -> bool:
    """Whether a text holds a value as a word of its own, not as digits of a hash."""
    return value in text and bool(re.search(rf"(?<![0-9A-Za-z]){re.escape(value)}(?![0-9A-Za-z])", text))


def holds_bytes(data: bytes, value: bytes) -> bool:
    """Whether bytes hold a value; a short one must stand alone, as compressed pixels hold any few bytes."""
    at = data.find(value)
    while at >= 0:
        around = data[at - 1 : at] + data[at + len(value) : at + len(value) + 1]
        if len(value) >= 8 and not around.isalnum():
            return True
        at = data.find(value, at + 1)
    return False


def identifying_values(path: Path) -> set[str]:
    """Gives the text values of every element at every depth that isn't on the allow-list."""
    values: set[str] = set()

    def gather(dataset: Dataset) -> None:
        for tag in list(dataset.keys()):
            try:
                element = dataset[tag]
                if element.VR == "SQ":
                    for one in element.value:
                        gather(one)
                elif element.VR in TEXT and element.keyword not in ALLOWED:
                    several = (
                        element.value
                        if isinstance(element.value, list | pydicom.multival.MultiValue)
                        else [element.value]
                    )
                    values.update(
                        str(one.decode("latin-1") if isinstance(one, bytes) else one) for one in several
                    )
            except Exception:
                continue

    with quiet():
        try:
            dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        except Exception:
            return set()
        gather(dataset)
        gather(dataset.file_meta)
    return {value.strip() for value in values if len(value.strip()) >= LEAST_VALUE}


def outcomes(root: Path, **options: Any) -> list[Any]:
    """Gives what becomes of the files of a folder: a Loaded, a Merged or the reason."""
    found = []
    for one in get_reader("dicom")(root, options):
        if isinstance(one, Record):
            assert callable(one.image)
            try:
                found.append(one.image())
            except Refused as refused:
                found.append(refused.reason)
        else:
            found.append(one.reason)
    return found


CHECKERS = (np.indices((16, 16)).sum(axis=0) % 7 * 100).astype(np.uint16)


def bomb() -> bytes:
    """Gives a deflated file of some kilobytes that unfolds to 64 MiB."""
    made = picture(CHECKERS, NATIVE)
    made.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    made.PixelData = bytes(64 << 20)
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def claims(columns: int) -> bytes:
    """Gives a JPEG 2000 stream whose size marker claims so many columns."""
    codes = bytearray(imagecodecs.jpeg2k_encode(CHECKERS, codecformat="j2k"))
    codes[8:12] = columns.to_bytes(4, "big")
    return bytes(codes)


J2K = "1.2.840.10008.1.2.4.90"


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (ct(CHECKERS, RescaleType="US"), "values are not Hounsfield units"),
        (picture(CHECKERS, BurnedInAnnotation="YES"), "may show a name"),
        (picture(CHECKERS, SOPClassUID=CAPTURE), "may show a name"),
        (picture(CHECKERS, ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"]), "may show a name"),
        (picture(CHECKERS, SOPClassUID=ULTRASOUND, Modality="US"), "ultrasound region unknown"),
        (picture(CHECKERS, SOPClassUID=WHOLE_SLIDE), "whole slide"),
        (picture(CHECKERS, SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4"), "not a picture"),
        (picture(CHECKERS, SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1"), "not a picture"),
        (picture(CHECKERS, NumberOfFrames=2_000_000), "too many pixels"),
        (picture(CHECKERS, NumberOfFrames=3), "truncated pixel data"),
        (picture(CHECKERS, Rows=60_000, Columns=60_000), "too many pixels"),
        (picture(CHECKERS, Rows=17), "truncated pixel data"),
        (picture(CHECKERS, Rows=0), "incomplete pixel description"),
        (picture(CHECKERS, PhotometricInterpretation="HSV"), "incomplete pixel description"),
        (picture(CHECKERS, BitsAllocated=12), "incomplete pixel description"),
        (picture(CHECKERS, RescaleSlope=0), "malformed element"),
        (picture(np.zeros((4, 4), np.uint16)), "one value"),
        (picture(CHECKERS, J2K, encapsulate([claims(16_384)])), "codestream and header disagree"),
        (picture(CHECKERS, J2K, encapsulate([b"no codestream at all"])), "decoder failed"),
        (picture(CHECKERS, "1.2.840.10008.1.2.4.100", encapsulate([b"MPEG"])), "unknown transfer syntax"),
    ],
)  # fmt: skip
def test_every_refusal_has_its_reason(made: Dataset, reason: str, tmp_path: Path) -> None:
    save(made, tmp_path / "one")
    assert outcomes(tmp_path) == [reason]


def test_files_that_are_no_dicom_or_no_whole_one(tmp_path: Path) -> None:
    whole = save(picture(CHECKERS), tmp_path / "whole").read_bytes()
    for name, data in {
        "1-text": b"patient,age\n", "2-empty": b"", "3-cut": whole[:-100], "4-head": whole[:200], "5-bomb": bomb(),
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(data)
    (tmp_path / "whole").unlink()
    limits = Limits(file_bytes=8 << 20)
    reasons = []
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(Refused) as caught:
            decode(read_file(path, limits), None, limits)
        reasons.append(caught.value.reason)
    assert reasons == ["not DICOM", "not DICOM", "truncated pixel data", "no pixel data", "inflates too far"]
    assert len((tmp_path / "5-bomb").read_bytes()) < 200_000


def test_names_in_an_unknown_character_set_are_never_read(tmp_path: Path) -> None:
    made = picture(CHECKERS)
    made.add(DataElement(0x00080005, "CS", "ISO_IR 999", validation_mode=0))
    made.add(DataElement(0x00100010, "PN", b"\xff\xfe\x81^\x82", validation_mode=0))
    save(made, tmp_path / "one")
    assert isinstance(outcomes(tmp_path)[0], Loaded)


def test_a_number_that_is_none_costs_one_file(tmp_path: Path) -> None:
    made = picture(CHECKERS)
    made.add(DataElement(0x00280008, "LO", "1A"))
    save(made, tmp_path / "one")
    (rejected,) = get_reader("dicom")(tmp_path, {})
    assert (rejected.reason, rejected.detail) == ("malformed element", "NumberOfFrames")


def test_sequences_nested_beyond_reason_cost_one_file(tmp_path: Path) -> None:
    made = item(PatientID="deep")
    for _ in range(400):
        made = item(ReferencedImageSequence=[made])
    file = io.BytesIO()
    outer = picture(CHECKERS, ReferencedImageSequence=[made])
    sys.setrecursionlimit(20_000)
    try:
        outer.save_as(file, enforce_file_format=True)
    finally:
        sys.setrecursionlimit(1_000)
    (tmp_path / "deep").write_bytes(file.getvalue())
    save(picture(CHECKERS), tmp_path / "fine")
    found = outcomes(tmp_path)
    assert found[0] == "header unreadable" or isinstance(found[0], Loaded)
    assert isinstance(found[1], Loaded)


def test_a_decoder_that_crashes_or_hangs_costs_one_file(tmp_path: Path) -> None:
    codes = imagecodecs.jpeg2k_encode(CHECKERS, codecformat="j2k", reversible=True)
    path = save(picture(CHECKERS, J2K, encapsulate([codes])), tmp_path / "one")
    ready = (
        "import os,sys,time;sys.stdout.buffer.write(bytes(8));sys.stdout.flush();sys.stdin.buffer.read(8);"
    )
    for then, reason in (("os.abort()", "decoder crashed"), ("time.sleep(60)", "decoder too slow")):
        worker = Worker([sys.executable, "-c", ready + then])
        begun = time.monotonic()
        with pytest.raises(Refused, match=reason):
            worker.decode(path, None, Limits(seconds=0.5))
        assert time.monotonic() - begun < 30
    worker = Worker()
    try:
        assert np.array_equal(worker.decode(path, None).values[0], CHECKERS)
        assert worker._child is not None
        os.kill(worker._child.pid, 9)
        worker._child.wait()
        assert np.array_equal(worker.decode(path, None).values[0], CHECKERS)
    finally:
        worker.stop()


def test_mutated_files_end_with_a_picture_or_a_reason(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    codes = imagecodecs.jpeg2k_encode(CHECKERS, codecformat="j2k", reversible=True)
    sources = [picture(CHECKERS), picture(CHECKERS, J2K, encapsulate([codes])), ct(CHECKERS)]
    for number in range(90):
        data = bytearray(save(sources[number % 3], tmp_path / "source").read_bytes())
        for place in random.integers(132, len(data), random.integers(1, 17)):
            data[place] = random.integers(256)
        (tmp_path / f"{number:03d}").write_bytes(data)
    found = outcomes(tmp_path, burned_in="keep", profiles="window", seconds=10)
    assert len(found) == 91
    assert all(isinstance(one, Loaded) or one in REASONS for one in found)
    assert sum(isinstance(one, Loaded) for one in found) >= 10


def test_of_an_ultrasound_only_the_marked_region_stays(tmp_path: Path) -> None:
    region = item(RegionLocationMinX0=2, RegionLocationMinY0=4, RegionLocationMaxX1=9, RegionLocationMaxY1=11)
    shades = np.full((16, 16), 200, np.uint8)
    shades[0, 0] = 90
    made = picture(shades, SOPClassUID=ULTRASOUND, Modality="US", WindowCenter=128, WindowWidth=256)
    made.SequenceOfUltrasoundRegions = [region]
    save(made, tmp_path / "a")
    (loaded,) = outcomes(tmp_path)
    rows, columns = np.nonzero(loaded.images[0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 11, 2, 9)
    region.RegionLocationMaxX1 = 600
    save(made, tmp_path / "a")
    assert outcomes(tmp_path) == ["ultrasound region unknown"]
    assert isinstance(outcomes(tmp_path, burned_in="keep")[0], Loaded)


def test_only_allowed_attributes_leave_and_only_as_known_terms(tmp_path: Path, keyed: None) -> None:
    made = picture(
        CHECKERS, BodyPartExamined="CHEST", ViewPosition="PA", Laterality="L", PatientAge="093Y", PatientSex="F",
        StudyDescription="CHEST OF MR SMITH", KVP=120, InstitutionName="St Elsewhere", ContrastBolusAgent="Smith's mix",
        PatientPosition="MR SMITH", PixelSpacing=[0.2, 0.2],
    )  # fmt: skip
    save(made, tmp_path / "Smith^John.dcm")
    (record,) = get_reader("dicom")(tmp_path, {})
    assert isinstance(record, Record)
    assert record.facts == {
        "labels": {"modality": "CR", "body_part": "chest", "view": "PA", "side": "left"}, "objects": [],
        "complete": False, "modality": "CR", "body_part": "chest", "view": "PA",
        "side": "left", "pixel_spacing_mm": [0.2, 0.2], "contrast_agent": True, "tube_voltage_kv": 120.0,
    }  # fmt: skip
    assert record.extra == {"render": "window@1"}
    (told,) = get_reader("dicom")(tmp_path, {"patient": ["age_band", "sex"]})
    assert isinstance(told, Record)
    assert (told.facts["age_band"], told.facts["sex"]) == ("90+", "female")
    assert "Smith" not in f"{record.id} {record.group} {record.notes} {record.extra}"
    save(picture(CHECKERS, BodyPartExamined="SMITHS ARM"), tmp_path / "Smith^John.dcm")
    (record,) = get_reader("dicom")(tmp_path, {})
    assert isinstance(record, Record) and "body_part" not in record.facts


def test_patients_are_grouped_by_a_keyed_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, patient in (("a", "P-1"), ("b", "P-1"), ("c", "P-2"), ("d", "")):
        save(picture(CHECKERS, PatientID=patient), tmp_path / "in" / name)

    def groups(key: str) -> list[Any]:
        monkeypatch.setenv(KEY_VARIABLE, key)
        return list(get_reader("dicom")(tmp_path / "in", {"mapping": str(tmp_path / "map.csv")}))

    first, again, other, none = groups(KEY), groups(KEY), groups(KEY + "!"), groups("")
    assert [one.group for one in first] == [one.group for one in again]
    assert first[0].group == first[1].group != first[2].group
    assert not {one.group for one in first} & {one.group for one in other}
    assert first[3].notes == (("no patient identifier", "grouped by study"),)
    assert not any(reason == "random patient key" for one in first for reason, _ in one.notes)
    assert [reason for one in none for reason, _ in one.notes].count("random patient key") == 1
    lines = (tmp_path / "map.csv").read_text(encoding="utf-8").split()
    assert lines[1:] == [f"{one.id},{name}" for one, name in zip(none, "abcd", strict=True)]
    assert (tmp_path / "map.csv").stat().st_mode & 0o077 == 0
    with pytest.raises(DataError, match=r"has 5 characters; a key that can't be guessed has at least 16"):
        groups("short")


def stack(folder: Path, positions: list[float], **changes: Any) -> Path:
    """Writes a CT series with a slice a position; ``changes`` maps an attribute to a function of the index."""
    for index, position in enumerate(positions):
        values = np.full((8, 8), 1024 + 10 * round(position), np.uint16)
        values[0, 0] = 0
        attributes = {
            "ImagePositionPatient": [0, 0, position], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [1.0, 1.0], "InstanceNumber": index + 1, "SOPInstanceUID": f"1.2.{index + 1}",
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        } | {keyword: change(index) for keyword, change in changes.items()}  # fmt: skip
        save(ct(values, **attributes), folder / f"{index:03d}")
    return folder


def test_a_series_is_ordered_by_place_alone(tmp_path: Path) -> None:
    # Neither file names nor instance numbers follow the positions.
    positions = [10.0, 2.5, 7.5, 0.0, 5.0]
    stack(tmp_path, positions, InstanceNumber=lambda index: 1)
    record, *slices = get_reader("dicom")(tmp_path, {"series": True, "profiles": "ct-wide", "slices": 3})
    assert isinstance(record, Record) and callable(record.image)
    assert record.facts["volume"] == {
        "slices": 5, "shown": [1, 3, 5], "spacing_mm": [2.5, 1.0, 1.0], "plane": "axial",
    }  # fmt: skip
    assert record.facts["shows"] == "Axial slices 1, 3 and 5 of 5, from the feet to the head."
    assert [one[4, 4] for one in record.image().images] == [128, 134, 140]  # 0, 50 and 100 HU
    assert ("equal instance numbers", "ordered by position") in record.notes
    assert [type(one) for one in slices] == [Merged] * 5


def test_magnetic_resonance_is_spread_over_its_volume_without_the_padding(tmp_path: Path) -> None:
    for index in range(4):
        values = np.full((8, 8), 100 * (index + 1), np.uint16)
        values[::2] = 50
        values[0:2] = 9000
        attributes = {
            "SOPClassUID": MR, "Modality": "MR", "PixelPaddingValue": 9000, "ImagePositionPatient": [0, 0, index],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1],
        }  # fmt: skip
        values[4] = 100 * (index + 1)
        save(picture(values, **attributes), tmp_path / f"{index}")
    record = next(iter(get_reader("dicom")(tmp_path, {"series": True, "profiles": "mr-minmax"})))
    assert isinstance(record, Record) and callable(record.image)
    # 50 is black and 400, the last slice's greatest, white; one slice's own range would make each greatest white.
    assert [one[:, 0].tolist() for one in record.image().images] == [
        [0, 0, 0, grey, grey, grey, 0, grey] for grey in (36, 109, 182, 255)
    ]


def test_a_volume_is_in_hounsfield_units(tmp_path: Path) -> None:
    stack(
        tmp_path, [0.0, 2.0, 4.0], RescaleSlope=lambda index: 1, RescaleIntercept=lambda index: -1024 - index
    )
    files = sorted(tmp_path.iterdir())
    volume = order_slices([one for path in files for one in slices_of(path, read_file(path))])
    values = load_values(volume)
    assert values.dtype == np.int16
    assert values[:, 4, 4].tolist() == [0, 19, 38]
    assert values[:, 0, 0].tolist() == [-1024, -1025, -1026]
    stack(tmp_path, [0.0, 2.0, 4.0], RescaleSlope=lambda index: 0.5 + index)
    assert load_values(volume)[:, 4, 4].tolist() == [-512.0, 542.0, 1636.0]


@pytest.mark.parametrize(
    ("positions", "changes", "reason", "said"),
    [
        ([0, 2, 4, 10, 12], {}, "missing slices", "about 2; after slice 3 of 5 a gap of 6.00 mm instead of 2.00 mm"),
        ([0, 2, 4, 4, 6], {}, "duplicate slices", "1 places twice among 5 slices"),
        ([0, 2, 4, 4, 6], {"EchoTime": lambda i: 10 * i}, "several acquisitions", "1 places twice among 5 slices"),
        ([0, 2, 4, 6.5, 8], {}, "uneven spacing", "1.50 to 2.50 mm between slices"),
        (
            [0, 2, 4, 6],
            {"ImageOrientationPatient": lambda i: [1, 0, 0, 0, 1, 0] if i else [1, 0, 0, 0, 0, -1]},
            "mixed orientation",
            "3 of 4 differ from the first",
        ),
        (
            [0, 2, 4, 6],
            {"ImageType": lambda i: ["ORIGINAL", "PRIMARY", "AXIAL" if i else "LOCALIZER"]},
            "localizer in the series",
            "1 of 4 slices",
        ),
        ([0, 2, 4], {"ImagePositionPatient": lambda i: None}, "no positions", "3 of 3 slices"),
        ([0, 2, 4], {"PixelSpacing": lambda i: [1 + i, 1 + i]}, "mixed geometry", "pixel spacing of 2 of 3 slices"),
        ([0, 2, 4], {"RescaleType": lambda i: "HU" if i else "US"}, "mixed geometry", "unit of the values of 2"),
        ([0, 2, 4], {"ImagePositionPatient": lambda i: [9 * (i == 1), 0, 2 * i]}, "mixed geometry", "by 9.0 mm"),
    ],
)  # fmt: skip
def test_a_wrong_series_is_refused_with_its_reason(
    positions: list[float], changes: dict[str, Any], reason: str, said: str, tmp_path: Path
) -> None:
    stack(tmp_path, [float(one) for one in positions], **changes)
    found = list(get_reader("dicom")(tmp_path, {"series": True}))
    assert [type(one) for one in found] == [Rejected] * len(positions)
    assert {one.reason for one in found} == {reason}
    assert all(said in one.detail for one in found)


def test_a_tilted_gantry_is_told(tmp_path: Path) -> None:
    stack(tmp_path, [0.0, 2.0, 4.0], ImagePositionPatient=lambda index: [0, index, 2 * index])
    record = next(iter(get_reader("dicom")(tmp_path, {"series": True})))
    assert isinstance(record, Record)
    assert ("gantry tilt", "26.6 degrees") in record.notes


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    save(picture(CHECKERS), tmp_path / "one")
    for options, said in (
        ({"profile": "ct-lung"}, "did you mean 'profiles'"),
        ({"burned_in": "maybe"}, "none of quarantine, keep"),
        ({"patient": ["name"]}, "can't hold name"),
        ({"slices": 0}, "no whole number of at least 1"),
    ):
        with pytest.raises(DataError, match=said):
            list(get_reader("dicom")(tmp_path, options))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no file"):
        list(get_reader("dicom")(tmp_path / "empty", {}))


def test_the_page_lists_every_profile_and_reason() -> None:
    page = (Path(__file__).parent.parent / "docs" / "dicom.md").read_text(encoding="utf-8")
    profiles, reasons = (
        page.partition(f"<!-- {name} -->")[2].partition("\n\n")[0] for name in ("profiles", "reasons")
    )
    rows = [line.strip("| ").split(" | ") for line in profiles.splitlines()[3:]]
    table = json.loads((READERS / "dicom" / "profiles.json").read_text(encoding="utf-8"))
    assert [(name.strip("`"), about) for name, _, about in rows] == [
        (one.name, table[name]["about"]) for name, one in shipped().items()
    ]
    for name, shows, _ in rows:
        windows = table[name.strip("`").partition("@")[0]].get("windows", [])
        assert [float(one) for one in re.findall(r"-?[\d.]+", shows)] == [
            end for pair in windows for end in pair
        ] or not windows
    assert dict(line.strip("| ").split(" | ") for line in reasons.splitlines()[3:]) == REASONS


def test_the_first_of_several_reports_of_a_series_is_taken_and_told(tmp_path: Path) -> None:
    stack(tmp_path / "in", [0.0, 1.0, 2.0])
    names = sorted(path.stem for path in (tmp_path / "in").iterdir())
    for name, words in zip(names[1:], ("The first.", "The second."), strict=True):
        (tmp_path / "in" / f"{name}.txt").write_text(words)
    record, *others = get_reader("dicom")(tmp_path / "in", {"series": True, "reports": "{name}.txt"})
    assert isinstance(record, Record) and record.caption == "The first."
    assert ("several reports", "2 for one series; the first was taken") in record.notes
    assert ("no report", "") not in record.notes
    assert {one.reason for one in others} == {"slice of a series", "report"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"profiles": ["ct-lung"]}, "profiles .* is neither a render profile's name nor a mapping"),
        ({"patient": True}, "patient can't hold True"),
        ({"modalities": "CT"}, "modalities 'CT' is no list of words"),
        ({"series": "yes"}, "series 'yes' is neither true nor false"),
        ({"mapping": True}, "mapping True is no text"),
        ({"give": [["caption"]]}, "give .* is no list of caption and record"),
        ({"segmentations": True}, "segmentations need series: true"),
        ({"slices": {"show": "montage"}}, "slices need series: true"),
        ({"series": True, "labels": {1: "liver"}}, "labels maps .*, with segmentations: true"),
        ({"series": True, "orientation": "LPS", "profiles": "cxr-equalised"}, "is for radiographs"),
        ({"orientation": "LPS", "spacing_mm": [1, 1, 1]}, "orientation, spacing_mm need series: true"),
    ],
)
def test_an_option_of_the_wrong_kind_is_refused_before_a_file_is_read(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    save(ct(np.eye(4, dtype=np.uint16)), tmp_path / "a")
    with pytest.raises(DataError, match=said):
        next(iter(get_reader("dicom")(tmp_path, options)))


def test_a_mapping_that_others_could_read_is_written_anew(tmp_path: Path) -> None:
    save(ct(np.eye(4, dtype=np.uint16)), tmp_path / "in" / "a")
    mapping = tmp_path / "map.csv"
    mapping.write_text("old")
    mapping.chmod(0o644)
    list(get_reader("dicom")(tmp_path / "in", {"mapping": str(mapping)}))
    assert mapping.stat().st_mode & 0o777 == 0o600 and "old" not in mapping.read_text()


def test_a_segmentation_of_a_series_that_gives_no_volume_is_not_called_strange(tmp_path: Path) -> None:
    reference = Dataset()
    reference.SeriesInstanceUID = "1.2.3.9"
    marks = picture(
        np.eye(4, dtype=np.uint8), SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4", Modality="SEG",
        SeriesInstanceUID="1.2.8", ReferencedSeriesSequence=[reference],
    )  # fmt: skip
    save(marks, tmp_path / "seg")
    options = {"series": True, "segmentations": True}
    save(ct(np.eye(4, dtype=np.uint16), SOPInstanceUID="1.2.1"), tmp_path / "a")
    _, one = get_reader("dicom")(tmp_path, options)
    assert isinstance(one, Rejected) and one.reason == "segmentation doesn't fit"
    save(ct(np.eye(4, dtype=np.uint16), SOPInstanceUID="1.2.2"), tmp_path / "b")
    assert {one.reason for one in get_reader("dicom")(tmp_path, options)} == {"no positions"}  # type: ignore[union-attr]
