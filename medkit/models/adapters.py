"""Adapters: what is trained of a model. The projector is always trained whole, beside any adapter."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..cards.adapters import refusal
from ..errors import ModelError
from . import llama_adapter
from .adapter_folders import kind_of
from .adapter_kinds import wrap
from .load import Loaded
from .merge import merge
from .parts import PARTS, part_of, top_modules, unused_vision


def make_trainable(
    loaded: Loaded, rates: dict[str, float], adapter: dict[str, Any]
) -> dict[str, list[nn.Parameter]]:
    """Freezes and unfreezes parts, and gives the towers the adapter that the recipe asks for.

    Args:
        loaded: The model; ``loaded.model`` becomes a ``PeftModel``, or keeps its class with ``llama_adapter``.
            An adapter that it has already is trained on by the same kind, and merged into the weights before
            training them as a whole.
        rates: Learning rate of ``vision``, ``projector`` and ``language``; 0 freezes the part.
        adapter: The values of the recipe's adapter card; ``{"kind": "full"}`` trains the weights themselves.

    Returns:
        The trainable parameters of every part with a learning rate above 0.

    Raises:
        ModelError: Nothing is left to train, or the adapter does not fit the model.
    """
    family = loaded.model_type
    _, problem, way_out = refusal(adapter, rates, family)
    if problem:
        raise ModelError(f"{problem}; {way_out}")
    adapted = adapter["kind"] != "full" and max(rates.get("vision", 0), rates.get("language", 0)) > 0
    if adapted and kind_of(loaded.model):
        _go_on(loaded, rates, adapter)
    elif adapted and adapter["kind"] == "llama_adapter":
        _attach_prompts(loaded, rates, adapter)
    elif adapted:
        wrap(loaded, rates, adapter)
    else:
        if kind_of(loaded.model):
            loaded.model = merge(loaded).model
        for name, parameter in loaded.model.named_parameters():
            parameter.requires_grad_(rates.get(part_of(name, family), 0) > 0)
    unused = unused_vision(loaded.base_model, family)
    for name, module in loaded.base_model.named_modules():
        if name in unused:
            module.requires_grad_(False)
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


def _attach_prompts(loaded: Loaded, rates: dict[str, float], adapter: dict[str, Any]) -> None:
    whole = (
        top_modules(loaded.base_model, loaded.model_type, "projector") if rates.get("projector", 0) else []
    )
    try:
        llama_adapter.attach(loaded.model, adapter["prompt_tokens"], adapter["prompt_layers"], whole)
    except ValueError as error:
        raise ModelError(
            f"llama_adapter does not fit: {error}; change prompt_layers or use kind: lora"
        ) from error
    llama_adapter.freeze(loaded.model)


def _go_on(loaded: Loaded, rates: dict[str, float], adapter: dict[str, Any]) -> None:
    """Unfreezes the adapter that the checkpoint came with: one on top of it could not be saved alone."""
    found, wanted = kind_of(loaded.model), adapter["kind"]
    # pissa is saved as the low-rank difference that it made, which is an ordinary adapter of twice the rank
    if found != wanted and not (wanted == "pissa" and found == "lora"):
        raise ModelError(
            f"the checkpoint's adapter is of kind {found}, the recipe wants {wanted}; use the same, "
            "or export the checkpoint, which merges it"
        )
    if found == "llama_adapter":
        tokens = llama_adapter.settings_of(loaded.model)["adapter_len"]
        if tokens != adapter["prompt_tokens"]:
            raise ModelError(
                f"the checkpoint's adapter has {tokens} prompt tokens, the recipe wants "
                f"{adapter['prompt_tokens']}; use the same"
            )
        llama_adapter.freeze(loaded.model)
    else:
        config = loaded.model.peft_config["default"]
        rank = {"adalora": "target_r", "ia3": ""}.get(found, "r")
        wide = adapter.get("rank", 0) * (2 if wanted == "pissa" else 1)
        if rank and getattr(config, rank) != wide:
            raise ModelError(
                f"the checkpoint's adapter has rank {getattr(config, rank)}, the recipe wants {wide}; use the same"
            )
        for name, parameter in loaded.model.named_parameters():
            learnt = any(mark in name for mark in ("lora_", "ia3_", ".modules_to_save."))
            parameter.requires_grad_(learnt and parameter.is_floating_point() and "ranknum" not in name)
    learns = set()
    for name, parameter in loaded.model.named_parameters():
        part = part_of(name, loaded.model_type)
        parameter.requires_grad_(parameter.requires_grad and rates.get(part, 0) > 0)
        learns |= {part} if parameter.requires_grad else set()
    if lacking := [part for part in PARTS if rates.get(part, 0) > 0 and part not in learns]:
        raise ModelError(
            f"the checkpoint's adapter has nothing in {lacking[0]} that could learn; set train.{lacking[0]} to 0, "
            "or export the checkpoint, which merges it, and start from that"
        )
