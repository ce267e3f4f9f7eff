"""Adapters on disk: weights and configuration apart from the base, so that plain PEFT loads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from . import llama_adapter

CONFIG, WEIGHTS = llama_adapter.CONFIG, llama_adapter.WEIGHTS


def kind_of(model: Any) -> str:
    """Gives the kind of a model's adapter, as the card names it; "" when it has none."""
    if llama_adapter.settings_of(model):
        return "llama_adapter"
    if not hasattr(model, "peft_config"):
        return ""
    config = next(iter(model.peft_config.values()))
    kind = str(getattr(config.peft_type, "value", config.peft_type)).lower()
    if kind != "lora":
        return kind
    return "dora" if config.use_dora else "rslora" if config.use_rslora else kind


def load_adapter(model: Any, folder: str) -> Any:
    """Gives a model with the adapter of a folder (or hub id) on it."""
    path = Path(folder) / CONFIG
    if path.is_file() and json.loads(path.read_text()).get("peft_type") == "ADAPTION_PROMPT":
        return llama_adapter.load(folder, model)
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder)


def save_adapter(model: Any, folder: Path) -> None:
    """Writes an adapter's weights and configuration; plain PEFT loads the folder.

    PiSSA changes the base before it learns. What is written is the difference that it made to the base as it
    was, exact and of twice the rank, so that the adapter needs no changed base.
    """
    if llama_adapter.settings_of(model):
        llama_adapter.save(model, folder)
        return
    # "auto" would ask the hub whether the vocabulary of the base has grown
    model.save_pretrained(folder, save_embedding_layers=False)
    start = getattr(model, "pissa_start", None)
    if start:
        _write_difference(folder, start)


def factors(model: Any) -> dict[str, torch.Tensor]:
    """Gives copies of an adapter's low-rank factors by the names that they are saved under."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items() if ".lora_" in name}


def _write_difference(folder: Path, start: dict[str, torch.Tensor]) -> None:
    """Rewrites saved factors as those of the change since ``start``: B A - B0 A0 = [B, -B0] [A; A0]."""
    path, config_path = folder / WEIGHTS, folder / CONFIG
    state = load_file(path)
    for name, first in start.items():
        last = state[name]
        state[name] = torch.cat([last, first]) if ".lora_A." in name else torch.cat([last, -first], dim=1)
    save_file(state, path, {"format": "pt"})
    config = json.loads(config_path.read_text())
    # alpha as well, so that their quotient, the scale, is the same
    config |= {"r": 2 * config["r"], "lora_alpha": 2 * config["lora_alpha"], "init_lora_weights": True}
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
