"""Turns a conversation into token ids and exact supervision masks, with the processor's own chat template.

The spans to learn come from rendering prefixes of the conversation, so no template needs special tags; they
are mapped through the expansion of image tokens to the tokens that they cover. One function serves all.
Where no end token closes an answer (``###``, a line break), a template's ``{% generation %}`` tags say what does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jinja2 import TemplateError
from PIL import Image
from transformers.utils.chat_template_utils import render_jinja_template

from ..errors import MedkitError
from ..sample import text_of

IGNORE = -100
PER_TOKEN = ("token_type_ids", "mm_token_type_ids")
NARROWEST = 100  # long side to short: resized by its short side, a narrower picture takes gigabytes
TAGGED = re.compile(r"\{%-?\s*generation\s*-?%\}")


class UnfitSample(MedkitError):
    """A sample that can't be trained on; its message is the ledger's reason."""


class TooLong(UnfitSample):
    """A sample that has more tokens than the stage takes."""


@dataclass(frozen=True)
class Limit:
    """How long a sample may be.

    Attributes:
        tokens: Longest sequence, image tokens included.
        drop_turns: A longer conversation loses its oldest questions instead of being refused.
    """

    tokens: int
    drop_turns: bool = False


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
        TooLong: It has more than ``max_tokens``.
        UnfitSample: No supervised token, an empty answer, images and image parts that differ in number, a
            picture whose shape the model can't take, a reserved token in the text, or turns in an order that
            the template refuses.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    _refuse_answers(messages)
    parts = sum(part["type"] == "image" for message in messages for part in message["content"])
    if parts != len(image_sizes):
        raise UnfitSample(f"{parts} image parts but {len(image_sizes)} images")
    _refuse_reserved(tokenizer, messages)
    _refuse_shapes(processor, image_sizes)
    try:
        text = processor.apply_chat_template(messages, tokenize=False)
        spans = _answer_spans(processor, messages, text)
    except TemplateError as error:
        raise UnfitSample(f"the chat template refuses the turns: {error}") from error
    # those of one sample: a family may treat several pictures of a sample otherwise than one
    stand_ins = [[Image.new("RGB", size) for size in image_sizes]] if image_sizes else None
    # the template writes <s> itself where the family wants one
    try:
        encoded = processor(
            text=[text], images=stand_ins, add_special_tokens=not _starts_with_bos(tokenizer, text),
            return_offsets_mapping=True, return_text_replacement_offsets=True,
        )  # fmt: skip
    except (ValueError, ZeroDivisionError) as error:
        shapes = ", ".join(f"{width}x{height} px" for width, height in image_sizes)
        raise UnfitSample(
            f"the processor refuses the sample (pictures: {shapes or 'none'}): {error}"
        ) from error
    ids = np.asarray(encoded["input_ids"][0], dtype=np.int32)
    if len(ids) > max_tokens:
        raise TooLong(f"{len(ids)} tokens exceed max_tokens {max_tokens}")
    expanded = (encoded.get("text_replacement_offsets") or [[]])[0]
    offsets = _after_images(np.asarray(encoded["offset_mapping"][0]), expanded)
    mask = _covered(offsets, _expand(spans, expanded))
    extra = {key: np.asarray(encoded[key][0], dtype=np.int32) for key in PER_TOKEN if key in encoded}
    result = Encoded(ids, np.where(mask, ids, IGNORE).astype(np.int32), extra)
    if result.supervised == 0:
        raise UnfitSample("no supervised token is left")
    return result


def encode_within(
    processor: Any, messages: list[dict[str, Any]], image_sizes: list[tuple[int, int]], limit: Limit
) -> tuple[Encoded, int]:
    """Encodes a conversation as ``encode`` does, its oldest questions left out as far as the limit says.

    Questions go with their answers; their pictures stay, before the first question that is kept.

    Returns:
        The encoded conversation and the number of questions left out.

    Raises:
        TooLong: It does not fit, or the last question with its answer and the pictures alone doesn't.
        UnfitSample: As in ``encode``.
    """
    left_out = 0
    while True:
        try:
            return encode(processor, messages, image_sizes, limit.tokens), left_out
        except TooLong:
            shorter = _without_oldest(messages) if limit.drop_turns else None
            if shorter is None:
                raise
            messages, left_out = shorter, left_out + 1


def _without_oldest(messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Leaves out the first question with its answer; None where no other answered question follows."""
    first = int(messages[0]["role"] == "system")
    roles = [message["role"] for message in messages]
    second = next(
        (at for at in range(first + 1, len(roles)) if roles[at - 1 : at + 1] == ["assistant", "user"]), None
    )
    if second is None or "assistant" not in roles[second:]:
        return None
    pictures = [
        part for message in messages[first:second] for part in message["content"] if part["type"] == "image"
    ]
    kept = {**messages[second], "content": [*pictures, *messages[second]["content"]]}
    return [*messages[:first], kept, *messages[second + 1 :]]


