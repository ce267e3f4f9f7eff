"""Orientation, spacing and intensity of whole volumes through MONAI, and the pictures of their slices.

MONAI is imported when a card asks for one of these and not before: it costs seconds. Series and files are read by
medkit's own readers, which check what MONAI's don't.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from medkit.errors import DataError, MissingExtra
from medkit.readers.dicom.profiles import Profile
from medkit.readers.dicom.render import PERCENTILES, spread_over
from medkit.readers.dicom.tone import between

OPTIONS = ("orientation", "spacing_mm", "intensity")
# Slices are cut along the first, second or third axis, so these lie across the body, along its depth and its height.
CODES = tuple(x + y + z for x in "LR" for y in "PA" for z in "SI")
LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))
SHOWN_AS = "LPS"  # as a radiologist sees slices
# A card's intensity steps are MONAI's transforms of these names; others need more than a volume's values.
INTENSITIES = {
    "MedianSmooth": ("radius",),
    "GaussianSmooth": ("sigma",),
    "GaussianSharpen": ("sigma1", "sigma2", "alpha"),
    "AdjustContrast": ("gamma",),
    "HistogramNormalize": ("num_bins", "min", "max"),
}
KEEP_UNITS = ("MedianSmooth", "GaussianSmooth")
SPACING_MM = (0.05, 50.0)
MOST_VALUES = 1 << 28  # float32: one GiB
# Axis across the slices of a plane.
ACROSS = {"axial": 2, "coronal": 1, "sagittal": 0}
THIN = 2


@dataclass(frozen=True)
class Transforms:
    """What a card asks of a whole volume.

    Attributes:
        orientation: Where the axes run to, one of ``CODES``.
        spacing_mm: Distance of values along these axes; None: as stored.
        intensity: (MONAI transform, its settings), in order.
    """

    orientation: str = SHOWN_AS
    spacing_mm: tuple[float, float, float] | None = None
    intensity: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = ()

    @property
    def keeps_units(self) -> bool:
        """Whether values still mean what they did, so that windows apply."""
        return all(name in KEEP_UNITS for name, _ in self.intensity)

    @property
    def settings(self) -> dict[str, Any]:
        """The options of a card that ask for the same, as JSON holds them."""
        told: dict[str, Any] = {"orientation": self.orientation}
        if self.spacing_mm is not None:
            told["spacing_mm"] = list(self.spacing_mm)
        if self.intensity:
            told["intensity"] = {name: dict(settings) for name, settings in self.intensity}
        return told


def read_transforms(
    reader: str, options: dict[str, Any], profile: Profile | None = None
) -> Transforms | None:
    """Reads the options ``OPTIONS`` of a card; None where it has none.

    Raises:
        DataError: One makes no sense, or MONAI isn't installed.
    """
    if not any(options.get(name) for name in OPTIONS):
        return None
    code = str(options.get("orientation") or SHOWN_AS).upper()
    if code not in CODES:
        raise DataError(f"reader {reader}: orientation {code!r} is none of {', '.join(CODES)}")
    spacing = options.get("spacing_mm")
    if spacing is not None:
        numbers = spacing if isinstance(spacing, list | tuple) else []
        real = [one for one in numbers if isinstance(one, int | float) and not isinstance(one, bool)]
        if (
            len(numbers) != 3
            or len(real) != 3
            or not all(SPACING_MM[0] <= one <= SPACING_MM[1] for one in real)
        ):
            raise DataError(
                f"reader {reader}: spacing_mm is three distances (across, in depth, in height) "
                f"from {SPACING_MM[0]} to {SPACING_MM[1]} mm"
            )
        spacing = (float(real[0]), float(real[1]), float(real[2]))
    transforms = Transforms(code, spacing, _intensity(reader, options.get("intensity")))
    if profile is not None and profile.windows and not transforms.keeps_units:
        raise DataError(
            f"reader {reader}: the intensity steps change what values mean, so profile {profile.name} can't show "
            "windows of them; choose percentiles"
        )
    if importlib.util.find_spec("monai") is None:
        raise MissingExtra(
            f'reader {reader}: {", ".join(OPTIONS)} need MONAI: pip install "medkit-lmm[volumes]"'
        )
    return transforms


def check_profiles(reader: str, *profiles: Profile) -> None:
    """Refuses profiles that can't show a volume as a whole.

    Raises:
        DataError: One equalises every picture by itself.
    """
    for profile in profiles:
        if profile.equalise:
            what = f"profile {profile.name} is for radiographs"
            raise DataError(f"reader {reader}: {what}; choose windows or percentiles for volumes")


def shape_after(
    shape: tuple[int, int, int], affine: np.ndarray, transforms: Transforms
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Gives a volume's shape and spacing in mm once it is transformed, without its values.

    What would hold more than ``MOST_VALUES`` values is the reader's to refuse.
    """
    import torch

    nothing = torch.zeros(1).expand(1, *shape)
    made = _placed(nothing, affine, transforms, "bilinear", lazy=True)
    found = tuple(int(one) for one in made.peek_pending_shape())
    after = np.asarray(made.peek_pending_affine(), np.float64)
    sides = np.linalg.norm(after[:3, :3], axis=0)
    return (found[0], found[1], found[2]), (float(sides[0]), float(sides[1]), float(sides[2]))


