"""Adapted tiny model against its base, the majority answer and logistic regression, on real images, three seeds.

    python benchmarks/real_domains.py --data ../shared/data --domains sorting retail blood --seeds 0 1 2

Every number comes from the run folders that `medkit run` leaves; logistic regression is trained here, on the same
training images. Results are appended to a JSON file and printed as a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from medkit.models.contract import Contract, prepare_image
from medkit.store import open_dataset

FOLDERS = {"blood": "bccd", "retail": "fashion_mnist", "sorting": "trashnet"}
CLASS_QUESTIONS = {"retail": "class", "sorting": "class"}
SIDES_PX = (28, 64)  # the arrays' own size, and what the model sees
PENALTIES = (0.0003, 0.001, 0.01, 0.1, 1.0)


def main() -> None:
    """Runs what is asked and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("MEDKIT_SHARED", "../shared")) / "data"
    )
    parser.add_argument("--domains", nargs="+", choices=FOLDERS, default=list(FOLDERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], help="passed on to medkit run")
    parser.add_argument("--tag", default="", help="added to the run names, so that other settings don't mix")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = [measure(domain, seed, arguments) for domain in arguments.domains for seed in arguments.seeds]
    print(f"\n{date.today()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores\n")
    print(
        "| domain | seed | base | adapted | gain | kinds not above the majority | class | regression | minutes |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(as_row(row))


def measure(domain: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs one recipe and reads its numbers."""
    name = f"bench-{domain}{arguments.tag}-{seed}"
    settings = [f"data={arguments.data / FOLDERS[domain]}", f"seed={seed}", *arguments.set]
    command = [sys.executable, "-m", "medkit", "run", domain, "--name", name]
    started = time.monotonic()
    subprocess.run([*command, *[part for setting in settings for part in ("--set", setting)]], check=True)
    minutes = (time.monotonic() - started) / 60
    row = read_run(Path("runs") / name, domain)
    row |= {"seed": seed, "minutes": round(minutes, 1)}
    if domain in CLASS_QUESTIONS:
        ingest = next((Path("runs") / name).glob("*-ingest"))
        row["logistic_regression"] = logistic_regression(ingest)
    (arguments.out / f"{name}.json").write_text(json.dumps(row, indent=1))
    return row


def read_run(folder: Path, domain: str) -> dict[str, Any]:
    """Reads base and final accuracy, the paired difference and the kinds from a run folder."""
    compared = json.loads(next(folder.glob("*-compare/comparisons.json")).read_text())["benchmarks"][
        "held-out"
    ]
    final = list(compared["stages"])[-1]
    scores = json.loads(next(folder.glob(f"*-evaluate-{final}/scores.json")).read_text())["benchmarks"][
        "held-out"
    ]
    stage = compared["stages"][final]
    kinds = {
        kind: {"count": part["count"], "accuracy": part["value"], "majority": part["majority"]}
        for kind, part in scores["slices"]["kind"].items()
    }
    row = {
        "domain": domain, "base": compared["base"], "adapted": stage["accuracy"], "difference": stage["difference"],
        "p_value": stage["p_value"], "kinds": kinds, "controls": scores["controls"],
    }  # fmt: skip
    if domain in CLASS_QUESTIONS:
        row["class"] = kinds[CLASS_QUESTIONS[domain]]["accuracy"]
    return row


def logistic_regression(ingest: Path) -> dict[str, float]:
    """Trains scikit-learn's logistic regression on the training pictures' pixels and tests it on the test split.

    The penalty is chosen on the valid split; the model is then fitted on train and valid together.

    Returns:
        Test accuracy by picture side in px.
    """
    dataset = open_dataset(ingest)
    samples = [dataset[index] for index in range(len(dataset))]
    found = {}
    for side in SIDES_PX:
        pixels = np.stack([_pixels(dataset.image(sample.images[0]), side) for sample in samples])
        if (pixels[..., 0] == pixels[..., 1]).all():
            pixels = pixels[..., :1]
        features = pixels.reshape(len(pixels), -1).astype(np.float32) / 255
        labels = np.array([sample.facts["labels"]["class"] for sample in samples])
        split = np.array([sample.split for sample in samples])
        if features.shape[1] > 800 and len(samples) > 5000:
            continue  # the arrays' own 28 px hold all there is to see
        scores = {
            penalty: _fit(penalty, features, labels, split == "train").score(
                features[split == "valid"], labels[split == "valid"]
            )
            for penalty in PENALTIES
        }
        model = _fit(max(scores, key=lambda penalty: scores[penalty]), features, labels, split != "test")
        found[str(side)] = round(float(model.score(features[split == "test"], labels[split == "test"])), 4)
    return found


def _fit(penalty: float, features: np.ndarray, labels: np.ndarray, chosen: np.ndarray) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(features[chosen], labels[chosen])


def _pixels(image: Any, side: int) -> np.ndarray:
    return np.asarray(
        prepare_image(image, Contract(fit="pad", mean_colour=(128, 128, 128))).resize((side, side))
    )


def as_row(row: dict[str, Any]) -> str:
    """Formats one run as a table row."""
    below = [kind for kind, part in row["kinds"].items() if part["accuracy"] <= part["majority"]]
    gain = row["difference"]
    regression = ", ".join(
        f"{value:.3f} ({side} px)" for side, value in row.get("logistic_regression", {}).items()
    )
    return (
        f"| {row['domain']} | {row['seed']} | {row['base']['value']:.3f} | {row['adapted']['value']:.3f} "
        f"| {gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f}) | {', '.join(below) or 'none'} "
        f"| {row.get('class', float('nan')):.3f} | {regression or '-'} | {row['minutes']} |"
    )


if __name__ == "__main__":
    main()
