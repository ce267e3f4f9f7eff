"""Merges an adapter into the weights of its base."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .llama_adapter import settings_of
from .load import Loaded, load_model, save_model
from .quantize import is_quantized


def merge(loaded: Loaded) -> Loaded:
    """Gives a model without adapter that answers as the adapted one does, in 16 or 32 bits.

    A quantised base is never merged into, for that loses most of what the adapter learnt: the base is loaded
    again in full precision, and what was trained against the quantised weights is added to the true ones.

    Args:
        loaded: Any model; one without an adapter is given back. Its adapter is taken off in place unless the base
            is quantised.

    Raises:
        ModelError: The adapter can't be written as a change of weights, or a quantised model has no adapter.
    """
    if settings_of(loaded.model):
        raise ModelError(
            f"{loaded.folder}: a llama_adapter can't be merged: its prompts are attended to, which no change of "
            "weights can do; serve base and adapter together, or train kind: lora"
        )
    if not hasattr(loaded.model, "peft_config"):
        if is_quantized(loaded.model):
            raise ModelError(
                f"{loaded.folder}: the model is quantised and has no adapter; load it without quantize"
            )
        return loaded
    if is_quantized(loaded.base_model):
        device = str(loaded.base_model.device)
        with tempfile.TemporaryDirectory(prefix="merge-") as folder:
            save_model(loaded, Path(folder) / "adapter", loaded.contract)
            return merge(load_model(Path(folder) / "adapter", device))
    _put_back_whole(loaded.model)
    return replace(loaded, model=loaded.model.merge_and_unload())


def _put_back_whole(model: Any) -> None:
    """Puts modules that were trained whole in the place of PEFT's wrappers, which not every kind of it unwraps."""
    from peft.utils import ModulesToSaveWrapper

    base = model.get_base_model()
    for name, module in list(base.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            parent, _, last = name.rpartition(".")
            base.get_submodule(parent).register_module(
                last, module.modules_to_save[module.active_adapters[0]]
            )
