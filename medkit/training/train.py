"""The train step: a start checkpoint and a dataset folder become a model folder."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from ..errors import TrainingError
from ..models.adapters import make_trainable
from ..models.load import Loaded, load_model, pick_device, pick_precision, save_model
from ..models.renders import merge_renders, renders_of
from .encode import Limit
from .examples import ExampleSet, gather_samples, part_of_pass, take_apart, write_ledger
from .launch import launch
from .loop import VALIDATION_LIMIT, LoopSettings, Progress, run_loop
from .objectives import AnswerObjective, SeeObjective, names_places, see_heads
from .optimizers import Optimizers

HEAD_RATE = 15.0  # of the tower's rate: the heads start from nothing and the tower does not
LOOP_KEYS = (
    "epochs", "batch", "micro_batch", "warmup", "clip", "schedule", "validate_every", "checkpoint_every",
    "patience",
)  # fmt: skip


def train(settings: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Runs one stage.

    Args:
        settings: The resolved stage card, with ``stage``, ``adapter``, ``hardware`` and ``seed``.
        inputs: ``start`` (model folder), ``data`` (dataset folder with text), optional ``replay`` (the
            same of the general domain) and ``records`` (dataset folder with facts, for objective ``see``).
        out: Stage folder.

    Returns:
        Summary: steps, samples seen, supervised tokens, seconds, losses, trainable parameters by part.

    Raises:
        TrainingError: Nothing to train on, or a loss that is not finite.
        ModelError: The start checkpoint does not load or the adapter does not fit.
    """
    if settings["hardware"].get("processes", 1) > 1 and "LOCAL_RANK" not in os.environ:
        return launch(settings, inputs, out)
    set_threads(settings["hardware"].get("threads", "auto"))
    accelerator = make_accelerator(settings, out)
    torch.manual_seed(settings["seed"])
    compute = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    quantize = settings["adapter"].get("quantize", "none")
    loaded = load_model(inputs["start"], str(accelerator.device), quantize=quantize, compute=compute)
    if accelerator.device.type == "cpu":
        # torch's fused attention has a slow backward on CPU: with it the step took 1.55 times as long
        # (benchmarks/train_step.py)
        loaded.base_model.set_attn_implementation("eager")
    rates = {part: float(rate) for part, rate in settings["train"].items()}
    if settings["objective"] == "see":
        rates = {"vision": rates.get("vision", 0.0)}
    groups = make_trainable(loaded, rates, settings["adapter"])
    if settings.get("gradient_checkpointing"):
        loaded.base_model.gradient_checkpointing_enable({"use_reentrant": False})
    objective, validation, ledger, renders = _objectives(settings, inputs, loaded)
    objective.to(accelerator.device)
    if accelerator.ddp_handler is not None:
        # a tower's last layers get no gradient, and nothing of it does in a batch without pictures
        without = any(not example.images for example in objective.examples.examples)
        accelerator.ddp_handler.find_unused_parameters = rates.get("vision", 0.0) > 0 or without
    if settings["objective"] == "see":
        heads = [*objective.heads.parameters(), *objective.wholes.parameters()]
        groups, rates = {**groups, "heads": heads}, {**rates, "heads": HEAD_RATE * rates["vision"]}
    names = {parameter: name for name, parameter in objective.named_parameters()}
    kind = settings.get("optimizer", "adamw")
    optimizers = Optimizers(groups, rates, settings["weight_decay"], kind, names)
    stepping = {key: settings[key] for key in LOOP_KEYS if key in settings}
    # a part of a pass is a whole pass over the part that part_of_pass chose
    stepping["epochs"] = max(1.0, settings["epochs"])
    loop = LoopSettings(seed=settings["seed"], **stepping)
    progress = run_loop(accelerator, objective, validation, optimizers, loop, out)
    trainable = {part: sum(p.numel() for p in parameters) for part, parameters in groups.items()}
    result = _result(progress, objective, validation, trainable, ledger)
    if accelerator.is_main_process:
        write_ledger(ledger, out / "ledger.jsonl")
        provenance = {
            **loaded.contract.provenance,
            f"stage:{settings['stage']}": _provenance(settings, result),
        }
        renders = merge_renders(loaded.contract.render, renders)
        contract = replace(loaded.contract, provenance=provenance, render=renders)
        save_model(loaded, out / "model", contract, _disk_dtype(settings))
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
    accelerator.wait_for_everyone()
    for tracker in accelerator.trackers:
        tracker.finish()
    return result


