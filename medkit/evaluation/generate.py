"""Asking a model: batched greedy answers, resumable after a kill with nothing asked twice.

Replies are appended to one file a batch at a time, each batch in one write that is synced to disk. After a
kill the whole lines count and the torn end is cut off. Batches are the same in every run over the same
questions, so what is asked after a kill is asked in the company it would have had.
"""

from __future__ import annotations

import copy
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from medkit.evaluation.controls import changes_image
from medkit.evaluation.prefixes import Prompts, pictures_at_once, shares_prefixes
from medkit.evaluation.questions import Question
from medkit.evaluation.replies import Key, append_replies, read_replies
from medkit.models.fast_linear import fast_linears
from medkit.models.greedy import greedy_config
from medkit.progress import bar

PREPARING = 4  # threads at most that open and prepare pictures while the model answers
GROUP = 4  # batches whose pictures are read together, so that each batch has questions of like length


def answer_questions(
    model: Any,
    processor: Any,
    questions: Sequence[Question],
    images: Callable[[Question], list[Image.Image]],
    *,
    prompt_of: Callable[[list[dict[str, Any]]], str],
    partial: Path,
    batch_size: int = 32,
    max_new_tokens: int = 16,
) -> dict[Key, dict[str, Any]]:
    """Answers every question once, greedily, and gives the replies by the question's key.

    Args:
        model: An image-text-to-text model of transformers, on its device, in the precision to be scored.
        processor: The model's processor.
        questions: What to ask; keys are unique.
        images: Gives the images to show for a question, prepared as in training.
        prompt_of: Gives the text sent for the turns of a question (``medkit.training.encode.render_prompt``).
        partial: Append-only JSONL of replies; those already there for the same prompt are not asked again.
        batch_size: Questions a batch. In float32 replies don't depend on it.
        max_new_tokens: Longest reply in tokens, its end included.

    Returns:
        Key to ``{benchmark, control, id, prompt, answer, truncated, confidence, latency_s}``; ``truncated``
        when the reply reached the limit without an end, ``confidence`` is the probability of the whole
        reply, its end included, and ``latency_s`` the batch's time shared evenly.
    """
    prompts = {question.key: prompt_of(question.messages) for question in questions}
    groups = _groups(questions, prompts, processor.tokenizer, batch_size, _pictures_held(model, batch_size))
    replies = {key: reply for key, reply in read_replies(partial) if prompts.get(key) == reply["prompt"]}
    config = greedy_config(model, processor.tokenizer, max_new_tokens)
    model.eval()
    title = questions[0].benchmark if questions else "questions"
    begun, before = time.perf_counter(), len(replies)
    with (
        fast_linears(model),
        partial.open("ab") as file,
        bar(title, len(questions), before) as progress,
        closing(_prepared(model, processor, _left(groups, replies), prompts, images)) as ready,
    ):
        for batches, together in ready:
            start = time.perf_counter()
            for batch, inputs in zip(batches, together.inputs(model), strict=True):
                answers = _answer(model, processor, inputs, config)
                latency, start = (time.perf_counter() - start) / len(batch), time.perf_counter()
                replied = [
                    _reply(question, prompts[question.key], answer, latency)
                    for question, answer in zip(batch, answers, strict=True)
                ]
                append_replies(file, replied)
                replies.update(zip((question.key for question in batch), replied, strict=True))
                speed = (len(replies) - before) / (time.perf_counter() - begun)
                progress.advance(len(batch), f"{speed:.3g} answers/s")
    return replies


Batch = list[Question]


def _pictures_held(model: Any, batch_size: int) -> int:
    """Gives how many pictures' prefixes a group has at most; 0 where a family's can't be shared."""
    return max(batch_size, pictures_at_once(model)) if shares_prefixes(model) else 0


def _groups(
    questions: Sequence[Question],
    prompts: dict[Key, str],
    tokenizer: Any,
    batch_size: int,
    pictures_held: int,
) -> list[list[Batch]]:
    """Orders questions into groups, whose pictures are read at once, of batches, which are answered at once.

    The questions of a batch have equally many images and like length; those about one picture are in one
    group. The same questions always give the same groups.
    """
    texts = list(dict.fromkeys(prompts.values()))
    tokens = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    length = {text: len(ids) for text, ids in zip(texts, tokens, strict=True)}

    def pictures(question: Question) -> tuple[Any, ...]:
        # The blank control shows one picture to all; other controls that change a picture show one of their own.
        changed = question.control if changes_image(question.control) else ""
        return changed, [] if changed == "blank" else question.images

    def by_length(question: Question) -> tuple[Any, ...]:
        return -length[prompts[question.key]], question.control, question.images, question.id

    def most() -> int:
        # The first groups are small: while their pictures are prepared there is nothing to answer yet.
        return batch_size * (min(GROUP, 2 ** max(0, len(groups) - 2)) if pictures_held else 1)

    groups: list[list[Question]] = []
    seen: set[str] = set()
    for question in sorted(
        questions,
        key=lambda one: (-len(one.images), *(pictures(one) if pictures_held else ()), by_length(one)),
    ):
        new = {repr(pictures(question))} - seen
        held = pictures_held and len(seen) + len(new) > pictures_held
        if (
            not groups
            or len(groups[-1]) == most()
            or held
            or len(groups[-1][0].images) != len(question.images)
        ):
            groups.append([])
            seen, new = set(), {repr(pictures(question))}
        groups[-1].append(question)
        seen |= new
    ordered = [sorted(group, key=by_length) for group in groups]
    return [
        [group[place : place + batch_size] for place in range(0, len(group), batch_size)] for group in ordered
    ]


