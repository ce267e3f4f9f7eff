"""Export: one folder that transformers, vLLM and SGLang load, with a contract, a canary and a model card.

Nothing leaves that has not been read back: the written folder is loaded fresh and must give the answers that
the weights gave in memory.
"""

from __future__ import annotations

import gc
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import ModelError
from .canary import FILE_NAME as CANARY
from .canary import TOLERANCE, check_canary, make_canary, noise_between, read_canary, write_canary
from .contract import template_hash, write_contract
from .load import Loaded, load_model
from .merge import merge
from .model_card import licences, model_card, read_story
from .write import write_checkpoint

DTYPES = ("bfloat16", "float16", "float32")
LAYOUTS = ("hf", "llava")
MERGED = 1e-3  # nats that merging an adapter may change in float32: another order of the same sums
WRITTEN = 1e-3  # the same for reading back what was written, in any precision: nothing was computed between
MOST_NOISE = 0.5  # nats; rounding that changes more is no rounding any more


def export(source: Path, out: Path, *, layout: str = "hf", dtype: str = "bfloat16") -> dict[str, Any]:
    """Writes a checkpoint as others load it: adapter merged, 16 bits, canary and model card beside it.

    Args:
        source: A run folder (its final model), a step's folder of one, a model folder or an adapter folder.
        out: The bundle's folder; an earlier export there is replaced, nothing else is.
        layout: ``hf``, or ``llava`` for the layout of the original LLaVA code.
        dtype: ``bfloat16``, ``float16`` or ``float32``.

    Returns:
        ``out``, ``source``, ``layout``, ``dtype``, ``merged`` (whether an adapter was), ``parameters``,
        ``bytes``, ``tolerance`` of the canary and ``noise`` of the rounding (both nats).

    Raises:
        ModelError: The source is no checkpoint, its adapter can't be merged, or the written folder gives other
            answers than the source; then nothing is left at ``out``.
    """
    if layout not in LAYOUTS or dtype not in DTYPES:
        raise ModelError(
            f"export knows the layouts {', '.join(LAYOUTS)} and the types {', '.join(DTYPES)}, "
            f"not {layout} in {dtype}"
        )
    folder = find_model(source)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / CANARY).is_file())):
        raise ModelError(f"{out}: is there already and is no export; name another folder with --out")
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        told = _write(folder, source, partial, {"name": out.name, "dtype": dtype, "layout": layout})
        if layout == "llava":
            _as_original(partial)
        told["bytes"] = _size(partial)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, ModelError):
            raise ModelError(f"{source}: not exported: {error}") from error
        raise
    shutil.rmtree(out, ignore_errors=True)
    os.replace(partial, out)
    return {"out": str(out), "source": str(folder), **told}


def check_bundle(folder: Path, device: str = "cpu") -> dict[str, Any]:
    """Loads a bundle fresh and asks its canary; what a server does before it answers anyone.

    Args:
        folder: The bundle.
        device: Where to load it.

    Returns:
        The canary.

    Raises:
        ModelError: The bundle gives other answers than when it was exported; says what differs.
    """
    canary = read_canary(folder)
    loaded = load_model(folder, device, getattr(torch, canary["dtype"]))
    try:
        check_canary(loaded, canary)
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from error
    return canary


def find_model(source: Path) -> Path:
    """Gives the model folder that a run folder, a step's folder or a model folder stands for.

    Raises:
        ModelError: There is none.
    """
    for folder in (source, source / "model"):
        if any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
            return folder
    if (source / "resolved.json").is_file():
        raise ModelError(f"{source}: the run has no model yet; `medkit run` it to its end")
    raise ModelError(
        f"{source}: no checkpoint is there; give a run folder, a model folder or an adapter folder"
    )


def _write(folder: Path, source: Path, partial: Path, wanted: dict[str, str]) -> dict[str, Any]:
    """Writes the Hugging Face form into ``partial`` and checks it against the source."""
    dtype = wanted["dtype"]
    loaded = load_model(folder, "cpu", torch.float32)
    exact = make_canary(loaded)
    source_model, loaded = loaded, merge(loaded)
    adapted = loaded is not source_model
    if adapted:
        _compare(loaded, exact, MERGED, "the merged weights answer otherwise than the adapter on its base")
    _round(loaded, getattr(torch, dtype))
    canary = make_canary(loaded)
    noise = noise_between(exact, canary)
    if noise > MOST_NOISE:
        raise ModelError(
            f"rounding to {dtype} changes log-probabilities by {noise:.2f} nats; export with --dtype float32"
        )
    if dtype != "float32":
        # a server's kernels round in another order: three times what rounding itself does is not yet wrong
        canary["tolerance"] = round(max(canary["tolerance"], 3 * noise), 6)
    story = read_story(source, folder)
    licence = {**loaded.contract.licence, **licences(story, loaded.contract)}
    contract = replace(loaded.contract, licence=licence, template_sha256=template_hash(loaded.processor))
    parameters = sum(parameter.numel() for parameter in loaded.base_model.parameters())
    write_checkpoint(loaded, partial, dtype)
    write_contract(partial, contract)
    write_canary(partial, canary)
    told = {
        **wanted,
        "merged": adapted,
        "parameters": parameters,
        "noise": round(noise, 6),
        "tolerance": canary["tolerance"],
    }
    (partial / "README.md").write_text(model_card(story, contract, told), encoding="utf-8")
    del loaded, source_model
    gc.collect()
    _read_back(partial, canary, "the written folder answers otherwise than the weights did in memory")
    return told


def _read_back(folder: Path, canary: dict[str, Any], meaning: str) -> None:
    """Loads a written folder fresh and asks its canary."""
    dtype = canary["dtype"]
    strict = TOLERANCE["float32"] if dtype == "float32" else WRITTEN
    _compare(load_model(folder, "cpu", getattr(torch, dtype)), canary, strict, meaning)


def _compare(loaded: Loaded, canary: dict[str, Any], tolerance: float, meaning: str) -> None:
    try:
        check_canary(loaded, canary, tolerance)
    except ModelError as error:
        raise ModelError(f"{meaning}: {error}") from error


def _round(loaded: Loaded, dtype: torch.dtype) -> None:
    """Casts the parameters as loading in that type would; buffers (rotary frequencies) stay exact."""
    for parameter in loaded.base_model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def _as_original(partial: Path) -> None:
    """Turns the written folder into the original layout, contract, canary and card beside it, and reads it back."""
    from .original.convert import import_original
    from .original.write import export_original

    plain, back = (partial.with_name(f"{partial.name}.{name}") for name in ("hf", "back"))
    for path in (plain, back):
        shutil.rmtree(path, ignore_errors=True)
    partial.rename(plain)
    try:
        export_original(plain, partial)
        for name in ("medkit.json", CANARY, "README.md"):
            if not (partial / name).exists():
                shutil.copy2(plain / name, partial / name)
        import_original(partial, back)
        _read_back(back, read_canary(plain), "the original layout, imported again, answers otherwise")
    finally:
        for path in (plain, back):
            shutil.rmtree(path, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def summary_lines(told: dict[str, Any]) -> list[str]:
    """Says what an export did, for the command line."""
    merged = "adapter merged, " if told["merged"] else ""
    return [
        f"{told['out']}: {merged}{told['parameters']:,} parameters in {told['dtype']}, "
        f"{told['bytes'] / 1e6:,.1f} MB, layout {told['layout']}",
        f"The canary's answers are the source's (rounding changed {told['noise']:.2g} nats, "
        f"tolerance {told['tolerance']:.2g}); canary.json holds them for serving.",
    ]
