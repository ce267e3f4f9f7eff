"""What reading medical data costs on one core, beside pydicom with Pillow, MONAI and pubmed_parser in the same run.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/ingest.py [--jats FOLDER]

Writes an invented 300-slice CT series (512 x 512, 12 of 16 bits, uncompressed) and invented radiographs (2500 x 2048,
12 bits, JPEG 2000 and HTJ2K) into a temporary folder; articles are read from ``--jats``. All works take turns, best of
the rounds; works that need seconds have two rounds. The rates are per processor second, which shows little of other
programs on the machine. medkit's radiographs are decoded in the same process here; its reader uses a worker process,
which adds 0.1 ms per 512 KiB of pixels. Every reader has read the files once before: they lie in the page cache.

The naive reader does what most scripts do: ``pixel_array``, ``apply_modality_lut``, one window a channel by NumPy,
``Image.fromarray``; it checks nothing. Readers whose packages are missing are named, not guessed:
``pip install --no-deps monai pubmed_parser``, and itk-io for MONAI's ITKReader.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import imagecodecs
import jats
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array

from medkit.readers.dicom.decode import decode, describe
from medkit.readers.dicom.files import DEFAULT_LIMITS, read_file
from medkit.readers.dicom.loading import Loading
from medkit.readers.dicom.profiles import shipped
from medkit.readers.dicom.reduced import fit_small
from medkit.readers.dicom.render import render
from medkit.readers.dicom.series import load_values, order_slices, slices_of
from medkit.readers.slices import shrink

CT, CR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.1"
WINDOWS, WINDOW = shipped()["ct-medgemma-1.5"], shipped()["window"]
SIDES_PX = (896, 448)
WHOLE = ", decoded whole"
LONG_SECONDS, LONG_ROUNDS = 3.0, 2


@dataclass(frozen=True)
class Work:
    """One row of the table.

    Attributes:
        what: The row's words.
        count: Units of one round.
        unit: Their name.
        run: One round.
        goal: Least units a second, or None.
    """

    what: str
    count: int
    unit: str
    run: Callable[[], object]
    goal: float | None = None


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--radiographs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jats", type=Path, help="folder with article files")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = write_series(root / "series", arguments.slices)
        works = [*series_works(files)]
        for syntax in ("JPEG 2000", "HTJ2K"):
            works += radiograph_works(write_radiographs(root / syntax, arguments.radiographs, syntax), syntax)
        works += jats_works(arguments.jats)
        best = measure(works, arguments.rounds)
        same = np.array_equal(volume(files), naive_volume(files))
        near = np.abs(np.asarray(rgb(files[0])).astype(int) - np.asarray(naive_rgb(files[0]))).max()
    print_table(works, best, f"same HU as pydicom: {same}; RGB of a slice differs by at most {near} of 255")


def series_works(files: list[Path]) -> list[Work]:
    """Gives the works on the CT series."""
    count = len(files)
    works = [
        Work(
            "header scan, medkit",
            count,
            "headers",
            lambda: [read_file(path, pixels=False) for path in files],
            3000,
        ),
        Work(
            "header scan, pydicom",
            count,
            "headers",
            lambda: [pydicom.dcmread(path, stop_before_pixels=True) for path in files],
        ),
        Work(
            "slice to three-window RGB, medkit", count, "slices", lambda: [rgb(path) for path in files], 700
        ),
        Work(
            "slice to three-window RGB, pydicom and Pillow",
            count,
            "slices",
            lambda: [naive_rgb(path) for path in files],
        ),
        Work("series to ordered HU, medkit", count, "slices", lambda: volume(files), count / 0.7),
        Work(
            "series to HU by instance number, pydicom (nothing checked)",
            count,
            "slices",
            lambda: naive_volume(files),
        ),
    ]
    if importlib.util.find_spec("monai") is None:
        print("monai is not installed: no MONAI rows")
        return works
    readers = ["PydicomReader"]
    if importlib.util.find_spec("itk") is not None:
        readers.append("ITKReader")
    else:
        print("itk is not installed: no row of MONAI's ITKReader")
    for reader in readers:
        load = monai_loader(reader)
        works.append(
            Work(
                f"series to HU, MONAI {reader}",
                count,
                "slices",
                lambda load=load: load(str(files[0].parent)),
            )
        )
    load = monai_loader("PydicomReader")
    few = files[:50]
    works.append(
        Work(
            "slice to three-window RGB, MONAI",
            len(few),
            "slices",
            lambda: [monai_rgb(load, path) for path in few],
        )
    )
    return works


def radiograph_works(files: list[Path], syntax: str) -> list[Work]:
    """Gives the works on compressed radiographs; the goal is three times the speed of a whole decode."""
    works = []
    for side in SIDES_PX:
        for how, make in (("", radiograph), (WHOLE, whole_radiograph)):
            works.append(
                Work(
                    f"{syntax} radiograph to {side} px, medkit{how}",
                    len(files),
                    "pictures",
                    lambda side=side, make=make: [make(path, side) for path in files],
                )
            )
    if syntax == "JPEG 2000":
        works.append(
            Work(
                f"{syntax} radiograph to {SIDES_PX[-1]} px, pydicom and Pillow",
                len(files),
                "pictures",
                lambda: [naive_radiograph(path) for path in files],
            )
        )
    return works


def jats_works(folder: Path | None) -> list[Work]:
    """Gives the works on articles."""
    if folder is None:
        print("no --jats FOLDER: no rows of articles")
        return []
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".xml", ".nxml"))

    def each(read: Callable[[Path], object]) -> Callable[[], object]:
        def run() -> None:
            for path in files:
                # What fails, or prints, is benchmarks/jats.py's to count.
                with (
                    contextlib.suppress(Exception),
                    contextlib.redirect_stdout(io.StringIO()),
                    contextlib.redirect_stderr(io.StringIO()),
                ):
                    read(path)

        return run

    return [
        Work("articles, medkit", len(files), "articles", each(jats.medkit), 70),
        *(
            Work(f"articles, {name}", len(files), "articles", each(read))
            for name, read in jats.others().items()
        ),
    ]


def measure(works: list[Work], rounds: int) -> list[tuple[float, float]]:
    """Gives the least (processor, clock) seconds of every work."""
    best = [(float("inf"), float("inf")) for _ in works]
    for number in range(rounds):
        for index, work in enumerate(works):
            if number >= LONG_ROUNDS and best[index][1] > LONG_SECONDS:
                continue
            begun, clock = time.process_time(), time.perf_counter()
            work.run()
            spent = (time.process_time() - begun, time.perf_counter() - clock)
            best[index] = (min(best[index][0], spent[0]), min(best[index][1], spent[1]))
    return best


def print_table(works: list[Work], best: list[tuple[float, float]], compared: str) -> None:
    """Prints what was measured, and by how much a small decode is faster than a whole one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(
        f"\n{date.today()}, {platform.machine()}, {cores} core(s) allowed, pydicom {pydicom.__version__},",
        end=" ",
    )
    print(f"NumPy {np.__version__}\n{compared}\n")
    print("| work | processor s | clock s | units/s | goal |\n|---|---|---|---|---|")
    rates = {}
    for work, (seconds, clock) in zip(works, best, strict=True):
        rates[work.what] = rate = work.count / seconds
        goal = "" if work.goal is None else f"{work.goal:.0f}: {'met' if rate >= work.goal else 'MISSED'}"
        print(f"| {work.what} | {seconds:.3f} | {clock:.3f} | {rate:.1f} {work.unit} | {goal} |")
    print()
    for syntax in ("JPEG 2000", "HTJ2K"):
        for side in SIDES_PX:
            name = f"{syntax} radiograph to {side} px, medkit"
            times = rates[name] / rates[name + WHOLE]
            goal = f" (goal 3: {'met' if times >= 3 else 'MISSED'})" if syntax == "JPEG 2000" else ""
            print(f"{syntax} radiograph to {side} px: {times:.1f} times as fast as a whole decode{goal}")


