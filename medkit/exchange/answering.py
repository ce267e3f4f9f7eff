"""A checkpoint that answers questions as ``medkit evaluate`` does: its contract, medkit's batches, greedy."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from medkit.evaluation.generate import answer_questions
from medkit.evaluation.questions import Question
from medkit.models.contract import cut_at_stop, prepare_image
from medkit.models.conversations import as_asked
from medkit.models.load import load_model, pick_device, pick_precision
from medkit.training.encode import render_prompt

PICTURES_KEPT = 256  # questions about one picture come side by side


class Answerer:
    """A loaded checkpoint under its contract.

    On a CPU it computes in float32, where replies don't depend on the batch; else as ``precision`` says.

    Args:
        model: A model folder, an adapter folder, or a run's folder with ``model``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        precision: ``auto``, ``fp32`` or ``bf16``.
        batch_size: Questions a batch.

    Raises:
        ModelError: The model can't be loaded or contradicts its contract, or there is no such device.
    """

    def __init__(self, model: Path, device: str = "auto", precision: str = "auto", batch_size: int = 32):
        place = pick_device(device)
        on_cpu = precision == "auto" and place.type == "cpu"
        self.precision = "fp32" if on_cpu else pick_precision(precision, place)
        self.batch_size = batch_size
        inner = model / "model"
        names = ("config.json", "adapter_config.json")
        folder = inner if inner.is_dir() and not any((model / name).is_file() for name in names) else model
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self.loaded = load_model(folder, str(place), dtype)

    def answers(
        self,
        questions: Sequence[Question],
        images: Callable[[Question], list[Image.Image]],
        max_new_tokens: int,
        formats: bool = True,
    ) -> list[str]:
        """Answers questions, in their order.

        Args:
            questions: What to ask; their keys are unique, and equal names in ``images`` are equal pictures.
            images: Gives a question's pictures, RGB; they are fitted as the contract says.
            max_new_tokens: Longest reply in tokens.
            formats: Add the contract's response-format prompts; not where a prompt has such words already.
        """
        contract, processor = self.loaded.contract, self.loaded.processor
        prompts = contract.answer_formats if formats else {}
        asked = [
            replace(one, messages=as_asked(one.messages, bool(one.choices), prompts)) for one in questions
        ]
        shown: OrderedDict[tuple[str, ...], list[Image.Image]] = OrderedDict()

        def prepared(question: Question) -> list[Image.Image]:
            # What is the same object is read once, for all of its questions.
            names = tuple(question.images)
            if names not in shown:
                shown[names] = [prepare_image(image, contract) for image in images(question)]
            shown.move_to_end(names)
            while len(shown) > PICTURES_KEPT:
                shown.popitem(last=False)
            return shown[names]

        with tempfile.TemporaryDirectory() as folder:
            replies = answer_questions(
                self.loaded.model,
                processor,
                asked,
                prepared,
                prompt_of=lambda messages: render_prompt(processor, messages),
                partial=Path(folder) / "replies.jsonl",
                batch_size=self.batch_size,
                max_new_tokens=max_new_tokens,
            )
        return [cut_at_stop(replies[one.key]["answer"], contract.stop).strip() for one in questions]
