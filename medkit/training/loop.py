"""The one training loop: every stage, family and adapter goes through it."""

from __future__ import annotations

import json
import math
import os
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import nn

from ..errors import TrainingError
from ..progress import bar
from .batches import batch_at, prefetch
from .checkpoints import latest_checkpoint, save_checkpoint
from .optimizers import Optimizers, schedule

VALIDATION_LIMIT = 256  # samples: enough to see a curve turn, cheap enough to look often
EVALUATION_BATCH = 32


@dataclass(frozen=True)
class LoopSettings:
    """How long and how to step; the fields are those of a curriculum's stage card."""

    epochs: float
    batch: int
    micro_batch: int | None = None
    warmup: float = 0.03
    clip: float = 1.0
    schedule: str = "cosine"
    seed: int = 0
    log_every: int = 10
    validate_every: int | None = None
    checkpoint_every: int | None = None
    patience: int | None = None


@dataclass
class Progress:
    """What a checkpoint carries beside tensors."""

    step: int = 0
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float = math.inf
    stale: int = 0
    valid_loss: float | None = None
    losses: list[float] = field(default_factory=list)
    pending: list[list[float]] = field(
        default_factory=list
    )  # [loss, tokens] of the steps since the last log row


def run_loop(
    accelerator: Accelerator, objective: Any, validation: Any | None, optimizers: Optimizers,
    settings: LoopSettings, out: Path,
) -> Progress:  # fmt: skip
    """Trains an objective's parameters in place.

    The batch of a step and its random numbers are pure functions of seed and step, so a run continued from a
    checkpoint takes the same path as one that was never stopped.

    Args:
        accelerator: Already made; its device and precision are used.
        objective: ``collate``, ``forward``, ``after_step``, ``memory``, ``remember``, ``weights``, ``counts``,
            ``lengths`` (see objectives.py).
        validation: An objective of the same kind on held-out samples, or None.
        optimizers: Over the objective's trainable parameters.
        settings: Of the stage.
        out: Stage folder: ``log.jsonl`` and ``checkpoints/`` are written here.

    Returns:
        Steps, samples, supervised tokens, seconds and the losses logged.

    Raises:
        TrainingError: The loss or its gradient is not finite.
    """
    trainable = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    per_epoch = math.ceil(len(objective.lengths) / settings.batch)
    total = max(1, math.ceil(settings.epochs * per_epoch))
    progress, best = _resume(out, objective, trainable, optimizers, accelerator)
    model = accelerator.prepare_model(objective) if accelerator.num_processes > 1 else objective
    every = settings.validate_every or max(1, total // 8)
    steps = batch_at(objective.lengths, settings.batch, settings.seed, range(progress.step, total))
    window = _Window(progress.pending)
    with (
        bar(out.name, total, progress.step, show=accelerator.is_main_process) as shown,
        (out / "log.jsonl" if accelerator.is_main_process else Path(os.devnull)).open("a") as log,
    ):
        for step, made in prefetch(steps, lambda item: _prepare(item, objective, settings, accelerator)):
            factor = schedule(step, total, settings.warmup, settings.schedule)
            optimizers.scale(factor)
            torch.manual_seed(_seed_of(settings.seed, step, accelerator.process_index))
            loss, norm = _step(model, made, accelerator, trainable, settings.clip)
            if not math.isfinite(loss + norm):
                what = f"the loss is {loss} and its gradient's norm {norm} at step {step + 1}"
                raise TrainingError(f"{what}; lower the learning rates or check the data")
            optimizers.step(partial(objective.after_step, step + 1, total))
            window.add(loss, made)
            progress.step, progress.samples = step + 1, progress.samples + made.samples
            progress.tokens += made.weight
            row: dict[str, Any] = {}
            if (step + 1) % settings.log_every == 0 or step + 1 == total or step == 0:
                row = window.row()
                progress.losses.append(row["loss"])
                shown.advance(0, f"loss {row['loss']:.3f} · {row['tokens_per_s']:,.0f} tokens/s")
            if validation is not None and ((step + 1) % every == 0 or step + 1 == total):
                begun = time.monotonic()
                row["valid_loss"] = progress.valid_loss = validate(model, validation, accelerator)
                window.pause(time.monotonic() - begun)
            if row:
                progress.seconds += window.lap()
                rate = {"lr": optimizers.peak * factor, "grad_norm": norm}
                row = {"step": step + 1, "epoch": round((step + 1) / per_epoch, 3), **rate, **row}
                _write(log, {**row, "seconds": round(progress.seconds, 2)}, accelerator)
            if settings.patience is not None and "valid_loss" in row:
                if row["valid_loss"] < progress.best:
                    progress.best, progress.stale = row["valid_loss"], 0
                    best = {name: p.detach().cpu().clone() for name, p in trainable.items()}
                else:
                    progress.stale += 1
            shown.advance()
            if settings.patience is not None and progress.stale >= settings.patience:
                break
            due = settings.checkpoint_every and (step + 1) % settings.checkpoint_every == 0
            if due and step + 1 < total and accelerator.is_main_process:
                state = _snapshot(trainable, optimizers, progress, best)
                save_checkpoint(out / "checkpoints", step + 1, {**state, "objective": objective.memory()})
    if best is not None:
        _restore(trainable, best)
        progress.valid_loss = progress.best
    return progress


def validate(model: nn.Module, validation: Any, accelerator: Accelerator) -> float:
    """Gives the mean loss per supervised token on held-out samples, the same on every process."""
    was_training = model.training
    model.eval()
    indices = np.argsort(validation.lengths, kind="stable")[
        accelerator.process_index :: accelerator.num_processes
    ]
    sums = torch.zeros(2, dtype=torch.float64)  # loss, tokens
    with torch.no_grad(), accelerator.autocast():
        for start in range(0, len(indices), EVALUATION_BATCH):
            chosen = indices[start : start + EVALUATION_BATCH]
            # through the module itself: a distributed wrapper would wait for gradients that never come
            batch = _to_device(validation.collate(chosen, 0), accelerator)
            sums += torch.tensor(
                [float(validation(batch)), float(validation.weights[chosen].sum())], dtype=torch.float64
            )
    model.train(was_training)
    if accelerator.num_processes > 1:
        dist.all_reduce(sums := sums.to(accelerator.device))
    return round(float(sums[0] / sums[1].clamp(min=1)), 5)


@dataclass
class _Made:
    batches: list[dict[str, torch.Tensor]]
    samples: int
    weight: int
    idle: bool = False


def _prepare(
    item: tuple[int, int, np.ndarray], objective: Any, settings: LoopSettings, accelerator: Accelerator
) -> tuple[int, _Made]:
    """Collates this process's share of a step's batch, cut into micro-batches."""
    step, epoch, indices = item
    mine = indices[accelerator.process_index :: accelerator.num_processes]
    # fewer samples than processes: the others wait for this one's gradients, so it makes some for nothing
    idle = len(mine) == 0
    mine = indices[:1] if idle else mine
    micro = settings.micro_batch or len(mine)
    batches = [objective.collate(mine[at : at + micro], epoch) for at in range(0, len(mine), micro)]
    return step, _Made(
        batches, int(objective.counts[indices].sum()), int(objective.weights[indices].sum()), idle
    )


def _step(
    model: nn.Module, made: _Made, accelerator: Accelerator, trainable: dict[str, nn.Parameter], clip: float
) -> tuple[float, float]:
    """Accumulates gradients of the token-weighted mean loss over micro-batches and processes; clips them."""
    model.train()
    loss_sum = torch.zeros((), device=accelerator.device)
    for number, batch in enumerate(made.batches):
        last = number == len(made.batches) - 1
        with nullcontext() if last or accelerator.num_processes == 1 else accelerator.no_sync(model):
            with accelerator.autocast():
                loss = model(_to_device(batch, accelerator)) * (0.0 if made.idle else 1.0)
            # data parallelism averages over processes; the sum is wanted, over all processes' tokens
            accelerator.backward(loss * (accelerator.num_processes / made.weight))
        loss_sum += loss.detach()
    if accelerator.num_processes > 1:
        dist.all_reduce(loss_sum)
    norm = nn.utils.clip_grad_norm_(trainable.values(), clip if clip > 0 else math.inf)
    return float(loss_sum) / made.weight, round(float(norm), 4)


class _Window:
    """Means and rates since the last log row."""

    def __init__(self, pending: list[list[float]]) -> None:
        self._pending = pending
        self._lap = time.monotonic()
        self._restart()

    def add(self, loss: float, made: _Made) -> None:
        self._pending.append([loss, made.weight])
        self._tokens, self._samples = self._tokens + made.weight, self._samples + made.samples

    def pause(self, seconds: float) -> None:
        """Leaves the time of a validation out of the rates."""
        self._begun += seconds

    def row(self) -> dict[str, float]:
        seconds = max(time.monotonic() - self._begun, 1e-9)
        losses, weights = zip(*self._pending, strict=True)
        loss = float(np.average(losses, weights=weights))
        rates = {
            "tokens_per_s": round(self._tokens / seconds, 1),
            "samples_per_s": round(self._samples / seconds, 2),
        }
        self._pending.clear()
        self._restart()
        return {"loss": round(loss, 5), **rates}

    def lap(self) -> float:
        now = time.monotonic()
        seconds, self._lap = now - self._lap, now
        return seconds

    def _restart(self) -> None:
        self._begun, self._tokens, self._samples = time.monotonic(), 0, 0


def _seed_of(seed: int, step: int, process: int) -> int:
    """Gives the seed of a step's dropout: every process has its own, and a resumed run the same again."""
    return int(np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _resume(
    out: Path, objective: Any, trainable: dict[str, nn.Parameter], optimizers: Optimizers,
    accelerator: Accelerator,
) -> tuple[Progress, dict[str, torch.Tensor] | None]:  # fmt: skip
    """Takes up the newest whole checkpoint, and drops log rows written after it."""
    found = latest_checkpoint(out / "checkpoints")
    step, state = found if found is not None else (0, None)
    log = out / "log.jsonl"
    if accelerator.is_main_process and log.exists():
        rows = [
            line
            for line in log.read_text().splitlines()
            if line.endswith("}") and json.loads(line)["step"] <= step
        ]
        log.write_text("".join(row + "\n" for row in rows))
    if state is None:
        return Progress(), None
    _restore(trainable, state["params"])
    optimizers.load_state_dict(state["optimizers"])
    objective.remember(state.get("objective", {}))
    return Progress(**state["progress"]), state["kept"]


def _snapshot(
    trainable: dict[str, nn.Parameter],
    optimizers: Optimizers,
    progress: Progress,
    best: dict[str, torch.Tensor] | None,
) -> dict[str, Any]:
    return {
        "params": {name: p.detach().cpu() for name, p in trainable.items()},
        "optimizers": optimizers.state_dict(),
        "progress": dict(vars(progress)),
        "kept": best,
    }


def _restore(trainable: dict[str, nn.Parameter], values: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(values[name])


def _to_device(batch: dict[str, torch.Tensor], accelerator: Accelerator) -> dict[str, torch.Tensor]:
    return {key: tensor.to(accelerator.device, non_blocking=True) for key, tensor in batch.items()}


def _write(log: Any, row: dict[str, Any], accelerator: Accelerator) -> None:
    log.write(json.dumps(row) + "\n")
    log.flush()
    if accelerator.trackers:
        accelerator.log({key: value for key, value in row.items() if key != "step"}, step=row["step"])
