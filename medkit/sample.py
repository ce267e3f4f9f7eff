"""The canonical record that passes between rooms: the ecosystem's chat form plus facts and source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["record", "caption", "conversation", "description", "reasoning", "question"]
KINDS: tuple[str, ...] = ("record", "caption", "conversation", "description", "reasoning", "question")


@dataclass(frozen=True)
class Sample:
    """One training or evaluation sample.

    Attributes:
        id: Unique within its dataset folder.
        messages: ``[{"role": ..., "content": [{"type": "image"} | {"type": "text", "text": ...}]}]``.
        images: References (sha256 hex) of the images in the order of the image parts.
        facts: Structured truth: ``labels``, ``objects`` with boxes in 0..1, ``modality``, ``question``.
        source: ``dataset``, ``record``, ``licence``, ``group``, ``split``, ``kind``; for made text also
            ``teacher`` and ``prompt_version``.
    """

    id: str
    messages: list[dict[str, Any]]
    images: list[str]
    facts: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What the sample is for, one of ``KINDS``."""
        return self.source.get("kind", "conversation" if self.messages else "record")

    @property
    def split(self) -> str:
        """``train``, ``valid`` or ``test``."""
        return self.source.get("split", "train")

    @property
    def group(self) -> str:
        """What must not be split between train and test: a patient (hashed) or a source image."""
        return self.source.get("group", self.id)


def user_turn(text: str, images: int = 0, shows: str = "") -> dict[str, Any]:
    """Gives a user message with its image parts first, where every LLaVA-type template expects them.

    Args:
        text: What is asked.
        images: How many pictures come before it.
        shows: A sentence that says what the pictures are (``facts["shows"]``), before the question.
    """
    text = f"{shows}\n{text}" if shows and images else text
    return {"role": "user", "content": [{"type": "image"}] * images + [{"type": "text", "text": text}]}


def assistant_turn(text: str) -> dict[str, Any]:
    """Gives an assistant message of one text part."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def text_of(message: dict[str, Any]) -> str:
    """Gives the text of a message, its image parts left out."""
    return "".join(part.get("text") or "" for part in message["content"] if part["type"] == "text")
