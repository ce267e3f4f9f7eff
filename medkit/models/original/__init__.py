"""Checkpoints in the layout of the original LLaVA and LLaVA-Med code: read, and written again."""
