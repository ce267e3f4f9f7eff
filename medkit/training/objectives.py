"""What a stage minimises: the answers' cross-entropy, or dense labels of the picture's patches.

An objective is a module whose forward gives a weighted loss sum, so that the loop can normalise over all
micro-batches and processes alike.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..errors import TrainingError
from ..models.load import Loaded
from ..sample import Sample
from .encode import IGNORE
from .examples import ExampleSet

BACKGROUND_WEIGHT = 0.15  # most patches show the ground; at full weight they drown the objects
RARE = 20  # attribute values seen less often than this are not learnt
CELL, CENTRE = (
    "medkit:cell",
    "medkit:centre",
)  # heads that every object has, whatever its attributes are called
COVER = 0.4  # share of a patch that a box must cover to name it


class AnswerObjective(nn.Module):
    """Cross-entropy of supervised tokens; logits are made at supervised positions only.

    Most positions of a caption sample are picture tokens, whose logits nobody needs: the output layer runs on
    the others alone, with the same result.
    """

    def __init__(self, loaded: Loaded, examples: ExampleSet):
        super().__init__()
        self.model = loaded.model
        self._base: list[Any] = [
            loaded.base_model
        ]  # in a list, so that its parameters are not registered twice
        self.examples = examples
        self.weights = examples.supervised
        self.lengths = examples.lengths

    def collate(self, indices: np.ndarray, epoch: int) -> dict[str, torch.Tensor]:
        """Makes the batch of ``indices``."""
        return self.examples.collate(indices, epoch)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Gives the summed loss (float32 scalar) over the batch's supervised tokens."""
        labels = batch["labels"][:, 1:]  # [B, T-1]
        seen = {key: tensor for key, tensor in batch.items() if key != "labels"}
        base = self._base[0]
        hidden = base.model(**seen, use_cache=False).last_hidden_state[:, :-1]  # [B, T-1, D]
        mask = labels != IGNORE
        logits = base.get_output_embeddings()(hidden[mask])  # [S, V]
        return functional.cross_entropy(logits.float(), labels[mask], reduction="sum")


class SeeObjective(nn.Module):
    """Dense supervision of the vision tower: every patch names the object that covers it.

    Label, and every attribute of ``facts.objects`` with a few values, is one linear head over patch features.
    The heads are thrown away afterwards; the tower keeps what it learnt. LLaVA-type towers only.
    """

    def __init__(self, loaded: Loaded, examples: ExampleSet, heads: dict[str, list[str]]):
        super().__init__()
        config = loaded.base_model.config
        tower = getattr(loaded.base_model.model, "vision_tower", None)
        if tower is None or not hasattr(config, "vision_feature_layer"):
            raise TrainingError(
                f"objective see needs a LLaVA-type vision tower; {config.model_type} has none"
            )
        self.tower, self.layer = tower, config.vision_feature_layer
        self.side = config.vision_config.image_size // config.vision_config.patch_size
        width = config.vision_config.hidden_size
        self.heads = nn.ModuleList(nn.Linear(width, len(values) + 1) for values in heads.values())
        self.names = heads
        self.examples = examples
        self.facts = [sample.facts for sample in examples.kept]
        self.weights = np.ones(len(examples), dtype=np.int64)
        self.lengths = np.ones(len(examples), dtype=np.int64)

    def collate(self, indices: np.ndarray, epoch: int) -> dict[str, torch.Tensor]:
        """Makes pictures and patch targets (int64 [B, heads, side, side]; -100 unknown, last is ground)."""
        batch = {"pixel_values": self.examples.pictures(indices, epoch)["pixel_values"]}
        targets = [patch_targets(self.facts[index], self.names, self.side) for index in indices]
        return {**batch, "targets": torch.from_numpy(np.stack(targets))}

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Gives the mean patch loss times the number of pictures (float32 scalar)."""
        states = self.tower(batch["pixel_values"], output_hidden_states=True).hidden_states
        features = states[self.layer][:, 1:]  # without the class token
        targets = batch["targets"].flatten(2)  # [B, heads, patches]
        total = features.new_zeros((), dtype=torch.float32)
        for number, head in enumerate(self.heads):
            known = targets[:, number] != IGNORE
            if not bool(known.any()):
                continue
            logits = head(features[known]).float()
            weight = torch.ones(logits.shape[1], device=logits.device)
            weight[-1] = BACKGROUND_WEIGHT
            total = total + functional.cross_entropy(logits, targets[:, number][known], weight=weight)
        return total * len(targets)


def see_heads(samples: list[Sample], places: bool) -> dict[str, list[str]]:
    """Collects what patches can be asked: label and attributes of their object, with the values seen.

    Args:
        samples: With ``facts.objects``.
        places: Ask as well for the place of the object, as one of nine cells, which makes every patch of it
            tell where it is; and for the one patch that holds its centre, which makes objects countable.

    Raises:
        TrainingError: No sample has an object.
    """
    seen: dict[str, Counter[str]] = {"label": Counter()}
    for sample in samples:
        for thing in sample.facts.get("objects", []):
            seen["label"][thing["label"]] += 1
            for key, value in thing.get("attributes", {}).items():
                seen.setdefault(key, Counter())[str(value)] += 1
    if not seen["label"]:
        raise TrainingError("objective see needs facts.objects with boxes; this dataset has none")
    floor = min(RARE, max(1, len(samples) // 50))
    heads = {
        key: sorted(value for value, count in counts.items() if count >= floor)
        for key, counts in seen.items()
    }
    heads = {key: values for key, values in heads.items() if len(values) > 1}
    if places:
        heads |= {CELL: [f"{row}-{column}" for row in range(3) for column in range(3)], CENTRE: ["centre"]}
    return heads


def patch_targets(facts: dict[str, Any], heads: dict[str, list[str]], side: int) -> np.ndarray:
    """Names every patch by the box that covers it.

    Args:
        facts: With ``objects`` whose boxes are in 0..1.
        heads: Values of every head.
        side: Patches along an edge.

    Returns:
        int64 [heads, side, side]; ground patches are ``len(values)`` for ``label`` and ``CENTRE`` and -100
        for what only objects have.
    """
    targets = np.full((len(heads), side, side), IGNORE, dtype=np.int64)
    for number, key in enumerate(heads):
        if key in ("label", CENTRE):
            targets[number] = len(heads[key])
    edges = np.arange(side)
    for thing in facts.get("objects", []):
        x0, y0, x1, y1 = (edge * side for edge in thing["box"])
        across = np.clip(np.minimum(edges + 1, x1) - np.maximum(edges, x0), 0, 1)
        down = np.clip(np.minimum(edges + 1, y1) - np.maximum(edges, y0), 0, 1)
        covered = np.outer(down, across) > COVER
        row, column = min((y0 + y1) / 2 / side, 0.999), min((x0 + x1) / 2 / side, 0.999)
        named = {
            **thing.get("attributes", {}),
            "label": thing["label"],
            CELL: f"{int(row * 3)}-{int(column * 3)}",
        }
        for number, (key, values) in enumerate(heads.items()):
            if key == CENTRE:
                targets[number, int(row * side), int(column * side)] = 0
            elif (value := str(named.get(key))) in values:
                targets[number][covered] = values.index(value)
    return targets
