"""Writes a checkpoint's files in the names and forms that every loader knows, old ones included."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

from .load import Loaded, name_dtype
from .processors import save_processor

MOST_BYTES = "5GB"  # of one file
# In-memory names of transformers 5 -> the names on disk that transformers 4, vLLM and SGLang read as well.
# A model that was made from a config would save other names (no vision_model) than a loaded one.
CLASSIC = (
    (r"^model\.language_model\.", "language_model.model."),
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.vision_tower\.(?!vision_model\.)", "vision_tower.vision_model."),
    (r"^model\.vision_tower\.vision_model\.", "vision_tower.vision_model."),
    (r"^model\.(multi_modal_projector\.|image_newline)", r"\1"),
)
CLASSIC_FAMILIES = ("llava", "llava_next", "llava_onevision")


def write_checkpoint(loaded: Loaded, folder: Path, dtype: str) -> None:
    """Writes weights, config, generation config, tokenizer, processor and chat template.

    Args:
        loaded: A model without adapters, its weights already in their type.
        folder: Where to; made by the caller.
        dtype: Name of that type, for ``config.json``.
    """
    model = loaded.base_model
    model.config.architectures = [type(model).__name__]
    if loaded.model_type in CLASSIC_FAMILIES:
        _write_weights({classic(name): tensor for name, tensor in _own(model).items()}, folder)
        model.config.save_pretrained(folder)
        if model.can_generate():
            model.generation_config.save_pretrained(folder)
    else:
        model.save_pretrained(folder, max_shard_size=MOST_BYTES)
    name_dtype(folder / "config.json", dtype)
    save_processor(loaded.processor, folder)
    _write_settings(loaded, folder)
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.iterdir():
        path.chmod(0o666 & ~mask)  # safetensors writes 0600: a server under another user could not read it


def classic(name: str) -> str:
    """Gives a LLaVA parameter's name on disk for its name in memory."""
    for pattern, text in CLASSIC:
        renamed, count = re.subn(pattern, text, name)
        if count:
            return renamed
    return name


def _own(model: Any) -> dict[str, torch.Tensor]:
    """Gives the state without second names of shared storage (a head tied to the embeddings)."""
    state, seen = {}, set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            state[name] = tensor.contiguous()
    return state


def _write_weights(state: dict[str, torch.Tensor], folder: Path) -> None:
    plan = split_torch_state_dict_into_shards(
        state, filename_pattern="model{suffix}.safetensors", max_shard_size=MOST_BYTES
    )
    for file, names in plan.filename_to_tensors.items():
        save_file({name: state[name] for name in names}, folder / file, {"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(
            json.dumps(index, indent=1, sort_keys=True) + "\n"
        )


def _write_settings(loaded: Loaded, folder: Path) -> None:
    """Writes what readers besides transformers 5 look for: preprocessor_config.json and an old class name."""
    image_processor = getattr(loaded.processor, "image_processor", None)
    nested = folder / "processor_config.json"
    if image_processor is not None:
        image_processor.save_pretrained(folder)
        if loaded.model_type in CLASSIC_FAMILIES and nested.is_file():
            # one place for the picture's settings, and the one that every version reads
            config = json.loads(nested.read_text())
            config.pop("image_processor", None)
            nested.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    path = folder / "tokenizer_config.json"
    if path.is_file():
        config = json.loads(path.read_text())
        if config.get("tokenizer_class") == "TokenizersBackend":
            config["tokenizer_class"] = "PreTrainedTokenizerFast"
            path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
