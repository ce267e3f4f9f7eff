"""Checkpoints: load, save, parts, adapters, the contract, and the builder of tiny models."""
