"""The contract of a model folder (`medkit.json`): how words and pictures go in, wherever it is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError

if TYPE_CHECKING:
    from PIL import Image

FILE_NAME = "medkit.json"
VERSION = 3
FITS = ("pad", "crop", "stretch")
SQUARE_TOWERS = ("llava", "llava_next", "llava_onevision")  # whose towers read one fixed size


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
        answer_formats: What is added to a question so that the answer takes a form: ``short`` for a word or
            phrase, ``choice`` for a letter (LLaVA-1.5's response-format prompts).
        tiles: Of a checkpoint that cuts pictures into tiles, ``grid_pinpoints`` ([[height, width], ...] in px)
            and ``newline`` (whether a learned vector ends every row); None for one that doesn't.
        licence: ``base`` (text) and ``data`` (list of texts) of what the checkpoint was made of.
        template_sha256: Hash of the chat template that the checkpoint was trained with, "" when not stored.
        render: How the grey values of medical pictures became what the checkpoint was trained on: a row a modality
            with ``profile``, its settings, ``transforms`` of volumes and ``samples``;
            ``medkit.readers.dicom.renders.render_dicom`` renders a file that way. [] where no profile rendered the
            pictures.
    """

    fit: str = "pad"
    mean_colour: tuple[int, int, int] = (122, 116, 104)
    provenance: dict[str, Any] = field(default_factory=dict)
    conversation: str = ""
    stop: list[str] = field(default_factory=list)
    answer_formats: dict[str, str] = field(default_factory=dict)
    tiles: dict[str, Any] | None = None
    licence: dict[str, Any] = field(default_factory=dict)
    template_sha256: str = ""
    render: list[dict[str, Any]] = field(default_factory=list)


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


def stored_render(folder: Path) -> list[dict[str, Any]]:
    """Gives the field ``render`` of a model folder's contract without loading anything else; [] where it has none."""
    try:
        rows = json.loads((folder / FILE_NAME).read_text(encoding="utf-8")).get("render", [])
    except (OSError, ValueError, AttributeError):
        return []
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """Gives an answer up to the first of the contract's stop strings."""
    return text[: min((text.index(end) for end in stop if end in text), default=len(text))]


def write_contract(folder: Path, contract: Contract) -> None:
    """Writes ``medkit.json`` into a model folder."""
    text = json.dumps({"version": VERSION, **asdict(contract)}, indent=2, sort_keys=True)
    (folder / FILE_NAME).write_text(text + "\n")


