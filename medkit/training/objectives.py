"""What a stage minimises: the answers' cross-entropy, or labels of the picture and of its patches.

An objective is a module whose forward gives a weighted loss sum, so that the loop can normalise over all
micro-batches and processes alike.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..errors import TrainingError
from ..models.adalora import after_step, allocation, regulariser, restore_allocation
from ..models.load import Loaded
from ..sample import Sample
from .batches import Move
from .encode import IGNORE
from .examples import ExampleSet
from .pack import packed_mask

BACKGROUND_WEIGHT = 0.15  # most patches show the ground; at full weight they drown the objects
PLACE = re.compile(r"\b(left|right|upper|lower|top|bottom|middle|centre|center)\b")
RARE = 20  # attribute values seen less often than this are not learnt
CELL, CENTRE = (
    "medkit:cell",
    "medkit:centre",
)  # heads that every object has, whatever its attributes are called
COVER = 0.4  # share of a patch that a box must cover to name it, if it covers so much of any


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
        self.counts = examples.counts
        self.lengths = examples.lengths

    def collate(self, indices: np.ndarray, epoch: int) -> dict[str, torch.Tensor]:
        """Makes the batch of ``indices``."""
        return self.examples.collate(indices, epoch)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Gives the summed loss (float32 scalar) over the batch's supervised tokens."""
        labels = batch["labels"][:, 1:]  # [B, T-1]
        seen = {key: tensor for key, tensor in batch.items() if key not in ("labels", "segments")}
        base = self._base[0]
        if "segments" in batch:
            boolean = base.config._attn_implementation == "sdpa"
            seen["attention_mask"] = packed_mask(batch["segments"], base.dtype, boolean)
        hidden = base.model(**seen, use_cache=False).last_hidden_state[:, :-1]  # [B, T-1, D]
        mask = labels != IGNORE
        logits = base.get_output_embeddings()(hidden[mask])  # [S, V]
        loss = functional.cross_entropy(logits.float(), labels[mask], reduction="sum")
        penalty = regulariser(self.model) if self.training else None
        # the loop divides by the number of tokens
        return loss if penalty is None else loss + penalty * mask.sum()

    def after_step(self, step: int, total: int) -> None:
        """Lets the adapter act on a step that was taken, before its gradients are cleared."""
        after_step(self.model, step, total)

    def memory(self) -> dict[str, Any]:
        """Gives what must be in a checkpoint beside parameters."""
        return allocation(self.model)

    def remember(self, state: dict[str, Any]) -> None:
        """Takes back what ``memory`` gave."""
        restore_allocation(self.model, state)