def _left(groups: list[list[Batch]], replies: dict[Key, Any]) -> Iterator[list[Batch]]:
    """Gives the groups and batches without what is answered."""
    for group in groups:
        asked = [[question for question in batch if question.key not in replies] for batch in group]
        if any(asked):
            yield [batch for batch in asked if batch]


def _prepared(
    model: Any,
    processor: Any,
    groups: Iterable[list[Batch]],
    prompts: dict[Key, str],
    images: Callable[[Question], list[Image.Image]],
) -> Generator[tuple[list[Batch], Prompts]]:
    """Gives groups with their pictures opened and prepared, the next ones while the model answers this one."""
    image_token = model.config.image_token_id if shares_prefixes(model) else None
    own = threading.local()

    def prepare(group: list[Batch]) -> tuple[list[Batch], Prompts]:
        if not hasattr(own, "processor"):
            # A tokenizer must not be set up for another padding while it is used in another thread.
            own.processor = copy.deepcopy(processor)
        flat = [question for batch in group for question in batch]
        row = {question.key: place for place, question in enumerate(flat)}
        batches = [[row[question.key] for question in batch] for batch in group]
        texts = [prompts[question.key] for question in flat]
        shown = [images(question) for question in flat]
        return group, Prompts(own.processor, texts, shown, batches, image_token)

    threads = min(PREPARING, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, "prepare") as pool:
        ahead: deque[Future[Any]] = deque()
        try:
            for group in groups:
                ahead.append(pool.submit(prepare, group))
                if len(ahead) > threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for waiting in ahead:
                waiting.cancel()


@torch.inference_mode()
def _answer(
    model: Any, processor: Any, inputs: dict[str, Any], config: GenerationConfig
) -> list[tuple[str, bool, float]]:
    """Gives the text of each reply, whether it reached the limit without an end, and its probability."""
    length = inputs["input_ids"].shape[1]
    sureness = Sureness(config.eos_token_id or [])  # type: ignore[arg-type]
    output = model.generate(
        **inputs, generation_config=config, logits_processor=LogitsProcessorList([sureness])
    )
    ends = set(config.eos_token_id or [])  # type: ignore[arg-type]
    replies = []
    for ids, confidence in zip(
        output[:, length:].tolist(), sureness.values(), strict=True
    ):  # [B, new tokens]
        end = next((place for place, token in enumerate(ids) if token in ends), None)
        text = processor.tokenizer.decode(ids if end is None else ids[:end], skip_special_tokens=True)
        replies.append((text.strip(), end is None, confidence))
    return replies


class Sureness(LogitsProcessor):
    """Adds up the log-probabilities of the tokens that greedy decoding takes, the end token included."""

    def __init__(self, ends: Sequence[int]):
        self.ends = torch.tensor(list(ends), dtype=torch.long)
        self.total: torch.Tensor | None = None  # [B]
        self.open: torch.Tensor | None = None  # [B], rows whose end token has not come yet

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # [B, T], [B, V]
        best = scores.max(dim=-1)
        taken = best.values.float() - scores.float().logsumexp(dim=-1)
        if self.total is None or self.open is None:
            self.total, self.open = torch.zeros_like(taken), torch.ones_like(taken, dtype=torch.bool)
        self.total += taken * self.open
        self.open &= ~torch.isin(best.indices, self.ends.to(best.indices.device))
        return scores

    def values(self) -> list[float]:
        """Gives each row's probability in (0, 1], to four digits: further ones depend on the batch."""
        return [] if self.total is None else [round(value, 4) for value in self.total.exp().tolist()]


def _reply(
    question: Question, prompt: str, answer: tuple[str, bool, float], latency: float
) -> dict[str, Any]:
    text, truncated, confidence = answer
    return {
        "benchmark": question.benchmark,
        "control": question.control,
        "id": question.id,
        "prompt": prompt,
        "answer": text,
        "truncated": truncated,
        "confidence": confidence,
        "latency_s": round(latency, 6),
    }
