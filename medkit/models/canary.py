"""The parity canary: questions with known answers that a bundle carries, to see that it still gives them.

A checkpoint that is served with another template, another picture size or a half-merged adapter still
answers, only worse. The canary notices: it holds the prompts as text and the pictures as pixels, and says
what the checkpoint answered greedily when it was exported, with the log-probability of every token.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from PIL import Image, ImageDraw

from ..errors import ModelError
from .contract import cut_at_stop, prepare_image
from .greedy import greedy_config
from .load import Loaded

FILE_NAME = "canary.json"
VERSION = 1
NEW_TOKENS = 12
# Of log-probabilities, in nats. Float32 differs by the order of its sums; what 16 bits differ by is measured
# where the canary is made, and these are the least that is allowed then.
TOLERANCE = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.05}
PIXEL_TOLERANCE = 1e-3  # of mean and spread of the pixel values, which are of the order of 1
ANSWER = "A drawing."


def make_canary(loaded: Loaded, count: int = 3) -> dict[str, Any]:
    """Asks a checkpoint the canary's questions and writes down its answers.

    Args:
        loaded: The checkpoint, in the precision in which it will answer.
        count: Questions; the first three are a text without picture (where the template allows one), a
            question about a picture, and one after an earlier turn.

    Returns:
        The canary as JSON: ``dtype``, ``tolerance`` (nats), ``versions``, and of every question the
        ``messages``, ``images`` (PNG in base64), ``prompt``, ``token_ids``, ``text``, ``prefixes``
        (the text after every token), ``log_probs`` and ``margins`` (log-probability of the answer's tokens, and
        how far the second best was behind).

    Raises:
        ModelError: The checkpoint's numbers are not finite.
    """
    dtype = _dtype_of(loaded)
    asked = []
    for number in range(count):
        question = _question(loaded, number)
        if question is not None:
            asked.append({**question, **_described(loaded, question), **_answered(loaded, question)})
    return {
        "version": VERSION,
        "dtype": dtype,
        "tolerance": TOLERANCE.get(dtype, TOLERANCE["bfloat16"]),
        "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
        "device": str(loaded.base_model.device.type),
        "max_new_tokens": NEW_TOKENS,
        "questions": asked,
    }


def check_canary(loaded: Loaded, canary: dict[str, Any], tolerance: float | None = None) -> None:
    """Asks a checkpoint the canary's questions again.

    Args:
        loaded: The checkpoint.
        canary: What ``make_canary`` gave.
        tolerance: Of log-probabilities in nats; the canary's own when None, or that of the checkpoint's
            precision where it is larger.

    Raises:
        ModelError: The prompt, the tokens, the pixels, a log-probability or the text differ; says which, where
            and by how much.
    """
    answers = []
    for question in _questions(canary):
        faults = _unlike_inputs(question, _described(loaded, question))
        if faults:
            raise ModelError(f"canary question {question['name']!r}: {faults}")
        answers.append(_answered(loaded, question))
    if tolerance is None:
        tolerance = max(canary["tolerance"], TOLERANCE.get(_dtype_of(loaded), 0.0))
    check_answers(answers, canary, tolerance)


def check_answers(
    answers: Sequence[dict[str, Any]], canary: dict[str, Any], tolerance: float | None = None
) -> None:
    """Holds answers against the canary's, wherever they come from.

    Args:
        answers: One a question, in the canary's order: ``text``, and where the server gives them ``token_ids``
            and ``log_probs`` (of the canary's own tokens, as far as the answer follows them).
        canary: What ``make_canary`` gave.
        tolerance: Of log-probabilities in nats; the canary's own when None.

    Raises:
        ModelError: An answer differs before a token that the canary itself was unsure of.
    """
    allowed = canary["tolerance"] if tolerance is None else tolerance
    questions = _questions(canary)
    if len(answers) != len(questions):
        raise ModelError(f"the canary has {len(questions)} questions and {len(answers)} answers came back")
    for question, answer in zip(questions, answers, strict=True):
        fault = _unlike_answer(question, answer, allowed)
        if fault:
            raise ModelError(f"canary question {question['name']!r}: {fault}")


def noise_between(exact: dict[str, Any], rounded: dict[str, Any]) -> float:
    """Gives the largest difference of log-probabilities (nats) of two canaries, while their tokens agree."""
    most = 0.0
    for one, other in zip(_questions(exact), _questions(rounded), strict=True):
        steps = zip(one["token_ids"], other["token_ids"], one["log_probs"], other["log_probs"], strict=False)
        for token, second, log_prob, other_log_prob in steps:
            if token != second:
                break
            most = max(most, abs(log_prob - other_log_prob))
    return most


def write_canary(folder: Path, canary: dict[str, Any]) -> None:
    """Writes ``canary.json`` into a bundle."""
    (folder / FILE_NAME).write_text(json.dumps(canary, indent=1) + "\n")


def read_canary(folder: Path) -> dict[str, Any]:
    """Reads a bundle's canary.

    Raises:
        ModelError: There is none, or it can't be read.
    """
    path = folder / FILE_NAME
    try:
        canary = json.loads(path.read_text())
        if canary["version"] > VERSION:
            raise ModelError(f"{path}: version {canary['version']} is newer than medkit knows; update medkit")
        _questions(canary)
    except FileNotFoundError:
        raise ModelError(f"{folder}: no {FILE_NAME} here; `medkit export` writes one") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ModelError(f"{path}: not a readable canary ({error}); export the checkpoint again") from error
    return canary


def _questions(canary: dict[str, Any]) -> list[dict[str, Any]]:
    return canary["questions"]


def _dtype_of(loaded: Loaded) -> str:
    return str(loaded.base_model.get_input_embeddings().weight.dtype).removeprefix("torch.")


def _question(loaded: Loaded, number: int) -> dict[str, Any] | None:
    """Gives a question with its picture, None where the template can't ask it."""
    form, seed = number % 3, number // 3
    shown = [_png(seed, wide=form == 1)] if form else []
    if form == 0:
        turns = [_turn("user", "What colour is the sky on a clear day?")]
    elif form == 1:
        turns = [_turn("user", "Describe the picture in one sentence.", shown)]
    else:
        turns = [
            _turn("user", "What is this?", shown),
            _turn("assistant", ANSWER),
            _turn("user", "Which shape is the largest?"),
        ]
    name = ("text", "picture", "two turns")[form] + (f" {seed + 1}" if seed else "")
    try:
        prompt = loaded.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    except TemplateError:
        return None
    return {"name": name, "messages": turns, "images": shown, "prompt": prompt}


def _turn(role: str, text: str, images: Sequence[str] = ()) -> dict[str, Any]:
    return {"role": role, "content": [*({"type": "image"} for _ in images), {"type": "text", "text": text}]}


def _png(seed: int, wide: bool) -> str:
    """Draws a small picture that is no square, so that padding and cropping show: base64 of a PNG."""
    width, height = (112, 72) if wide else (64, 96)
    rng = np.random.default_rng([seed, wide])
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    ground = np.stack([across, down, 1 - across * down], axis=-1) * rng.uniform(90, 200, 3)
    image = Image.fromarray(ground.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for paint in (draw.ellipse, draw.rectangle, draw.ellipse):
        x, y = rng.uniform(0, 0.7, 2) * (width, height)
        side = rng.uniform(0.15, 0.4) * min(width, height)
        paint((x, y, x + side, y + side), fill=tuple(int(value) for value in rng.integers(0, 256, 3)))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _pictures(question: dict[str, Any]) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB") for image in question["images"]]


def _inputs(loaded: Loaded, question: dict[str, Any], prompt: str) -> Any:
    bos = loaded.processor.tokenizer.bos_token
    images = [prepare_image(image, loaded.contract) for image in _pictures(question)]
    return loaded.processor(
        text=[prompt],
        images=images or None,
        return_tensors="pt",
        # the template writes <s> itself where the family wants one
        add_special_tokens=not (bos and prompt.startswith(bos)),
    )


def _described(loaded: Loaded, question: dict[str, Any]) -> dict[str, Any]:
    """Gives what reaches the model: prompt, hash of the token ids, mean and spread of the pixels."""
    prompt = loaded.processor.apply_chat_template(
        question["messages"], add_generation_prompt=True, tokenize=False
    )
    inputs = _inputs(loaded, question, prompt)
    ids = inputs["input_ids"][0].tolist()
    described = {
        "prompt": prompt,
        "input_tokens": len(ids),
        "input_sha256": hashlib.sha256(json.dumps(ids).encode()).hexdigest(),
    }
    pixels = inputs.get("pixel_values")
    if pixels is not None:
        described["pixels"] = {
            "mean": float(pixels.double().mean()),
            "spread": float(pixels.double().std()),
            "shape": list(pixels.shape),
        }
    return described


@torch.inference_mode()
def _answered(loaded: Loaded, question: dict[str, Any]) -> dict[str, Any]:
    """Answers greedily; where the question has an answer already, its tokens' log-probabilities are read.

    Raises:
        ModelError: A number is not finite.
    """
    model: Any = loaded.base_model
    tokenizer = loaded.processor.tokenizer
    inputs = _inputs(loaded, question, question["prompt"]).to(model.device, model.dtype)
    config = greedy_config(model, tokenizer, NEW_TOKENS)
    config.output_logits = config.return_dict_in_generate = True
    out = model.generate(**inputs, generation_config=config)
    ids = out.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    steps = torch.stack([step[0] for step in out.logits]).float().log_softmax(-1)  # [T, vocabulary]
    if not torch.isfinite(steps.amax(-1)).all():
        raise ModelError(
            f"the answer's numbers are not finite in {_dtype_of(loaded)}; choose another dtype "
            "(float16 overflows where bfloat16 and float32 don't)"
        )
    best = steps.topk(2, dim=-1).values
    told = question.get("token_ids", ids)
    prefixes = [tokenizer.decode(ids[: n + 1], skip_special_tokens=True) for n in range(len(ids))]
    stops = [n for n, text in enumerate(prefixes) if any(stop in text for stop in loaded.contract.stop)]
    ids = ids[: stops[0] + 1] if stops else ids
    prefixes = [cut_at_stop(text, loaded.contract.stop) for text in prefixes[: len(ids)]]
    return {
        "token_ids": ids,
        "text": prefixes[-1] if prefixes else "",
        "prefixes": prefixes,
        "log_probs": [float(step[token]) for step, token in zip(steps, told[: len(ids)], strict=False)],
        "margins": [float(margin) for margin in best[:, 0] - best[:, 1]][: len(ids)],
    }


def _unlike_inputs(question: dict[str, Any], described: dict[str, Any]) -> str:
    """Says what reaches the model otherwise than when the canary was made, "" when nothing does."""
    if question["prompt"] != described["prompt"]:
        return (
            f"the chat template writes {described['prompt']!r} instead of {question['prompt']!r}; "
            "put back chat_template.jinja"
        )
    wanted, got = question.get("pixels"), described.get("pixels")
    if (wanted is None) != (got is None) or (wanted and got and not _same_pixels(wanted, got)):
        return (
            f"the picture becomes other pixels ({got} instead of {wanted}); "
            "put back the processor's settings and medkit.json"
        )
    if question["input_sha256"] != described["input_sha256"]:
        return (
            f"the prompt becomes {described['input_tokens']} other tokens "
            f"(there were {question['input_tokens']}); put back the tokenizer and the processor's settings"
        )
    return ""


def _same_pixels(wanted: dict[str, Any], got: dict[str, Any]) -> bool:
    near = all(abs(wanted[key] - got[key]) <= PIXEL_TOLERANCE for key in ("mean", "spread"))
    return near and wanted["shape"] == got["shape"]


def _unlike_answer(question: dict[str, Any], answer: dict[str, Any], tolerance: float) -> str:
    """Says how an answer differs, "" when it does not before a token that could have gone either way."""
    ids, log_probs = answer.get("token_ids"), answer.get("log_probs") or []
    others = f"the answer is {answer['text']!r} instead of {question['text']!r}"
    sure = 0
    for step, wanted in enumerate(question["token_ids"]):
        change = abs(log_probs[step] - question["log_probs"][step]) if step < len(log_probs) else 0.0
        if not change <= tolerance:  # nor is NaN
            return (
                f"token {step + 1} of {question['text']!r} has log-probability {log_probs[step]:.4f} instead of "
                f"{question['log_probs'][step]:.4f} (tolerance {tolerance:.2g}); the weights or their arithmetic "
                "are others"
            )
        # both sides of a choice may move by the tolerance
        unsure = question["margins"][step] <= 2 * tolerance
        if ids is not None and (step >= len(ids) or ids[step] != wanted):
            return "" if unsure else others
        if ids is None and unsure:
            break
        sure = step + 1
    if ids is None:
        wanted_text = question["prefixes"][sure - 1].strip() if sure else ""
        whole = sure == len(question["token_ids"])
        text = answer["text"].strip()
        if text != wanted_text if whole else not text.startswith(wanted_text):
            return others
    return ""
