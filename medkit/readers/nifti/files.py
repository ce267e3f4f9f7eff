"""NIfTI-1 and NIfTI-2 within limits: the header is judged before a value is read, a stream unpacked as far as needed.

Source: nifti1.h and nifti2.h of the NIfTI Data Format Working Group (methods 2 and 3 of the orientation, xyzt_units).
"""

from __future__ import annotations

import io
import logging
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medkit.errors import MissingExtra
from medkit.readers.nifti.reasons import Refused

SUFFIXES = (".nii", ".nii.gz")
HEADERS = {348: "Nifti1Header", 540: "Nifti2Header"}
MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unit code of xyzt_units -> mm; 0: not said, taken as mm
SPACING_MM = (0.01, 100.0)
SHEAR = 0.02
OBLIQUE_DEGREES = 5.0
CHUNK = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What is refused before it is read.

    Attributes:
        file_bytes: Largest file as it lies on the disk.
        value_bytes: Most bytes of the values that are read, unpacked: one volume.
        offset_bytes: Furthest place at which the values may begin: extensions of the header lie before them.
    """

    file_bytes: int = 2 << 30
    value_bytes: int = 1 << 30
    offset_bytes: int = 64 << 20


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Head:
    """What is taken of a header; its texts (descrip, aux_file, db_name, intent_name) are never read.

    Attributes:
        shape: As stored, three numbers; a fourth axis is in ``volumes``.
        volumes: How many volumes the file holds; the first is read.
        dtype: Of the stored values, with byte order.
        offset: Where they begin.
        slope, intercept: Stored values to values.
        axes: For left, posterior, superior: (axis of the stored array, 1 or -1).
        spacing_mm: Along left, posterior, superior.
        affine: Of the stored array in mm, towards right, anterior, superior, [4,4].
        notes: (reason, detail) pairs: what a user should know.
    """

    shape: tuple[int, int, int]
    volumes: int
    dtype: np.dtype
    offset: int
    slope: float
    intercept: float
    axes: tuple[tuple[int, int], ...]
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray
    notes: tuple[tuple[str, str], ...] = ()


def read_head(path: Path, limits: Limits = DEFAULT_LIMITS, unplaced: bool = False) -> Head:
    """Reads and judges a file's header.

    Args:
        path: A .nii or .nii.gz file.
        limits: What to refuse.
        unplaced: Whether a volume that doesn't say where left and right are is taken as right, anterior, superior.

    Raises:
        Refused: With the reason.
        MissingExtra: nibabel isn't installed.
    """
    nibabel = _nibabel()
    try:
        size = path.stat().st_size
    except OSError as error:
        raise Refused("file unreadable", error.strerror or "") from None
    if size > limits.file_bytes:
        raise Refused("file too large", f"{size} bytes, limit {limits.file_bytes}")
    start = _bytes_of(path, 540, limits)
    order = "<" if int.from_bytes(start[:4], "little") in HEADERS else ">"
    length = int.from_bytes(start[:4], "little" if order == "<" else "big")
    if length not in HEADERS or len(start) < length:
        raise Refused("not NIfTI")
    magic = start[344:348] if length == 348 else start[4:8]
    if magic[:3] in (b"ni1", b"ni2"):
        raise Refused("pair of files")
    if magic[:3] not in (b"n+1", b"n+2"):
        raise Refused("not NIfTI")
    header = getattr(nibabel, HEADERS[length])(start[:length], endianness=order, check=False)
    return _judged(header, limits, unplaced)


def read_values(path: Path, head: Head, limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    """Reads the first volume, turned to left, posterior, superior, rescaled.

    Returns:
        [L,P,S]: the stored type where nothing is rescaled, else float32.

    Raises:
        Refused: There are fewer values than the header says.
    """
    count = int(np.prod(head.shape, dtype=np.int64))
    size = count * head.dtype.itemsize
    if size > limits.value_bytes:
        raise Refused("too many values", f"{size} bytes, limit {limits.value_bytes}")
    content = _bytes_of(path, head.offset + size, limits)
    if len(content) < head.offset + size:
        raise Refused("truncated values", f"{max(len(content) - head.offset, 0)} of {size} bytes")
    stored = np.frombuffer(content, head.dtype, count, head.offset).reshape(head.shape, order="F")
    turned = stored.transpose([axis for axis, _ in head.axes])
    turned = turned[tuple(slice(None, None, sign) for _, sign in head.axes)]
    if head.slope == 1.0 and head.intercept == 0.0:
        return turned.astype(head.dtype.newbyteorder("="), copy=False)
    with np.errstate(all="ignore"):
        return (turned.astype(np.float64) * head.slope + head.intercept).astype(np.float32)


def turned_affine(head: Head) -> np.ndarray:
    """Gives the affine of the array that ``read_values`` gives, in mm towards right, anterior, superior, [4,4]."""
    out = np.eye(4)
    out[:3, 3] = head.affine[:3, 3]
    for place, (axis, sign) in enumerate(head.axes):
        step = head.affine[:3, axis]
        out[:3, place] = step * sign
        if sign < 0:
            out[:3, 3] += step * (head.shape[axis] - 1)
    return out


def _judged(header: object, limits: Limits, unplaced: bool) -> Head:
    fields: dict = {name: np.asarray(header[name]) for name in header.keys()}  # type: ignore[attr-defined,index]  # noqa: SIM118
    number = int(fields["dim"][0])
    sizes = [int(one) for one in fields["dim"][1 : number + 1]] if 0 < number < 8 else []
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) not in (3, 4) or any(one < 2 for one in sizes[:3]) or min(sizes) < 1:
        raise Refused("not a volume", f"{number} dimensions" if not sizes else " x ".join(map(str, sizes)))
    try:
        dtype: np.dtype = header.get_data_dtype()  # type: ignore[attr-defined]
    except Exception:
        raise Refused("not grey", "an unknown type of values") from None
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise Refused("not grey", "colours or complex numbers")
    size = int(np.prod(np.array(sizes[:3], dtype=object))) * dtype.itemsize
    if size > limits.value_bytes:
        raise Refused("too many values", f"{size} bytes, limit {limits.value_bytes}")
    offset = float(fields["vox_offset"])
    if not 0 <= offset <= limits.offset_bytes:
        raise Refused("header unreadable", "vox_offset")
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0.0 or not np.isfinite(slope):  # the standard: then there is no rescale
        slope, intercept = 1.0, 0.0
    if not np.isfinite(intercept):
        raise Refused("header unreadable", "scl_inter")
    affine, notes = _affine(header, fields, unplaced)
    axes, spacing, degrees = _axes(affine)
    if degrees > OBLIQUE_DEGREES:
        notes += (("oblique volume", f"{degrees:.0f} degrees from the body's axes; it isn't resampled"),)
    volumes = sizes[3] if len(sizes) == 4 else 1
    if volumes > 1:
        notes += (("several volumes", f"the first of {volumes} is shown"),)
    shape = (sizes[0], sizes[1], sizes[2])
    least = int(fields["sizeof_hdr"])
    return Head(
        shape, volumes, dtype, max(int(offset), least), slope, intercept, axes, spacing, affine, notes
    )


def _affine(header: object, fields: dict, unplaced: bool) -> tuple[np.ndarray, tuple[tuple[str, str], ...]]:
    """Gives the matrix in mm: sform, else qform; both must name the same directions."""
    scale = MM.get(int(fields["xyzt_units"]) & 7, 1.0)
    placed = []
    if int(fields["sform_code"]) > 0:
        placed.append(np.array(header.get_sform(), np.float64))  # type: ignore[attr-defined]
    if int(fields["qform_code"]) > 0:
        try:
            placed.append(np.array(header.get_qform(), np.float64))  # type: ignore[attr-defined]
        except Exception:
            if not placed:
                raise Refused("damaged orientation", "the quaternion") from None
    if not placed:
        if not unplaced:
            raise Refused("no orientation")
        sides = np.abs(np.asarray(fields["pixdim"][1:4], np.float64))
        notes = (("orientation unknown", "taken as right, anterior, superior: sides may be exchanged"),)
        return np.diag([*(sides * scale), 1.0]), notes
    if len(placed) == 2 and _axes(placed[0])[0] != _axes(placed[1])[0]:
        raise Refused("two orientations")
    affine = placed[0]
    affine[:3] *= scale
    return affine, ()


def _axes(affine: np.ndarray) -> tuple[tuple[tuple[int, int], ...], tuple[float, float, float], float]:
    """Gives axes and spacing for left, posterior, superior, and how far the grid is turned off them in degrees."""
    grid = affine[:3, :3]
    with np.errstate(all="ignore"):
        sides = np.linalg.norm(grid, axis=0)
    if not np.isfinite(grid).all() or not all(SPACING_MM[0] <= one <= SPACING_MM[1] for one in sides):
        raise Refused("damaged orientation", "spacing")
    cosines = grid / sides
    if np.abs(cosines.T @ cosines - np.eye(3)).max() > SHEAR:
        raise Refused("damaged orientation", "axes aren't perpendicular")
    nearest = np.abs(cosines).argmax(axis=1)  # for right, anterior, superior: the stored axis
    if len(set(nearest.tolist())) < 3:
        raise Refused("damaged orientation", "no axis is nearest")
    axes, spacing, worst = [], [], 1.0
    for world, towards in ((0, -1), (1, -1), (2, 1)):
        axis = int(nearest[world])
        cosine = float(cosines[world, axis])
        axes.append((axis, towards if cosine > 0 else -towards))
        spacing.append(float(sides[axis]))
        worst = min(worst, abs(cosine))
    return tuple(axes), (spacing[0], spacing[1], spacing[2]), float(np.degrees(np.arccos(min(worst, 1.0))))


def _bytes_of(path: Path, count: int, limits: Limits) -> bytes:
    """Gives the first bytes of a file, unpacked where it is a gzip stream; fewer where it ends before."""
    if count > limits.value_bytes + limits.offset_bytes:
        raise Refused("inflates too far", f"{count} bytes")
    try:
        with path.open("rb") as file:
            if file.read(2) != b"\x1f\x8b":
                file.seek(0)
                return file.read(count)
            file.seek(0)
            stream, out = zlib.decompressobj(31), io.BytesIO()
            while out.tell() < count and not stream.eof:
                chunk = stream.unconsumed_tail or file.read(CHUNK)
                if not chunk:
                    break
                out.write(stream.decompress(chunk, count - out.tell()))
            return out.getvalue()
    except OSError as error:
        raise Refused("file unreadable", error.strerror or "") from None
    except zlib.error:
        raise Refused("truncated values", "the gzip stream is damaged") from None


def _nibabel():
    try:
        import nibabel
    except ImportError:
        raise MissingExtra('reader nifti needs nibabel: pip install "medkit-lmm[volumes]"') from None
    logging.getLogger("nibabel.global").disabled = True  # what it says of a header may quote it
    return nibabel