class SeeObjective(nn.Module):
    """Direct supervision of the vision tower: every patch names the object that covers it, all name the picture.

    Label, and every attribute of ``facts.objects`` with a few values, is one linear head over patch features;
    every key of ``facts.labels``, and the modality, is one over their mean. The heads are thrown away
    afterwards; the tower keeps what it learnt. LLaVA-type towers only.
    """

    def __init__(self, loaded: Loaded, examples: ExampleSet, heads: SeeHeads):
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
        self.heads = nn.ModuleList(_head(width, len(values) + 1) for values in heads.patch.values())
        self.wholes = nn.ModuleList(_head(width, len(values)) for values in heads.whole.values())
        self.names = heads
        self.examples = examples
        self.facts = [sample.facts for sample in examples.kept]
        self.weights = np.ones(len(examples), dtype=np.int64)
        self.counts = self.weights
        self.lengths = np.ones(len(examples), dtype=np.int64)

    def collate(self, indices: np.ndarray, epoch: int) -> dict[str, torch.Tensor]:
        """Makes pictures, patch targets (int64 [B, heads, side, side]) and picture targets (int64 [B, heads]).

        -100 is unknown; the last value of a patch head is the ground.
        """
        batch = {"pixel_values": self.examples.pictures(indices, epoch)["pixel_values"]}
        facts = [moved(self.facts[index], self.examples.move(int(index), epoch)) for index in indices]
        patches = np.stack([patch_targets(one, self.names.patch, self.side) for one in facts])
        wholes = np.stack([whole_targets(one, self.names.whole) for one in facts])
        return {**batch, "patches": torch.from_numpy(patches), "wholes": torch.from_numpy(wholes)}

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Gives the mean loss of patches and pictures times the number of pictures (float32 scalar).

        A head counts by the share of the pictures that know it: the heads of a few replayed scenes don't
        drown the one label of the domain.
        """
        states = self.tower(batch["pixel_values"], output_hidden_states=True).hidden_states
        features = states[self.layer][:, 1:]  # without the class token
        features = functional.layer_norm(features, features.shape[-1:])
        patches, wholes = batch["patches"].flatten(2), batch["wholes"]  # [B, heads, P], [B, heads]
        total = features.new_zeros((), dtype=torch.float32)
        for number, head in enumerate(self.heads):
            known = patches[:, number] != IGNORE
            if not bool(known.any()):
                continue
            logits = head(features[known]).float()
            weight = torch.ones(logits.shape[1], device=logits.device)
            weight[-1] = BACKGROUND_WEIGHT
            loss = functional.cross_entropy(logits, patches[:, number][known], weight=weight)
            total = total + loss * known.any(dim=1).sum()
        for number, head in enumerate(self.wholes):
            known = wholes[:, number] != IGNORE
            if bool(known.any()):
                logits = head(features[known].mean(dim=1)).float()
                total = total + functional.cross_entropy(logits, wholes[:, number][known], reduction="sum")
        return total

    def after_step(self, step: int, total: int) -> None:
        """Does nothing: heads and tower need nothing between steps."""

    def memory(self) -> dict[str, Any]:
        """Gives nothing: all there is to keep is in the parameters."""
        return {}

    def remember(self, state: dict[str, Any]) -> None:
        """Takes nothing back."""


def _head(width: int, values: int) -> nn.Linear:
    # a random head would be wrong with confidence at first, and the tower would pay for it
    head = nn.Linear(width, values)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


@dataclass(frozen=True)
class SeeHeads:
    """What a tower is asked while it learns to see.

    Attributes:
        patch: Values of every question to a patch: label and attributes of the object that covers it.
        whole: Values of every question to the whole picture: its labels and its modality.
    """

    patch: dict[str, list[str]]
    whole: dict[str, list[str]]


def see_heads(samples: list[Sample], places: bool) -> SeeHeads:
    """Collects what patches and pictures can be asked, with the values seen.

    Args:
        samples: With ``facts.objects`` or ``facts.labels``.
        places: Ask as well for the place of the object, as one of nine cells, which makes every patch of it
            tell where it is; and for the one patch that holds its centre, which makes objects countable.

    Raises:
        TrainingError: No sample has an object, and none a label of which there are two values.
    """
    patch: dict[str, Counter[str]] = {}
    whole: dict[str, Counter[str]] = {}
    for sample in samples:
        for thing in sample.facts.get("objects", []):
            for key, value in _named(thing).items():
                patch.setdefault(key, Counter())[value] += 1
        for key, value in _labelled(sample.facts).items():
            whole.setdefault(key, Counter())[value] += 1
    floor = min(RARE, max(1, len(samples) // 50))
    heads = SeeHeads(_asked(patch, floor), _asked(whole, floor))
    if patch and places:
        heads.patch[CELL] = [f"{row}-{column}" for row in range(3) for column in range(3)]
        heads.patch[CENTRE] = ["centre"]
    if not (heads.patch or heads.whole):
        raise TrainingError(
            "objective see needs facts.objects with boxes or facts.labels, with two values or more; "
            "this dataset has none"
        )
    return heads


def _named(thing: dict[str, Any]) -> dict[str, str]:
    attributes = {key: str(value) for key, value in thing.get("attributes", {}).items()}
    return {"label": thing["label"], **attributes}


def _labelled(facts: dict[str, Any]) -> dict[str, str]:
    labels = {
        key: str(value) for key, value in facts.get("labels", {}).items() if not isinstance(value, list)
    }
    return {**labels, "modality": facts["modality"]} if facts.get("modality") else labels


def _asked(seen: dict[str, Counter[str]], floor: int) -> dict[str, list[str]]:
    values = {
        key: sorted(value for value, count in counts.items() if count >= floor)
        for key, counts in seen.items()
    }
    return {key: known for key, known in values.items() if len(known) > 1}


def moved(facts: dict[str, Any], move: Move) -> dict[str, Any]:
    """Gives facts whose boxes went where a varied picture shows their objects; what left it is left out."""
    things = [{**thing, "box": move.box(thing["box"])} for thing in facts.get("objects", [])]
    seen = [
        thing for thing in things if thing["box"][0] < thing["box"][2] and thing["box"][1] < thing["box"][3]
    ]
    return {**facts, "objects": seen}


def names_places(facts: dict[str, Any]) -> bool:
    """Says whether an attribute of an object names a place, which a moved picture would make untrue."""
    values = [value for thing in facts.get("objects", []) for value in _named(thing).values()]
    return any(PLACE.search(value) for value in values)


def whole_targets(facts: dict[str, Any], heads: dict[str, list[str]]) -> np.ndarray:
    """Names the picture: int64 [heads], -100 where its label is unknown or rare."""
    named = _labelled(facts)
    return np.array(
        [values.index(named[key]) if named.get(key) in values else IGNORE for key, values in heads.items()],
        dtype=np.int64,
    )


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
        if not covered.any():  # smaller than a patch: the one with its centre is all there is of it
            covered[int(row * side), int(column * side)] = True
        named = {**_named(thing), CELL: f"{int(row * 3)}-{int(column * 3)}"}
        for number, (key, values) in enumerate(heads.items()):
            if key == CENTRE:
                targets[number, int(row * side), int(column * side)] = 0
            elif (value := named.get(key)) in values:
                targets[number][covered] = values.index(value)
    return targets
