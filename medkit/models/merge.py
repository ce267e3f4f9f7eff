"""Merging an adapter into the weights that it was trained on."""

from __future__ import annotations

from dataclasses import replace

from .load import Loaded


def merge(loaded: Loaded) -> Loaded:
    """Gives the model with its adapter merged into the weights; a model without one is given back.

    Args:
        loaded: A checkpoint, loaded in the precision to merge in.
    """
    if not hasattr(loaded.model, "peft_config"):
        return loaded
    return replace(loaded, model=loaded.model.merge_and_unload())
