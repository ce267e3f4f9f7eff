"""LLaMA-Adapter: learnt prompts in the upper attention layers, let in through a gate that starts at zero.

Every adapted layer attends from its queries to a few learnt tokens, apart from the text, and adds the result
times a gate (Zhang et al. 2023, "LLaMA-Adapter: Efficient Fine-tuning of Language Models with Zero-init
Attention"). PEFT has it for a few text models; this works for every language model with q_proj, k_proj,
v_proj and o_proj. Names and shapes are PEFT's.

This file imports nothing of medkit: it is copied into every adapter folder, where
``from llama_adapter import load`` gives the adapted model in any environment with transformers.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

CONFIG, WEIGHTS, CODE = "adapter_config.json", "adapter_model.safetensors", "llama_adapter.py"
PREFIX = "base_model.model."  # PEFT's names begin with it
PROMPT, GATE = "adaption_prompt", "adaption_gate"
LAYER = re.compile(r"(?:language_model|text_model)\.(?:.*\.)?layers\.(\d+)\.self_attn$")


def load(folder: str, model: nn.Module | None = None, **options: Any) -> nn.Module:
    """Gives the base model with the adapter of a folder.

    Args:
        folder: Adapter folder.
        model: The base model; loaded from where the folder says when None.
        options: Of ``from_pretrained``.
    """
    settings = json.loads((Path(folder) / CONFIG).read_text())
    if model is None:
        from transformers import AutoModelForImageTextToText

        model = AutoModelForImageTextToText.from_pretrained(settings["base_model_name_or_path"], **options)
    attach(model, settings["adapter_len"], settings["adapter_layers"], settings["whole_modules"])
    state = {name.removeprefix(PREFIX): tensor for name, tensor in load_file(Path(folder) / WEIGHTS).items()}
    own = dict(model.named_parameters())
    if set(state) != set(adapted_names(model)):
        raise ValueError(f"{folder}: {WEIGHTS} does not hold the weights that {CONFIG} names")
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)
    freeze(model)
    for name in adapted_names(model):
        own[name].requires_grad_(False)
    return model


def attach(model: nn.Module, tokens: int, layers: int | None, whole: list[str]) -> None:
    """Gives the uppermost attention layers of a language model their prompts and gates.

    Args:
        model: A transformers model.
        tokens: Prompt tokens of a layer.
        layers: How many layers, from the top; None for all.
        whole: Names of modules that are trained and saved whole beside them.

    Raises:
        ValueError: The model has fewer layers, or attention of another form.
    """
    attentions: list[Any] = [module for name, module in model.named_modules() if LAYER.search(name)]
    layers = layers or len(attentions)
    if not 0 < layers <= len(attentions):
        raise ValueError(f"the language model has {len(attentions)} attention layers, not {layers}")
    for attention in attentions[-layers:]:
        if not all(hasattr(attention, name) for name in ("q_proj", "k_proj", "v_proj", "o_proj", "head_dim")):
            raise ValueError(f"{type(attention).__name__} has no q_proj, k_proj, v_proj and o_proj")
        weight = attention.q_proj.weight
        dtype = weight.dtype if weight.is_floating_point() else torch.float32
        width = attention.q_proj.in_features
        # standard normal, as an embedding: the gate keeps it out at first
        prompt = torch.randn(1, tokens, width, device=weight.device, dtype=dtype)
        attention.register_parameter(PROMPT, nn.Parameter(prompt))
        attention.register_parameter(GATE, nn.Parameter(torch.zeros(1, device=weight.device, dtype=dtype)))
        attention.register_forward_hook(_add_prompt, with_kwargs=True)
    settings: Any = {"adapter_len": tokens, "adapter_layers": layers, "whole_modules": list(whole)}
    model.llama_adapter = settings


def settings_of(model: Any) -> dict[str, Any]:
    """Gives the settings that ``attach`` was called with; empty for a model without prompts."""
    return getattr(model, "llama_adapter", None) or {}


def adapted_names(model: nn.Module) -> list[str]:
    """Names the parameters that belong to the adapter: prompts, gates and modules that are trained whole."""
    whole = tuple(name + "." for name in settings_of(model)["whole_modules"])
    return [
        name
        for name, _ in model.named_parameters()
        if name.endswith((PROMPT, GATE)) or name.startswith(whole)
    ]


def freeze(model: nn.Module) -> None:
    """Leaves nothing but the adapter's parameters to train."""
    learnt = set(adapted_names(model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learnt)


def save(model: Any, folder: Path) -> None:
    """Writes weights, configuration and this file."""
    folder.mkdir(parents=True, exist_ok=True)
    own = dict(model.named_parameters())
    save_file(
        {PREFIX + name: own[name].detach().cpu().contiguous() for name in adapted_names(model)},
        folder / WEIGHTS,
        {"format": "pt"},
    )
    base = str(model.name_or_path)
    settings = {
        "peft_type": "ADAPTION_PROMPT",
        "target_modules": "self_attn",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "base_model_name_or_path": str(Path(base).resolve()) if Path(base).is_dir() else base,
        "loads_with": "from llama_adapter import load",
        **settings_of(model),
    }
    (folder / CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    shutil.copyfile(__file__, folder / CODE)


def _add_prompt(attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """Adds what the queries find in the prompt to an attention layer's output."""
    hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]  # [B, T, D]
    prompt = getattr(attention, PROMPT).to(hidden.dtype)  # [1, P, D]
    width = attention.head_dim
    query = _heads(attention.q_proj(hidden), width, getattr(attention, "q_norm", None))  # [B, H, T, W]
    key = _heads(attention.k_proj(prompt), width, getattr(attention, "k_norm", None))  # [1, K, P, W]
    value = _heads(attention.v_proj(prompt), width, None)
    query = _rotated(query, *kwargs["position_embeddings"])
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = torch.matmul(query, key.to(query.dtype).transpose(2, 3)) * attention.scaling  # [B, H, T, P]
    weights = getattr(attention, GATE) * scores.softmax(dim=-1, dtype=torch.float32)
    found = torch.matmul(weights.to(value.dtype), value).transpose(1, 2).flatten(2)  # [B, T, H * W]
    added = attention.o_proj(found).to(output[0].dtype)
    return (output[0] + added, *output[1:])


def _heads(states: torch.Tensor, width: int, norm: Any) -> torch.Tensor:
    states = states.unflatten(-1, (-1, width))
    return (norm(states) if norm is not None else states).transpose(1, 2)


def _rotated(query: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Turns queries [B, H, T, W] to their positions, as the layer does before it compares them."""
    first, second = query.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (query * cosine.unsqueeze(1) + turned * sine.unsqueeze(1)).to(query.dtype)
