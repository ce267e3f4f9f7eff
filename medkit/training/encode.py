"""Turns a conversation into token ids and exact supervision masks, with the processor's own chat template.

The spans to learn come from rendering prefixes of the conversation, so no template needs special tags; they
are mapped through the expansion of image tokens to the tokens that they cover. One function serves all.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jinja2 import TemplateError
from PIL import Image

from ..errors import MedkitError
from ..sample import text_of

IGNORE = -100
PER_TOKEN = ("token_type_ids", "mm_token_type_ids")


class UnfitSample(MedkitError):
    """A sample that can't be trained on; its message is the ledger's reason."""


@dataclass(frozen=True)
class Encoded:
    """Token ids and labels of one conversation.

    Attributes:
        ids: int32 [T], image tokens expanded.
        labels: int32 [T], the id where the token is supervised, else -100.
        extra: Other per-token arrays of the family (``token_type_ids``, ``mm_token_type_ids``), int32 [T].
        segments: Of a packed sequence, int32 [T]: 0 for the common beginning, then 1, 2, ... (pack.py).
        positions: Of a packed sequence, int32 [T]: the position of every token in its own sample.
    """

    ids: np.ndarray
    labels: np.ndarray
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    segments: np.ndarray | None = None
    positions: np.ndarray | None = None

    @property
    def supervised(self) -> int:
        """Number of supervised positions that are predicted (a label at position 0 never is)."""
        return int((self.labels[1:] != IGNORE).sum())


def render_prompt(processor: Any, messages: list[dict[str, Any]]) -> str:
    """Renders messages as the text that generation starts from, in the training template.

    Args:
        processor: The checkpoint's processor.
        messages: Chat messages that end with a user turn.
    """
    return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def encode(
    processor: Any, messages: list[dict[str, Any]], image_sizes: list[tuple[int, int]], max_tokens: int
) -> Encoded:
    """Encodes one conversation; every assistant turn, with the token that ends it, is supervised.

    Token counts depend on a picture's size alone, so blank pictures of that size stand in for the pixels.

    Args:
        processor: The checkpoint's processor.
        messages: Chat messages with image parts.
        image_sizes: (width, height) in px of every image, after ``prepare_image``.
        max_tokens: Longest sequence; a longer sample is refused, never cut through an image or an answer.

    Raises:
        UnfitSample: Too long, no supervised token, images and image parts differ in number, a reserved token
            in the text, or turns in an order that the template refuses.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    if not any(message["role"] == "assistant" for message in messages):
        raise UnfitSample("no supervised token is left")
    if messages[0]["role"] == "assistant":
        raise UnfitSample("the conversation begins with an answer")
    parts = sum(part["type"] == "image" for message in messages for part in message["content"])
    if parts != len(image_sizes):
        raise UnfitSample(f"{parts} image parts but {len(image_sizes)} images")
    _refuse_reserved(tokenizer, messages)
    try:
        text = processor.apply_chat_template(messages, tokenize=False)
        spans = _answer_spans(processor, messages, text)
    except TemplateError as error:
        raise UnfitSample(f"the chat template refuses the turns: {error}") from error
    # those of one sample: a family may treat several pictures of a sample otherwise than one
    stand_ins = [[Image.new("RGB", size) for size in image_sizes]] if image_sizes else None
    # the template writes <s> itself where the family wants one
    encoded = processor(
        text=[text], images=stand_ins, add_special_tokens=not _starts_with_bos(tokenizer, text),
        return_offsets_mapping=True, return_text_replacement_offsets=True,
    )  # fmt: skip
    ids = np.asarray(encoded["input_ids"][0], dtype=np.int32)
    if len(ids) > max_tokens:
        raise UnfitSample(f"{len(ids)} tokens exceed max_tokens {max_tokens}")
    expanded = (encoded.get("text_replacement_offsets") or [[]])[0]
    mask = _covered(np.asarray(encoded["offset_mapping"][0]), _expand(spans, expanded))
    extra = {key: np.asarray(encoded[key][0], dtype=np.int32) for key in PER_TOKEN if key in encoded}
    result = Encoded(ids, np.where(mask, ids, IGNORE).astype(np.int32), extra)
    if result.supervised == 0:
        raise UnfitSample("no supervised token is left")
    return result


def _answer_spans(processor: Any, messages: list[dict[str, Any]], text: str) -> list[tuple[int, int]]:
    """Finds the character span of every assistant turn by rendering the talk up to it and through it."""
    ending = getattr(processor, "tokenizer", processor).eos_token or ""
    spans = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = processor.apply_chat_template(messages[:index], add_generation_prompt=True, tokenize=False)
        through = processor.apply_chat_template(messages[: index + 1], tokenize=False)
        if not (text.startswith(before) and text.startswith(through)):
            raise UnfitSample("the chat template rewrites earlier turns, so answers can't be located")
        # what a template adds after the end token (a newline) is never generated, so it is not learnt either
        with contextlib.suppress(ValueError):
            last = through.rindex(ending, len(before)) if ending else len(through)
            through = through[: last + len(ending)]
        spans.append((len(before), len(through)))
    return spans


def _expand(spans: list[tuple[int, int]], replaced: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Moves character spans of the rendered text to where the expansion of image tokens puts them."""
    ends = np.array([item["span"][1] for item in replaced])
    gained = np.array([0, *(item["new_span"][1] - item["span"][1] for item in replaced)])
    return [
        (start + int(gained[np.sum(ends <= start)]), end + int(gained[np.sum(ends <= end)]))
        for start, end in spans
    ]


def _covered(offsets: np.ndarray, spans: list[tuple[int, int]]) -> np.ndarray:
    """Marks the tokens that make up character spans.

    Args:
        offsets: int [T, 2], first and last character of every token; empty for tokens that stand for none.
        spans: Character spans.

    Raises:
        UnfitSample: A token holds the end of a turn's header and the start of its answer: generation, which
            starts after the header, would never meet it.
    """
    mask = np.zeros(len(offsets), dtype=bool)
    for start, end in spans:
        inside = np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] > start))
        if not len(inside):
            continue
        if offsets[inside[0], 0] < start:
            raise UnfitSample("the answer's first token reaches into the header of its turn")
        # from the first to the last: some tokenizers give a lone space inside an answer no width
        mask[inside[0] : inside[-1] + 1] = True
    return mask


def _refuse_reserved(tokenizer: Any, messages: list[dict[str, Any]]) -> None:
    """Refuses text with reserved tokens: they would end turns or call for pictures that are not there."""
    text = "\n".join(text_of(message) for message in messages)
    for token in tokenizer.all_special_tokens:
        if token in text:
            raise UnfitSample(f"the text holds the reserved token {token}")


def _starts_with_bos(tokenizer: Any, text: str) -> bool:
    return bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
