"""Exports a Hugging Face LLaVA folder to the layout that the original LLaVA code loads."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoProcessor

from ...errors import ModelError
from ..contract import read_contract
from .names import EMBEDDING, HEAD, PROJECTOR, TOWER, from_memory, is_buffer, kind_of
from .read import Weights, read_whole, write_weights
from .tokens import END, PATCH, START
from .write_tokens import write_tokenizer

FAMILIES = ("llava", "llava_next")
CLASSES = {
    "llama": ("llava_llama", "LlavaLlamaForCausalLM"),
    "mistral": ("llava_mistral", "LlavaMistralForCausalLM"),
    "qwen2": ("llava_qwen", "LlavaQwenForCausalLM"),
}
TOWER_FOLDER = "vision_tower"


def export_original(model_folder: Path, out: Path) -> dict[str, Any]:
    """Writes a Hugging Face LLaVA or LLaVA-NeXT folder in the original layout, tensor for tensor.

    The vision tower is written twice, as the original wants it: inside the checkpoint, where
    ``unfreeze_mm_vision_tower`` makes the original loader take it, and as the folder ``vision_tower`` beside
    the weights, which ``mm_vision_tower`` names (relative to the folder itself).

    Args:
        model_folder: Full checkpoint; an adapter is merged before.
        out: Where to write; may exist.

    Returns:
        ``model_type``, ``projector``, ``image_aspect_ratio``, ``conversation`` (for the original's
        ``--conv-mode``), ``rows``, ``bytes``, ``notes``.

    Raises:
        ModelError: The model has no form in the original layout.
    """
    config, processor = _open(model_folder)
    contract = read_contract(model_folder, processor)
    weights = read_whole(model_folder).renamed(from_memory)
    for name in [name for name in weights if is_buffer(name)]:
        weights.take(name)
    if EMBEDDING not in weights or not any(kind_of(name) == "vision" for name in weights):
        raise ModelError(
            f"{model_folder}: holds no whole LLaVA checkpoint; merge an adapter into its base first"
        )
    out.mkdir(parents=True, exist_ok=True)
    notes: list[str] = []
    projector = _projector(config, weights, notes)
    dropped = write_tokenizer(processor.tokenizer, out)
    rows = weights[EMBEDDING].shape[0]
    keep = rows - 1 if dropped and config.image_token_index == rows - 1 else rows
    types: Counter[torch.dtype] = Counter()
    size = write_weights(out, _tensors(weights, projector, keep, types))
    size += _write_tower(out / TOWER_FOLDER, config, weights, processor.image_processor)
    told = _config(config, processor, contract.fit, keep, model_folder)
    told["mm_projector_type"] = "linear" if len(projector) == 2 else "mlp2x_gelu"
    told["torch_dtype"] = str(types.most_common(1)[0][0]).removeprefix("torch.")
    _write_json(out / "config.json", told)
    ids = {name: told[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(out / "generation_config.json", {**ids, "do_sample": False})
    mask = os.umask(0)
    os.umask(mask)
    for path in out.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~mask)
    return {
        "model_type": told["model_type"],
        "projector": told["mm_projector_type"],
        "image_aspect_ratio": told["image_aspect_ratio"],
        "conversation": contract.conversation,
        "rows": keep,
        "bytes": size,
        "notes": notes,
    }


def _open(folder: Path) -> tuple[Any, Any]:
    if not (folder / "config.json").is_file():
        what = (
            "an adapter; merge it first" if (folder / "adapter_config.json").is_file() else "no model folder"
        )
        raise ModelError(f"{folder}: is {what}")
    try:
        config = AutoConfig.from_pretrained(str(folder))
        kind, language = config.model_type, getattr(config, "text_config", config).model_type
        if kind not in FAMILIES or language not in CLASSES:
            raise ModelError(
                f"{folder}: a {kind} model over {language} has no original LLaVA layout; "
                f"{' and '.join(FAMILIES)} over {', '.join(CLASSES)} have"
            )
        return config, AutoProcessor.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: can't be read: {str(error).splitlines()[0]}") from error


def _projector(config: Any, weights: Weights, notes: list[str]) -> dict[str, torch.Tensor]:
    """Gives the projector under original names: one linear layer where there is no activation between two."""
    layers = {name: weights[name] for name in weights if kind_of(name) == "projector"}
    for name in layers:
        weights.take(name)
    if config.projector_hidden_act == "gelu":
        return layers
    if config.projector_hidden_act != "linear":
        raise ModelError(
            f"a projector with {config.projector_hidden_act} has no original form; gelu or none has"
        )
    first, bias = layers[f"{PROJECTOR}0.weight"], layers[f"{PROJECTOR}0.bias"]
    second, shift = layers[f"{PROJECTOR}2.weight"], layers[f"{PROJECTOR}2.bias"]
    if not (torch.equal(second, torch.eye(len(second), dtype=second.dtype)) and not shift.any()):
        notes.append(
            "the second layer of the projector was trained: both are multiplied into one, in float32"
        )
        bias = second.float() @ bias.float() + shift.float()
        first = second.float() @ first.float()
    return {f"{PROJECTOR}weight": first, f"{PROJECTOR}bias": bias}


def _tensors(
    weights: Weights, projector: dict[str, torch.Tensor], rows: int, types: Counter[torch.dtype]
) -> Iterator[tuple[str, torch.Tensor]]:
    for name in sorted(weights):
        tensor = weights[name]
        if name in (EMBEDDING, HEAD):
            tensor = tensor[:rows].clone()
        types[tensor.dtype] += tensor.numel()
        yield name, tensor
    yield from projector.items()


def _write_tower(folder: Path, config: Any, weights: Weights, image_processor: Any) -> int:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tower = ((name.removeprefix(TOWER), weights[name]) for name in weights if kind_of(name) == "vision")
    size = write_weights(folder, tower)
    raw = {
        key: value
        for key, value in config.vision_config.to_dict().items()
        if key not in ("dtype", "_name_or_path")
    }
    _write_json(folder / "config.json", {**raw, "architectures": ["CLIPVisionModel"]})
    side = _side(image_processor)
    _write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": side},
            "crop_size": {"height": side, "width": side},
            "do_resize": True,
            "do_center_crop": True,
            "do_rescale": True,
            "do_normalize": True,
            "do_convert_rgb": True,
            "rescale_factor": image_processor.rescale_factor,
            "resample": int(image_processor.resample),
            "image_mean": list(image_processor.image_mean),
            "image_std": list(image_processor.image_std),
        },
    )
    return size


def _side(image_processor: Any) -> int:
    size = image_processor.size
    sides = {size[key] for key in ("shortest_edge", "height", "width") if size.get(key)}
    if len(sides) != 1:
        raise ModelError(f"pictures of {dict(size)} px have no original form: they must be square")
    return int(sides.pop())


def _config(config: Any, processor: Any, fit: str, rows: int, folder: Path) -> dict[str, Any]:
    text = config.text_config.to_dict()
    rope = text.pop("rope_parameters", None) or {}
    skipped = ("dtype", "_name_or_path", "id2label", "label2id", "problem_type", "layer_types")
    told: dict[str, Any] = {key: value for key, value in text.items() if key not in skipped}
    kind, name = CLASSES[text["model_type"]]
    tokenizer = processor.tokenizer
    vocabulary = tokenizer.get_vocab()
    scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "rope_type", "type")}
    told |= {
        "model_type": kind,
        "architectures": [name],
        "vocab_size": rows,
        "rope_theta": rope.get("rope_theta", 10000.0),
        "rope_scaling": {"type": rope["rope_type"], **scaling} if scaling else None,
        "tie_word_embeddings": bool(config.tie_word_embeddings),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "use_mm_proj": True,
        "mm_hidden_size": config.vision_config.hidden_size,
        "mm_vision_tower": TOWER_FOLDER,
        "unfreeze_mm_vision_tower": True,
        "mm_vision_select_layer": config.vision_feature_layer,
        "mm_vision_select_feature": "patch"
        if config.vision_feature_select_strategy == "default"
        else "cls_patch",
        "mm_use_im_start_end": bool({START, END} <= vocabulary.keys() and START in processor.chat_template),
        "mm_use_im_patch_token": PATCH in vocabulary,
        "mm_patch_merge_type": "flat",
        "tokenizer_model_max_length": int(min(tokenizer.model_max_length, 10**9)),
        "tokenizer_padding_side": "right",
    }
    if config.model_type == "llava_next":
        pinpoints = [[width, height] for height, width in config.image_grid_pinpoints]
        tiles = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": pinpoints}
        return {**told, **tiles, "mm_patch_merge_type": "spatial_unpad"}
    if fit == "stretch":
        raise ModelError(f"{folder}: stretches pictures, which the original code can't do; it pads or crops")
    return {**told, "image_aspect_ratio": "pad" if fit == "pad" else "square"}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
