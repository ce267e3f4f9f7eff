"""What AdaLoRA needs of the training loop: its penalty, its budget of ranks, and their place in checkpoints."""

from __future__ import annotations

from typing import Any

import torch

ALLOCATION = ("ipt", "exp_avg_ipt", "exp_avg_unc")


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
