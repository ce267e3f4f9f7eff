"""The vision tower of an original checkpoint: which of two is taken, its config and its image processor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import CLIPVisionConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from ...errors import ModelError
from .detect import Layout, read_json
from .names import kind_of, tower_name
from .read import Weights, read_whole

CLIP_TYPES = ("clip_vision_model", "clip")
HUB_FILES = ["*.json", "*.safetensors", "*.bin", "tokenizer.model"]
CLIP_HEAD = 64  # width of an attention head in every published CLIP


@dataclass
class Tower:
    """A CLIP vision tower.

    Attributes:
        config: Its config.
        weights: Tensors named from ``embeddings.`` or ``encoder.`` on.
        image_processor: Resize, crop and normalise.
        taken: For people: which tower was taken, and why.
    """

    config: Any
    weights: Weights
    image_processor: Any
    taken: str


def find_folder(name: str, near: Path, download: bool = False) -> Path | None:
    """Gives the folder that a config's relative name, path or hub id means, or None.

    Args:
        name: As written by the original code: relative to where training ran, absolute, or a hub id.
        near: The checkpoint's folder; names are looked up in it, beside it, and in the working folder.
        download: The user named it, so a hub id may be fetched; else only the local hub cache is read.
    """
    for start in (near, near.resolve().parent, Path.cwd()):
        if name and (start / name / "config.json").is_file():
            return start / name
    if not name or name.count("/") != 1 or name.startswith((".", "/", "~")):
        return None
    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES, local_files_only=not download))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError, ValueError):
        return None


def find_tower(layout: Layout, weights: Weights, named: str | None) -> Tower:
    """Finds the tower inside or beside a checkpoint and says which one is taken.

    The original LLaVA ignores a tower inside the checkpoint unless it was trained, and reads the folder that
    the config names; LLaVA-Med v1.5 always takes the one inside. The wrong one moves logits by several units.

    Args:
        layout: The checkpoint.
        weights: All of its tensors, those of its base included.
        named: Folder or hub id that the user wants, or None.

    Raises:
        ModelError: There is none, or it is no CLIP tower.
    """
    inside = Weights()
    inside.update(weights)
    for name in [name for name in weights if kind_of(name) != "vision"]:
        inside.take(name)
    inside = inside.renamed(tower_name)
    wanted = named or str(layout.config.get("mm_vision_tower") or layout.config.get("vision_tower") or "")
    beside = find_folder(wanted, layout.folder, download=named is not None)
    if named and beside is None:
        raise ModelError(f"--tower {named}: no such folder with a config.json, and no hub id that answers")
    preferred = _prefers_inside(layout)
    config = _config(beside, inside) if beside or len(inside) else None
    if config is None:
        raise ModelError(
            f"{layout.folder}: the vision tower {wanted or '(unnamed)'} is neither in the checkpoint nor "
            "beside it; give it with --tower FOLDER or --tower openai/clip-vit-large-patch14-336"
        )
    processor = _image_processor([beside, layout.folder], config)
    if beside and (named or not preferred or not len(inside)):
        if named:
            why = "named by --tower"
        elif len(inside):
            why = "as the original does unless the tower was trained"
        else:
            why = "the checkpoint holds none"
        # the summary travels with the model: it says the folder's name, not where it lay
        shown = Path(wanted).name if Path(wanted).is_absolute() else wanted
        return Tower(config, _weights(beside), processor, f"beside the checkpoint ({shown}): {why}")
    why = preferred or f"{wanted or 'mm_vision_tower'} is not here"
    return Tower(config, inside, processor, f"inside the checkpoint: {why}")


def _prefers_inside(layout: Layout) -> str:
    config = layout.config
    if config.get("unfreeze_mm_vision_tower"):
        return "it was trained (unfreeze_mm_vision_tower)"
    if "mm_vision_tower" in str(config.get("mm_tunable_parts") or ""):
        return "it was trained (mm_tunable_parts)"
    if config.get("model_type") == "llava_mistral":
        return "as LLaVA-Med v1.5 does"
    return ""


def _config(beside: Path | None, inside: Weights) -> Any:
    if beside is None:
        return _from_shapes(inside)
    raw = read_json(beside / "config.json")
    kind = raw.get("model_type")
    if kind not in CLIP_TYPES:
        raise ModelError(
            f"{beside}: a vision tower of type {kind!r} has no place in Hugging Face's LLaVA here; "
            "only CLIP towers are imported"
        )
    if kind == "clip":
        raw = raw.get("vision_config") or raw.get("vision_config_dict") or {}
    known = CLIPVisionConfig().to_dict().keys() - {"transformers_version", "dtype", "architectures"}
    return CLIPVisionConfig(
        **{key: value for key, value in raw.items() if key in known and key != "model_type"}
    )


def _from_shapes(inside: Weights) -> Any:
    """Derives the config of a tower from its tensors: an OpenAI CLIP has heads of width 64."""
    try:
        patches = inside["embeddings.patch_embedding.weight"].shape
        positions = inside["embeddings.position_embedding.weight"].shape[0]
        inner = inside["encoder.layers.0.mlp.fc1.weight"].shape[0]
    except KeyError as error:
        raise ModelError(
            f"the vision tower inside the checkpoint lacks {error}; name one with --tower"
        ) from error
    width, patch = patches[0], patches[-1]
    if width % CLIP_HEAD:
        raise ModelError(
            f"the vision tower inside the checkpoint is {width} wide, so its number of heads can't be told; "
            "name a folder with its config.json by --tower"
        )
    layers = {name.split(".")[2] for name in inside if name.startswith("encoder.layers.")}
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=len(layers),
        num_attention_heads=width // CLIP_HEAD,
        patch_size=patch,
        image_size=math.isqrt(positions - 1) * patch,
        projection_dim=width,
    )


def _weights(folder: Path) -> Weights:
    found = read_whole(folder)
    for name in [name for name in found if not _of_tower(name)]:
        found.take(name)
    return found.renamed(tower_name)


def _of_tower(name: str) -> bool:
    return tower_name(name).startswith(("embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm.")) and (
        not name.startswith("text_model.")
    )


def _image_processor(folders: list[Path | None], config: Any) -> Any:
    side = int(config.image_size)
    given: dict[str, Any] = {
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "image_mean": list(OPENAI_CLIP_MEAN),
        "image_std": list(OPENAI_CLIP_STD),
        "do_center_crop": True,
    }
    for folder in folders:
        raw = read_json(folder / "preprocessor_config.json", optional=True) if folder else {}
        if raw:
            known = ("size", "crop_size", "image_mean", "image_std", "resample", "rescale_factor")
            switches = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
            given |= {key: raw[key] for key in (*known, *switches) if raw.get(key) is not None}
            break
    for key in ("size", "crop_size"):
        if isinstance(given[key], int):
            square = {"height": given[key], "width": given[key]}
            given[key] = {"shortest_edge": given[key]} if key == "size" else square
    return CLIPImageProcessorPil(**given)
