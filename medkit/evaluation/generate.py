"""Asking a model: batched greedy answers, resumable after a kill with nothing asked twice.

Replies are appended to one file a batch at a time, each batch in one write that is synced to disk. After a
kill the whole lines count and the torn end is cut off. Batches are the same in every run over the same
questions, so what is asked after a kill is asked in the company it would have had.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from medkit.evaluation.prefixes import prepare_inputs, shares_prefixes
from medkit.evaluation.questions import Question
from medkit.evaluation.replies import Key, append_replies, read_replies
from medkit.models.fast_linear import fast_linears
from medkit.models.greedy import greedy_config
from medkit.progress import bar


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
    batches = _batches(
        questions, prompts, processor.tokenizer, batch_size, by_picture=shares_prefixes(model)
    )
    replies = {key: reply for key, reply in read_replies(partial) if prompts.get(key) == reply["prompt"]}
    config = greedy_config(model, processor.tokenizer, max_new_tokens)
    model.eval()
    title = questions[0].benchmark if questions else "questions"
    begun, before = time.perf_counter(), len(replies)
    with fast_linears(model), partial.open("ab") as file, bar(title, len(questions), before) as progress:
        for batch in batches:
            asked = [question for question in batch if question.key not in replies]
            if not asked:
                continue
            start = time.perf_counter()
            texts = [prompts[question.key] for question in asked]
            answers = _answer(model, processor, texts, [images(question) for question in asked], config)
            latency = (time.perf_counter() - start) / len(asked)
            rows = [
                _reply(question, text, answer, latency)
                for question, text, answer in zip(asked, texts, answers, strict=True)
            ]
            append_replies(file, rows)
            replies.update(zip((question.key for question in asked), rows, strict=True))
            speed = (len(replies) - before) / (time.perf_counter() - begun)
            progress.advance(len(asked), f"{speed:.3g} answers/s")
    return replies


def _batches(
    questions: Sequence[Question], prompts: dict[Key, str], tokenizer: Any, batch_size: int, by_picture: bool
) -> list[list[Question]]:
    texts = list(dict.fromkeys(prompts.values()))
    tokens = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    length = {text: len(ids) for text, ids in zip(texts, tokens, strict=True)}

    def order(question: Question) -> tuple[Any, ...]:
        # A batch has questions with equally many images; those about one picture, or else of like length, are
        # together. The blank control shows one picture to all.
        pictures = [] if question.control == "blank" else question.images
        tokens, many = length[prompts[question.key]], -len(question.images)
        if by_picture:
            return many, question.control == "blank", pictures, -tokens, question.control, question.id
        return many, -tokens, question.control, pictures, question.id

    ordered = sorted(questions, key=order)
    batches: list[list[Question]] = []
    for question in ordered:
        full = not batches or len(batches[-1]) == batch_size
        if full or len(batches[-1][0].images) != len(question.images):
            batches.append([])
        batches[-1].append(question)
    return batches


@torch.inference_mode()
def _answer(
    model: Any, processor: Any, texts: list[str], images: list[list[Image.Image]], config: GenerationConfig
) -> list[tuple[str, bool, float]]:
    """Gives the text of each reply, whether it reached the limit without an end, and its probability."""
    inputs = prepare_inputs(model, processor, texts, images)
    length = inputs["input_ids"].shape[1]
    sureness = Sureness(config.eos_token_id or [])  # type: ignore[arg-type]
    output = model.generate(
        **inputs, generation_config=config, logits_processor=LogitsProcessorList([sureness])
    )
    ends = set(config.eos_token_id or [])  # type: ignore[arg-type]
    replies = []
    for ids, confidence in zip(output[:, length:].tolist(), sureness.values(), strict=True):  # [B, new tokens]
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
