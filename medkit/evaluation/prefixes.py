"""The inputs of questions that are answered together, with every picture's part of the prompt read once.

A LLaVA prompt is mostly image tokens, benchmarks ask several questions about a picture, and a control shows
one blank picture to all: preparing a picture and reading its prefix once saves most of the work.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image

# Keys and values of the pictures that are held at once; more would not be answered faster.
HELD_BYTES = 256 * 2**20
AT_ONCE = 16  # prefixes in one pass of the model: more leave the processor's cache and are slower


def shares_prefixes(model: Any) -> bool:
    """Says whether a family's image prefix may be read apart from the question: plain causal positions."""
    return model.config.model_type == "llava"


def pictures_at_once(model: Any) -> int:
    """Gives how many pictures' prefixes may be held at once, at least one."""
    config = model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    tokens = getattr(model.config, "image_seq_length", 576)
    each = 2 * config.num_hidden_layers * heads * width * tokens * model.dtype.itemsize
    return max(1, HELD_BYTES // each)


class Prompts:
    """Prompts with their pictures prepared: everything that the processor does, nothing that the model does.

    Making one needs no model and may be done in another thread, with a processor of its own.

    Args:
        processor: The model's processor.
        texts: Prompts as sent, one image marker a picture.
        images: The pictures of each prompt, prepared as in training. One that is shown to several prompts is
            one object: what is the same object is prepared and read once.
        batches: Rows of the prompts that are answered together.
        image_token: Id of the image token where prefixes are shared, None where they are not.
    """

    def __init__(
        self,
        processor: Any,
        texts: Sequence[str],
        images: Sequence[Sequence[Image.Image]],
        batches: Sequence[Sequence[int]],
        image_token: int | None,
    ):
        self.processor, self.texts, self.images = processor, list(texts), [list(shown) for shown in images]
        self.batches = batches
        self._shared = image_token is not None and all(self.images) and self._split(image_token)
        self._whole = [] if self._shared else [self._processed(rows) for rows in batches]

    @torch.inference_mode()
    def inputs(self, model: Any) -> Iterator[dict[str, Any]]:
        """Gives what ``generate`` takes for each batch in turn, padded on the left.

        Args:
            model: On its device.

        Yields:
            ``input_ids`` and ``attention_mask`` int64 [B, T] and either the pixel values or
            ``past_key_values`` that hold the rows' image prefixes. The replies are the same either way.
        """
        if not self._shared:
            for inputs in self._whole:
                yield _on(model, inputs)
            return
        cache = self._read(model)
        for rows in self.batches:
            # Later batches need the prefixes as they are; selecting and appending make new tensors.
            own = copy.copy(cache)
            own.layers = [copy.copy(layer) for layer in cache.layers]
            own.batch_select_indices(torch.tensor([self._of[row] for row in rows], device=model.device))
            yield {**_on(model, self._after_prefixes(rows)), "past_key_values": own}

    def _read(self, model: Any) -> Any:
        """Gives the cache of all distinct prefixes, [prefixes, heads, T, width] a layer."""
        read = [
            model(
                input_ids=self._prefixes["input_ids"][start : start + AT_ONCE].to(model.device),
                pixel_values=pixels.to(model.device, model.dtype),
                use_cache=True,
                logits_to_keep=1,
            ).past_key_values
            for start, pixels in self._pixels()
        ]
        cache = read[0]
        for place, layer in enumerate(cache.layers):
            layer.keys = torch.cat([one.layers[place].keys for one in read])
            layer.values = torch.cat([one.layers[place].values for one in read])
        return cache

    def _pixels(self) -> Iterator[tuple[int, torch.Tensor]]:
        """Gives the pixel values of so many prefixes at once, [AT_ONCE * pictures each, ...]."""
        prefixes, pixels = self._prefixes["input_ids"], self._prefixes["pixel_values"]
        each = len(pixels) // len(prefixes)
        for start in range(0, len(prefixes), AT_ONCE):
            yield start, pixels[start * each : (start + AT_ONCE) * each]

    def _processed(self, rows: Sequence[int]) -> dict[str, Any]:
        images = [self.images[row] for row in rows]
        return dict(
            self.processor(
                text=[self.texts[row] for row in rows],
                images=images if any(images) else None,
                padding=True,
                padding_side="left",
                return_tensors="pt",
                add_special_tokens=self._adds_specials(),
            )
        )

    def _adds_specials(self) -> bool:
        """A template that writes the first token itself must not get a second one."""
        bos = self.processor.tokenizer.bos_token
        return not (bos is not None and self.texts[0].startswith(bos))

    def _split(self, image_token: int) -> bool:
        """Cuts prompts behind their last picture and processes each distinct prefix; says whether it is worth it."""
        ids = self.processor.tokenizer(self.texts, add_special_tokens=self._adds_specials())["input_ids"]
        cuts = [len(row) - row[::-1].index(image_token) if image_token in row else 0 for row in ids]
        if any(cut in (0, len(row)) for cut, row in zip(cuts, ids, strict=True)):
            return False
        keys = [
            (tuple(row[:cut]), *map(id, shown))
            for row, cut, shown in zip(ids, cuts, self.images, strict=True)
        ]
        first = {key: row for row, key in reversed(list(enumerate(keys)))}
        distinct = sorted(first.values())
        if len(distinct) > len({tuple(map(id, shown)) for shown in self.images}):
            return False  # the question stands before its picture: nothing is shared, and all would be held
        number = {keys[row]: index for index, row in enumerate(distinct)}
        read = self._processed(distinct)
        prefixes = [
            row[int(mask.argmax()) : int((row == image_token).nonzero().max()) + 1]
            for row, mask in zip(read["input_ids"], read["attention_mask"], strict=True)
        ]
        if any(len(prefix) != len(prefixes[0]) for prefix in prefixes):
            return False
        self._prefixes = {"input_ids": torch.stack(prefixes), "pixel_values": read["pixel_values"]}
        self._of = [number[key] for key in keys]
        self._rests = [torch.tensor(row[cut:]) for row, cut in zip(ids, cuts, strict=True)]
        return True

    def _after_prefixes(self, rows: Sequence[int]) -> dict[str, Any]:
        """Rows become ``prefix, padding, rest``, so that the prefixes stand at the same positions."""
        cut = self._prefixes["input_ids"].shape[1]
        longest = max(len(self._rests[row]) for row in rows)
        # What stands at the prefix's places is not looked at: their keys and values are in the cache.
        ids = torch.full((len(rows), cut + longest), self.processor.tokenizer.pad_token_id or 0)
        mask = torch.zeros_like(ids)
        mask[:, :cut] = 1
        for place, row in enumerate(rows):
            rest = self._rests[row]
            ids[place, cut + longest - len(rest) :] = rest
            mask[place, cut + longest - len(rest) :] = 1
        return {"input_ids": ids, "attention_mask": mask}


def _on(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    moved = {
        name: value.to(model.device) if isinstance(value, torch.Tensor) else value
        for name, value in inputs.items()
    }
    if "pixel_values" in moved:
        moved["pixel_values"] = moved["pixel_values"].to(model.dtype)
    return moved
