"""Training checkpoints that are whole or absent: written aside, fsynced, described by a manifest, renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

MANIFEST = "manifest.json"
STATE = "state.pt"


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Writes ``step-N`` and drops older ones.

    Args:
        folder: The checkpoints folder of a stage.
        step: Optimiser steps done.
        state: Tensors, numbers and containers of them (readable with ``weights_only=True``).
    """
    target, partial = folder / f"step-{step:08d}", folder / f"step-{step:08d}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with open(partial / STATE, "wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    with open(partial / MANIFEST, "w") as stream:
        json.dump({"step": step, "sha256": {STATE: _sha256(partial / STATE)}}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
    _sync_folder(folder)
    for older in folder.glob("step-*"):
        if older.name != target.name:
            shutil.rmtree(older, ignore_errors=True)
    return target


def latest_checkpoint(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Gives the step and state of the newest whole checkpoint, or None. A damaged one is passed over."""
    for path in sorted(folder.glob("step-????????"), reverse=True):
        try:
            manifest = json.loads((path / MANIFEST).read_text())
            if manifest["sha256"][STATE] != _sha256(path / STATE):
                continue
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return manifest["step"], torch.load(path / STATE, map_location="cpu", weights_only=True)
    return None


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
