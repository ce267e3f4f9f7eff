"""Asking a model: batched greedy answers, resumable after a kill with nothing asked twice.

Replies are appended to one file a batch at a time, each batch in one write that is synced to disk. After a
kill the whole lines count and the torn end is cut off. Batches are the same in every run over the same
questions, so what is asked after a kill is asked in the company it would have had.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig

from medkit.evaluation.questions import Question
from medkit.evaluation.replies import Key, append_replies, read_replies
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
        Key to ``{benchmark, control, id, prompt, answer, truncated, latency_s}``; ``truncated`` when the
        reply reached the limit without an end, ``latency_s`` is the batch's time shared evenly.
    """
    prompts = {question.key: prompt_of(question.messages) for question in questions}
    batches = _batches(
        questions, prompts, processor.tokenizer, batch_size, by_picture=_shares_prefixes(model)
    )
    replies = {key: reply for key, reply in read_replies(partial) if prompts.get(key) == reply["prompt"]}
    config = greedy_config(model, processor.tokenizer, max_new_tokens)
    model.eval()
    title = questions[0].benchmark if questions else "questions"
    begun, before = time.perf_counter(), len(replies)
    with partial.open("ab") as file, bar(title, len(questions), before) as progress:
        for batch in batches:
            asked = [question for question in batch if question.key not in replies]
            if not asked:
                continue
            start = time.perf_counter()
            texts = [prompts[question.key] for question in asked]
            answers = _answer(model, processor, texts, [images(question) for question in asked], config)
            latency = (time.perf_counter() - start) / len(asked)
            rows = [
                _reply(question, text, answer, truncated, latency)
                for question, text, (answer, truncated) in zip(asked, texts, answers, strict=True)
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
) -> list[tuple[str, bool]]:
    tokenizer = processor.tokenizer
    bos = tokenizer.bos_token
    inputs = processor(
        text=texts,
        images=images if any(images) else None,
        padding=True,
        padding_side="left",
        return_tensors="pt",
        # A template that writes the first token itself must not get a second one.
        add_special_tokens=not (bos is not None and texts[0].startswith(bos)),
    ).to(model.device)
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    if _shares_prefixes(model) and "pixel_values" in inputs:
        inputs = _with_prefixes_read(model, inputs, images)
    length = inputs["input_ids"].shape[1]
    output = model.generate(**inputs, generation_config=config)
    ends = set(config.eos_token_id or [])  # type: ignore[arg-type]
    replies = []
    for ids in output[:, length:].tolist():  # [B, new tokens]
        end = next((place for place, token in enumerate(ids) if token in ends), None)
        text = tokenizer.decode(ids if end is None else ids[:end], skip_special_tokens=True)
        replies.append((text.strip(), end is None))
    return replies


def _shares_prefixes(model: Any) -> bool:
    """Says whether a family's image prefix may be read apart from the question: plain causal positions."""
    return model.config.model_type == "llava"


def _with_prefixes_read(model: Any, inputs: Any, images: list[list[Image.Image]]) -> dict[str, Any]:
    """Reads each picture's prompt prefix once and gives generate the rest, with the cache of every question.

    A LLaVA prompt is mostly image tokens, and benchmarks ask several questions about a picture (and a control
    shows one blank picture to all): reading a prefix once saves most of the work. Rows become
    ``prefix, padding, rest``, so that prefixes stand at the same positions.
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    rows = [row[keep] for row, keep in zip(ids, mask, strict=True)]
    image_token = model.config.image_token_id
    cuts = {int((row == image_token).nonzero().max()) + 1 for row in rows}
    if len(cuts) != 1:  # pictures of unlike token counts
        return inputs
    cut = cuts.pop()
    keys = [
        (row[:cut].cpu().numpy().tobytes(), *(hashlib.sha256(image.tobytes()).digest() for image in shown))
        for row, shown in zip(rows, images, strict=True)
    ]
    first = {key: place for place, key in reversed(list(enumerate(keys)))}
    distinct = sorted(first.values())
    number = {keys[place]: index for index, place in enumerate(distinct)}
    pixels = inputs["pixel_values"].unflatten(0, (len(rows), -1))[distinct].flatten(0, 1)
    prefixes = torch.stack([rows[place][:cut] for place in distinct])  # [distinct, cut]
    cache = model(input_ids=prefixes, pixel_values=pixels, use_cache=True, logits_to_keep=1).past_key_values
    cache.batch_select_indices(torch.tensor([number[key] for key in keys], device=ids.device))
    longest = max(len(row) for row in rows)
    arranged = ids.new_full((len(rows), longest), int(ids[~mask][0]) if (~mask).any() else 0)
    shown = torch.zeros_like(arranged)
    for place, row in enumerate(rows):
        arranged[place, :cut], shown[place, :cut] = row[:cut], 1
        arranged[place, longest - len(row) + cut :], shown[place, longest - len(row) + cut :] = row[cut:], 1
    return {"input_ids": arranged, "attention_mask": shown, "past_key_values": cache}


def _reply(question: Question, prompt: str, answer: str, truncated: bool, latency: float) -> dict[str, Any]:
    return {
        "benchmark": question.benchmark,
        "control": question.control,
        "id": question.id,
        "prompt": prompt,
        "answer": answer,
        "truncated": truncated,
        "latency_s": round(latency, 6),
    }
