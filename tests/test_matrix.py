"""Families x adapters, tiny and on the CPU: a cell learns, is saved, read without medkit, and merged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import BUILDERS, build_family
from safetensors.torch import load_file, save_file
from tiny_training import ADAPTER, TEXT, answers, examples

from medkit.errors import ModelError
from medkit.models.adapter_folders import kind_of
from medkit.models.adapters import make_trainable
from medkit.models.load import load_model, save_model
from medkit.models.merge import merge
from medkit.training.objectives import AnswerObjective
from medkit.training.optimizers import Optimizers

ALL = {**TEXT, "vision": 3e-3}
# name -> (adapter card, learning rates)
KINDS: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    **{kind: ({"kind": kind}, ALL) for kind in ("full", "lora", "rslora", "dora", "pissa", "adalora", "ia3")},
    "llama_adapter": ({"kind": "llama_adapter"}, TEXT),
    "lora, text only": ({"kind": "lora"}, {**TEXT, "projector": 0.0}),
    "lora, vision only": ({"kind": "lora"}, {"vision": 3e-3}),
    **{
        f"{kind}, {bits}": ({"kind": kind, "quantize": bits}, ALL if kind != "llama_adapter" else TEXT)
        for kind in ("lora", "rslora", "dora", "adalora", "ia3", "llama_adapter")
        for bits in ("nf4", "int8")
        if (kind, bits) != ("dora", "int8")
    },
}
# Cells that can't work: the reason is in medkit.cards.adapters.refusal, which the recipe check asks as well.
REFUSED = {
    "full, nf4": (
        {"kind": "full", "quantize": "nf4"},
        ALL,
        "weights kept in nf4 can't be trained themselves",
    ),
    "full, int8": (
        {"kind": "full", "quantize": "int8"},
        ALL,
        "weights kept in int8 can't be trained themselves",
    ),
    "pissa, nf4": ({"kind": "pissa", "quantize": "nf4"}, ALL, "singular values of full weights"),
    "pissa, int8": ({"kind": "pissa", "quantize": "int8"}, ALL, "singular values of full weights"),
    "dora, int8": ({"kind": "dora", "quantize": "int8"}, ALL, "8-bit ones lose their scales"),
    "llama_adapter, vision": ({"kind": "llama_adapter"}, ALL, "can't train vision"),
}
STEPS = 3
SAVED = 1e-5  # largest difference of logits after saving and reading; the base quantised in the same way
# After merging into the base in full precision, for every kind: the sums are the same, taken in another order.
MERGED = 1e-5

pytest.importorskip("bitsandbytes")


@dataclass
class Bench:
    """What the cells of a family share."""

    family: str
    folder: Path
    data: Path

    @property
    def base(self) -> Path:
        return self.folder / "base"


def bench_of(family: str, folder: Path) -> Bench:
    folder.mkdir()
    built = build_family(family, folder / "base")
    save_model(built, folder / "base", built.contract)
    return Bench(family, folder, answers(folder / "data", count=6))


def learn(bench: Bench, kind: str) -> dict[str, Any]:
    """Trains a cell on one batch, saves and merges it, and gives losses and logits."""
    changes, rates = KINDS[kind]
    card = {**ADAPTER, **changes}
    quantize = card["quantize"]
    torch.manual_seed(0)
    loaded = load_model(bench.base, "cpu", quantize=quantize)
    groups = make_trainable(loaded, rates, card)
    objective = AnswerObjective(loaded, examples(loaded, bench.data))
    batch = objective.collate(np.arange(6), 0)
    names = {parameter: name for name, parameter in objective.named_parameters()}
    optimizers = Optimizers(groups, rates, 0.0, "adamw", names)
    before = _loss(objective, batch)
    for step in range(STEPS):
        objective.train()
        (objective(batch) / objective.weights.sum()).backward()
        optimizers.step(lambda step=step: objective.after_step(step + 1, STEPS))
    after = _loss(objective, batch)
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    wanted = _logits(loaded.model, inputs)
    slug = kind.replace(", ", "-").replace(" ", "-")
    target = bench.folder / slug
    save_model(loaded, target, loaded.contract)
    cell: dict[str, Any] = {"name": kind, "folder": str(target), "quantization": None}
    cell["form"] = {"": "whole", "llama_adapter": "own"}.get(kind_of(loaded.model), "peft")
    if quantize != "none":
        settings = loaded.base_model.config.quantization_config.to_dict()
        keys = ("load_in_4bit", "load_in_8bit", "llm_int8_skip_modules", "bnb_4bit_quant_type",
                "bnb_4bit_use_double_quant")  # fmt: skip
        cell["quantization"] = {key: settings[key] for key in keys if key in settings}
    result = {"before": before, "after": after, "wanted": wanted, "inputs": inputs, "cells": [cell]}
    if cell["form"] == "peft":
        # what the adapter folder gives over the true weights is what its merged form must give
        again = load_model(target, "cpu")
        result["over the full base"] = _logits(again.model, inputs)
        merged = merge(loaded)
        save_model(merged, bench.folder / f"{slug}-merged", merged.contract)
        result["cells"].append(
            {"name": f"{kind}, merged", "folder": str(bench.folder / f"{slug}-merged"), "form": "whole",
             "quantization": None}
        )  # fmt: skip
    return result


def _loss(objective: AnswerObjective, batch: dict[str, torch.Tensor]) -> float:
    objective.eval()
    with torch.no_grad():
        return float(objective(batch)) / float(objective.weights.sum())


def _logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**inputs).logits


def write_cells(bench: Bench, results: dict[str, dict[str, Any]]) -> None:
    cells = [cell for result in results.values() for cell in result["cells"]]
    (bench.folder / "cells.json").write_text(json.dumps({"base": str(bench.base), "cells": cells}))
    inputs = next(iter(results.values()))["inputs"]
    save_file({key: value.contiguous() for key, value in inputs.items()}, bench.folder / "inputs.safetensors")


def read_without_medkit(folders: list[Path]) -> None:
    """Reads all cells in one other process: to import the libraries takes longer than the cells."""
    script = Path(__file__).with_name("matrix_reader.py")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", str(script), *map(str, folders)],
        env={**environment, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        cwd=folders[0],
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def faults_of(bench: Bench, results: dict[str, dict[str, Any]]) -> list[str]:
    """Gives what is wrong with the cells of a family, in words."""
    read, faults = load_file(bench.folder / "read.safetensors"), []
    base = load_model(bench.base, "cpu")
    for kind, result in results.items():
        cell, wanted = f"{bench.family}: {kind}", result["wanted"]
        if not result["after"] < result["before"]:
            faults.append(f"{cell}: the loss went from {result['before']} to {result['after']}")
        if not (difference := float((read[kind] - wanted).abs().max())) <= SAVED:
            faults.append(f"{cell}: what was saved answers {difference} apart")
        if not (wanted - _logits(base.model, result["inputs"])).abs().max() > 1e-4:
            faults.append(f"{cell}: answers as its base")
        if "over the full base" in result:
            difference = float((read[f"{kind}, merged"] - result["over the full base"]).abs().max())
            if not difference <= MERGED:
                faults.append(f"{cell}: what was merged answers {difference} apart")
    return faults


def check_cells(families: list[str], kinds: list[str], folder: Path) -> None:
    benches = [bench_of(family, folder / family) for family in families]
    results = [{kind: learn(bench, kind) for kind in kinds} for bench in benches]
    for bench, made in zip(benches, results, strict=True):
        write_cells(bench, made)
    read_without_medkit([bench.folder for bench in benches])
    faults = [fault for bench, made in zip(benches, results, strict=True) for fault in faults_of(bench, made)]
    assert faults == []


OTHERS = [family for family in BUILDERS if family != "llava"]


@pytest.mark.slow
def test_every_adapter_learns_is_saved_and_read_by_plain_libraries(tmp_path):
    check_cells(["llava"], list(KINDS), tmp_path)


@pytest.mark.slow
def test_lora_fits_every_family(tmp_path):
    check_cells(OTHERS, ["lora"], tmp_path)


@pytest.mark.slow
def test_every_adapter_fits_every_family(tmp_path):
    check_cells(OTHERS, [kind for kind in KINDS if kind != "lora"], tmp_path)


@pytest.mark.parametrize("name", REFUSED)
def test_cells_that_cannot_work_are_refused_before_training(name, tmp_path):
    changes, rates, reason = REFUSED[name]
    loaded = build_family("llava", tmp_path)
    with pytest.raises(ModelError, match=reason):
        make_trainable(loaded, rates, {**ADAPTER, **changes})
