"""What the model and training tests share: tiny models, datasets of drawn scenes, and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from families import CORPUS as CORPUS
from families import SIZES as SIZES
from families import build as build
from families import build_family as build_family
from PIL import Image

from medkit.cards.strict_yaml import read_card
from medkit.models.load import Loaded
from medkit.readers.drawn import load_draw
from medkit.sample import Sample, assistant_turn, user_turn
from medkit.store import DatasetWriter, open_dataset
from medkit.teacher.teach import teach
from medkit.training.examples import ExampleSet

torch.set_num_threads(1)  # two threads on two busy cores wait for each other for minutes

DOMAINS = Path(__file__).resolve().parents[1] / "domains"
FULL = {"kind": "full"}
LORA = {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.1, "targets": []}
ADAPTER = {
    "rank": 4,
    "alpha": 8.0,
    "dropout": 0.0,
    "targets": [],
    "prompt_tokens": 5,
    "prompt_layers": None,
    "quantize": "none",
}
TEXT = {"vision": 0.0, "projector": 3e-3, "language": 3e-3}
RATES = {"vision": 1e-3, "projector": 1e-3, "language": 1e-3}


def scenes(folder: Path, train: int = 24, valid: int = 6, conversations: int = 1) -> Path:
    """Draws scenes, lets the rule teacher talk about them, and gives the folder with the text."""
    draw = load_draw(DOMAINS / "scenes" / "domain.py")
    with DatasetWriter(folder / "records", "scenes") as writer:
        for index in range(train + valid):
            pixels, facts = draw(1, index)
            source = {
                "dataset": "scenes",
                "record": f"s{index}",
                "licence": "CC0-1.0",
                "group": f"s{index}",
                "split": "train" if index < train else "valid",
                "kind": "record",
            }
            writer.add(Sample(f"s{index}", [], [writer.add_image(pixels)], facts, source))
    card = read_card(DOMAINS / "scenes" / "teacher.yaml").value
    settings = {
        "teacher": card,
        "conversations_per_image": conversations,
        "questions_per_image": 1,
        "seed": 0,
    }
    (folder / "taught").mkdir()
    teach(settings, {"ingest": folder / "records"}, folder / "taught")
    return folder / "taught"


def answers(folder: Path, count: int = 12, split: str = "train") -> Path:
    """Writes noise pictures with one short conversation each, their answers of unlike lengths."""
    rng = np.random.default_rng(0)
    with DatasetWriter(folder, "answers") as writer:
        for index in range(count):
            ref = writer.add_image(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
            colour = ("red", "green", "blue")[index % 3]
            turns = [
                user_turn("what colour is it?", images=1),
                assistant_turn(" ".join([colour] * (1 + index % 4))),
            ]
            if index % 2:
                turns += [
                    user_turn("is there a red circle?"),
                    assistant_turn("yes" if index % 3 == 0 else "no"),
                ]
            source = {"record": f"r{index}", "split": split, "kind": "conversation", "group": f"r{index}"}
            writer.add(Sample(f"r{index}", turns, [ref], {}, source))
    return folder


def examples(
    loaded: Loaded, folder: Path, split: str = "train", augment: list[str] | None = None
) -> ExampleSet:
    """Opens a dataset folder as examples."""
    dataset = open_dataset(folder)
    samples = [(0, sample) for sample in dataset if sample.split == split and sample.messages]
    return ExampleSet(loaded, [dataset], samples, 512, augment or [], 0)


def picture(size: tuple[int, int] = (32, 32), seed: int = 0) -> Image.Image:
    """Gives a picture of noise; ``size`` is (width, height)."""
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    )


def stage(**changes: Any) -> dict[str, Any]:
    """Gives the settings of a train step."""
    settings = {
        "stage": "instruct",
        "objective": "answer",
        "on": ["caption", "description", "conversation", "reasoning"],
        "train": RATES,
        "epochs": 1.0,
        "batch": 8,
        "micro_batch": None,
        "warmup": 0.1,
        "weight_decay": 0.01,
        "clip": 1.0,
        "schedule": "cosine",
        "replay": 0.0,
        "augment": [],
        "validate_every": None,
        "patience": None,
        "checkpoint_every": None,
        "gradient_checkpointing": False,
        "max_tokens": 512,
        "trackers": [],
        "optimizer": "adamw",
        "adapter": FULL,
        "seed": 0,
        "hardware": {"device": "cpu", "precision": "fp32", "threads": 1},
    }
    return settings | changes
