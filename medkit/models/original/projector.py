"""Projectors: the original's in the two linear layers of Hugging Face's LLaVA, bit for bit."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from ...errors import ModelError
from .detect import Layout
from .names import PROJECTOR, kind_of
from .read import Weights

FIRST, SECOND = "multi_modal_projector.linear_1", "multi_modal_projector.linear_2"


@dataclass(frozen=True)
class Projector:
    """A projector in Hugging Face's form.

    Attributes:
        name: ``linear`` or ``mlp2x_gelu``.
        activation: ``projector_hidden_act``.
        tensors: Under classic names.
        note: For people, or "".
    """

    name: str
    activation: str
    tensors: dict[str, torch.Tensor]
    note: str = ""


def read_projector(layout: Layout, weights: Weights) -> Projector:
    """Reads a projector of one linear layer, or of two with a GELU between.

    One linear layer is followed by an identity: x W + b is passed on unchanged, to the bit.

    Raises:
        ModelError: It is missing, or of a kind that has no exact form.
    """
    named = str(layout.config.get("mm_projector_type") or "linear")
    layers = {name.removeprefix(PROJECTOR): weights[name] for name in weights if kind_of(name) == "projector"}
    if not layers:
        raise ModelError(
            f"{layout.folder}: the projector is missing; copy mm_projector.bin or non_lora_trainables.bin "
            "into the folder (without it a projector would be random numbers)"
        )
    depth = re.fullmatch(r"mlp(\d+)x_gelu", named)
    if named != "linear" and (depth is None or depth[1] not in ("1", "2")):
        raise ModelError(
            f"{layout.folder}: mm_projector_type {named!r} has no exact form in Hugging Face's LLaVA; "
            "linear and mlp2x_gelu have"
        )
    if depth and depth[1] == "2":
        _refuse_unless(layout, named, set(layers), {"0.weight", "0.bias", "2.weight", "2.bias"})
        tensors = {
            f"{FIRST if name[0] == '0' else SECOND}{name[1:]}": tensor for name, tensor in layers.items()
        }
        return Projector("mlp2x_gelu", "gelu", tensors)
    layers = {name.removeprefix("0."): tensor for name, tensor in layers.items()}
    _refuse_unless(layout, named, set(layers), {"weight", "bias"})
    weight, bias = layers["weight"], layers["bias"]
    tensors = {
        f"{FIRST}.weight": weight,
        f"{FIRST}.bias": bias,
        f"{SECOND}.weight": torch.eye(weight.shape[0], dtype=weight.dtype),
        f"{SECOND}.bias": torch.zeros_like(bias),
    }
    return Projector(
        "linear", "linear", tensors, "the linear projector is followed by an identity: same numbers"
    )


def _refuse_unless(layout: Layout, named: str, found: set[str], wanted: set[str]) -> None:
    if found != wanted:
        raise ModelError(
            f"{layout.folder}: a projector of type {named} has {', '.join(sorted(wanted))}, this one "
            f"{', '.join(sorted(found))}; mend mm_projector_type in config.json"
        )
