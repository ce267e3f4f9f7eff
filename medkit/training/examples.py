"""What a stage trains on: chosen samples, encoded once, with their pictures prepared on demand."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import DataError, TrainingError
from ..models.contract import prepare_image
from ..models.load import Loaded
from ..progress import bar
from ..sample import Sample, text_of
from ..store import Dataset, open_dataset
from .batches import augment_image
from .encode import IGNORE, Encoded, UnfitSample, encode

WORDLESS = Encoded(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32))
LENGTH_STEP = 16  # few different shapes: the CPU's kernels are made, and kept in memory, for every one
CACHE_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True)
class Example:
    """A sample ready for batching.

    Attributes:
        dataset: Which of the opened dataset folders.
        images: References of its pictures.
        encoded: Ids and labels.
        text: The conversation in lower case (flips must not contradict it).
    """

    dataset: int
    images: tuple[str, ...]
    encoded: Encoded
    text: str


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


def part_of_pass(samples: list[Any], epochs: float, seed: int) -> list[Any]:
    """Chooses the samples of less than one pass, so that the others need not be encoded; else gives all."""
    if epochs >= 1:
        return samples
    chosen = np.random.default_rng([seed, 0]).permutation(len(samples))[: math.ceil(len(samples) * epochs)]
    return [samples[index] for index in sorted(chosen)]


class ExampleSet:
    """Encoded examples of a stage and the pictures that belong to them.

    Args:
        loaded: Processor and contract of the checkpoint.
        datasets: Opened dataset folders.
        samples: (dataset number, sample) pairs.
        max_tokens: Longest sequence.
        augment: Kinds of picture variation, [] for none.
        seed: Of the variation.
        wordless: The pictures and facts alone are trained on; text is not encoded.

    Attributes:
        examples: What can be trained on.
        kept: Their samples, in the same order; only when wordless, for their text and facts are large.
        dropped: Ledger rows of what can't.
    """

    def __init__(
        self, loaded: Loaded, datasets: list[Dataset], samples: list[tuple[int, Sample]], max_tokens: int,
        augment: list[str], seed: int, wordless: bool = False,
    ):  # fmt: skip
        self.loaded, self.datasets, self.augment, self.seed = loaded, datasets, augment, seed
        self.examples: list[Example] = []
        self.kept: list[Sample] = []
        self.dropped: list[dict[str, str]] = []
        self._pixels: OrderedDict[str, dict[str, torch.Tensor]] = OrderedDict()
        self._cached_bytes = 0
        sizes: dict[str, tuple[int, int]] = {}
        with bar("encoding", len(samples)) as progress:
            for number, sample in samples:
                try:
                    for ref in sample.images:
                        if ref not in sizes:
                            blank = Image.new("RGB", datasets[number].image_size(ref))
                            sizes[ref] = prepare_image(blank, loaded.contract).size
                    if wordless:
                        encoded = _picture_alone(sample, datasets[number])
                    else:
                        shapes = [sizes[ref] for ref in sample.images]
                        encoded = encode(loaded.processor, sample.messages, shapes, max_tokens)
                except UnfitSample as reason:
                    self.dropped.append({"record": sample.id, "fate": "rejected", "reason": str(reason)})
                else:
                    turns = sample.messages if augment else []
                    text = " ".join(text_of(message) for message in turns).lower()
                    if wordless:
                        self.kept.append(sample)
                    self.examples.append(Example(number, tuple(sample.images), encoded, text))
                progress.advance()
        if samples and not self.examples:
            raise TrainingError(
                f"none of {len(samples)} samples can be trained on; first reason: {self.dropped[0]['reason']}"
            )

    def __len__(self) -> int:
        return len(self.examples)

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
            ``input_ids``, ``attention_mask``, ``labels`` (int64 [B, T]) and the family's picture tensors.
        """
        chosen = [self.examples[index] for index in indices]
        longest = max(len(example.encoded.ids) for example in chosen)
        longest = -(-longest // LENGTH_STEP) * LENGTH_STEP
        tokenizer = getattr(self.loaded.processor, "tokenizer", self.loaded.processor)
        batch = {
            "input_ids": _padded(
                [example.encoded.ids for example in chosen], longest, tokenizer.pad_token_id
            ),
            "attention_mask": _padded([np.ones(len(example.encoded.ids)) for example in chosen], longest, 0),
            "labels": _padded([example.encoded.labels for example in chosen], longest, IGNORE),
        }
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
        return {key: _stacked([picture[key] for picture in made]) for key in (made[0] if made else ())}

    def _picture(self, example: Example, ref: str, index: int, epoch: int) -> dict[str, torch.Tensor]:
        if not self.augment and ref in self._pixels:
            return self._pixels[ref]
        image = prepare_image(self.datasets[example.dataset].image(ref), self.loaded.contract)
        if self.augment:
            rng = np.random.default_rng([self.seed, epoch, index])
            image = augment_image(image, self.augment, rng, example.text)
        processor = self.loaded.processor
        # some image processors also report what only the text side needs
        named = set(processor.model_input_names)
        tensors = processor.image_processor(images=[image], return_tensors="pt")
        made = {key: tensor for key, tensor in tensors.items() if key in named}
        size = sum(tensor.nbytes for tensor in made.values())
        if not self.augment and self._cached_bytes + size <= CACHE_BYTES:
            self._pixels[ref] = made
            self._cached_bytes += size
        return made


def _picture_alone(sample: Sample, dataset: Dataset) -> Encoded:
    """Checks that boxes in 0..1 of the one picture are the same boxes in what the model sees of it."""
    sizes = {dataset.image_size(ref) for ref in sample.images}
    if len(sample.images) != 1 or any(width != height for width, height in sizes):
        raise UnfitSample("objective see takes one square picture a sample")
    return WORDLESS


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


def write_dropped(rows: list[dict[str, str]], path: Path) -> None:
    """Writes the ledger of samples that could not be trained on."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