def transformed(
    values: np.ndarray, affine: np.ndarray, transforms: Transforms, labels: bool = False
) -> np.ndarray:
    """Gives a volume turned, resampled and changed as a card asks.

    Args:
        values: [X,Y,Z] of any number type.
        affine: Of the array in mm towards right, anterior, superior, [4,4].
        transforms: What to do.
        labels: Whether values are names: the nearest is taken, and intensities stay.

    Returns:
        float32 [X',Y',Z'], axes as ``transforms.orientation`` says; for labels the type of the values.
    """
    import torch

    given = torch.as_tensor(np.ascontiguousarray(values, np.float32))[None]
    made = _placed(given, affine, transforms, "nearest" if labels else "bilinear")
    if labels:
        return np.rint(np.asarray(made[0])).astype(values.dtype)
    for name, settings in transforms.intensity:
        made = _monai(name)(**dict(settings))(made)
    return np.asarray(made[0], np.float32)


def slice_of(values: np.ndarray, plane: str, index: int, code: str = SHOWN_AS) -> np.ndarray:
    """Gives a slice of [X,Y,Z], [rows, columns].

    With ``LPS``, as a radiologist sees it. Axial: from the feet, front at the top, the patient's right at the picture's
    left. Coronal: from the front. Sagittal: front at the left. Upright planes have the head at the top with any code.
    """
    part = np.take(values, index, axis=ACROSS[plane]).T
    return part[::-1] if plane != "axial" and code[2] == "S" else part


def backwards(plane: str, code: str) -> bool:
    """Whether slices run against the plane's usual direction (``slices.DIRECTIONS``)."""
    return code[ACROSS[plane]] != SHOWN_AS[ACROSS[plane]]


def sides_of(plane: str, spacing_mm: tuple[float, float, float]) -> tuple[float, float]:
    """Gives the distances between a slice's rows and its columns in mm."""
    kept = [one for axis, one in enumerate(spacing_mm) if axis != ACROSS[plane]]
    return kept[1], kept[0]


def pictures_of(
    values: np.ndarray, profile: Profile, plane: str, shown: tuple[int, ...], code: str = SHOWN_AS
) -> list[np.ndarray]:
    """Gives slices as pictures, by the profile's windows or by percentiles of the volume.

    Returns:
        uint8 [rows, columns] or [rows, columns, 3], not yet with square pixels; NaN and infinity are black.
    """
    windows = profile.windows
    if not windows:
        windows = (spread_over([values[::THIN, ::THIN, :]], profile.percentiles or PERCENTILES),)
    ramps = [between(low, high) for low, high in windows]
    made = []
    for index in shown:
        part = slice_of(values, plane, index, code).astype(np.float64)
        channels = [np.rint(np.nan_to_num(ramp.apply(part)) * 255.0).astype(np.uint8) for ramp in ramps]
        made.append(channels[0] if len(channels) == 1 else np.stack(channels, axis=-1))
    return made


def _intensity(reader: str, given: Any) -> tuple[tuple[str, tuple[tuple[str, float], ...]], ...]:
    if not given:
        return ()
    if not isinstance(given, dict):
        raise DataError(
            f"reader {reader}: intensity maps MONAI's transforms to their settings: {{MedianSmooth: {{}}}}"
        )
    steps = []
    for name, settings in given.items():
        if name not in INTENSITIES:
            raise DataError(f"reader {reader}: intensity {name!r} is none of {', '.join(INTENSITIES)}")
        settings = settings or {}
        known = INTENSITIES[name]
        numbers = isinstance(settings, dict) and all(
            key in known and isinstance(value, int | float) and not isinstance(value, bool)
            for key, value in settings.items()
        )
        if not numbers:
            raise DataError(f"reader {reader}: intensity {name} takes numbers for {', '.join(known)}")
        if name == "AdjustContrast" and "gamma" not in settings:
            raise DataError(f"reader {reader}: intensity AdjustContrast needs gamma")
        steps.append((name, tuple(sorted(settings.items()))))
    return tuple(steps)


def _placed(values: Any, affine: np.ndarray, transforms: Transforms, mode: str, lazy: bool = False) -> Any:
    import torch

    made = importlib.import_module("monai.data").MetaTensor(
        values, affine=torch.as_tensor(np.asarray(affine, np.float64))
    )
    turn = _monai("Orientation")(axcodes=transforms.orientation, labels=LETTERS, lazy=lazy)
    made = turn(made)
    if transforms.spacing_mm is not None:
        spacing = _monai("Spacing")(pixdim=transforms.spacing_mm, mode=mode, lazy=lazy)
        made = spacing(made)
    return made


def _monai(name: str) -> Callable[..., Any]:
    return getattr(importlib.import_module("monai.transforms"), name)
