"""Adapters: what is trained of a model. The projector is always trained whole, beside any adapter."""

from .train import after_step, allocation, make_trainable, regulariser, restore_allocation

__all__ = ["after_step", "allocation", "make_trainable", "regulariser", "restore_allocation"]
