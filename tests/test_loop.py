"""The one loop: learns, weighs tokens alike however batches are cut, and goes on exactly after a kill."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import FULL, LORA, RATES, answers, build, examples, stage

from medkit.errors import TrainingError
from medkit.models.adapters import make_trainable
from medkit.models.load import load_model
from medkit.training.loop import LoopSettings, run_loop, validate
from medkit.training.objectives import AnswerObjective
from medkit.training.optimizers import Optimizers
from medkit.training.train import make_accelerator


@pytest.fixture(scope="module")
def _folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loop")
    build(folder / "model")
    answers(folder / "data", 24)
    answers(folder / "valid", 10, split="valid")
    return folder


class Killed(Exception):
    """Stands for a kill."""


class Dying(AnswerObjective):
    """Is killed when the batch of a step is made."""

    step, made = math.inf, 0

    def collate(self, indices, epoch):
        self.made += 1
        if self.made > self.step:
            raise Killed
        return super().collate(indices, epoch)


def _run(
    folder: Path,
    out: Path,
    adapter: dict,
    kind: type = AnswerObjective,
    dies_at: float = math.inf,
    **settings: Any,
):
    """Trains a fresh copy of the model and gives its trained parameters, the progress and the log."""
    out.mkdir(exist_ok=True)
    rates = settings.pop("rates", RATES)
    loaded = load_model(folder / "model", "cpu")
    torch.manual_seed(settings.get("seed", 0))
    groups = make_trainable(loaded, rates, adapter)
    if settings.pop("gradient_checkpointing", False):
        loaded.base_model.gradient_checkpointing_enable({"use_reentrant": False})
    objective = kind(loaded, examples(loaded, folder / "data"))
    if isinstance(objective, Dying):
        objective.step = dies_at
    valid = (
        AnswerObjective(loaded, examples(loaded, folder / "valid", "valid"))
        if settings.pop("valid", False)
        else None
    )
    names = {parameter: name for name, parameter in objective.named_parameters()}
    optimizers = Optimizers(groups, rates, 0.01, settings.pop("optimizer", "adamw"), names)
    accelerator = make_accelerator(stage(), out)
    progress = run_loop(
        accelerator,
        objective,
        valid,
        optimizers,
        LoopSettings(**{"epochs": 2.0, "batch": 4, **settings}),
        out,
    )
    trained = {name: p.detach().clone() for name, p in objective.named_parameters() if p.requires_grad}
    return trained, progress, _log(out)


def _log(out: Path) -> list[dict]:
    """Gives the log without what a clock says."""
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [
        {key: row[key] for key in row if key not in ("seconds", "tokens_per_s", "samples_per_s")}
        for row in rows
    ]


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_loss_falls_and_everything_is_counted(_folder, tmp_path):
    _, progress, log = _run(_folder, tmp_path, FULL, epochs=12.0, valid=True, validate_every=24)
    assert progress.losses[-1] < 0.75 * progress.losses[0]
    assert (progress.step, progress.samples) == (72, 12 * 24)
    weights = AnswerObjective(
        load := load_model(_folder / "model", "cpu"), examples(load, _folder / "data")
    ).weights
    assert progress.tokens == 12 * int(weights.sum())
    assert [row["step"] for row in log] == [1, 10, 20, 24, 30, 40, 48, 50, 60, 70, 72]
    assert [row["step"] for row in log if "valid_loss" in row] == [24, 48, 72]
    assert log[-1]["epoch"] == 12.0
    assert log[0]["lr"] == pytest.approx(1e-3 / math.ceil(72 * 0.03))
    assert progress.valid_loss == log[-1]["valid_loss"] < 5.0


@pytest.mark.parametrize(
    ("epochs", "batch", "steps", "samples"), [(3.0, 16, 6, 72), (0.5, 4, 3, 12), (1.5, 24, 2, 48)]
)
def test_epochs_are_passes_over_the_samples(_folder, tmp_path, epochs, batch, steps, samples):
    _, progress, _ = _run(_folder, tmp_path, FULL, epochs=epochs, batch=batch)
    assert (progress.step, progress.samples) == (steps, samples)


@pytest.mark.parametrize("micro", [1, 2, 3])
def test_cutting_a_batch_changes_nothing(_folder, tmp_path, micro):
    whole, _, log = _run(_folder, tmp_path / "whole", FULL, batch=8, epochs=1.0, log_every=1)
    cut, _, cut_log = _run(
        _folder, tmp_path / "cut", FULL, batch=8, epochs=1.0, log_every=1, micro_batch=micro
    )
    assert len(log) == 3
    for one, other in zip(log, cut_log, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], abs=1e-5)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], abs=2e-4)
    for name in whole:
        torch.testing.assert_close(cut[name], whole[name], rtol=0, atol=2e-4)


def test_the_samples_of_a_batch_differ_in_tokens(_folder, tmp_path):
    loaded = load_model(_folder / "model", "cpu")
    assert len(set(AnswerObjective(loaded, examples(loaded, _folder / "data")).weights.tolist())) >= 4


SETTINGS = {"epochs": 3.0, "log_every": 4, "checkpoint_every": 5, "valid": True, "validate_every": 6}


@pytest.mark.parametrize(("adapter", "optimizer"), [(LORA, "adamw"), (FULL, "muon")])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(_folder, tmp_path, adapter, optimizer):
    settings = {**SETTINGS, "optimizer": optimizer}
    whole, progress, log = _run(_folder, tmp_path / "whole", adapter, **settings)
    for dies_at, newest in (
        (14, 10),
        (5, 15),
    ):  # after the checkpoint of step 10, and once more on the way from there
        with pytest.raises(Killed):
            _run(_folder, tmp_path / "torn", adapter, Dying, dies_at, **settings)
        assert [path.name for path in (tmp_path / "torn" / "checkpoints").iterdir()] == [f"step-{newest:08d}"]
    again, resumed, again_log = _run(_folder, tmp_path / "torn", adapter, **settings)
    assert _same(whole, again)
    assert again_log == log
    assert (resumed.step, resumed.samples, resumed.tokens) == (
        progress.step,
        progress.samples,
        progress.tokens,
    )
    assert resumed.losses == progress.losses


def test_dropout_is_on_and_depends_on_the_seed(_folder, tmp_path):
    one, _, log = _run(_folder, tmp_path / "one", LORA)
    same, _, _ = _run(_folder, tmp_path / "same", LORA)
    without, _, plain = _run(_folder, tmp_path / "without", {**LORA, "dropout": 0.0})
    assert _same(one, same)
    assert not _same(one, without)
    assert log[-1]["loss"] != plain[-1]["loss"]


@pytest.mark.slow
def test_a_killed_process_goes_on_exactly(_folder, tmp_path):
    script = textwrap.dedent(f"""
        import os, signal, sys
        sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
        from pathlib import Path
        import test_loop
        from medkit.training import loop

        real = loop.save_checkpoint
        def save(folder, step, state):
            real(folder, step, state)
            if step == 10:
                os.kill(os.getpid(), signal.SIGKILL)
        loop.save_checkpoint = save
        out = Path({str(tmp_path / "killed")!r})
        test_loop._run(Path({str(_folder)!r}), out, test_loop.LORA, **test_loop.SETTINGS)
    """)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=200)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    whole, _, log = _run(_folder, tmp_path / "whole", LORA, **SETTINGS)
    again, _, again_log = _run(_folder, tmp_path / "killed", LORA, **SETTINGS)
    assert _same(whole, again)
    assert again_log == log


def test_a_log_line_torn_by_a_kill_is_dropped_and_a_lost_log_is_no_harm(_folder, tmp_path):
    with pytest.raises(Killed):
        _run(_folder, tmp_path, LORA, Dying, 14, **SETTINGS)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 12, "lo')
    _, _, rows = _run(_folder, tmp_path, LORA, **SETTINGS)
    assert [row["step"] for row in rows] == [1, 4, 6, 8, 12, 16, 18]
    with pytest.raises(Killed):
        _run(_folder, tmp_path / "lost", LORA, Dying, 14, **SETTINGS)
    (tmp_path / "lost" / "log.jsonl").unlink()
    _, progress, rows = _run(_folder, tmp_path / "lost", LORA, **SETTINGS)
    assert progress.step == 18
    assert [row["step"] for row in rows] == [12, 16, 18]


def test_without_a_checkpoint_a_run_starts_over_with_a_fresh_log(_folder, tmp_path):
    _, _, log = _run(_folder, tmp_path, FULL)
    _, _, again = _run(_folder, tmp_path, FULL)
    assert again == log


def _too_fast(patience: int | None) -> dict:
    return {
        "epochs": 10.0,
        "rates": {**RATES, "language": 0.03},
        "valid": True,
        "validate_every": 2,
        "patience": patience,
        "schedule": "constant",
    }


def test_patience_stops_and_keeps_the_best(_folder, tmp_path):
    trained, progress, log = _run(_folder, tmp_path / "patient", FULL, **_too_fast(3))
    values = [row["valid_loss"] for row in log if "valid_loss" in row]
    assert progress.step == log[-1]["step"] < 60
    assert min(values[-3:]) >= min(values[:-3]) == progress.best == progress.valid_loss
    loaded = load_model(_folder / "model", "cpu")
    objective = AnswerObjective(loaded, examples(loaded, _folder / "valid", "valid"))
    with torch.no_grad():
        for name, parameter in objective.named_parameters():
            parameter.copy_(trained.get(name, parameter))
    assert validate(loaded.model, objective, make_accelerator(stage(), tmp_path)) == progress.best


def test_patience_survives_a_kill(_folder, tmp_path):
    settings = {**_too_fast(3), "checkpoint_every": 4}
    whole, progress, log = _run(_folder, tmp_path / "whole", FULL, **settings)
    with pytest.raises(Killed):
        _run(_folder, tmp_path / "torn", FULL, Dying, progress.step - 1, **settings)
    again, resumed, again_log = _run(_folder, tmp_path / "torn", FULL, **settings)
    assert _same(whole, again) and again_log == log
    assert resumed.step == progress.step


def test_validation_leaves_training_as_it_was(_folder, tmp_path):
    watched, _, _ = _run(_folder, tmp_path / "watched", LORA, valid=True, validate_every=1)
    alone, _, _ = _run(_folder, tmp_path / "alone", LORA)
    assert _same(watched, alone)


def test_gradient_checkpointing_gives_the_same_gradients(_folder, tmp_path):
    for adapter in (FULL, LORA):
        plain, _, log = _run(_folder, tmp_path / f"plain-{adapter['kind']}", adapter)
        frugal, _, other = _run(
            _folder, tmp_path / f"frugal-{adapter['kind']}", adapter, gradient_checkpointing=True
        )
        assert log == other
        assert _same(plain, frugal)


class Broken(AnswerObjective):
    def forward(self, batch):
        return super().forward(batch) * self.factor


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_in_one_sentence(_folder, tmp_path, factor):
    Broken.factor = factor
    with pytest.raises(TrainingError, match="at step 1; lower the learning rates or check the data") as told:
        _run(_folder, tmp_path, FULL, Broken)
    assert "\n" not in str(told.value)


class Exploding(AnswerObjective):
    """A finite loss whose gradient is not."""

    def forward(self, batch):
        loss = super().forward(batch)
        return loss + torch.sqrt((loss - loss.detach()).abs())


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(_folder, tmp_path):
    with pytest.raises(TrainingError, match="its gradient's norm nan at step 1"):
        _run(_folder, tmp_path, FULL, Exploding)


def test_a_frozen_part_keeps_its_bits(_folder, tmp_path):
    rates = {"vision": 0.0, "projector": 1e-3, "language": 0.0}
    trained, _, _ = _run(_folder, tmp_path, FULL, rates=rates)
    before = dict(load_model(_folder / "model", "cpu").model.named_parameters())
    assert {name.split(".")[2] for name in trained} == {"multi_modal_projector"}
    assert not any(torch.equal(trained[name], before[name.removeprefix("model.")]) for name in trained)


def test_batches_seen_do_not_depend_on_what_else_draws_random_numbers(_folder, tmp_path):
    one, _, _ = _run(_folder, tmp_path / "one", LORA)
    np.random.seed(7)
    torch.manual_seed(7)
    other, _, _ = _run(_folder, tmp_path / "other", LORA)
    assert _same(one, other)
