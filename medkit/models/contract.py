"""The contract of a model folder (`medkit.json`): how a picture becomes pixels, wherever it is used."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError

if TYPE_CHECKING:
    from PIL import Image

FILE_NAME = "medkit.json"
VERSION = 1
FITS = ("pad", "crop", "stretch")


@dataclass(frozen=True)
class Contract:
    """What a checkpoint expects of its inputs and where it comes from.

    Attributes:
        fit: How a picture becomes square before the processor: ``pad`` (to square with the mean colour, as
            LLaVA-1.5), ``crop`` (the processor crops), ``stretch`` (the processor resizes freely).
        mean_colour: RGB 0..255 used for padding and for the blank-image control.
        provenance: Recipe, stage, samples seen, hashes: for people and reports, not read by code.
        conversation: Name of the conversation template that the checkpoint came with, "" when unknown.
        stop: Texts that end an answer besides the end token.
    """

    fit: str = "pad"
    mean_colour: tuple[int, int, int] = (122, 116, 104)
    provenance: dict[str, Any] = field(default_factory=dict)
    conversation: str = ""
    stop: list[str] = field(default_factory=list)


def prepare_image(image: Image.Image, contract: Contract) -> Image.Image:
    """Applies the contract's image policy, before the checkpoint's own processor.

    Args:
        image: RGB picture of any size.
        contract: The checkpoint's contract.

    Returns:
        RGB picture; square when the policy pads.
    """
    if contract.fit != "pad" or image.width == image.height:
        return image
    from PIL import Image as PillowImage

    side = max(image.size)
    square = PillowImage.new("RGB", (side, side), contract.mean_colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def write_contract(folder: Path, contract: Contract) -> None:
    """Writes ``medkit.json`` into a model folder."""
    text = json.dumps({"version": VERSION, **asdict(contract)}, indent=2, sort_keys=True)
    (folder / FILE_NAME).write_text(text + "\n")


def read_contract(folder: Path, processor: Any) -> Contract:
    """Reads the contract of a model folder; a folder without one gets what its processor implies.

    Raises:
        ModelError: The file is unreadable, of a later version, or contradicts the processor.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return _implied(processor)
    try:
        raw = json.loads(path.read_text())
        version = int(raw.pop("version"))
        if version > VERSION:
            raise ModelError(
                f"{path}: contract version {version} is newer than medkit knows ({VERSION}); update medkit"
            )
        contract = Contract(**{**raw, "mean_colour": tuple(raw["mean_colour"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path}: not a readable contract ({error}); delete it to use the processor's own settings"
        ) from error
    if contract.fit not in FITS:
        raise ModelError(f"{path}: fit {contract.fit!r} is unknown; use one of {', '.join(FITS)}")
    crops = bool(getattr(getattr(processor, "image_processor", None), "do_center_crop", False))
    if contract.fit != "pad" and (contract.fit == "crop") != crops:
        does = "crops" if crops else "stretches"
        raise ModelError(
            f"{path}: fit is {contract.fit} but the processor {does} pictures; mend preprocessor_config.json"
        )
    return contract


def _implied(processor: Any) -> Contract:
    image_processor = getattr(processor, "image_processor", None)
    crops = bool(getattr(image_processor, "do_center_crop", False))
    mean = getattr(image_processor, "image_mean", None) or (0.481, 0.458, 0.408)
    red, green, blue = (round(255 * value) for value in mean[:3])
    return Contract(fit="crop" if crops else "stretch", mean_colour=(red, green, blue))
