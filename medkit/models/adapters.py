"""Adapters: what is trained of a model. The projector is always trained whole, beside any adapter."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import ModelError
from .load import Loaded
from .parts import PARTS, linear_names, part_of


def make_trainable(
    loaded: Loaded, rates: dict[str, float], adapter: dict[str, Any]
) -> dict[str, list[nn.Parameter]]:
    """Freezes and unfreezes parts, and wraps the language part in LoRA when the recipe asks for it.

    Args:
        loaded: The model; ``loaded.model`` becomes a ``PeftModel`` when LoRA is applied. An adapter that it
            has already is trained on by LoRA, and merged into the weights before anything else.
        rates: Learning rate of ``vision``, ``projector`` and ``language``; 0 freezes the part.
        adapter: ``{"kind": "full"}`` or ``{"kind": "lora", "rank", "alpha", "dropout", "targets"}``.

    Returns:
        The trainable parameters of every part with a learning rate above 0.

    Raises:
        ModelError: Nothing is left to train, or the adapter fits no layer.
    """
    family = loaded.model_type
    lora = adapter["kind"] == "lora" and rates.get("language", 0) > 0
    if lora and hasattr(loaded.model, "peft_config"):
        _go_on_with_lora(loaded, rates, adapter)
    elif lora:
        _wrap_lora(loaded, rates, adapter)
    else:
        if hasattr(loaded.model, "peft_config"):
            loaded.model = loaded.model.merge_and_unload()
        for name, parameter in loaded.model.named_parameters():
            parameter.requires_grad_(rates.get(part_of(name, family), 0) > 0)
    _freeze_unused_vision(loaded)
    groups: dict[str, list[nn.Parameter]] = {part: [] for part in PARTS}
    for name, parameter in loaded.model.named_parameters():
        if parameter.requires_grad:
            groups[part_of(name, family)].append(parameter)
    groups = {part: parameters for part, parameters in groups.items() if parameters}
    if not groups:
        raise ModelError(
            "every part is frozen: give train.vision, projector or language a learning rate above 0"
        )
    return groups


def _wrap_lora(loaded: Loaded, rates: dict[str, float], adapter: dict[str, Any]) -> None:
    from peft import LoraConfig, get_peft_model

    model, family = loaded.base_model, loaded.model_type
    modules = [name for name, module in model.named_modules() if next(module.parameters(), None) is not None]
    whole = sorted({_top_module(name, family) for name in modules if part_of(name, family) == "projector"})
    targets = linear_names(model, family, "language", adapter.get("targets") or [])
    if rates.get("vision", 0) > 0:
        targets += linear_names(model, family, "vision", [])
    config = LoraConfig(
        r=adapter["rank"],
        lora_alpha=adapter["alpha"],
        lora_dropout=adapter["dropout"],
        target_modules=targets,
        modules_to_save=whole if rates.get("projector", 0) > 0 else None,
        task_type="CAUSAL_LM",
    )
    loaded.model = get_peft_model(model, config)


def _go_on_with_lora(loaded: Loaded, rates: dict[str, float], adapter: dict[str, Any]) -> None:
    """Unfreezes the adapter that the checkpoint came with: one on top of it could not be saved alone."""
    config = loaded.model.peft_config["default"]
    if config.r != adapter["rank"]:
        raise ModelError(
            f"the checkpoint's adapter has rank {config.r}, the recipe wants {adapter['rank']}; use the same"
        )
    for name, parameter in loaded.model.named_parameters():
        adapted = "lora_" in name or ".modules_to_save." in name
        parameter.requires_grad_(adapted and rates.get(part_of(name, loaded.model_type), 0) > 0)


def _top_module(name: str, family: str) -> str:
    """Gives the last name of the outermost module that is wholly projector, as modules_to_save matches it."""
    pieces = name.split(".")
    for length in range(1, len(pieces)):
        if part_of(".".join(pieces[:length]), family) == "projector":
            return pieces[length - 1]
    return pieces[-1]


def _freeze_unused_vision(loaded: Loaded) -> None:
    """Freezes vision layers above the one whose features are used: no gradient reaches them."""
    model = loaded.base_model
    layer = getattr(model.config, "vision_feature_layer", None)
    tower = getattr(getattr(model, "model", model), "vision_tower", None)
    if tower is None or not isinstance(layer, int):
        return
    encoder = getattr(tower, "encoder", getattr(getattr(tower, "vision_model", None), "encoder", None))
    blocks = list(getattr(encoder, "layers", []))
    # hidden_states has the embeddings first, so [k] is the output of the first k blocks and [-1] of all
    used = layer if layer >= 0 else len(blocks) + layer + 1
    for block in blocks[used:]:
        block.requires_grad_(False)
    for name, parameter in tower.named_parameters():
        if "post_layernorm" in name:
            parameter.requires_grad_(False)
