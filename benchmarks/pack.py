"""What sharing a picture's sequence is worth: questions a second, packed and one by one, and the same loss.

    OMP_NUM_THREADS=1 python benchmarks/pack.py

Takes single questions about drawn phantoms, forward and backward over the same questions with the shipped tiny model,
its tower frozen as while it learns to answer; best of the rounds, taken in turn.
"""

from __future__ import annotations

import time
from datetime import date

import numpy as np
import torch
from train_step import argument_parser, processor, read_arguments

from medkit.models.adapters import make_trainable
from medkit.models.load import load_model
from medkit.training.batches import epoch_batches
from medkit.training.examples import ExampleSet, gather_samples, take_apart
from medkit.training.objectives import AnswerObjective

RATES = {"vision": 0.0, "projector": 1e-3, "language": 1e-3}
CONVERSATIONS, QUESTIONS_A_BATCH = 600, 128


def main() -> None:
    """Measures and prints the table."""
    parser = argument_parser(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[160, 256, 384])
    arguments = read_arguments(parser)
    loaded = load_model(arguments.model, device="cpu")
    loaded.base_model.set_attn_implementation("eager")
    make_trainable(loaded, RATES, {"kind": "full"})
    datasets, samples = gather_samples([arguments.run / "2-teach"], ["conversation"], "train", [], 0)
    samples = take_apart(samples[:CONVERSATIONS])
    kinds = {"one by one": (512, False)} | {
        f"packed, {most} tokens": (most, True) for most in arguments.lengths
    }
    objectives = {
        name: AnswerObjective(loaded, ExampleSet(loaded, datasets, samples, most, [], 0, packed=packed))
        for name, (most, packed) in kinds.items()
    }
    best = dict.fromkeys(objectives, float("inf"))
    losses: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for name, objective in objectives.items():
            seconds, losses[name] = measure(objective)
            best[name] = min(best[name], seconds)
    print(f"\n{date.today()}, {processor()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}")
    alone = best["one by one"]
    print("\n| sequences | questions | tokens | questions/s | times one by one | loss a token |")
    print("|---|---|---|---|---|---|")
    for name, objective in objectives.items():
        count, tokens = int(objective.counts.sum()), int(objective.lengths.sum())
        print(
            f"| {name} | {count} | {tokens} | {count / best[name]:.0f} | {alone / best[name]:.2f} "
            f"| {losses[name]:.4f} |"
        )


def measure(objective: AnswerObjective) -> tuple[float, float]:
    """Gives seconds and mean loss of a pass over all questions, about as many a batch either way."""
    batch = max(1, round(QUESTIONS_A_BATCH * len(objective.counts) / objective.counts.sum()))
    made = [objective.collate(indices, 0) for indices in epoch_batches(objective.lengths, batch, 0, 0)]
    total, begun = 0.0, time.perf_counter()
    for one in made:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = objective(one)
        loss.backward()
        objective.zero_grad(set_to_none=True)
        total += loss.item()
    return time.perf_counter() - begun, total / float(np.sum(objective.weights))


if __name__ == "__main__":
    main()
