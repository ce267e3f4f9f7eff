"""Which adapter goes with what: read by ``medkit check`` before anything heavy, and again before training."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import Problem
from .models import Curriculum
from .strict_yaml import Document

# The keys of the adapter card that each kind reads, besides kind and quantize.
LOW_RANK = ("rank", "alpha", "dropout", "targets")
READS: dict[str, tuple[str, ...]] = {
    "full": (),
    **dict.fromkeys(("lora", "rslora", "dora", "pissa", "adalora"), LOW_RANK),
    "ia3": (),
    "llama_adapter": ("prompt_tokens", "prompt_layers"),
}
# Keys that are a mistake, and not a leftover of another kind, where the kind does not read them.
MISPLACED = ("targets", "prompt_tokens", "prompt_layers")
EIGHT_BIT = ("adamw8bit", "paged_adamw8bit", "lion8bit")
FAMILIES = (
    "gemma3",
    "idefics3",
    "internvl",
    "llava",
    "llava_next",
    "llava_onevision",
    "qwen2_5_vl",
    "qwen3_vl",
    "smolvlm",
)
MISSING = "needs the package bitsandbytes, which is not installed; run pip install bitsandbytes"


def refusal(adapter: Mapping[str, Any], rates: Mapping[str, float], family: str = "") -> tuple[str, str, str]:
    """Says why an adapter can't train a model, or gives three empty texts when it can.

    Args:
        adapter: The adapter card's values.
        rates: Learning rates of the parts.
        family: Model type, "" when it is not known yet.

    Returns:
        (key of the card, what is wrong, what to do instead).
    """
    kind, quantize = adapter["kind"], adapter.get("quantize", "none")
    if family and family not in FAMILIES:
        return "base", f"model type {family} is not supported", f"supported: {', '.join(FAMILIES)}"
    if kind == "full" and quantize != "none":
        return (
            "quantize",
            f"weights kept in {quantize} can't be trained themselves",
            "use kind: lora, or quantize: none",
        )
    if kind == "pissa" and quantize != "none":
        return (
            "quantize",
            f"pissa starts from the singular values of full weights, which {quantize} has not",
            "use kind: lora, or quantize: none",
        )
    if kind == "dora" and quantize == "int8":
        return (
            "quantize",
            "dora reads the whole weights at every step, and 8-bit ones lose their scales by that on a CPU",
            "use quantize: nf4, or kind: lora",
        )
    if kind == "llama_adapter" and rates.get("vision", 0) > 0:
        return (
            "kind",
            "llama_adapter adds prompts to the language model and can't train vision",
            "set the stages' train.vision to 0, or use kind: lora",
        )
    if adapter.get("targets") and "targets" not in READS[kind]:
        what = "trains the weights themselves" if kind == "full" else "has layers of its own"
        return "targets", f"{kind} {what} and takes no targets", "leave it out"
    if quantize != "none" and not installed("bitsandbytes"):
        return "quantize", MISSING, "or use quantize: none"
    return "", "", ""


def adapter_problems(document: Document, curriculum: Curriculum | None, base: Path | None) -> list[Problem]:
    """Gives the faults of a recipe's adapter with its stages and its base.

    Args:
        document: The recipe.
        curriculum: With the recipe's changes applied.
        base: Folder of the base model, None when it is not on this machine.
    """
    adapter = document.value.get("adapter", {})
    if not isinstance(adapter, dict) or adapter.get("kind", "full") not in READS:
        return []
    adapter = {"kind": "full", **adapter}
    faults: dict[str, Problem] = {}  # by what is wrong: stages share most faults

    def add(trail: tuple[str, ...], message: str, hint: str) -> None:
        faults.setdefault(message, document.problem(trail, message, hint))

    for key in MISPLACED:
        if adapter.get(key) and key not in READS[adapter["kind"]]:
            add(("adapter", key), f"kind {adapter['kind']} does not read {key}", "leave it out")
    family = base_family(base)
    for name, stage in (curriculum.stages if curriculum else {}).items():
        trail = ("stages", name)
        if stage.optimizer in EIGHT_BIT and not installed("bitsandbytes"):
            message = f"optimizer {stage.optimizer} {MISSING}"
            add((*trail, "optimizer"), message, "or use optimizer: adamw")
        adapted = stage.objective == "answer" and stage.train.vision + stage.train.language > 0
        used, rates = (adapter, stage.train.model_dump()) if adapted else ({"kind": "full"}, {})
        key, message, hint = refusal(used, rates, family)
        if message and key != "targets":
            add(("base",) if key == "base" else ("adapter", key), message, hint)
        if adapted and adapter["kind"] == "adalora" and stage.patience:
            message = "a stage can't stop early while adalora settles its ranks over the whole length"
            add((*trail, "patience"), message, "leave patience out, or use another kind")
    return list(faults.values())


def base_family(base: Path | None) -> str:
    """Gives the model type of a base folder without opening its weights; "" when its files don't tell."""
    for _ in range(2):  # an adapter names its base, which is a model
        try:
            adapter = json.loads((base / "adapter_config.json").read_text()) if base else {}
            base = Path(adapter["base_model_name_or_path"])
        except (OSError, ValueError, KeyError, TypeError):
            break
    try:
        return str(json.loads((base / "config.json").read_text())["model_type"]) if base else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def installed(package: str) -> bool:
    """Says whether a package could be imported, without importing it."""
    return importlib.util.find_spec(package) is not None
