"""Freezes, unfreezes and wraps the parts of a model, and does what a kind of adapter needs while it learns."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...cards.adapters import refusal
from ...errors import ModelError
from ..load import Loaded
from ..parts import PARTS, part_of, top_modules, unused_vision
from . import prompts
from .wrap import kind_of, wrap

ALLOCATION = ("ipt", "exp_avg_ipt", "exp_avg_unc")


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
    if adapted and kind_of(loaded):
        _go_on(loaded, rates, adapter)
    elif adapted and adapter["kind"] == "llama_adapter":
        prompts.attach(
            loaded.model, adapter["prompt_tokens"], adapter["prompt_layers"], _whole_parts(loaded, rates)
        )
        prompts.freeze(loaded.model)
    elif adapted:
        wrap(loaded, rates, adapter)
    else:
        if kind_of(loaded):
            from ..merge import merge

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


def after_step(model: Any, step: int, total: int) -> None:
    """Lets AdaLoRA shift its budget of ranks; call after the optimiser's step, before gradients are cleared.

    Args:
        model: ``Loaded.model``.
        step: Steps done, the last one included.
        total: Steps of the stage.
    """
    if (allocator := _allocator(model)) is None or total < 2:
        return
    config = allocator.peft_config
    # the shares of the AdaLoRA paper's smaller tasks: a tenth with all ranks, the last fifth with the kept ones
    config.total_step, config.tinit, config.tfinal = total, total // 10, total // 5
    config.deltaT = max(1, total // 100)
    for name, parameter in model.named_parameters():
        if "lora_" in name and parameter.grad is None:  # vision, in a batch without pictures
            parameter.grad = torch.zeros_like(parameter)
    model.base_model.update_and_allocate(step)


def regulariser(model: Any) -> torch.Tensor | None:
    """Gives AdaLoRA's penalty on factors that are not orthogonal (float32 scalar), None for other kinds."""
    if _allocator(model) is None:
        return None
    distances = []
    for name, factor in model.named_parameters():
        if "lora_A." in name or "lora_B." in name:
            wide = factor if "lora_A." in name else factor.T
            gram = (wide @ wide.T).float()
            distances.append(torch.linalg.norm(gram - torch.eye(len(gram), device=gram.device)))
    config = next(iter(model.peft_config.values()))
    return config.orth_reg_weight * torch.stack(distances).mean()


def allocation(model: Any) -> dict[str, Any]:
    """Gives what AdaLoRA remembers between steps, for a training checkpoint; empty for other kinds."""
    if (allocator := _allocator(model)) is None:
        return {}
    scores = {key: dict(getattr(allocator, key)) for key in ALLOCATION}
    return {**scores, "rank_pattern": allocator.peft_config.rank_pattern}


def restore_allocation(model: Any, state: dict[str, Any]) -> None:
    """Takes back what ``allocation`` gave."""
    if not state or (allocator := _allocator(model)) is None:
        return
    device = next(model.parameters()).device
    for key in ALLOCATION:
        setattr(allocator, key, {name: score.to(device) for name, score in state[key].items()})
    allocator.peft_config.rank_pattern = state["rank_pattern"]


def _allocator(model: Any) -> Any:
    """Gives AdaLoRA's budget; a checkpoint that is trained on has its ranks already, and no budget."""
    return getattr(getattr(model, "base_model", None), "rankallocator", None)


def _whole_parts(loaded: Loaded, rates: dict[str, float]) -> list[str]:
    return (
        top_modules(loaded.base_model, loaded.model_type, "projector")
        if rates.get("projector", 0) > 0
        else []
    )


def _go_on(loaded: Loaded, rates: dict[str, float], adapter: dict[str, Any]) -> None:
    """Unfreezes the adapter that the checkpoint came with: one on top of it could not be saved alone."""
    found, wanted = kind_of(loaded), adapter["kind"]
    # pissa is saved as the low-rank difference that it made, which is an ordinary adapter of twice the rank
    if found != wanted and not (wanted == "pissa" and found == "lora"):
        raise ModelError(
            f"the checkpoint's adapter is of kind {found}, the recipe wants {wanted}; use the same, "
            "or export the checkpoint, which merges it"
        )
    if found == "llama_adapter":
        prompts.unfreeze(loaded.model)
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
