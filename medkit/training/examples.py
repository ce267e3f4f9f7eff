"""What a stage trains on: chosen samples, encoded once, with their pictures prepared on demand."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import DataError, TrainingError
from ..models.contract import prepare_image
from ..models.conversations import as_asked
from ..models.load import Loaded
from ..progress import bar
from ..sample import Sample, text_of
from ..store import Dataset, open_dataset
from .batches import Move, augment_image, draw_move
from .encode import IGNORE, Encoded, Limit, UnfitSample, encode_within
from .pack import pack, refuse_unpackable, single_turns, takes_turns

WORDLESS = Encoded(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32))
LENGTH_STEP = 16  # few different shapes: the CPU's kernels are made, and kept in memory, for every one
CACHE_BYTES = 512 * 1024 * 1024
REMEMBERED = 20_000  # encoded texts: a domain's teacher asks the same of many pictures


@dataclass(frozen=True)
class Example:
    """A sample ready for batching.

    Attributes:
        dataset: Which of the opened dataset folders.
        images: References of its pictures.
        encoded: Ids and labels.
        text: The conversation, or the values of the facts, in lower case (flips must not contradict it).
        count: Samples in it; more than one when packed.
    """

    dataset: int
    images: tuple[str, ...]
    encoded: Encoded
    text: str
    count: int = 1


def gather_samples(
    folders: list[Path], kinds: list[str], split: str, shares: list[float], seed: int
) -> tuple[list[Dataset], list[tuple[int, Sample]]]:
    """Opens dataset folders and picks the samples of a split.

    Args:
        folders: The domain's folder first, then the replay folder.
        kinds: Sample kinds to take.
        split: ``train`` or ``valid``.
        shares: Share of each further folder in the whole (``[0.25]``: a quarter is replay), drawn without
            replacement while it lasts.
        seed: Of the draw.

    Raises:
        DataError: The domain's folder has no such sample.
    """
    datasets = [open_dataset(folder) for folder in folders]
    picked = [(0, datasets[0][index]) for index in datasets[0].select(kinds=kinds, splits=[split])]
    if not picked and split == "train":
        raise DataError(
            f"{folders[0]}: no {split} sample of kind {', '.join(kinds)}; its dataset.json says what is there"
        )
    own = len(picked)
    for number, share in enumerate(shares, start=1):
        if share <= 0:
            continue
        rows = datasets[number].select(kinds=kinds, splits=[split])
        wanted = min(len(rows), round(own * share / (1 - share)))
        chosen = np.random.default_rng([seed, number]).permutation(len(rows))[:wanted]
        picked += [(number, datasets[number][rows[index]]) for index in sorted(chosen)]
    return datasets, picked


def part_of_pass(
    samples: list[tuple[int, Sample]], epochs: float, seed: int, packed: bool = False
) -> list[tuple[int, Sample]]:
    """Chooses the samples of less than one pass, so that the others need not be encoded; else gives all.

    Args:
        samples: (dataset number, sample) pairs.
        epochs: Share of a pass.
        seed: Of the choice.
        packed: Choose pictures with all their samples, which will share a sequence.
    """
    if epochs >= 1:
        return samples
    keys = [
        (number, *one.images) if packed and one.images else place
        for place, (number, one) in enumerate(samples)
    ]
    groups = list(dict.fromkeys(keys))
    order = np.random.default_rng([seed, 0]).permutation(len(groups))[: math.ceil(len(groups) * epochs)]
    chosen = {groups[index] for index in order}
    return [sample for key, sample in zip(keys, samples, strict=True) if key in chosen]


def take_apart(samples: list[tuple[int, Sample]]) -> list[tuple[int, Sample]]:
    """Makes every question of a conversation, with its answer, a sample; what is no such talk stays whole."""
    return [
        (number, part)
        for number, sample in samples
        for part in (single_turns(sample) if takes_turns(sample) else [sample])
    ]


class ExampleSet:
    """Encoded examples of a stage and the pictures that belong to them.

    Args:
        loaded: Processor and contract of the checkpoint.
        datasets: Opened dataset folders.
        samples: (dataset number, sample) pairs.
        limit: Longest sequence in tokens, and what becomes of a longer sample (refused where a number).
        augment: Kinds of picture variation, [] for none.
        seed: Of the variation.
        wordless: The pictures and facts alone are trained on; text is not encoded.
        packed: Samples of the same pictures share a sequence.

    Attributes:
        examples: What can be trained on.
        kept: Their samples, in the same order, boxes as the model sees them; only when wordless, for their text
            and facts are large.
        dropped: Ledger rows of what can't.
        shortened: Ledger rows of conversations that lost their oldest questions.
    """

    def __init__(
        self, loaded: Loaded, datasets: list[Dataset], samples: list[tuple[int, Sample]],
        limit: Limit | int, augment: list[str], seed: int, wordless: bool = False, packed: bool = False,
    ):  # fmt: skip
        self.loaded, self.datasets, self.augment, self.seed = loaded, datasets, augment, seed
        self.packed = packed
        limit = limit if isinstance(limit, Limit) else Limit(limit)
        self.examples: list[Example] = []
        self.kept: list[Sample] = []
        self.dropped: list[dict[str, str]] = []
        self.shortened: list[dict[str, str]] = []
        self._pixels: OrderedDict[str, dict[str, torch.Tensor]] = OrderedDict()
        self._cached_bytes = 0
        self._sizes: dict[str, tuple[int, int]] = {}
        self._encoded: dict[str, tuple[Encoded, int]] = {}
        self._side = _model_side(loaded.processor.image_processor)
        with bar("encoding", len(samples)) as progress:
            for number, sample in samples:
                self._take(number, sample, limit, wordless)
                progress.advance()
        self._encoded.clear()
        if packed:
            self.examples = self._pack(limit.tokens)
        if samples and not self.examples:
            raise TrainingError(
                f"none of {len(samples)} samples can be trained on; first reason: {self.dropped[0]['reason']}"
            )

    def _take(self, number: int, sample: Sample, limit: Limit, wordless: bool) -> None:
        """Encodes one sample, or writes down why that can't be."""
        try:
            if wordless:
                sample = _as_seen(sample, self.datasets[number], self.loaded.contract.fit)
                encoded, left_out = WORDLESS, 0
            else:
                encoded, left_out = self._encode(number, sample, limit)
        except UnfitSample as reason:
            self.dropped.append({"record": sample.id, "fate": "rejected", "reason": str(reason)})
            return
        if left_out:
            reason = f"{left_out} oldest questions left out to fit max_tokens {limit.tokens}"
            self.shortened.append({"record": sample.id, "fate": "shortened", "reason": reason})
        text = ""
        if wordless:
            self.kept.append(sample)
            text = _values(sample.facts)
        elif self.augment:
            text = " ".join(text_of(message) for message in sample.messages).lower()
        self.examples.append(Example(number, tuple(sample.images), encoded, text))

    def _encode(self, number: int, sample: Sample, limit: Limit) -> tuple[Encoded, int]:
        for ref in sample.images:
            if ref not in self._sizes:
                blank = Image.new("RGB", self.datasets[number].image_size(ref))
                self._sizes[ref] = prepare_image(blank, self.loaded.contract).size
        shapes = [self._sizes[ref] for ref in sample.images]
        messages = sample.messages
        if sample.kind == "question":
            choices = bool(sample.facts.get("question", {}).get("choices"))
            messages = as_asked(messages, choices, self.loaded.contract.answer_formats)
        # the same question about another picture of the same size has the same tokens
        key = f"{shapes} {messages}"
        if key not in self._encoded:
            if len(self._encoded) >= REMEMBERED:
                self._encoded.clear()
            self._encoded[key] = encode_within(self.loaded.processor, messages, shapes, limit)
        return self._encoded[key]

    def _pack(self, max_tokens: int) -> list[Example]:
        refuse_unpackable(self.loaded.model_type, str(self.loaded.base_model.config._attn_implementation))
        image_token = self.loaded.base_model.config.image_token_id
        groups: dict[Any, list[Example]] = {}
        for place, example in enumerate(self.examples):
            # without a picture there is nothing to share
            key = (example.dataset, example.images) if example.images else place
            groups.setdefault(key, []).append(example)
        return [
            replace(
                group[0], encoded=encoded, text=" ".join(group[number].text for number in numbers),
                count=len(numbers),
            )
            for group in groups.values()
            for encoded, numbers in pack([one.encoded for one in group], image_token, max_tokens)
        ]  # fmt: skip

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def counts(self) -> np.ndarray:
        """Samples in every example, int64 [N]."""
        return np.array([example.count for example in self.examples], dtype=np.int64)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every example, int64 [N]."""
        return np.array([len(example.encoded.ids) for example in self.examples], dtype=np.int64)

    @property
    def supervised(self) -> np.ndarray:
        """Supervised tokens of every example, int64 [N]."""
        return np.array([example.encoded.supervised for example in self.examples], dtype=np.int64)

    def collate(self, indices: np.ndarray, epoch: int) -> dict[str, torch.Tensor]:
        """Pads examples on the right and stacks their pictures.

        Returns:
            ``input_ids``, ``attention_mask``, ``labels`` (int64 [B, T]) and the family's picture tensors; of
            packed examples ``segments`` and ``position_ids`` (int64 [B, T]) in place of ``attention_mask``.
        """
        chosen = [self.examples[index] for index in indices]
        longest = max(len(example.encoded.ids) for example in chosen)
        longest = -(-longest // LENGTH_STEP) * LENGTH_STEP
        tokenizer = getattr(self.loaded.processor, "tokenizer", self.loaded.processor)
        batch = {
            "input_ids": _padded(
                [example.encoded.ids for example in chosen], longest, tokenizer.pad_token_id
            ),
            "labels": _padded([example.encoded.labels for example in chosen], longest, IGNORE),
        }
        if self.packed:
            batch["segments"] = _padded([_segments(example.encoded) for example in chosen], longest, -1)
            batch["position_ids"] = _padded([_positions(example.encoded) for example in chosen], longest, 0)
        else:
            ones = [np.ones(len(example.encoded.ids)) for example in chosen]
            batch["attention_mask"] = _padded(ones, longest, 0)
        for key in chosen[0].encoded.extra:
            batch[key] = _padded([example.encoded.extra[key] for example in chosen], longest, 0)
        return batch | self.pictures(indices, epoch)

    def pictures(self, indices: np.ndarray, epoch: int) -> dict[str, torch.Tensor]:
        """Stacks the picture tensors of examples, in order; empty when none has a picture."""
        made = [
            self._picture(self.examples[index], ref, int(index), epoch)
            for index in indices
            for ref in self.examples[index].images
        ]
        stacked = {key: _stacked([picture[key] for picture in made]) for key in (made[0] if made else ())}
        if "batch_num_images" in stacked:  # of a sample: with several, a picture is not cut into tiles
            counts = [len(self.examples[index].images) for index in indices]
            stacked["batch_num_images"] = torch.tensor([count for count in counts if count])
        return stacked

    def move(self, index: int, epoch: int) -> Move:
        """Gives how the picture of an example is moved in an epoch."""
        return draw_move(self.augment, self._rng(index, epoch), self.examples[index].text)

    def _rng(self, index: int, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, index])

    def _picture(self, example: Example, ref: str, index: int, epoch: int) -> dict[str, torch.Tensor]:
        processor = self.loaded.processor
        # some image processors also report what only the text side needs
        named = set(processor.model_input_names)
        beside = len(example.images) > 1 and "batch_num_images" in named
        key = f"{ref} beside others" if beside else ref
        if not self.augment and key in self._pixels:
            return self._pixels[key]
        image = prepare_image(self.datasets[example.dataset].image(ref), self.loaded.contract)
        if self.augment:
            # the processor makes it small anyway; to vary it at full size took ten times as long
            factor = min(image.size) // (2 * self._side) if self._side else 1
            image = image.reduce(factor) if factor > 1 else image
            image = augment_image(image, self.augment, self._rng(index, epoch), example.text)
        # LLaVA-OneVision prepares a picture that has others beside it in another way
        shown = [[image, image]] if beside else [image]
        tensors = processor.image_processor(images=shown, return_tensors="pt")
        made = {name: tensor[:1] if beside else tensor for name, tensor in tensors.items() if name in named}
        size = sum(tensor.nbytes for tensor in made.values())
        if not self.augment and self._cached_bytes + size <= CACHE_BYTES:
            self._pixels[key] = made
            self._cached_bytes += size
        return made


def _model_side(image_processor: Any) -> int:
    """Gives the side in px that every picture is resized to; 0 where pictures are cut into tiles."""
    tiles = getattr(image_processor, "image_grid_pinpoints", None) or getattr(
        image_processor, "do_image_splitting", False
    )
    size = image_processor.size
    sides = [size.get(key) for key in ("height", "width", "shortest_edge") if size.get(key)]
    return max(sides) if sides and not tiles and getattr(image_processor, "do_resize", False) else 0


def _values(facts: dict[str, Any]) -> str:
    named = [*facts.get("labels", {}).values()]
    for thing in facts.get("objects", []):
        named += [thing["label"], *thing.get("attributes", {}).values()]
    return " ".join(map(str, named)).lower()


def _as_seen(sample: Sample, dataset: Dataset, fit: str) -> Sample:
    """Gives a record with its boxes, in 0..1 of its one picture, moved to where the model sees them."""
    if len(sample.images) != 1:
        raise UnfitSample("objective see takes one picture a sample")
    width, height = dataset.image_size(sample.images[0])
    things = sample.facts.get("objects", [])
    if not things or width == height or fit == "stretch":
        return sample
    if fit != "pad":
        raise UnfitSample("objective see can't follow boxes through the crop of a picture that isn't square")
    side = max(width, height)
    scale, offset = (
        np.array([width, height] * 2) / side,
        np.array([side - width, side - height] * 2) / 2 / side,
    )
    moved = [{**thing, "box": (np.array(thing["box"]) * scale + offset).tolist()} for thing in things]
    return replace(sample, facts={**sample.facts, "objects": moved})


def _segments(encoded: Encoded) -> np.ndarray:
    return np.zeros(len(encoded.ids)) if encoded.segments is None else encoded.segments


def _positions(encoded: Encoded) -> np.ndarray:
    return np.arange(len(encoded.ids)) if encoded.positions is None else encoded.positions


def _stacked(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Joins tensors along their first dimension; where pictures are cut into tiles, empty ones fill up."""
    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    if all(list(tensor.shape[1:]) == shape for tensor in tensors):
        return torch.cat(tensors)
    out = tensors[0].new_zeros([sum(len(tensor) for tensor in tensors), *shape])
    at = 0
    for tensor in tensors:
        out[(slice(at, at + len(tensor)), *(slice(0, size) for size in tensor.shape[1:]))] = tensor
        at += len(tensor)
    return out


def _padded(rows: list[np.ndarray], length: int, fill: int) -> torch.Tensor:
    out = np.full((len(rows), length), fill, dtype=np.int64)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(out)


def write_ledger(rows: list[dict[str, str]], path: Path) -> None:
    """Writes the ledger of samples that could not be trained on, or not on all of."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
