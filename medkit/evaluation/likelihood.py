"""Answers of closed questions by likelihood: the most probable of the candidates, nothing is generated.

Every candidate is scored as a whole reply, the token that ends it included, so "no" does not profit from
"nodule". Its spellings ("yes", "Yes"; an option's letter and text) are replies of their own that exclude one
another, so their probabilities add up.
"""

from __future__ import annotations

import math
import string
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from medkit.errors import ModelError
from medkit.evaluation.prefixes import Prompts, shares_prefixes
from medkit.evaluation.questions import Question
from medkit.evaluation.replies import Key, append_replies, read_replies
from medkit.models.fast_linear import fast_linears
from medkit.progress import bar
from medkit.sample import assistant_turn

LETTERS = string.ascii_uppercase


def candidates_of(question: Question) -> dict[str, list[str]]:
    """Gives what a closed question can be answered with: each answer with its spellings; {} of an open one.

    Candidates come from the question, never from its gold answer.
    """
    options = list(dict.fromkeys(question.choices))
    if len(options) > 1:
        listed = [f"{letter}. {option}" for letter, option in zip(LETTERS, question.choices, strict=False)]
        distinct = len(options) == len(listed) == len(question.choices)
        lettered = distinct and all(line in question.text for line in listed)
        if not lettered:
            return {option: [option] for option in options}
        return {
            option: list(dict.fromkeys([option, letter, line]))
            for option, letter, line in zip(options, LETTERS, listed, strict=False)
        }
    if question.answer_type == "yes_no":
        return {"yes": ["yes", "Yes"], "no": ["no", "No"]}
    return {}


def choose_answers(
    model: Any,
    processor: Any,
    questions: Sequence[Question],
    images: Callable[[Question], list[Image.Image]],
    *,
    prompt_of: Callable[[list[dict[str, Any]]], str],
    partial: Path,
    per_token: bool = False,
    batch_size: int = 32,
) -> dict[Key, dict[str, Any]]:
    """Answers closed questions with their most probable candidate.

    Args:
        model: An image-text-to-text model of transformers, on its device.
        processor: The model's processor.
        questions: What to ask, each with candidates; keys are unique.
        images: Gives the images to show for a question, prepared as in training.
        prompt_of: Gives the text sent for the turns of a question.
        partial: Append-only JSONL of replies; those already there for the same prompt are not asked again.
        per_token: Score a candidate by the mean log-probability of its tokens, of its best spelling. Else by the
            log of the probability that the reply is one of its spellings.
        batch_size: Candidates that are read at once.

    Returns:
        Key to a reply as ``answer_questions`` gives it. ``candidates`` holds the log-probability of each
        (natural logarithm), ``answer`` the best one, ``confidence`` its share of the candidates' probability.

    Raises:
        ModelError: The chat template can't go on from the prompt with an answer.
    """
    prompts = {question.key: prompt_of(question.messages) for question in questions}
    rows = {question.key: _rows(processor, question, prompts[question.key]) for question in questions}
    replies = {
        key: reply
        for key, reply in read_replies(partial)
        if prompts.get(key) == reply["prompt"] and "candidates" in reply
    }
    model.eval()
    title = f"{questions[0].benchmark}, likelihood" if questions else "likelihood"
    with (
        fast_linears(model),
        partial.open("ab") as file,
        bar(title, len(questions), len(replies)) as progress,
    ):
        for batch in _batches(questions, rows, batch_size):
            asked = [question for question in batch if question.key not in replies]
            if not asked:
                continue
            start = time.perf_counter()
            texts = [prompts[question.key] for question in asked]
            spoken = [[ids for _, ids in rows[question.key]] for question in asked]
            scored = _score(model, processor, texts, [images(question) for question in asked], spoken)
            latency = (time.perf_counter() - start) / len(asked)
            found = [
                _reply(
                    question, prompts[question.key], _values(rows[question.key], values, per_token), latency
                )
                for question, values in zip(asked, scored, strict=True)
            ]
            append_replies(file, found)
            replies.update(zip((question.key for question in asked), found, strict=True))
            progress.advance(len(asked))
    return replies


Spelling = tuple[str, list[int]]  # the candidate that it spells, and its tokens


def _rows(processor: Any, question: Question, prompt: str) -> list[Spelling]:
    """Gives the tokens of every spelling of every candidate, as they follow the prompt."""
    tokenizer = processor.tokenizer
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    found = []
    for name, spellings in candidates_of(question).items():
        for spelling in spellings:
            turns = [*question.messages, assistant_turn(spelling)]
            whole = processor.apply_chat_template(turns, tokenize=False)
            if not whole.startswith(prompt):
                raise ModelError(
                    "the chat template rewrites the question once it is answered, so candidates can't be scored; "
                    "use answering: generate"
                )
            end = whole.rfind(tokenizer.eos_token, len(prompt)) if tokenizer.eos_token else -1
            text = whole[: end + len(tokenizer.eos_token)] if end >= 0 else whole.rstrip()
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            # Where the answer melts into the prompt's last token, the model has to write it from its first sign.
            melted = ids[: len(before)] != before
            rest = tokenizer(text[len(prompt) :], add_special_tokens=False)["input_ids"]
            found.append((name, rest if melted else ids[len(before) :]))
    return found


