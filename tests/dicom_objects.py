"""Invented DICOM objects in memory and on disk, and what medkit shows of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

from medkit.readers.dicom.decode import decode, describe
from medkit.readers.dicom.profiles import choose_profiles
from medkit.readers.dicom.render import Rendered, render

NATIVE = "1.2.840.10008.1.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
MR = "1.2.840.10008.5.1.4.1.1.4"
CR = "1.2.840.10008.5.1.4.1.1.1"
PET = "1.2.840.10008.5.1.4.1.1.128"
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"


def item(**values: Any) -> Dataset:
    """Gives a dataset or sequence item; lists of datasets become sequences."""
    made = Dataset()
    for keyword, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], Dataset):
            value = Sequence(value)
        setattr(made, keyword, value)
    return made


def picture(values: Any, syntax: str = NATIVE, data: bytes | None = None, **attributes: Any) -> Dataset:
    """Gives an object around pixels.

    Args:
        values: [R,C], [R,C,3] or, with NumberOfFrames, [F,...]; 8 or 16 bits.
        syntax: The transfer syntax.
        data: The pixel element's bytes where they aren't those of the values.
        attributes: What differs from a CR image of an invented patient.
    """
    values = np.asarray(values)
    frames = int(attributes.get("NumberOfFrames", 1))
    shape = values.shape[1:] if "NumberOfFrames" in attributes and values.ndim > 2 else values.shape
    bits = values.dtype.itemsize * 8
    made = item(
        SOPClassUID=CR,
        SOPInstanceUID="1.2.3.4",
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.3.9",
        Modality="CR",
        PatientID="P-0001",
        PatientName="Invented^Person",
        Rows=shape[0],
        Columns=shape[1],
        SamplesPerPixel=3 if len(shape) == 3 else 1,
        PhotometricInterpretation="RGB" if len(shape) == 3 else "MONOCHROME2",
        BitsAllocated=bits,
        BitsStored=bits,
        HighBit=bits - 1,
        PixelRepresentation=int(values.dtype.kind == "i"),
    )
    if len(shape) == 3:
        made.PlanarConfiguration = 0
    if frames > 1:
        made.NumberOfFrames = frames
    for keyword, value in attributes.items():
        if value is None:
            made.pop(keyword, None)
            continue
        if isinstance(value, list) and value and isinstance(value[0], Dataset):
            value = Sequence(value)
        setattr(made, keyword, value)
    order = ">" if syntax == "1.2.840.10008.1.2.2" else "<"
    made.PixelData = data if data is not None else values.astype(values.dtype.newbyteorder(order)).tobytes()
    if len(made.PixelData) % 2 and data is None:
        made.PixelData += b"\0"
    made["PixelData"].VR = "OB" if syntax not in (NATIVE, "1.2.840.10008.1.2.2") or bits == 8 else "OW"
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.get("SOPClassUID", CR)
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return made


def ct(values: Any, **attributes: Any) -> Dataset:
    """Gives a CT slice in HU: slope 1, intercept -1024 unless said otherwise."""
    basis = {"SOPClassUID": CT, "Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}
    return picture(values, **(basis | attributes))


def save(made: Dataset, path: Path) -> Path:
    """Writes an object as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def rendered(made: Dataset, profile: Any = "window", side: int | None = None) -> Rendered:
    """Gives what medkit shows of an object; ``side`` as in ``decode``."""
    about = describe(made)
    return render(made, decode(made, side=side), about, choose_profiles(profile)["*"])


def shown(made: Dataset, profile: Any = "window") -> list[Any]:
    """Gives the first frame's picture as lists of numbers."""
    return rendered(made, profile).pictures[0].tolist()
