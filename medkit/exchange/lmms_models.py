"""Models for lmms-eval: a checkpoint of medkit's, and the replay of stored answers. Imported by lmms-eval alone."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms  # type: ignore[import-not-found]
from PIL import Image

from medkit.errors import MedkitError
from medkit.evaluation.questions import Question
from medkit.exchange.answering import Answerer
from medkit.exchange.replay import Stored, unknown
from medkit.exchange.task_functions import COLUMN, row_of
from medkit.images import decode, read_limited, to_rgb
from medkit.models.contract import cut_at_stop
from medkit.sample import text_of

LONGEST_REPLY = 1024  # where a task names no limit, as lmms-eval's own models have it


class _Answers(lmms):
    """What both models share: they give texts, in one process.

    Raises:
        MedkitError: Several processes were launched; each would answer everything.
    """

    is_simple = False

    def __init__(self) -> None:
        super().__init__()
        processes = os.environ.get("WORLD_SIZE", "1")
        if processes != "1":
            raise MedkitError(
                f"medkit's models run in one process, and {processes} were launched; run lmms-eval alone"
            )

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Refuses: medkit's models give texts."""
        raise MedkitError(f"task {_task(requests)} asks for log-likelihoods; medkit's models give texts only")

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        """Refuses: medkit's models answer one turn."""
        raise MedkitError(f"task {_task(requests)} asks in several rounds; medkit's models answer one turn")

    def document(self, request: Any) -> dict[str, Any]:
        """Gives a request's document."""
        *_, doc_id, task, split = request.args
        return self.task_dict[task][split][doc_id]

    def messages(self, request: Any) -> list[dict[str, Any]]:
        """Gives a request's turns, with its pictures."""
        return request.args[1](self.document(request))


class Medkit(_Answers):
    """A checkpoint under its contract, answered by medkit's own batches: ``--model medkit``.

    Args:
        pretrained: Folder of the model, the adapter or the run.
        batch_size: Questions a batch; lmms-eval's ``--batch_size``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``; lmms-eval's ``--device``.
        precision: ``auto``, ``fp32`` or ``bf16``.

    Raises:
        MedkitError: The model can't be loaded.
    """

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 1,
        device: str | None = None,
        precision: str = "auto",
        max_batch_size: int | None = None,
    ):
        super().__init__()
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise MedkitError(f"--batch_size {batch_size}: must be a whole number of at least 1")
        self.answerer = Answerer(Path(pretrained).expanduser(), device or "auto", precision, int(batch_size))

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Answers every request greedily, in the order of the requests."""
        by_settings: dict[tuple[int, tuple[str, ...], bool], list[int]] = defaultdict(list)
        for place, request in enumerate(requests):
            by_settings[_settings(request, self.document(request))].append(place)
        replies: list[str] = [""] * len(requests)
        for (longest, ends, own), places in by_settings.items():
            questions = [self._question(requests[place], place) for place in places]
            said = self.answerer.answers(
                questions, lambda one: self._pictures(requests[int(one.id)]), longest, formats=own
            )
            for place, text in zip(places, said, strict=True):
                replies[place] = cut_at_stop(text, ends).strip() if ends else text
                self.cache_hook.add_partial("generate_until", requests[place].args, replies[place])
        return replies

    def _question(self, request: Any, place: int) -> Question:
        """Gives a request as a question whose id is its place; its pictures are named by their content."""
        doc, messages = self.document(request), self.messages(request)
        turns = [
            {"role": turn["role"], "content": [_part(part, _task([request])) for part in turn["content"]]}
            for turn in messages
        ]
        names = [
            hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
            for image in _images(messages)
        ]
        choices = row_of(doc)["choices"] if COLUMN in doc else []
        return Question(
            _task([request]), "none", str(place), str(place), "question", "open", turns, names, [""], choices
        )

    def _pictures(self, request: Any) -> list[Image.Image]:
        return _images(self.messages(request))


class MedkitReplay(_Answers):
    """Stored answers in place of a model: ``--model medkit_replay --model_args answers=FILE``.

    Args:
        answers: ``answers.jsonl`` of medkit, or its folder.
        model: A name for lmms-eval's folder of results.
        batch_size, device, max_batch_size: Given by lmms-eval to every model; nothing is computed here.

    Raises:
        MedkitError: The file can't be read.
    """

    def __init__(
        self,
        answers: str,
        model: str = "",
        batch_size: int | str = 1,
        device: str | None = None,
        max_batch_size: int | None = None,
    ):
        super().__init__()
        self.stored = Stored(Path(answers).expanduser())

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Gives the stored answer to every request.

        Raises:
            MedkitError: A question has none; nothing is given then, so that no score comes out.
        """
        replies: list[str] = []
        missing: list[str] = []
        for request in requests:
            doc = self.document(request)
            known = row_of(doc) if COLUMN in doc else doc
            text = text_of(self.messages(request)[-1])
            reply = self.stored.answer(known, text)
            replies.append(reply or "")
            if reply is None:
                missing.append(text.strip()[:80])
        if missing:
            raise unknown(self.stored.path, missing)
        return replies


def _task(requests: list[Any]) -> str:
    return str(getattr(requests[0], "task_name", "")) if requests else ""


def _settings(request: Any, doc: dict[str, Any]) -> tuple[int, tuple[str, ...], bool]:
    """Gives (longest reply, its ends, whether the question is one of medkit's) of a request."""
    given = dict(request.args[2] or {})
    warm = float(given.get("temperature") or 0) > 0 and given.get("do_sample") is not False
    if warm or given.get("do_sample") or int(given.get("num_beams") or 1) > 1:
        raise MedkitError(
            f"task {_task([request])} asks for sampling or beams; medkit answers greedily: add "
            "--gen_kwargs temperature=0,do_sample=False,num_beams=1"
        )
    until = given.get("until") or []
    ends = (until,) if isinstance(until, str) else tuple(end for end in until if end)
    return int(given.get("max_new_tokens") or LONGEST_REPLY), ends, COLUMN in doc


def _part(part: dict[str, Any], task: str) -> dict[str, Any]:
    if part["type"] not in ("image", "text"):
        raise MedkitError(f"task {task} shows {part['type']}; medkit's models see pictures only")
    return {"type": "image"} if part["type"] == "image" else {"type": "text", "text": part["text"]}


def _images(messages: list[dict[str, Any]]) -> list[Image.Image]:
    found = [part["url"] for turn in messages for part in turn["content"] if part["type"] == "image"]
    return [
        to_rgb(one) if isinstance(one, Image.Image) else decode(read_limited(Path(one))).image
        for one in found
    ]