def rgb(path: Path) -> object:
    """Gives medkit's picture of a slice."""
    return Loading(((path, (0,)),), WINDOWS, DEFAULT_LIMITS)().images[0]


def naive_rgb(path: Path) -> Image.Image:
    """Gives the picture of a slice as scripts make it."""
    dataset = pydicom.dcmread(path)
    return windowed(apply_modality_lut(dataset.pixel_array, dataset))


def windowed(units: np.ndarray) -> Image.Image:
    """Gives three windows of HU as red, green and blue."""
    channels = [(np.clip(units, low, high) - low) / (high - low) * 255 for low, high in WINDOWS.windows]
    return Image.fromarray(np.rint(np.stack(channels, axis=-1)).astype(np.uint8))


def volume(files: list[Path]) -> np.ndarray:
    """Gives the ordered, checked volume in HU."""
    return load_values(
        order_slices([one for path in files for one in slices_of(path, read_file(path, pixels=False))])
    )


def naive_volume(files: list[Path]) -> np.ndarray:
    """Gives the volume in HU with the slices by instance number and nothing checked."""
    datasets = sorted((pydicom.dcmread(path) for path in files), key=lambda one: int(one.InstanceNumber))
    return np.stack([apply_modality_lut(one.pixel_array, one) for one in datasets]).astype(np.int16)


