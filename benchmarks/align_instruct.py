"""Align then instruct against instruct only, from the same tower, at equal samples seen.

    python benchmarks/real_domains.py --domains sorting blood --seeds 0 1 2
    python benchmarks/align_instruct.py --domains sorting blood --seeds 0 1 2

Reads the runs that real_domains.py left. Each has a stage `align` and a stage `instruct` that starts from it; here the
same `instruct` starts from where `align` started, and gets as many passes more as `align` had samples. Both answer the
same test questions; the difference is paired by question.
"""

from __future__ import annotations

import argparse
import json
import math
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from medkit.evaluation.evaluate import evaluate
from medkit.evaluation.statistics import mcnemar_exact, paired_bootstrap
from medkit.training.train import train


def main() -> None:
    """Trains the second arm of every run and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--domains", nargs="+", default=["sorting", "blood"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    print(
        f"{date.today()}\n\n| domain | seed | samples seen | align + instruct | instruct only | difference | p |"
    )
    print("|---|---|---|---|---|---|---|")
    for domain in arguments.domains:
        for seed in arguments.seeds:
            print(compare(arguments.runs / f"bench-{domain}-{seed}", domain, seed), flush=True)


def compare(run: Path, domain: str, seed: int) -> str:
    """Trains `instruct` from the start of `align`, evaluates it and formats a table row."""
    align, instruct = summary(run, "align"), summary(run, "instruct")
    seen = align["result"]["samples_seen"] + instruct["result"]["samples_seen"]
    # a stage takes whole steps, so its passes are counted in them
    steps, passes = instruct["result"]["steps"], instruct["settings"]["epochs"]
    more = seen / instruct["result"]["samples_seen"]
    settings = {**instruct["settings"], "stage": "instruct-only", "epochs": passes * more}
    out = run.parent / f"{run.name}-instruct-only"
    out.mkdir(exist_ok=True)
    inputs = {"start": step(run, align["settings"]["start"]) / "model", "data": step(run, "teach")}
    if settings["replay"] > 0:
        inputs["replay"] = step(run, "teach-general")
    if not (out / "summary.json").is_file():
        result = train(settings, inputs, out)
        card = {**held_out(run), "controls": []}
        evaluate(
            {"name": "instruct-only", "benchmarks": [card], "hardware": settings["hardware"], "seed": seed},
            {"model": out / "model", "data": inputs["data"]}, out,
        )  # fmt: skip
        (out / "summary.json").write_text(json.dumps(result))
    result = json.loads((out / "summary.json").read_text())
    one, other = answers(step(run, "evaluate-instruct")), answers(out)
    keys = sorted(one.keys() & other.keys())
    first = np.array([one[key]["correct"] for key in keys], dtype=float)
    second = np.array([other[key]["correct"] for key in keys], dtype=float)
    gain = paired_bootstrap(second, first, [one[key]["group"] for key in keys], seed=0)
    wins, losses = int(((first == 1) & (second == 0)).sum()), int(((first == 0) & (second == 1)).sum())
    assert math.isclose(result["steps"], steps * more, rel_tol=0.05), (
        "the arms saw different numbers of samples"
    )
    return (
        f"| {domain} | {seed} | {seen} / {result['samples_seen']} | {first.mean():.3f} "
        f"| {second.mean():.3f} | {gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}) "
        f"| {mcnemar_exact(wins, losses):.3f} |"
    )


def step(run: Path, name: str) -> Path:
    """Gives the folder of a step, whatever its number."""
    return next(path for path in run.iterdir() if path.name.partition("-")[2] == name)


def summary(run: Path, stage: str) -> dict[str, Any]:
    """Reads settings and result of a stage."""
    return json.loads((step(run, stage) / "summary.json").read_text())


def held_out(run: Path) -> dict[str, Any]:
    """Gives the benchmark card that the run was judged by."""
    cards = summary(run, "evaluate-instruct")["settings"]["benchmarks"]
    return next(card for card in cards if card["name"] == "held-out")


def answers(folder: Path) -> dict[str, dict[str, Any]]:
    """Reads the answers to the questions themselves, by id."""
    rows = map(json.loads, (folder / "answers.jsonl").read_text().splitlines())
    return {row["id"]: row for row in rows if row["benchmark"] == "held-out" and row["control"] == "none"}


if __name__ == "__main__":
    main()
