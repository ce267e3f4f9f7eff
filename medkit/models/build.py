"""The build step: an untrained small LLaVA whose tokenizer knows the words of the recipe's domains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..sample import text_of
from ..store import open_dataset
from .tiny import build_tiny

CORPUS_SAMPLES = 20_000  # a tokenizer of two thousand words is settled long before
WORD_REPEATS = 50  # words that only a later domain uses weigh as much as common ones


def build(settings: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Builds the model folder ``model`` from config.

    Args:
        settings: ``sizes`` (see ``build_tiny``), ``words`` (texts of other domains' teacher cards), ``seed``.
        inputs: ``data``: the dataset folder whose text the tokenizer is trained on.
        out: Step folder.

    Returns:
        ``model`` and ``parameters``.
    """
    loaded = build_tiny(settings["sizes"], _corpus(settings, inputs["data"]), out / "model", settings["seed"])
    return {"model": "model", "parameters": sum(p.numel() for p in loaded.model.parameters())}


def _corpus(settings: dict[str, Any], data: Path) -> Iterator[str]:
    dataset = open_dataset(data)
    stride = max(1, len(dataset) // CORPUS_SAMPLES)
    for index in range(0, len(dataset), stride):
        for message in dataset[index].messages:
            # with the space that stands before an answer, so that " yes" is one token
            yield f" {text_of(message)}"
    for text in settings["words"]:
        yield from [f" {text}"] * WORD_REPEATS
