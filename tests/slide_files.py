"""Invented whole-slide files: drawn tissue as a pyramid TIFF, as Aperio's SVS with label and macro, as DICOM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageDraw
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate

from tests.dicom_objects import WHOLE_SLIDE, item, save

GLASS, STAIN, NUCLEUS = (242, 242, 243), (214, 140, 186), (96, 58, 140)
# What only the label shows, and what only the macro shows.
LABEL_COLOUR, MACRO_COLOUR = (250, 210, 0), (0, 160, 220)
NAMED = ("S26-4711", "DOE^JANE", "SCANNER-77", "11/21/26", "barcode-0815")
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"


def tissue(
    size: tuple[int, int],
    spots: Sequence[tuple[int, int, int]],
    colour: tuple[int, int, int] = STAIN,
    apart: int = 24,
) -> np.ndarray:
    """Draws round pieces of tissue, uint8 [H,W,3].

    Args:
        size: (width, height) in px.
        spots: (x, y, radius) in px.
        colour: Of the stroma.
        apart: Distance between two nuclei in px.
    """
    image = Image.new("RGB", size, GLASS)
    draw = ImageDraw.Draw(image)
    for x, y, radius in spots:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        for step in range(-radius + 12, radius - 12, apart):
            for other in range(-radius + 12, radius - 12, apart):
                if step * step + other * other < (radius - 16) ** 2:
                    draw.ellipse((x + step - 4, y + other - 4, x + step + 4, y + other + 4), fill=NUCLEUS)
    return np.asarray(image)


def levels_of(pixels: np.ndarray, count: int) -> list[np.ndarray]:
    """Gives a picture with its halves of a quarter the side, and so on."""
    levels = [pixels]
    for _ in range(count - 1):
        levels.append(np.asarray(Image.fromarray(levels[-1]).reduce(4)))
    return levels


def pyramid(
    path: Path, pixels: np.ndarray, mpp: float | None = 0.5, count: int = 2, quality: int = 90
) -> Path:
    """Writes a tiled pyramid TIFF of no maker."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told: dict[str, Any] = (
        {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    )
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels_of(pixels, count)):
            file.write(_ycc(level), **_tiled(quality), **told, subfiletype=1 if number else 0, metadata=None)
    return path


