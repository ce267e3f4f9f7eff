"""What reading DICOM costs: slices to model-ready RGB and a series to HU, beside pydicom with Pillow in the same run.

    OMP_NUM_THREADS=1 python benchmarks/ingest.py

Writes an invented 300-slice CT series (512 x 512, 12 of 16 bits, uncompressed) into a temporary folder and measures
on one core, in processor seconds (``time.process_time``: another program on the machine shows little) and by the clock;
best of the rounds, all works in turn. The naive reader of the comparison does what most scripts do: ``pixel_array``,
``apply_modality_lut``, one window a channel by NumPy, ``Image.fromarray``; it checks nothing.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut

from medkit.readers.dicom.files import DEFAULT_LIMITS, read_file
from medkit.readers.dicom.profiles import shipped
from medkit.readers.dicom.loading import Loading
from medkit.readers.dicom.series import load_values, order_slices, slices_of

CT = "1.2.840.10008.5.1.4.1.1.2"
WINDOWS = shipped()["ct-medgemma-1.5"]


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = write_series(Path(folder), arguments.slices)
        works: dict[str, Callable[[list[Path]], object]] = {
            "header scan, medkit": lambda files: [read_file(path, pixels=False) for path in files],
            "header scan, pydicom": lambda files: [
                pydicom.dcmread(path, stop_before_pixels=True) for path in files
            ],
            "slice to three-window RGB, medkit": lambda files: [rgb(path) for path in files],
            "slice to three-window RGB, pydicom and Pillow": lambda files: [
                naive_rgb(path) for path in files
            ],
            "series to ordered HU, medkit": volume,
            "series to HU by instance number, pydicom": naive_volume,
        }
        best = dict.fromkeys(works, (float("inf"), float("inf")))
        for _ in range(arguments.rounds):
            for name, work in works.items():
                begun, clock = time.process_time(), time.perf_counter()
                work(files)
                spent = (time.process_time() - begun, time.perf_counter() - clock)
                best[name] = (min(best[name][0], spent[0]), min(best[name][1], spent[1]))
        same = np.array_equal(volume(files), naive_volume(files))
        near = np.abs(np.asarray(rgb(files[0])).astype(int) - np.asarray(naive_rgb(files[0]))).max()
    print(f"\n{date.today()}, {platform.machine()}, pydicom {pydicom.__version__}, NumPy {np.__version__}")
    print(f"same HU: {same}; RGB differs by at most {near} of 255\n")
    print(f"| work on {len(files)} slices | processor s | slices/s | clock s |\n|---|---|---|---|")
    for name, (seconds, clock) in best.items():
        print(f"| {name} | {seconds:.3f} | {len(files) / seconds:.0f} | {clock:.3f} |")


def rgb(path: Path) -> object:
    """Gives medkit's picture of a slice."""
    return Loading(((path, (0,)),), WINDOWS, DEFAULT_LIMITS)().images[0]


def naive_rgb(path: Path) -> Image.Image:
    """Gives the picture of a slice as scripts make it."""
    dataset = pydicom.dcmread(path)
    units = apply_modality_lut(dataset.pixel_array, dataset)
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


def write_series(folder: Path, count: int) -> list[Path]:
    """Writes an invented CT series and gives its files."""
    random = np.random.default_rng(0)
    for index in range(count):
        made = Dataset()
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = CT
        made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{index + 1}"
        for keyword, value in {
            "Modality": "CT", "PatientID": "invented", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3",
            "InstanceNumber": index + 1, "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "Rows": 512, "Columns": 512,
            "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 12,
            "HighBit": 11, "PixelRepresentation": 0, "RescaleSlope": 1, "RescaleIntercept": -1024,
            "PixelSpacing": [0.7, 0.7], "ImagePositionPatient": [0, 0, 1.25 * index], "SliceThickness": 1.25,
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "WindowCenter": 40, "WindowWidth": 400,
        }.items():  # fmt: skip
            setattr(made, keyword, value)
        made.PixelData = random.integers(0, 4096, (512, 512), dtype=np.uint16).tobytes()
        made.save_as(folder / f"{index:04d}.dcm", enforce_file_format=True)
    return sorted(folder.iterdir())


if __name__ == "__main__":
    main()
