"""Align then instruct against instruct only, at equal samples seen, three seeds.

    python benchmarks/align_instruct.py --data ../shared/data --domains sorting blood --seeds 0 1 2

The recipe's curriculum sets how many samples align and instruct see together; instruct-only then gets exactly as many
passes as that makes. Both end on the same test questions; the difference is paired by question.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from medkit.evaluation.statistics import mcnemar_exact, paired_bootstrap

FOLDERS = {"blood": "bccd", "retail": "fashion_mnist", "sorting": "trashnet", "phantom": None}


def main() -> None:
    """Runs both curricula and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("MEDKIT_SHARED", "../shared")) / "data"
    )
    parser.add_argument("--domains", nargs="+", choices=FOLDERS, default=["sorting", "blood"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    print(
        f"{date.today()}\n\n| domain | seed | samples seen | align + instruct | instruct only | difference | p |"
    )
    print("|---|---|---|---|---|---|---|")
    for domain in arguments.domains:
        for seed in arguments.seeds:
            print(_compare(domain, seed, arguments.data), flush=True)


def _compare(domain: str, seed: int, data: Path) -> str:
    given = [f"seed={seed}"]
    if FOLDERS[domain]:
        given.append(f"data={data / str(FOLDERS[domain])}")
    both = _run(domain, f"bench-{domain}-{seed}", given)
    align, instruct = _summary(both, "align"), _summary(both, "instruct")
    seen = align["samples_seen"] + instruct["samples_seen"]
    # the same stage settings, as many passes as the two stages had samples
    settings = json.loads(next(both.glob("*-instruct/summary.json")).read_text())["settings"]
    epochs = seen / instruct["samples"]
    batch, augment = settings["batch"], ",".join(settings["augment"])
    alone = [*given, "curriculum=instruct-only", f"instruct.epochs={epochs:.6f}", f"instruct.batch={batch}"]
    alone += [f"instruct.augment=[{augment}]"]
    only = _run(domain, f"bench-{domain}-only-{seed}", alone)
    one, other = _answers(both), _answers(only)
    keys = sorted(one.keys() & other.keys())
    first = np.array([one[key]["correct"] for key in keys], dtype=float)
    second = np.array([other[key]["correct"] for key in keys], dtype=float)
    groups = [one[key]["group"] for key in keys]
    gain = paired_bootstrap(second, first, groups, seed=0)
    wins, losses = int(((first == 1) & (second == 0)).sum()), int(((first == 0) & (second == 1)).sum())
    return (
        f"| {domain} | {seed} | {seen} / {_summary(only, 'instruct')['samples_seen']} | {first.mean():.3f} "
        f"| {second.mean():.3f} | {gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}) "
        f"| {mcnemar_exact(wins, losses):.3f} |"
    )


def _run(domain: str, name: str, settings: list[str]) -> Path:
    command = [sys.executable, "-m", "medkit", "run", domain, "--name", name]
    flags = [part for setting in settings for part in ("--set", setting)]
    subprocess.run([*command, *flags], check=True, stdout=sys.stderr)
    return Path("runs") / name


def _summary(folder: Path, stage: str) -> dict[str, Any]:
    return json.loads(next(folder.glob(f"*-{stage}/summary.json")).read_text())["result"]


def _answers(folder: Path) -> dict[str, dict[str, Any]]:
    rows = map(json.loads, next(folder.glob("*-evaluate-instruct/answers.jsonl")).read_text().splitlines())
    return {row["id"]: row for row in rows if row["benchmark"] == "held-out" and row["control"] == "none"}


if __name__ == "__main__":
    main()
