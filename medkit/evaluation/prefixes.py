"""The inputs of a batch, with every picture's part of the prompt read once for all questions about it.

A LLaVA prompt is mostly image tokens, benchmarks ask several questions about a picture, and a control shows
one blank picture to all: preparing a picture and reading its prefix once saves most of the work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image


def shares_prefixes(model: Any) -> bool:
    """Says whether a family's image prefix may be read apart from the question: plain causal positions."""
    return model.config.model_type == "llava"


def prepare_inputs(
    model: Any, processor: Any, texts: Sequence[str], images: Sequence[Sequence[Image.Image]]
) -> dict[str, Any]:
    """Gives what ``generate`` takes for a batch, padded on the left.

    Args:
        model: On its device.
        processor: Its processor.
        texts: Prompts as sent, one image marker a picture.
        images: The pictures of each prompt, prepared as in training.

    Returns:
        ``input_ids`` and ``attention_mask`` int64 [B, T] and either the pixel values or, where prefixes are
        shared, ``past_key_values`` that hold the rows' image prefixes. The replies are the same either way.
    """
    texts, images = list(texts), [list(shown) for shown in images]
    if shares_prefixes(model) and all(images):
        shared = _with_prefixes_read(model, processor, texts, images)
        if shared is not None:
            return shared
    return dict(_processed(model, processor, texts, images))


def _processed(model: Any, processor: Any, texts: list[str], images: list[list[Image.Image]]) -> Any:
    inputs = processor(
        text=texts,
        images=images if any(images) else None,
        padding=True,
        padding_side="left",
        return_tensors="pt",
        add_special_tokens=_adds_specials(processor.tokenizer, texts[0]),
    ).to(model.device)
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    return inputs


def _adds_specials(tokenizer: Any, text: str) -> bool:
    """A template that writes the first token itself must not get a second one."""
    bos = tokenizer.bos_token
    return not (bos is not None and text.startswith(bos))


def _with_prefixes_read(
    model: Any, processor: Any, texts: list[str], images: list[list[Image.Image]]
) -> dict[str, Any] | None:
    """Reads each distinct prefix once; rows become ``prefix, padding, rest`` with the cache of every question.

    None where that isn't possible: a picture behind the question, or prefixes of unlike length.
    """
    tokenizer, image_token = processor.tokenizer, model.config.image_token_id
    rows = tokenizer(texts, add_special_tokens=_adds_specials(tokenizer, texts[0]))["input_ids"]
    cuts = [len(row) - row[::-1].index(image_token) if image_token in row else 0 for row in rows]
    if any(cut in (0, len(row)) for cut, row in zip(cuts, rows, strict=True)):
        return None
    digests = {
        id(image): hashlib.sha256(image.tobytes()).digest()
        for image in {id(image): image for shown in images for image in shown}.values()
    }
    keys = [
        (tuple(row[:cut]), *(digests[id(image)] for image in shown))
        for row, cut, shown in zip(rows, cuts, images, strict=True)
    ]
    first = {key: place for place, key in reversed(list(enumerate(keys)))}
    distinct = sorted(first.values())
    number = {keys[place]: index for index, place in enumerate(distinct)}
    read = _processed(model, processor, [texts[place] for place in distinct], [images[place] for place in distinct])
    prefixes = [
        ids[mask.bool()][: int((ids[mask.bool()] == image_token).nonzero().max()) + 1]
        for ids, mask in zip(read["input_ids"], read["attention_mask"], strict=True)
    ]
    cut = len(prefixes[0])
    if any(len(prefix) != cut for prefix in prefixes):
        return None
    cache = model(
        input_ids=torch.stack(prefixes), pixel_values=read["pixel_values"], use_cache=True, logits_to_keep=1
    ).past_key_values
    cache.batch_select_indices(torch.tensor([number[key] for key in keys], device=model.device))
    rests = [row[start:] for row, start in zip(rows, cuts, strict=True)]
    longest = max(len(rest) for rest in rests)
    # The prefix's place is held by its length only: its keys and values are in the cache.
    ids = torch.full((len(rows), cut + longest), image_token)
    mask = torch.zeros_like(ids)
    mask[:, :cut] = 1
    for place, rest in enumerate(rests):
        ids[place, cut + longest - len(rest) :] = torch.tensor(rest)
        mask[place, cut + longest - len(rest) :] = 1
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    ids[:, cut:].masked_fill_(mask[:, cut:] == 0, pad)
    return {
        "input_ids": ids.to(model.device),
        "attention_mask": mask.to(model.device),
        "past_key_values": cache,
    }
