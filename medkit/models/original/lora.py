"""LoRA adapters of original checkpoints, merged into their base as exactly as float32 allows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import torch

from ...errors import ModelError
from .detect import Layout
from .read import Weights

_LOW_RANK = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(\.default)?\.weight")


def merge_lora(layout: Layout, weights: Weights) -> list[str]:
    """Adds an adapter to the tensors of its base; merged tensors are float32, whatever the base is stored in.

    Rounding the sum to 16 bits again would move logits by more than 1e-4.

    Args:
        layout: A ``lora`` layout.
        weights: The base's tensors by bare original name; changed in place.

    Returns:
        Names of the tensors that were changed.

    Raises:
        ModelError: The adapter is no plain LoRA or fits no tensor of the base.
    """
    config = layout.adapter_config
    if str(config.get("peft_type", "LORA")).upper() != "LORA" or config.get("use_dora"):
        kind = "DoRA" if config.get("use_dora") else config.get("peft_type")
        raise ModelError(f"{layout.folder}: an adapter of kind {kind} can't be imported; only plain LoRA")
    pairs: dict[str, dict[str, str]] = {}
    for name in layout.adapter:
        match = _LOW_RANK.fullmatch(name)
        if match is None:
            raise ModelError(f"{layout.folder}: the adapter holds {name}, which is no LoRA weight of a layer")
        pairs.setdefault(match["module"], {})[match["side"]] = name
    for module, sides in pairs.items():
        target = f"{module}.weight"
        if set(sides) != {"A", "B"} or target not in weights:
            raise ModelError(f"{layout.folder}: the adapter's layer {module} fits no layer of the base")
        up, down = layout.adapter[sides["B"]], layout.adapter[sides["A"]]
        plain = weights[target].shape
        if (up.shape[0], down.shape[1]) != (plain[::-1] if config.get("fan_in_fan_out") else plain):
            raise ModelError(
                f"{layout.folder}: the adapter's layer {module} is {up.shape[0]} x {down.shape[1]}, "
                f"the base's {plain[0]} x {plain[1]}; give the base that it was trained on with --base"
            )
        pair = (down.T, up.T) if config.get("fan_in_fan_out") else (up, down)
        weights.put(target, _merged(weights, target, pair, _scale(config, module)), "merged")
    return [f"{module}.weight" for module in pairs]


def _merged(
    weights: Weights, target: str, pair: tuple[torch.Tensor, torch.Tensor], scale: float
) -> Callable[[], torch.Tensor]:
    source = weights.source(target)
    return lambda: source().float() + (pair[0].float() @ pair[1].float()) * scale


def _scale(config: dict[str, Any], module: str) -> float:
    rank = _pattern(config.get("rank_pattern"), module, config["r"])
    alpha = _pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", rank))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _pattern(patterns: dict[str, Any] | None, module: str, default: Any) -> Any:
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
