"""Optimisers with a learning rate per part, and the schedule they share."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..cards.adapters import MISSING, installed
from ..errors import ModelError

BETAS = (0.9, 0.98)
MUON_RATIO = (
    20.0  # Muon's orthogonal steps have unit size: its rate is this many times AdamW's for the same part
)


class Optimizers:
    """One or two torch optimisers driven as one.

    Args:
        groups: Trainable parameters by part.
        rates: Learning rate by part.
        weight_decay: Decoupled; not applied to vectors (norms, biases, the scales of IA3).
        kind: ``adamw``; ``muon``: Muon for the matrices inside transformer blocks, AdamW for the rest;
            ``adamw8bit``, ``paged_adamw8bit`` or ``lion8bit``: bitsandbytes keeps their state in 8 bits.
        names: Parameter to full name, to tell blocks from embeddings.

    Attributes:
        peak: Highest rate of a part.
    """

    def __init__(
        self, groups: dict[str, list[nn.Parameter]], rates: dict[str, float], weight_decay: float, kind: str,
        names: dict[nn.Parameter, str],
    ):  # fmt: skip
        adam: list[dict[str, Any]] = []
        muon: list[dict[str, Any]] = []
        for part, parameters in groups.items():
            hidden = [p for p in parameters if kind == "muon" and _is_matrix(p) and _in_block(names[p])]
            chosen = {id(p) for p in hidden}
            rest = [p for p in parameters if id(p) not in chosen]
            rate = rates[part]
            for decay, members in (
                (weight_decay, [p for p in rest if p.ndim > 1 and not _is_scale(p)]),
                (0.0, [p for p in rest if p.ndim <= 1 or _is_scale(p)]),
            ):
                if members:
                    adam.append(
                        {"params": members, "lr": rate, "peak": rate, "part": part, "weight_decay": decay}
                    )
            if hidden:
                peak = rate * MUON_RATIO
                muon.append(
                    {"params": hidden, "lr": peak, "peak": peak, "part": part, "weight_decay": weight_decay}
                )
        self.peak = max(rates[part] for part in groups)
        self.members: list[torch.optim.Optimizer] = []
        if adam:
            self.members.append(_adam(kind, adam))
        if muon:
            self.members.append(torch.optim.Muon(muon, adjust_lr_fn="original"))

    def scale(self, factor: float) -> None:
        """Sets every group's learning rate to its peak times ``factor``."""
        for member in self.members:
            for group in member.param_groups:
                group["lr"] = group["peak"] * factor

    def step(self, before_clearing: Callable[[], None] | None = None) -> None:
        """Takes a step and clears the gradients, after ``before_clearing`` has seen them."""
        for member in self.members:
            member.step()
        if before_clearing:
            before_clearing()
        for member in self.members:
            member.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        """Gives the state of every member."""
        return [member.state_dict() for member in self.members]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Takes back what ``state_dict`` gave."""
        for member, state in zip(self.members, states, strict=True):
            member.load_state_dict(state)


def schedule(step: int, total: int, warmup: float, shape: str) -> float:
    """Gives the share of the peak learning rate at a step.

    Args:
        step: 0-based optimiser step.
        total: Steps of the stage.
        warmup: Share of steps with linear warm-up.
        shape: ``cosine`` (to zero), ``linear`` (to zero) or ``constant``.
    """
    rising = max(1, math.ceil(total * warmup))
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, total - rising)
    if shape == "constant":
        return 1.0
    return 1.0 - done if shape == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def _adam(kind: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if kind in ("adamw", "muon"):
        return torch.optim.AdamW(groups, betas=BETAS, fused=True)
    if not installed("bitsandbytes"):
        raise ModelError(f"optimizer {kind} {MISSING}")
    optim: Any = importlib.import_module("bitsandbytes.optim")
    made = {"adamw8bit": optim.AdamW8bit, "paged_adamw8bit": optim.PagedAdamW8bit, "lion8bit": optim.Lion8bit}
    return made[kind](groups, betas=BETAS)


def _is_matrix(parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and not _is_scale(parameter)


def _is_scale(parameter: nn.Parameter) -> bool:
    """Says whether a parameter is one number a channel, written as a matrix of one row or column."""
    return parameter.ndim == 2 and min(parameter.shape) == 1


def _in_block(name: str) -> bool:
    return re.search(r"\.(layers|blocks)\.\d+\.", name) is not None