def monai_loader(reader: str) -> Callable[[str], Any]:
    """Gives MONAI's loading of a file or a folder of slices."""
    from monai.transforms import LoadImage

    return LoadImage(reader=reader, image_only=True)


def monai_rgb(load: Callable[[str], Any], path: Path) -> Image.Image:
    """Gives the picture of a slice by MONAI's reader and intensity ranges."""
    from monai.transforms import ScaleIntensityRange

    units = load(str(path))
    channels = [
        np.asarray(ScaleIntensityRange(low, high, 0, 255, clip=True)(units)) for low, high in WINDOWS.windows
    ]
    # MONAI's first axis runs along the columns.
    return Image.fromarray(np.rint(np.stack(channels, axis=-1)).astype(np.uint8).squeeze().swapaxes(0, 1))


def radiograph(path: Path, side: int) -> np.ndarray:
    """Gives medkit's small picture of a compressed radiograph, decoded in this process."""
    dataset = read_file(path)
    about, stored = describe(dataset), decode(dataset, side=side)
    picture = render(dataset, stored, about, WINDOW).pictures[0]
    return fit_small(picture, stored.values.shape[1:3], about, side)


def whole_radiograph(path: Path, side: int) -> np.ndarray:
    """Gives the same picture decoded whole and then shrunk."""
    dataset = read_file(path)
    return shrink(render(dataset, decode(dataset), describe(dataset), WINDOW).pictures[0], side)


def naive_radiograph(path: Path) -> Image.Image:
    """Gives the small picture of a radiograph as scripts make it: decoded whole, windowed, then shrunk."""
    dataset = pydicom.dcmread(path)
    shown = apply_voi_lut(pixel_array(dataset, decoding_plugin="pillow"), dataset)
    image = Image.fromarray(np.rint(shown / 4095 * 255).astype(np.uint8))
    share = SIDES_PX[-1] / min(image.size)
    return image.resize((round(image.width * share), round(image.height * share)), Image.Resampling.BICUBIC)


def write_series(folder: Path, count: int) -> list[Path]:
    """Writes an invented CT series and gives its files."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(count):
        about = {
            "Modality": "CT", "InstanceNumber": index + 1, "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "RescaleSlope": 1, "RescaleIntercept": -1024, "PixelSpacing": [0.7, 0.7], "SliceThickness": 1.25,
            "ImagePositionPatient": [0, 0, 1.25 * index], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "WindowCenter": 40, "WindowWidth": 400,
        }  # fmt: skip
        values = random.integers(0, 4096, (512, 512), dtype=np.uint16)
        write(folder / f"{index:04d}.dcm", values, CT, "1.2.840.10008.1.2.1", values.tobytes(), about)
    return sorted(folder.iterdir())


def write_radiographs(folder: Path, count: int, syntax: str) -> list[Path]:
    """Writes invented radiographs, compressed without loss, and gives their files."""
    folder.mkdir()
    y, x = np.mgrid[:2500, :2048] / 2048
    field = 0.55 - 0.3 * np.exp(-((x - 0.5) ** 2 + (y - 0.6) ** 2) * 6) + 0.1 * (np.sin(y * 40 + x * 4) > 0.7)
    for index in range(count):
        noise = np.random.default_rng(index).normal(0, 0.01, field.shape)
        values = np.rint(np.clip(field + noise, 0, 1) * 4095).astype(np.uint16)
        if syntax == "HTJ2K":
            uid, data = "1.2.840.10008.1.2.4.201", imagecodecs.htj2k_encode(values)
        else:
            uid = "1.2.840.10008.1.2.4.90"
            data = imagecodecs.jpeg2k_encode(values, codecformat="j2k", reversible=True, bitspersample=12)
        about = {"Modality": "CR", "WindowCenter": 2048, "WindowWidth": 4096}
        write(folder / f"{index:04d}.dcm", values, CR, uid, encapsulate([data]), about)
    return sorted(folder.iterdir())


def write(path: Path, values: np.ndarray, kind: str, syntax: str, data: bytes, about: dict[str, Any]) -> None:
    """Writes a grey object of 12 of 16 bits."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = kind
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{int(path.stem) + 1}"
    for keyword, value in {
        "PatientID": "invented", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3", "Rows": values.shape[0],
        "Columns": values.shape[1], "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0, **about,
    }.items():  # fmt: skip
        setattr(made, keyword, value)
    made.PixelData = data
    made["PixelData"].VR = "OW" if syntax == "1.2.840.10008.1.2.1" else "OB"
    made.save_as(path, enforce_file_format=True)


if __name__ == "__main__":
    main()
