"""Keeps the language model's frozen weights in 4 or 8 bits, through bitsandbytes."""

from __future__ import annotations

import logging
from typing import Any

import torch

from ..cards.adapters import MISSING, installed
from ..errors import ModelError
from .parts import FAMILIES, top_modules


def quantization(name: str, kind: str, compute: torch.dtype) -> Any:
    """Gives the ``quantization_config`` for ``from_pretrained``; vision, projector and output stay as they are.

    Args:
        name: Folder or hub id of the full-precision model.
        kind: ``nf4`` (4-bit normal floats, scales quantised as well) or ``int8``.
        compute: Type that 4-bit weights are unpacked to for a product.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    if not installed("bitsandbytes"):
        raise ModelError(f"quantize: {kind} {MISSING}")
    from transformers import BitsAndBytesConfig

    # it says at every product that float32 is rounded to float16 for it
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    skip = kept_modules(name)
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=skip,
    )


def kept_modules(name: str) -> list[str]:
    """Names the modules that are not quantised, as transformers matches them: from the start of the full name.

    Args:
        name: Folder or hub id of the model.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(name)
    if config.model_type not in FAMILIES:
        return ["lm_head"]
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    parts = [
        module for part in ("vision", "projector") for module in top_modules(model, config.model_type, part)
    ]
    return sorted({*parts, "lm_head"})


def is_quantized(model: Any) -> bool:
    """Says whether a transformers model holds weights in 4 or 8 bits."""
    return getattr(model, "quantization_method", None) is not None


def steady(model: Any) -> None:
    """Keeps 4-bit layers as they are on processors with AVX-512 BF16.

    In evaluation bitsandbytes would repack their weights in place and round their scales, for good: the loss
    after a validation would not be the loss before it. It also refuses layers of some widths.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