def make_accelerator(settings: dict[str, Any], out: Path) -> Accelerator:
    """Makes the accelerator that the recipe's hardware asks for.

    Raises:
        TrainingError: accelerate fell back to another kind of process group than the recipe names.
    """
    hardware = settings["hardware"]
    device = pick_device(hardware.get("device", "auto"))
    precision = pick_precision(hardware.get("precision", "auto"), device)
    # accelerate keeps its first settings for the process; a stage has its own
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        mixed_precision="bf16" if precision == "bf16" else "no",
        cpu=device.type == "cpu",
        log_with=settings.get("trackers") or None,
        project_dir=str(out),
        # few large buckets: small models wait for the calls, not for the bytes
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True, bucket_cap_mb=100)],
    )
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != expected:
        raise TrainingError(
            f"accelerate runs {accelerator.num_processes} of {expected} launched processes; use torchrun"
        )
    if settings.get("trackers"):
        accelerator.init_trackers("medkit", config={"stage": settings["stage"], "seed": settings["seed"]})
    return accelerator


def set_threads(threads: str | int) -> None:
    """Sets torch's threads: the recipe's number, else OMP_NUM_THREADS, else all cores it may use."""
    if threads == "auto":
        if "OMP_NUM_THREADS" in os.environ:
            return
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(int(threads))


def _objectives(
    settings: dict[str, Any], inputs: dict[str, Path], loaded: Loaded
) -> tuple[Any, Any | None, list[dict[str, str]], list[dict[str, Any]]]:
    """Makes the training objective, the validation objective (None without samples), ledger and ways of rendering."""
    see = settings["objective"] == "see"
    own = inputs["records"] if see else inputs["data"]
    folders = [own, *([inputs["replay"]] if "replay" in inputs else [])]
    shares = [settings.get("replay", 0.0)] if "replay" in inputs else []
    seed, kinds = settings["seed"], settings["on"]
    limit = Limit(settings["max_tokens"], settings.get("too_long") == "drop_turns")
    augment = list(settings.get("augment") or [])
    datasets, samples = gather_samples(folders, kinds, "train", shares, seed)
    samples = part_of_pass(samples, settings["epochs"], seed, settings.get("pack", False))
    renders = renders_of((sample.source, sample.facts) for _, sample in samples)
    held_out = gather_samples(folders[:1], kinds, "valid", [], seed)[1][:VALIDATION_LIMIT]
    if settings.get("turns") == "apart":
        samples, held_out = take_apart(samples), take_apart(held_out)
    packed = settings.get("pack", False)
    examples = ExampleSet(loaded, datasets, samples, limit, augment, seed, wordless=see, packed=packed)
    valid = None
    if held_out:
        valid = ExampleSet(loaded, datasets, held_out, limit, [], seed, wordless=see, packed=packed)
    ledger = [row for part in (examples, valid) if part for row in part.dropped + part.shortened]
    if not see:
        check = AnswerObjective(loaded, valid) if valid else None
        return AnswerObjective(loaded, examples), check, ledger, renders
    heads = see_heads(examples.kept, settings.get("places", False))
    if "shift" in augment and any(names_places(sample.facts) for sample in examples.kept):
        raise TrainingError(
            "objective see can't augment by shift: objects have attributes that name their place, "
            "which would no longer be true"
        )
    objective = SeeObjective(loaded, examples, heads)
    check = None
    if valid:
        check = SeeObjective(loaded, valid, heads)
        check.heads, check.wholes = objective.heads, objective.wholes
    return objective, check, ledger, renders


def _result(
    progress: Progress,
    objective: Any,
    validation: Any | None,
    trainable: dict[str, int],
    ledger: list[dict[str, str]],
) -> dict[str, Any]:
    return {
        "model": "model",
        "steps": progress.step,
        "samples": int(objective.counts.sum()),
        "replay_samples": sum(one.count for one in objective.examples.examples if one.dataset > 0),
        "samples_seen": progress.samples,
        "supervised_tokens": progress.tokens,
        "seconds": round(progress.seconds, 1),
        "loss_first": progress.losses[0],
        "loss_last": progress.losses[-1],
        "valid_loss": progress.valid_loss,
        "valid_samples": int(validation.counts.sum()) if validation else 0,
        "trainable": trainable,
        "dropped": sum(row["fate"] == "rejected" for row in ledger),
        "shortened": sum(row["fate"] == "shortened" for row in ledger),
    }


def _provenance(settings: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    kept = {
        key: settings[key]
        for key in ("epochs", "batch", "train", "adapter", "seed", "objective", "on")
        if key in settings
    }
    return {**kept, "samples_seen": result["samples_seen"]}


def _disk_dtype(settings: dict[str, Any]) -> torch.dtype | None:
    named = settings.get("save_dtype")
    return getattr(torch, named) if named else None
