"""What the training loop's choices are worth: seconds for the same samples, each choice against its alternative.

    OMP_NUM_THREADS=1 python benchmarks/train_step.py

Trains the shipped tiny model on drawn phantoms, forward and backward over the same 512 conversations, and prints
the ratio of each alternative to medkit's setting, measured in the same run, in turn, best of the rounds.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from medkit.models.adapters import make_trainable
from medkit.models.load import load_model
from medkit.training.batches import epoch_batches
from medkit.training.encode import IGNORE
from medkit.training.examples import ExampleSet, gather_samples
from medkit.training.objectives import AnswerObjective

RATES = {"vision": 1e-4, "projector": 1e-3, "language": 1e-3}
SAMPLES, BATCH = 512, 32


def main() -> None:
    """Measures and prints the table."""
    arguments = read_arguments(argument_parser(__doc__))
    loaded = load_model(arguments.model, device="cpu")
    make_trainable(loaded, RATES, {"kind": "full"})
    kinds = ["conversation", "description", "reasoning", "caption"]
    datasets, samples = gather_samples([arguments.run / "2-teach"], kinds, "train", [], 0)
    chosen = np.random.default_rng(0).permutation(len(samples))[:SAMPLES]
    examples = ExampleSet(loaded, datasets, [samples[index] for index in chosen], 512, [], 0)
    objective = AnswerObjective(loaded, examples)

    variants: dict[str, Callable[[], float]] = {
        "medkit": lambda: _seconds(objective, loaded, "eager", True, True, True),
        "fused attention (SDPA)": lambda: _seconds(objective, loaded, "sdpa", True, True, True),
        "random batches, padded": lambda: _seconds(objective, loaded, "eager", False, True, True),
        "logits at every position": lambda: _seconds(objective, loaded, "eager", True, False, True),
        "float32": lambda: _seconds(objective, loaded, "eager", True, True, False),
        "none of the four": lambda: _seconds(objective, loaded, "sdpa", False, False, False),
    }
    best: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for name, measure in variants.items():
            best[name] = min(best.get(name, float("inf")), measure())
    print(f"\n{date.today()}, {processor()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}")
    print(
        f"{len(examples)} samples of {examples.lengths.mean():.0f} tokens, "
        f"{examples.supervised.mean():.0f} supervised\n"
    )
    print("| setting | s | times medkit's |\n|---|---|---|")
    for name, seconds in best.items():
        print(f"| {name} | {seconds:.2f} | {seconds / best['medkit']:.2f} |")


def argument_parser(about: str | None) -> argparse.ArgumentParser:
    """Makes the options of benchmarks that take a model and a run's taught samples."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="checkpoints/tiny-general")
    parser.add_argument("--run", type=Path, default=Path("runs/phantom"), help="a run folder with 2-teach")
    parser.add_argument("--rounds", type=int, default=3)
    return parser


def read_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Reads the command line, and stops where the run has no samples."""
    arguments = parser.parse_args()
    if not (arguments.run / "2-teach" / "dataset.json").is_file():
        sys.exit(f"{arguments.run} has no 2-teach: run `medkit run phantom` first")
    return arguments


def _seconds(
    objective: AnswerObjective, loaded, attention: str, grouped: bool, sparse: bool, half: bool
) -> float:
    loaded.base_model.set_attn_implementation(attention)
    order = np.random.default_rng(1).permutation(len(objective.lengths))
    plain = [order[at : at + BATCH] for at in range(0, len(order), BATCH)]
    batches = epoch_batches(objective.lengths, BATCH, 0, 0) if grouped else plain
    made = [objective.collate(indices, 0) for indices in batches]
    begun = time.perf_counter()
    for batch in made:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            loss = objective(batch) if sparse else _full(loaded, batch)
        loss.backward()
        objective.zero_grad(set_to_none=True)
    return time.perf_counter() - begun


def _full(loaded, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The usual way: logits at every position, most of them thrown away by the loss."""
    labels = batch.pop("labels")[:, 1:]
    logits = loaded.base_model(**batch, use_cache=False).logits[:, :-1].float()
    return functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum"
    )


def processor() -> str:
    """Gives the machine's processor and number of cores."""
    if sys.platform == "linux":
        found = subprocess.run(
            ["grep", "-m1", "model name", "/proc/cpuinfo"], capture_output=True, text=True
        ).stdout
        return f"{found.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
