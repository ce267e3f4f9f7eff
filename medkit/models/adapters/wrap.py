"""The kinds of adapter that PEFT has: their configurations, and saving them so that plain PEFT loads them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ...errors import ModelError
from ..load import Loaded
from ..parts import linear_names, top_modules
from . import prompts

# IA3 scales what attention compares, what it gathers, and what enters the second feed-forward layer.
IA3_OUT = ("k_proj", "v_proj", "qkv")
IA3_IN = ("down_proj", "fc2", "linear_fc2")


def wrap(loaded: Loaded, rates: dict[str, float], adapter: dict[str, Any]) -> None:
    """Makes ``loaded.model`` a PeftModel with a new adapter on the parts that have a learning rate.

    Raises:
        ModelError: The adapter fits no layer.
    """
    from peft import get_peft_model, prepare_model_for_kbit_training

    model, family = loaded.base_model, loaded.model_type
    if adapter.get("quantize", "none") != "none":
        # frozen, with the norms and the output in float32; checkpointing is the stage's own setting
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    targets: list[str] = []
    for part in ("language", "vision"):
        if rates.get(part, 0) > 0:
            named = adapter.get("targets") or [] if part == "language" else []
            targets += linear_names(model, family, part, named)
    whole = top_modules(model, family, "projector") if rates.get("projector", 0) > 0 else None
    loaded.model = get_peft_model(model, _config(adapter, targets, whole))
    if adapter["kind"] == "pissa":
        loaded.model.pissa_start = _factors(loaded.model)


def kind_of(loaded: Loaded) -> str:
    """Gives the kind of a model's adapter, as the card names it; "" when it has none."""
    if prompts.settings_of(loaded.model):
        return "llama_adapter"
    if not hasattr(loaded.model, "peft_config"):
        return ""
    config = next(iter(loaded.model.peft_config.values()))
    kind = str(getattr(config.peft_type, "value", config.peft_type)).lower()
    if kind != "lora":
        return kind
    return "dora" if config.use_dora else "rslora" if config.use_rslora else kind


def save_adapter(loaded: Loaded, folder: Path) -> None:
    """Writes an adapter's weights and configuration; plain PEFT loads the folder.

    PiSSA changes the base before it learns. What is written is the difference that it made to the base as it
    was, exact and of twice the rank, so that the adapter needs no changed base.
    """
    if prompts.settings_of(loaded.model):
        prompts.save(loaded.model, folder)
        return
    # "auto" would ask the hub whether the vocabulary of the base has grown
    loaded.model.save_pretrained(folder, save_embedding_layers=False)
    start = getattr(loaded.model, "pissa_start", None)
    if start:
        _write_difference(folder, start)


def _factors(model: Any) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items() if ".lora_" in name}


def _write_difference(folder: Path, start: dict[str, torch.Tensor]) -> None:
    """Rewrites saved factors as those of the change since ``start``: B A - B0 A0 = [B, -B0] [A; A0]."""
    path, config_path = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    state = load_file(path)
    for name, first in start.items():
        last = state[name]
        state[name] = torch.cat([last, first]) if ".lora_A." in name else torch.cat([last, -first], dim=1)
    save_file(state, path, {"format": "pt"})
    config = json.loads(config_path.read_text())
    # alpha as well, so that their quotient, the scale, is the same
    config |= {"r": 2 * config["r"], "lora_alpha": 2 * config["lora_alpha"], "init_lora_weights": True}
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _config(adapter: dict[str, Any], targets: list[str], whole: list[str] | None) -> Any:
    from peft import AdaLoraConfig, IA3Config, LoraConfig

    kind = adapter["kind"]
    common: dict[str, Any] = {"modules_to_save": whole, "task_type": "CAUSAL_LM"}
    if kind == "ia3":
        inward = _named(targets, IA3_IN)
        outward = _named(targets, IA3_OUT)
        if not inward + outward:
            raise ModelError(f"ia3 finds none of its layers ({', '.join(IA3_OUT + IA3_IN)}); use kind: lora")
        return IA3Config(target_modules=inward + outward, feedforward_modules=inward, **common)
    rank = adapter["rank"]
    common |= {"target_modules": targets, "lora_alpha": adapter["alpha"], "lora_dropout": adapter["dropout"]}
    if kind == "adalora":
        # half as many ranks again to choose from; the loop sets the true length
        return AdaLoraConfig(target_r=rank, init_r=math.ceil(1.5 * rank), total_step=1, **common)
    return LoraConfig(
        r=rank,
        use_rslora=kind == "rslora",
        use_dora=kind == "dora",
        init_lora_weights="pissa" if kind == "pissa" else True,
        **common,
    )


def _named(targets: list[str], last: tuple[str, ...]) -> list[str]:
    return [name for name in targets if name.rsplit(".", 1)[-1] in last]