def read_contract(folder: Path, processor: Any, config: Any = None) -> Contract:
    """Reads the contract of a model folder; a folder without one gets what its processor implies.

    Args:
        folder: The model folder.
        processor: Its processor.
        config: The model's config; without one only the processor is held against the contract.

    Raises:
        ModelError: The file is unreadable, of a later version, or contradicts the processor or the model.
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
        if any("modality" not in row or "profile" not in row for row in contract.render):
            raise ValueError("render has a row without modality or profile")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path}: not a readable contract ({error}); delete it to use the processor's own settings"
        ) from error
    if contract.fit not in FITS:
        raise ModelError(f"{path}: fit {contract.fit!r} is unknown; use one of {', '.join(FITS)}")
    if faults := contradictions(contract, processor, config):
        raise ModelError(f"{path}: {'; '.join(faults)}")
    return contract


def contradictions(contract: Contract, processor: Any, config: Any = None) -> list[str]:
    """Gives what a processor, or the model's config, does otherwise than the contract says.

    Args:
        contract: The contract.
        processor: The checkpoint's processor.
        config: The model's config, or None.

    Returns:
        One clause a contradiction, with the file to mend; [] when they agree.
    """
    image_processor = getattr(processor, "image_processor", None)
    faults = []
    crops = bool(getattr(image_processor, "do_center_crop", False))
    # elsewhere do_pad means the number of tiles, not the picture
    own = type(image_processor).__name__.startswith("LlavaImageProcessor")
    pads = own and bool(getattr(image_processor, "do_pad", False))
    does = "pads" if pads else "crops" if crops else "stretches"
    tiled = bool(_grid_of(image_processor))  # tiles are cut to size; the crop finds nothing left to take off
    if (
        contract.fit != "pad"
        and not tiled
        and does != {"crop": "crops", "stretch": "stretches"}[contract.fit]
    ):
        faults.append(
            f"fit is {contract.fit} but the processor {does} pictures; mend preprocessor_config.json"
        )
    if contract.template_sha256 and contract.template_sha256 != template_hash(processor):
        faults.append(
            "the chat template is another than the model was trained with; put back chat_template.jinja, or "
            "delete template_sha256 here if the change is meant"
        )
    return faults + (_against_config(contract, processor, config) if config is not None else [])


def template_hash(processor: Any) -> str:
    """Gives the sha256 of a processor's chat template (hex), "" for one without."""
    template = getattr(processor, "chat_template", None)
    if not template:
        return ""
    text = template if isinstance(template, str) else json.dumps(template, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _against_config(contract: Contract, processor: Any, config: Any) -> list[str]:
    image_processor = getattr(processor, "image_processor", None)
    faults = []
    if getattr(config, "model_type", "") in SQUARE_TOWERS:
        tower = config.vision_config
        side, wanted = _side_px(image_processor), getattr(tower, "image_size", None)
        if side and wanted and side != wanted:
            faults.append(
                f"the processor makes pictures of {side} px and the vision tower reads {wanted} px; "
                "mend size and crop_size in the processor's settings"
            )
        for what, own, other in (
            ("patch_size", getattr(processor, "patch_size", None), getattr(tower, "patch_size", None)),
            (
                "vision_feature_select_strategy",
                getattr(processor, "vision_feature_select_strategy", None),
                getattr(config, "vision_feature_select_strategy", None),
            ),
        ):
            if own is not None and other is not None and own != other:
                faults.append(
                    f"{what} is {own} for the processor and {other} in config.json; make them the same"
                )
    token, wanted = getattr(processor, "image_token_id", None), getattr(config, "image_token_id", None)
    # Gemma's processor names the token that begins a picture; its tokenizer names the picture's own
    written = getattr(getattr(processor, "tokenizer", None), "image_token_id", None)
    if token is not None and wanted is not None and wanted not in (token, written):
        faults.append(
            f"the processor writes image token {token} and the model looks for {wanted}; make them the same"
        )
    grid = _pairs(getattr(config, "image_grid_pinpoints", None))
    if contract.tiles is not None:
        told = _pairs(contract.tiles.get("grid_pinpoints"))
        for what, other in (("config.json", grid), ("the processor", _pairs(_grid_of(image_processor)))):
            if other != told:
                faults.append(
                    f"tiles.grid_pinpoints is {told} but {what} has {other or 'none'}; make them the same"
                )
    return faults


def _side_px(image_processor: Any) -> int | None:
    """Gives the side of the squares that a processor makes, None where it makes none of one size."""
    crops = getattr(image_processor, "do_center_crop", False)
    size = getattr(image_processor, "crop_size" if crops else "size", None)
    sizes = {size[key] for key in ("height", "width") if key in size} if size else set()
    if not sizes and size:
        sizes = {size["shortest_edge"]} if "shortest_edge" in size else set()
    return sizes.pop() if len(sizes) == 1 else None


def _grid_of(image_processor: Any) -> Any:
    return getattr(image_processor, "image_grid_pinpoints", None)


def _pairs(grid: Any) -> list[list[int]]:
    return sorted([int(height), int(width)] for height, width in grid) if grid else []


def _implied(processor: Any) -> Contract:
    image_processor = getattr(processor, "image_processor", None)
    crops = bool(getattr(image_processor, "do_center_crop", False))
    mean = getattr(image_processor, "image_mean", None) or (0.481, 0.458, 0.408)
    red, green, blue = (round(255 * value) for value in mean[:3])
    return Contract(fit="crop" if crops else "stretch", mean_colour=(red, green, blue))
