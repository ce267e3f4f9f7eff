"""What a checkpoint folder is, from its files and the names of its tensors; never from its own name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ModelError
from .names import HEAD, NORM, bare, kind_of
from .read import ADAPTER, PROJECTOR, REST, Weights, read_named, read_whole

LANGUAGES = {
    "llava": "llama",
    "llava_llama": "llama",
    "llava_mistral": "mistral",
    "llava_qwen": "qwen2",
    "llava_qwen2": "qwen2",
    "llama": "llama",
    "mistral": "mistral",
    "qwen2": "qwen2",
}
DELTA_NORM = 0.05  # a norm's weights lie around 1, and their difference from the base's around 0


@dataclass
class Layout:
    """A folder in the original layout.

    Attributes:
        kind: ``full``, ``projector``, ``lora`` or ``delta``.
        folder: Where it lies.
        config: Its ``config.json``.
        language: ``llama``, ``mistral`` or ``qwen2``.
        weights: Its own tensors under bare original names, without those of an adapter.
        adapter: Tensors of the adapter under bare names (``...q_proj.lora_A.weight``); empty without one.
        adapter_config: ``adapter_config.json``, {} without one.
    """

    kind: str
    folder: Path
    config: dict[str, Any]
    language: str
    weights: Weights
    adapter: Weights
    adapter_config: dict[str, Any]


def detect(folder: Path) -> Layout:
    """Says what an original checkpoint folder holds.

    Raises:
        ModelError: It is no folder of an original checkpoint, or misses a part.
    """
    config = read_json(folder / "config.json")
    _refuse_other_layouts(folder, config)
    adapter_config = read_json(folder / "adapter_config.json", optional=True)
    if adapter_config:
        return _lora(folder, config, adapter_config)
    weights = read_whole(folder).renamed(bare)
    kinds = {kind_of(name) for name in weights}
    if "language" not in kinds or NORM not in weights:
        weights.update(_projector_only(folder))
        if not any(kind_of(name) == "projector" for name in weights):
            raise ModelError(
                f"{folder}: holds neither a language model nor a projector (mm_projector.bin); "
                "give the folder that training saved"
            )
        return Layout("projector", folder, config, language_of(folder, config), weights, Weights(), {})
    kind = "delta" if is_delta(weights) else "full"
    if "projector" not in kinds:
        weights.update(_projector_only(folder))
    return Layout(kind, folder, config, language_of(folder, config), weights, Weights(), {})


def read_json(path: Path, optional: bool = False) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        ModelError: It is missing (unless optional) or no object.
    """
    if not path.is_file():
        if optional:
            return {}
        raise ModelError(f"{path.parent}: no {path.name} here; give the folder of a checkpoint")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: not readable JSON ({error}); copy it again") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: holds no JSON object; copy it again")
    return found


def language_of(folder: Path, config: dict[str, Any]) -> str:
    """Gives the family of the language model.

    Raises:
        ModelError: medkit does not know it.
    """
    named = config.get("model_type", "llava")
    if named not in LANGUAGES:
        raise ModelError(
            f"{folder}: model_type {named!r} is not imported; supported: {', '.join(sorted(LANGUAGES))}"
        )
    return LANGUAGES[named]


def is_delta(weights: Weights) -> bool:
    """Says whether weights are differences from a base: their norms lie around 0 instead of 1."""
    norms = [name for name in weights if name == NORM or name.endswith("layernorm.weight")]
    norms = [name for name in norms if kind_of(name) == "language"]
    size = sorted(float(weights[name].float().abs().mean()) for name in norms)
    return bool(size) and size[len(size) // 2] < DELTA_NORM


def _lora(folder: Path, config: dict[str, Any], adapter_config: dict[str, Any]) -> Layout:
    adapter = read_named(folder, ADAPTER)
    if not len(adapter):
        raise ModelError(
            f"{folder}: adapter_config.json without adapter_model.safetensors or .bin; copy it too"
        )
    rest = read_named(folder, REST).renamed(bare)
    language = language_of(folder, config)
    return Layout("lora", folder, config, language, rest, adapter.renamed(bare), adapter_config)


def _projector_only(folder: Path) -> Weights:
    found = read_named(folder, PROJECTOR)
    return found.renamed(lambda name: _as_model(bare(name)))


def _as_model(name: str) -> str:
    """Completes the names of a projector file, which some versions write without their beginning."""
    return name if name.startswith(("model.", HEAD)) else f"model.{name}"


def _refuse_other_layouts(folder: Path, config: dict[str, Any]) -> None:
    if "text_config" in config and "vision_config" in config:
        raise ModelError(
            f"{folder}: is a Hugging Face checkpoint already; name it in a recipe's base, nothing to import"
        )
    if (folder / "adapter_config.json").is_file() and "mm_vision_tower" not in config:
        raise ModelError(f"{folder}: is an adapter of a Hugging Face model; name it in a recipe's base")