def _batches(
    questions: Sequence[Question], rows: dict[Key, list[Spelling]], batch_size: int
) -> list[list[Question]]:
    """Puts questions with equally many images together, those about one image side by side."""

    def order(question: Question) -> tuple[Any, ...]:
        return len(question.images), question.images, question.control, question.id

    batches: list[list[Question]] = []
    filled = 0
    for question in sorted(questions, key=order):
        more = len(rows[question.key])
        other = bool(batches) and len(batches[-1][0].images) != len(question.images)
        if not batches or other or filled + more > batch_size:
            batches.append([])
            filled = 0
        batches[-1].append(question)
        filled += more
    return batches


@torch.inference_mode()
def _score(
    model: Any,
    processor: Any,
    texts: list[str],
    images: list[list[Image.Image]],
    spoken: list[list[list[int]]],
) -> list[list[tuple[float, int]]]:
    """Gives (sum of log-probabilities, number of tokens) of every spelling of every question."""
    owners = [place for place, rows in enumerate(spoken) for _ in rows]
    rows = [ids for spellings in spoken for ids in spellings]
    longest = max(len(ids) for ids in rows)
    targets = torch.zeros((len(rows), longest), dtype=torch.long, device=model.device)  # [R, T]
    real = torch.zeros_like(targets, dtype=torch.bool)
    for place, ids in enumerate(rows):
        targets[place, : len(ids)] = torch.tensor(ids, device=model.device)
        real[place, : len(ids)] = True
    score = _from_prompts if shares_prefixes(model) else _from_whole
    logits = score(model, processor, (texts, images, owners), targets, real)  # [R, T, V]
    chosen = logits.float().log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    sums = torch.where(real, chosen, 0.0).double().sum(1).tolist()
    found: list[list[tuple[float, int]]] = [[] for _ in texts]
    for owner, total, ids in zip(owners, sums, rows, strict=True):
        found[owner].append((total, len(ids)))
    return found


Asked = tuple[list[str], list[list[Image.Image]], list[int]]  # prompts, their images, prompt of each spelling


def _from_prompts(
    model: Any, processor: Any, asked: Asked, targets: torch.Tensor, real: torch.Tensor
) -> torch.Tensor:
    """Reads every picture and every prompt once; the spellings go on from the prompt's cache."""
    texts, images, owners = asked
    rows = [range(len(texts))]
    [inputs] = Prompts(processor, texts, images, rows, model.config.image_token_id).inputs(model)
    mask = inputs["attention_mask"]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    if "past_key_values" in inputs:  # the pictures are read: only what follows them is left
        read = inputs["past_key_values"].get_seq_length()
        inputs["input_ids"], positions = inputs["input_ids"][:, read:], positions[:, read:]
    first = model(**inputs, position_ids=positions, use_cache=True, logits_to_keep=1)
    owner = torch.tensor(owners, device=mask.device)
    heads = first.logits[:, -1:][owner]  # [R, 1, V]
    if targets.shape[1] == 1:
        return heads
    cache = first.past_key_values
    cache.batch_select_indices(owner)
    # the logits after the last token would tell what follows the answer, which nobody asks
    fed, length = targets[:, :-1], mask.sum(1)[owner]
    places = length[:, None] + torch.arange(fed.shape[1], device=mask.device)
    whole = torch.cat([mask[owner], real[:, :-1].to(mask.dtype)], dim=1)
    rest = model(
        input_ids=fed, attention_mask=whole, position_ids=places, past_key_values=cache, use_cache=True
    ).logits
    return torch.cat([heads, rest], dim=1)


def _from_whole(
    model: Any, processor: Any, asked: Asked, targets: torch.Tensor, real: torch.Tensor
) -> torch.Tensor:
    """Reads prompt and spelling as one, for families whose positions depend on more than the tokens' number."""
    texts, images, owners = asked
    found = []
    for place, owner in enumerate(owners):
        [inputs] = Prompts(processor, [texts[owner]], [images[owner]], [[0]], None).inputs(model)
        tail = targets[place : place + 1][:, real[place]]
        for name, fill in (("input_ids", tail), ("attention_mask", torch.ones_like(tail))):
            inputs[name] = torch.cat([inputs[name], fill.to(inputs[name].dtype)], dim=1)
        for name in ("token_type_ids", "mm_token_type_ids"):
            if name in inputs:
                inputs[name] = torch.cat([inputs[name], torch.zeros_like(tail)], dim=1)
        logits = model(**inputs, use_cache=False, logits_to_keep=tail.shape[1] + 1).logits[:, :-1]
        missing = targets.shape[1] - tail.shape[1]
        found.append(torch.nn.functional.pad(logits, (0, 0, 0, missing)))
    return torch.cat(found)


def _values(rows: list[Spelling], scored: list[tuple[float, int]], per_token: bool) -> dict[str, float]:
    """Puts the spellings of each candidate together."""
    parts: dict[str, list[float]] = {}
    for (name, _), (total, tokens) in zip(rows, scored, strict=True):
        parts.setdefault(name, []).append(total / tokens if per_token else total)
    return {name: max(values) if per_token else _log_of_sum(values) for name, values in parts.items()}


def _log_of_sum(values: list[float]) -> float:
    highest = max(values)
    return highest + math.log(sum(math.exp(value - highest) for value in values))


def _reply(question: Question, prompt: str, values: dict[str, float], latency: float) -> dict[str, Any]:
    best = max(values, key=lambda name: values[name])
    return {
        "benchmark": question.benchmark,
        "control": question.control,
        "id": question.id,
        "prompt": prompt,
        "answer": best,
        "truncated": False,
        "latency_s": round(latency, 6),
        "confidence": round(math.exp(values[best] - _log_of_sum(list(values.values()))), 6),
        "candidates": {name: round(value, 6) for name, value in values.items()},
    }