def _refuse_answers(messages: list[dict[str, Any]]) -> None:
    """Refuses a conversation with nothing to learn, or whose turns an empty answer would glue together."""
    roles = [message["role"] for message in messages]
    if "assistant" not in roles:
        raise UnfitSample("no supervised token is left")
    if next(role for role in roles if role != "system") == "assistant":
        raise UnfitSample("the conversation begins with an answer")
    for message in messages:
        if message["role"] != "assistant":
            continue
        if any(part["type"] == "image" for part in message["content"]):
            raise UnfitSample("an answer holds a picture")
        if not text_of(message).strip():
            raise UnfitSample("an answer is empty")


def _answer_spans(processor: Any, messages: list[dict[str, Any]], text: str) -> list[tuple[int, int]]:
    """Finds the character span of every assistant turn by rendering the talk up to it and through it."""
    ending = getattr(processor, "tokenizer", processor).eos_token or ""
    tagged = _tagged_ends(processor, messages)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = processor.apply_chat_template(messages[:index], add_generation_prompt=True, tokenize=False)
        through = processor.apply_chat_template(messages[: index + 1], tokenize=False)
        if not (text.startswith(before) and text.startswith(through)):
            raise UnfitSample("the chat template rewrites earlier turns, so answers can't be located")
        # what a template adds after the end token (a newline) is never generated, so it is not learnt either
        last = through.rfind(ending, len(before)) if ending else -1
        if last >= 0:
            end = last + len(ending)
        else:
            end = next((one for one in tagged if len(before) < one <= len(through)), len(through))
        spans.append((len(before), end))
    return spans


def _tagged_ends(processor: Any, messages: list[dict[str, Any]]) -> list[int]:
    """Gives where the template's ``{% generation %}`` tags end, as characters of the rendered text."""
    template = processor.chat_template
    if not isinstance(template, str) or not TAGGED.search(template):
        return []
    special = getattr(processor, "tokenizer", processor).special_tokens_map
    rendered: Any = render_jinja_template(
        [messages], chat_template=template, return_assistant_tokens_mask=True, **special
    )
    return [end for _, end in rendered[1][0]]


def _expand(spans: list[tuple[int, int]], replaced: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Moves character spans of the rendered text to where the expansion of image tokens puts them."""
    ends = np.array([item["span"][1] for item in replaced])
    gained = np.array([0, *(item["new_span"][1] - item["span"][1] for item in replaced)])
    return [
        (start + int(gained[np.sum(ends <= start)]), end + int(gained[np.sum(ends <= end)]))
        for start, end in spans
    ]


def _after_images(offsets: np.ndarray, replaced: list[dict[str, Any]]) -> np.ndarray:
    """Moves tokens that seem to begin inside an image to the text that follows it.

    SentencePiece's leading space after an image is no character of the text; tokenizers say that it lies on
    the image's last one.
    """
    offsets = offsets.copy()
    for item in replaced:
        end = item["new_span"][1]
        # the first such token is the image's own last
        for place in np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] >= end))[1:]:
            offsets[place] = end, max(offsets[place, 1], end + 1)
    return offsets


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


def _refuse_shapes(processor: Any, image_sizes: list[tuple[int, int]]) -> None:
    """Refuses pictures so narrow that a processor which resizes by the short side would make them huge."""
    image_processor = getattr(processor, "image_processor", None)
    size = getattr(image_processor, "size", None) or {}
    tiled = getattr(image_processor, "image_grid_pinpoints", None)
    if tiled or not size.get("shortest_edge") or size.get("longest_edge"):
        return
    for width, height in image_sizes:
        if max(width, height) > NARROWEST * min(width, height):
            raise UnfitSample(f"a picture of {width}x{height} px is too narrow to be cropped")


def _starts_with_bos(tokenizer: Any, text: str) -> bool:
    return bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
