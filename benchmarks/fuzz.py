"""Damaged inputs through a real ingest: no crash, no hang, no file without a fate.

    OMP_NUM_THREADS=1 python benchmarks/fuzz.py --count 20000
    OMP_NUM_THREADS=1 python benchmarks/fuzz.py --kinds dicom tiff --count 500 --seed 7

Small invented files (DICOM in six encodings, 8- and 16-bit PNG and TIFF, JATS articles, NIfTI volumes, CSV tables) are
mutated at random places and read by ``medkit.readers.ingest.ingest`` as a user's folder would be. A case is a file; the
same seed, kind and number give the same bytes. Ingest runs in a process of its own that this one watches, so that a
crash of it, a hang or any error but a ``DataError`` is counted and the rest goes on. A file is accounted for when the
ledger names it; of a table every row is counted. The last line is the result; the exit status is 1 unless all is well.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import os
import platform
import random
import re
import select
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from medkit.errors import DataError
from medkit.readers.ingest import ingest

BATCH = 50
SILENT_SECONDS = 120.0
# Whole numbers at which parsers trip over their own sizes.
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
SIGNS = [
    b"<",
    b">",
    b"&",
    b'"',
    b",",
    b"\n",
    b"\r",
    b"\0",
    b"]]>",
    b"<fig>",
    b"</p>",
    b"\xff\xfe",
    b"-1",
    b"1e999",
]
STRANGE = [
    b"",
    b"../../etc/passwd",
    b"/etc/passwd",
    b"g001",
    b"f1 f2 f9",
    b"http://[",
    b"x" * 5000,
    "\u202e\u2013".encode(),
    b"-1",
]
ELEMENT = re.compile(rb"<([a-z-]+)[^<>]*?(?:/>|>(?:(?!<\1[ >]).)*?</\1>)", re.DOTALL)
VALUE = re.compile(rb'(?:[a-z]="|>)([^<>"]+)')
SECONDS = 5  # for one compressed DICOM file


def main() -> int:
    """Runs the cases and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=20_000, help="cases, spread evenly over the kinds")
    parser.add_argument("--kinds", nargs="+", choices=sorted(KINDS), default=sorted(KINDS))
    parser.add_argument("--first", type=int, default=0, help="first batch of each kind, to repeat one")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    each = -(-arguments.count // len(arguments.kinds))
    last = arguments.first + -(-each // BATCH)
    if arguments.child:
        for number in range(arguments.first, last):
            print(json.dumps(run_batch(arguments.child, arguments.seed, number)), flush=True)
        return 0
    begun = time.perf_counter()
    totals = {kind: watch(kind, arguments.seed, arguments.first, last) for kind in arguments.kinds}
    print(f"\n{date.today()}, {platform.machine()}, seed {arguments.seed}\n")
    print("| kind | cases | read | refused | crashes | hangs | unaccounted | slowest batch s |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, row in totals.items():
        print(f"| {kind} | " + " | ".join(f"{row[key]:g}" for key in COLUMNS) + " |")
    every = {key: sum(row[key] for row in totals.values()) for key in COLUMNS[:-1]}
    bad = every["crashes"] + every["hangs"] + every["unaccounted"]
    print(f"\n{every['cases']:g} cases, {bad:g} faults, {time.perf_counter() - begun:.0f} s")
    return int(bad > 0)


COLUMNS = ("cases", "read", "refused", "crashes", "hangs", "unaccounted", "slowest")


def watch(kind: str, seed: int, first: int, last: int) -> dict[str, float]:
    """Runs batches first..last in a process of its own, started again after the batch that ended it."""
    row: dict[str, float] = dict.fromkeys(COLUMNS, 0)
    while first < last:
        command = [sys.executable, __file__, "--child", kind, "--kinds", kind, "--seed", str(seed)]
        command += ["--first", str(first), "--count", str((last - first) * BATCH)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
        assert child.stdout is not None
        while first < last:
            begun = time.perf_counter()
            ready, _, _ = select.select([child.stdout], [], [], SILENT_SECONDS)
            line = child.stdout.readline() if ready else ""
            row["cases"] += BATCH
            first += 1
            if not line:
                child.kill()
                what = "crashes" if ready else "hangs"
                row[what] += 1
                print(f"{kind}: {what} in batch {first - 1}, exit status {child.wait()}", flush=True)
                break
            result = json.loads(line)
            row["slowest"] = max(row["slowest"], round(time.perf_counter() - begun, 1))
            for key in ("read", "refused", "crashes", "unaccounted"):
                row[key] += result[key]
            for fault in result["faults"]:
                print(f"{kind}: batch {first - 1}: {fault}", flush=True)
        child.wait()
    return row


def run_batch(kind: str, seed: int, number: int, count: int = BATCH) -> dict[str, Any]:
    """Writes a batch of mutated files, ingests it and compares the ledger with the files.

    Returns:
        read, refused, crashes and unaccounted as counts of cases, faults as sentences.
    """
    chance = random.Random(f"{seed} {kind} {number}")
    result: dict[str, Any] = {"read": 0, "refused": 0, "crashes": 0, "unaccounted": 0, "faults": []}
    with tempfile.TemporaryDirectory() as folder:
        KINDS[kind](Path(folder), chance, count, result)
    return result


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Gives the bytes with one to six faults: flips, edges, cuts, doubles, strangers, a lost tail."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        place = chance.randrange(max(len(out), 1))
        # Headers decide more than pixels do.
        if chance.random() < 0.5:
            place = chance.randrange(max(min(len(out), 400), 1))
        way = chance.randrange(8)
        if way <= 1:
            out[place : place + 1] = bytes([chance.randrange(256)])
        elif way == 2:
            size = chance.choice((1, 2, 4))
            edge = chance.choice(EDGES) & (256**size - 1)
            out[place : place + size] = edge.to_bytes(size, chance.choice(("little", "big")))
        elif way == 3:
            del out[place : place + chance.choice((1, 2, 8, 64))]
        elif way == 4:
            out[place:place] = out[place : place + chance.choice((1, 8, 64, 512))]
        elif way == 5:
            out[place:place] = chance.choice(SIGNS)
        elif way == 6 and chance.random() < 0.5:
            del out[place:]
        else:
            other = chance.randrange(max(len(out), 1))
            out[place : place + 16] = out[other : other + 16]
    return bytes(out)


def mutate_png(data: bytes, chance: random.Random) -> bytes:
    """As ``mutate``; in half the cases the checksums are made right again, so that the fault gets further in."""
    out = mutate(data, chance)
    return with_checksums(out) if chance.random() < 0.5 else out


def with_checksums(data: bytes) -> bytes:
    """Gives a PNG file's bytes with the right CRC behind every chunk that is there in whole."""
    out, place = bytearray(data), 8
    while place + 12 <= len(out):
        end = place + 8 + int.from_bytes(out[place : place + 4], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = zlib.crc32(out[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(out)


def mutate_xml(data: bytes, chance: random.Random) -> bytes:
    """As ``mutate``; in most cases whole elements or values are lost, doubled or moved and the XML stays one."""
    if chance.random() < 0.3:
        return mutate(data, chance)
    for _ in range(chance.choice((1, 2, 4))):
        elements = [found.span() for found in ELEMENT.finditer(data)]
        values = [found.span(1) for found in VALUE.finditer(data)]
        if not elements or not values:
            break
        (start, end), (other, _) = chance.choice(elements), chance.choice(elements)
        first, last = chance.choice(values)
        way = chance.randrange(5)
        if way == 0:
            data = data[:start] + data[end:]
        elif way == 1:
            data = data[:end] + data[start:end] * chance.choice((1, 2, 50)) + data[end:]
        elif way == 2:
            data = data[:other] + data[start:end] + data[other:]
        elif way == 3:
            data = data[:first] + chance.choice(STRANGE) + data[last:]
        else:
            one, two = chance.choice(values)
            data = data[:first] + data[one:two] + data[last:]
    return data


def judge(
    root: Path, domain: dict[str, Any], names: dict[str, str], result: dict[str, Any], faults: list[str]
) -> None:
    """Ingests a folder; each of ``names`` (case -> record in the ledger) must have a fate there."""
    rows = ledger_of(root, domain, faults)
    if rows is None:
        result["crashes"] += 1
        return
    fates: dict[str, set[str]] = {}
    for row in rows:
        for record in (row["record"], row["record"].split("/")[0]):
            fates.setdefault(record, set()).add(row["fate"])
    for case, record in names.items():
        got = fates.get(record, set())
        if not got & {"kept", "rejected", "merged"}:
            result["unaccounted"] += 1
            faults.append(f"no fate of {case}")
        else:
            result["read" if "kept" in got else "refused"] += 1


def ledger_of(root: Path, domain: dict[str, Any], faults: list[str]) -> list[dict[str, Any]] | None:
    """Gives the ledger of an ingest, [] of one that refused the source, None (and a fault) of a crash."""
    out = root.parent / f"{root.name}-dataset"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ingest(
                {"domain": {"name": "fuzz", "licence": "CC0-1.0", "data": domain}, "data": str(root)}, {}, out
            )
    except DataError as error:
        faults.append(f"refused: {error}")
        return []
    except Exception as error:
        faults.append(f"{type(error).__name__}: {error}"[:300])
        return None
    return [json.loads(line) for line in (out / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]


def pictures(
    suffix: str,
    seeds: Callable[[], list[bytes]],
    damaged: Callable[[bytes, random.Random], bytes] = mutate,
) -> Callable[..., None]:
    """Gives the batch of a kind of picture, read as class folders."""

    def batch(folder: Path, chance: random.Random, count: int, result: dict[str, Any]) -> None:
        root = folder / "data" / "some"
        root.mkdir(parents=True)
        (root / f"whole{suffix}").write_bytes(seeds()[0])
        names = {}
        for index in range(count):
            name = f"case-{index:04d}"
            (root / f"{name}{suffix}").write_bytes(damaged(chance.choice(seeds()), chance))
            names[name] = name
        judge(root.parent, {"reader": "class_folders"}, names, result, result["faults"])

    return batch


def articles(folder: Path, chance: random.Random, count: int, result: dict[str, Any]) -> None:
    """A batch of JATS articles with their pictures."""
    root = folder / "data"
    names = {}
    for index in range(-1, count):
        name = f"case-{index:04d}" if index >= 0 else "whole"
        pictures_of = root / f"{name}.images"
        pictures_of.mkdir(parents=True)
        (pictures_of / "g001.jpg").write_bytes(_saved(Image.new("RGB", (8, 8), (index % 256, 9, 9)), "JPEG"))
        (root / f"{name}.xml").write_bytes(mutate_xml(ARTICLE, chance) if index >= 0 else ARTICLE)
        if index >= 0:
            names[name] = name
    judge(root, {"reader": "figures"}, names, result, result["faults"])


def dicoms(folder: Path, chance: random.Random, count: int, result: dict[str, Any]) -> None:
    """A batch of DICOM files; the mapping file says which record is which. Odd batches are read as series."""
    root = folder / "data"
    root.mkdir()
    (root / "whole").write_bytes(dicom_seed(0, 99))
    for index in range(count):
        seed = dicom_seed(chance.randrange(6), index)
        (root / f"case-{index:04d}").write_bytes(mutate(seed, chance))
    mapping = folder / "mapping.csv"
    options = {
        "mapping": str(mapping),
        "seconds": SECONDS,
        "profiles": "window",
        "series": chance.random() < 0.5,
    }
    faults: list[str] = []
    data = {"reader": "dicom", "options": options}
    rows = ledger_of(root, data, faults)
    result["faults"] += faults
    if rows is None:
        result["crashes"] += 1
        return
    with mapping.open(newline="") as lines:
        records = {row["file"]: row["record"] for row in csv.DictReader(lines)}
    fates = {row["record"]: row["fate"] for row in rows if row["fate"] != "told"}
    for index in range(count):
        fate = fates.get(records[f"case-{index:04d}"])
        if fate is None:
            result["unaccounted"] += 1
            result["faults"].append(f"no fate of case-{index:04d}")
        else:
            result["refused" if fate == "rejected" else "read"] += 1


def tables(folder: Path, chance: random.Random, count: int, result: dict[str, Any]) -> None:
    """A batch of tables, each a source of its own: it is refused as a whole or every row has a fate."""
    for index in range(count):
        root = folder / f"case-{index:04d}"
        root.mkdir()
        for number in range(4):
            (root / f"{number}.png").write_bytes(png_seeds()[0])
        data = mutate(TABLE, chance)
        (root / "rows.csv").write_bytes(data)
        faults: list[str] = []
        rows = ledger_of(root, {"reader": "table", "options": {"labels": ["finding"]}}, faults)
        if rows is None:
            result["crashes"] += 1
            result["faults"] += faults
        elif faults:
            result["refused"] += 1
        else:
            # No reader of medkit's: what Python's csv module makes of the same text, the header left out.
            text = data.decode("utf-8-sig", errors="replace")
            expected = sum(bool(row) for row in csv.reader(io.StringIO(text, newline=""))) - 1
            got = Counter(row["fate"] for row in rows)
            if got["kept"] + got["rejected"] + got["merged"] != expected:
                result["unaccounted"] += 1
                result["faults"].append(f"case {index}: {expected} rows, {dict(got)}")
            else:
                result["read"] += 1


def volumes(folder: Path, chance: random.Random, count: int, result: dict[str, Any]) -> None:
    """A batch of NIfTI volumes."""
    root = folder / "data"
    root.mkdir()
    (root / "whole.nii").write_bytes(nifti_seeds()[0])
    names = {}
    for index in range(count):
        name = f"case-{index:04d}"
        data = mutate(chance.choice(nifti_seeds()), chance)
        suffix = ".nii"
        if chance.random() < 0.3:  # a damaged volume in a whole stream, or a damaged stream
            data, suffix = gzip.compress(data, 1), ".nii.gz"
            data = mutate(data, chance) if chance.random() < 0.5 else data
        (root / f"{name}{suffix}").write_bytes(data)
        names[name] = name
    judge(root, {"reader": "nifti", "options": {"slices": 3}}, names, result, result["faults"])


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format=form, **options)
    return out.getvalue()


def _deep() -> Image.Image:
    return Image.fromarray((np.arange(24 * 20).reshape(24, 20) * 137 % 4096).astype(np.uint16))


def _colours() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8))


@cache
def png_seeds() -> list[bytes]:
    """8-bit colour, 16-bit grey, palette with transparency, alpha, one bit, several frames."""
    frames = [Image.new("L", (9, 9), grey) for grey in (0, 90, 200)]
    return [
        _saved(_colours(), "PNG"),
        _saved(_deep(), "PNG"),
        _saved(_colours().quantize(16), "PNG", transparency=3),
        _saved(_colours().convert("RGBA"), "PNG"),
        _saved(_colours().convert("1"), "PNG"),
        _saved(frames[0], "PNG", save_all=True, append_images=frames[1:]),
    ]


@cache
def tiff_seeds() -> list[bytes]:
    """Plain, deep, float, several pages, and the compressions that libtiff unpacks."""
    pages = [Image.new("L", (9, 9), grey) for grey in (0, 90, 200)]
    return [
        _saved(_colours(), "TIFF"),
        _saved(_deep(), "TIFF"),
        _saved(_deep(), "TIFF", compression="tiff_lzw"),
        _saved(_colours(), "TIFF", compression="tiff_adobe_deflate"),
        _saved(_colours(), "TIFF", compression="packbits"),
        _saved(_colours(), "TIFF", compression="jpeg"),
        _saved(_colours().convert("1"), "TIFF", compression="group4"),
        _saved(Image.fromarray(np.linspace(-2, 2, 480, dtype=np.float32).reshape(24, 20)), "TIFF"),
        _saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]),
    ]


@cache
def encodings() -> list[tuple[str, np.ndarray, bytes | None]]:
    """Native, deflated, JPEG baseline and lossless, JPEG-LS, JPEG 2000: syntax, values, codes."""
    values = (np.arange(32 * 32).reshape(32, 32) * 5 % 4096).astype(np.uint16)
    eight = (values >> 4).astype(np.uint8)
    return [
        ("1.2.840.10008.1.2.1", values, None),
        ("1.2.840.10008.1.2.1.99", values, None),
        ("1.2.840.10008.1.2.4.50", eight, imagecodecs.jpeg8_encode(eight)),
        ("1.2.840.10008.1.2.4.70", values, imagecodecs.ljpeg_encode(values, bitspersample=16)),
        ("1.2.840.10008.1.2.4.80", values, imagecodecs.jpegls_encode(values)),
        (
            "1.2.840.10008.1.2.4.90",
            values,
            imagecodecs.jpeg2k_encode(values, codecformat="j2k", reversible=True),
        ),
    ]


def dicom_seed(encoding: int, index: int) -> bytes:
    """Gives slice ``index`` of series of five slices each."""
    return _dicom(*encodings()[encoding], series=index // 5, place=index % 5)


def _dicom(syntax: str, values: np.ndarray, codes: bytes | None, series: int, place: int) -> bytes:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{series}.{place}"
    bits = values.dtype.itemsize * 8
    for keyword, value in {
        "Modality": "CT", "PatientID": "invented", "StudyInstanceUID": "1.2", "SeriesInstanceUID": f"1.2.{series}",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "Rows": 32, "Columns": 32, "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1,
        "PixelRepresentation": 0, "RescaleSlope": 1, "RescaleIntercept": -1024, "PixelSpacing": [0.7, 0.7],
        "ImagePositionPatient": [0, 0, 1.25 * place], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "WindowCenter": 40, "WindowWidth": 400, "BodyPartExamined": "CHEST",
    }.items():  # fmt: skip
        setattr(made, keyword, value)
    made.PixelData = encapsulate([codes]) if codes is not None else values.tobytes()
    made["PixelData"].VR = "OB" if codes is not None else "OW"
    out = io.BytesIO()
    made.save_as(out, enforce_file_format=True)
    return out.getvalue()


@cache
def nifti_seeds() -> list[bytes]:
    """Whole numbers with a rescale, floats, colour, four dimensions, the second version."""
    values = np.random.default_rng(0).integers(-1000, 1000, (12, 10, 6)).astype(np.int16)
    affine = np.diag([-0.8, -0.8, 2.5, 1.0])
    scaled = nibabel.Nifti1Image(values, affine)
    scaled.header.set_slope_inter(2.0, -100.0)
    colours = np.zeros((12, 10, 6), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    return [
        nibabel.Nifti1Image(values, affine).to_bytes(),
        scaled.to_bytes(),
        nibabel.Nifti1Image(values.astype(np.float32), affine).to_bytes(),
        nibabel.Nifti1Image(np.stack([values, values], axis=-1), affine).to_bytes(),
        nibabel.Nifti1Image(colours, affine).to_bytes(),
        nibabel.Nifti2Image(values, affine).to_bytes(),
    ]


ARTICLE = (
    b'<?xml version="1.0" encoding="UTF-8"?><article article-type="research-article"'
    b' xmlns:xlink="http://www.w3.org/1999/xlink"><front><article-meta><article-id pub-id-type="doi">10.1/x'
    b'</article-id><permissions><license xlink:href="http://creativecommons.org/licenses/by/4.0/"><license-p>Open.'
    b'</license-p></license></permissions></article-meta></front><body><p>See <xref ref-type="fig" rid="f1">Figure 1'
    b'</xref> and Figures 1&#x2013;2.</p><fig id="f1"><label>Figure 1</label><caption><p>Axial CT (A) and MRI (B) of'
    b' an invented case.</p></caption><graphic xlink:href="g001"/></fig><fig-group id="g"><caption><p>Both.</p>'
    b'</caption><fig id="f2"><caption><p>Right.</p></caption><alternatives><graphic xlink:href="g001.jpg"/>'
    b"</alternatives></fig></fig-group></body></article>"
)
TABLE = (
    "id,image,caption,finding,group,split\n"
    'a,0.png,"A chest film, upright.",none,p1,train\n'
    'b,1.png,"Said ""none"" and\nno more.",effusion,p1,train\n'
    "c,2.png,Größe 12 µm,none,p2,test\n"
    "d,3.png,A film.,effusion,p3,valid\n"
).encode()

KINDS: dict[str, Callable[..., None]] = {
    "csv": tables,
    "dicom": dicoms,
    "nifti": volumes,
    "png": pictures(".png", png_seeds, mutate_png),
    "tiff": pictures(".tif", tiff_seeds),
    "xml": articles,
}


if __name__ == "__main__":
    sys.exit(main())
