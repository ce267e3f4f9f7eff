"""Benchmark questions to an endpoint: turns as chat messages, pictures as data URLs."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from medkit.evaluation.controls import blank_image, changes_image, shown_image
from medkit.evaluation.endpoint import Request, about_endpoint, ask_all
from medkit.evaluation.endpoint_card import EndpointCard
from medkit.evaluation.questions import Question
from medkit.evaluation.replies import Key
from medkit.store import Dataset

SENT_AS_STORED = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


def ask_questions(
    endpoint: EndpointCard,
    cards: Sequence[Mapping[str, Any]],
    asked: Mapping[str, Sequence[Question]],
    datasets: Mapping[str, Dataset],
    partial: Path,
) -> tuple[dict[Key, dict[str, Any]], dict[str, Any]]:
    """Asks an endpoint the questions of benchmarks.

    Args:
        endpoint: Who is asked.
        cards: Resolved benchmark cards.
        asked: Questions by benchmark.
        datasets: Pictures by benchmark.
        partial: Where replies are kept until the end.

    Returns:
        (replies by key, how they came about); see ``ask_all``.
    """
    requests = [
        request_of(question, datasets[card["name"]], endpoint.most_image_px, card.get("max_new_tokens", 16))
        for card in cards
        for question in asked[card["name"]]
    ]
    replies = ask_all(endpoint, requests, partial)
    return replies, about_endpoint(endpoint, list(replies.values()))


def request_of(question: Question, dataset: Dataset, most_image_px: int, most_tokens: int) -> Request:
    """Gives a question as a request; its prompt names pictures by their references."""
    control = question.control if changes_image(question.control) else ""
    # A blank or noise shows nothing of the picture; a corruption is named beside it.
    named = [
        control if control in ("blank", "noise") else f"{ref} {control}".rstrip() for ref in question.images
    ]
    prompt = json.dumps(_messages(question.messages, named, _named), ensure_ascii=False)

    def messages() -> list[dict[str, Any]]:
        urls = [_url(dataset, ref, control, most_image_px) for ref in question.images]
        return _messages(question.messages, urls, _sent)

    return Request(question.key, prompt, messages, most_tokens)


def data_url(data: bytes, most_px: int) -> str:
    """Gives a picture as a data URL: PNG and JPEG as they are stored, all else, and what is too large, as PNG.

    Args:
        data: Encoded picture.
        most_px: Longer side at most.
    """
    kind = next((kind for mark, kind in SENT_AS_STORED.items() if data.startswith(mark)), "")
    image = Image.open(io.BytesIO(data))
    if kind and max(image.size) <= most_px:
        return f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return _png_url(image, most_px)


def _png_url(image: Image.Image, most_px: int) -> str:
    image = image.convert("RGB")
    image.thumbnail((most_px, most_px), Image.Resampling.LANCZOS)  # keeps the shape, never enlarges
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@lru_cache(maxsize=64)  # questions about one picture come side by side
def _url(dataset: Dataset, ref: str, control: str, most_px: int) -> str:
    if control == "blank":
        return _png_url(blank_image(dataset.image_size(ref)), most_px)
    if control:
        return _png_url(shown_image(dataset.image(ref), ref, control), most_px)
    return data_url(dataset.image_bytes(ref), most_px)


def _messages(
    turns: Sequence[dict[str, Any]], pictures: Sequence[str], part_of: Callable[[str], dict[str, Any]]
) -> list[dict[str, Any]]:
    left = iter(pictures)
    found = []
    for turn in turns:
        parts = [
            part_of(next(left)) if part["type"] == "image" else {"type": "text", "text": part["text"]}
            for part in turn["content"]
        ]
        only_text = len(parts) == 1 and parts[0]["type"] == "text"
        found.append({"role": turn["role"], "content": parts[0]["text"] if only_text else parts})
    return found


def _sent(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def _named(ref: str) -> dict[str, Any]:
    return {"type": "image", "image": ref}
