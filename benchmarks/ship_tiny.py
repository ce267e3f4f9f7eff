"""Puts the model of a finished `medkit run tiny-general` on the shelf, with a note of how it was made.

python benchmarks/ship_tiny.py runs/tiny-general checkpoints/tiny-general
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
from datetime import date
from pathlib import Path
from typing import Any


def main() -> None:
    """Copies the model folder and writes ``made.json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--note", default="", help="anything that a reader should know about how it was made")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.target, ignore_errors=True)
    shutil.copytree(arguments.run / "model", arguments.target)
    (arguments.target / "made.json").write_text(json.dumps(describe(arguments), indent=2) + "\n")


def describe(arguments: argparse.Namespace) -> dict[str, Any]:
    """Gathers recipe, seed, hash, time and scores."""
    summaries = sorted(
        arguments.run.glob("[0-9]*-*/summary.json"), key=lambda path: int(path.parent.name.split("-")[0])
    )
    steps = {path.parent.name.split("-", 1)[1]: json.loads(path.read_text()) for path in summaries}
    stages = [name for name, step in steps.items() if step["verb"] == "train"]
    scores = json.loads(next(arguments.run.glob(f"*-evaluate-{stages[-1]}/scores.json")).read_text())
    held_out = scores["benchmarks"]["held-out"]
    weights = (arguments.target / "model.safetensors").read_bytes()
    return {
        "recipe": "recipes/tiny-general.yaml",
        "curriculum": "curricula/from-nothing.yaml",
        "seed": steps[stages[0]]["settings"]["seed"],
        "sha256": hashlib.sha256(weights).hexdigest(),
        "parameters": steps["build"]["result"]["parameters"],
        "made": str(date.today()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, no GPU",
        "training_minutes": round(sum(steps[name]["result"]["seconds"] for name in stages) / 60, 1),
        "samples_seen": {name: steps[name]["result"]["samples_seen"] for name in stages},
        "scenes_accuracy": held_out["accuracy"],
        "scenes_by_kind": {
            kind: {"count": part["count"], "accuracy": part["value"]}
            for kind, part in held_out["slices"]["kind"].items()
        },
        "note": arguments.note,
    }


if __name__ == "__main__":
    main()