def svs(
    path: Path,
    pixels: np.ndarray,
    mpp: float | None = 0.5,
    power: float | None = 20,
    count: int = 2,
    quality: int = 90,
) -> Path:
    """Writes a slide as Aperio's scanners do, with names in its description, on its label and its macro."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = pixels.shape[:2]
    words = [
        f"Filename = {NAMED[0]}",
        f"User = {NAMED[1]}",
        f"ScanScope ID = {NAMED[2]}",
        f"Date = {NAMED[3]}",
    ]
    words += [f"AppMag = {power:g}"] * (power is not None) + [f"MPP = {mpp:g}"] * (mpp is not None)
    head = f"Aperio Image Library v12.0.15\n{width}x{height} [0,0 {width}x{height}] (256x256) JPEG/RGB Q=90"
    levels = levels_of(pixels, count)
    thumbnail = np.asarray(Image.fromarray(pixels).resize((max(1, width // 8), max(1, height // 8))))
    with tifffile.TiffWriter(path) as file:
        file.write(_ycc(levels[0]), **_tiled(quality), description="|".join([head, *words]), metadata=None)
        file.write(thumbnail, **_plain(), description=f"{head} -> thumbnail", metadata=None)
        for level in levels[1:]:
            size = f"{level.shape[1]}x{level.shape[0]}"
            file.write(_ycc(level), **_tiled(quality), description=f"{head} -> {size}", metadata=None)
        for number, (name, picture) in enumerate((("label", label()), ("macro", macro()))):
            file.write(
                picture,
                **_plain(),
                subfiletype=(1, 9)[number],
                description=f"Aperio Image Library v12.0.15\n{name} {picture.shape[1]}x{picture.shape[0]}",
                metadata=None,
            )
    return path


def dicom(
    folder: Path, pixels: np.ndarray, mpp: float = 0.5, count: int = 2, syntax: str = JPEG_BASELINE
) -> list[Path]:
    """Writes a slide as DICOM: a file a level and one with the label, all of one series."""
    files = []
    for number, level in enumerate(levels_of(pixels, count)):
        kind = ["ORIGINAL" if number == 0 else "DERIVED", "PRIMARY", "VOLUME"]
        kind.append("NONE" if number == 0 else "RESAMPLED")
        files.append(_dicom_file(folder / f"{number}.dcm", level, kind, mpp * 4**number, syntax))
    kind = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
    files.append(_dicom_file(folder / "8.dcm", np.asarray(label()), kind, mpp, syntax))
    return files


def label() -> np.ndarray:
    """A glass label with a name on it."""
    image = Image.new("RGB", (160, 160), LABEL_COLOUR)
    ImageDraw.Draw(image).text((8, 60), " ".join(NAMED[:2]), fill=(0, 0, 0))
    return np.asarray(image)


def macro() -> np.ndarray:
    """A photograph of the whole glass."""
    return np.asarray(Image.new("RGB", (320, 120), MACRO_COLOUR))


def _ycc(level: np.ndarray) -> np.ndarray:
    """tifffile takes the values of a YCbCr picture as they are."""
    return np.asarray(Image.fromarray(level).convert("YCbCr"))


def _tiled(quality: int) -> dict[str, Any]:
    return {
        "tile": (256, 256),
        "photometric": "ycbcr",
        "subsampling": (2, 2),
        "compression": "jpeg",
        "compressionargs": {"level": quality},
        "software": False,
    }


def _plain() -> dict[str, Any]:
    return {"photometric": "rgb", "rowsperstrip": 16, "compression": "lzw", "software": False}


def _dicom_file(
    path: Path, level: np.ndarray, kind: list[str], mpp: float, syntax: str, side: int = 256
) -> Path:
    """Writes one level as VL Whole Slide Microscopy, TILED_FULL (PS3.3 A.32.8)."""
    height, width = level.shape[:2]
    down, across = -(-height // side), -(-width // side)
    padded = np.full((down * side, across * side, 3), GLASS, np.uint8)
    padded[:height, :width] = level
    tiles = [
        padded[row * side : (row + 1) * side, column * side : (column + 1) * side]
        for row in range(down)
        for column in range(across)
    ]
    compressed = syntax == JPEG_BASELINE
    data = (
        encapsulate([imagecodecs.jpeg8_encode(tile, level=90) for tile in tiles])
        if compressed
        else np.stack(tiles).tobytes()
    )
    number = int(path.stem) + 1
    spacing = item(SliceThickness=0.001, PixelSpacing=[mpp / 1000, mpp / 1000])
    made = item(
        SOPClassUID=WHOLE_SLIDE,
        SOPInstanceUID=f"1.2.826.0.1.3680043.8.498.{number}",
        StudyInstanceUID="1.2.826.0.1.3680043.8.498.100",
        SeriesInstanceUID="1.2.826.0.1.3680043.8.498.200",
        FrameOfReferenceUID="1.2.826.0.1.3680043.8.498.300",
        Modality="SM",
        PatientID=NAMED[0],
        PatientName=NAMED[1],
        ContainerIdentifier=NAMED[4],
        AcquisitionDateTime="20261121",
        ImageType=kind,
        Rows=side,
        Columns=side,
        NumberOfFrames=len(tiles),
        TotalPixelMatrixColumns=width,
        TotalPixelMatrixRows=height,
        TotalPixelMatrixFocalPlanes=1,
        NumberOfOpticalPaths=1,
        DimensionOrganizationType="TILED_FULL",
        ImagedVolumeWidth=width * mpp / 1000,
        ImagedVolumeHeight=height * mpp / 1000,
        SamplesPerPixel=3,
        PhotometricInterpretation="YBR_FULL_422" if compressed else "RGB",
        PlanarConfiguration=0,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        SharedFunctionalGroupsSequence=[item(PixelMeasuresSequence=[spacing])],
        OpticalPathSequence=[
            item(
                OpticalPathIdentifier="0",
                ObjectiveLensPower=20,
                IlluminationTypeCodeSequence=[item(CodeValue="111744")],
            )
        ],
    )
    made.PixelData = data
    made["PixelData"].VR = "OB"
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    return save(made, path)
