"""A checkpoint on this machine as judge: text-only prompts, batched by the code that answers questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medkit.errors import MedkitError, ModelError
from medkit.evaluation.endpoint import Request
from medkit.evaluation.judge_sources import Fault, Source, failures, with_fault
from medkit.evaluation.questions import Question
from medkit.evaluation.replies import Key
from medkit.sample import text_of
from medkit.state import digest

BATCH = 8  # a rubric and two reports are long, and so are replies
TOO_LONG = "longer than the judge's context"
RESERVED = "holds a token that the judge's model reserves"

Row = dict[str, Any]


def local_source(folder: Path) -> Source:
    """Gives a model folder as a judge. It answers greedily, so that asking again would give the same.

    Raises:
        MedkitError: No model folder is there.
    """
    identity = digest(str(folder))
    if identity == "absent" or not folder.is_dir():
        raise MedkitError(f"{folder}: no model folder is there; a judge is a folder, or --endpoint URL")
    made: dict[str, Any] = {}

    def ask(requests: Sequence[Request], partial: Path, fault_of: Fault) -> dict[Key, Row]:
        replies, how = _ask(folder, requests, partial)
        made.update(how)
        return {key: row if "failed" in row else with_fault(row, fault_of) for key, row in replies.items()}

    def about(replies: Sequence[Row]) -> Row:
        return {"method": "greedy", "folder": folder.resolve().name, **made, "failed": failures(replies)}

    return Source({"model": identity}, ask, about)


def _ask(folder: Path, requests: Sequence[Request], partial: Path) -> tuple[dict[Key, Row], dict[str, Any]]:
    import torch

    from medkit.evaluation.generate import answer_questions
    from medkit.models.contract import cut_at_stop
    from medkit.models.load import load_model, pick_device, pick_precision

    device = pick_device("auto")
    precision = "fp32" if device.type == "cpu" else pick_precision("auto", device)
    loaded = load_model(folder, device.type, torch.bfloat16 if precision == "bf16" else torch.float32)
    processor, room = loaded.processor, _positions(loaded.base_model.config)
    reserved = _reserved(processor)
    replies: dict[Key, Row] = {}
    limits: dict[int, list[Question]] = {}
    for request in requests:
        question = _question(request, processor)
        text = _rendered(processor, question.messages)
        tokens = len(processor.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1  # a first token
        fault = TOO_LONG if room and tokens + request.most_tokens > room else ""
        if any(token in request.prompt for token in reserved):
            fault = RESERVED  # an answer that ends its own turn could speak for the judge
        if fault:
            benchmark, order, name = request.key
            row = {"benchmark": benchmark, "control": order, "id": name, "answer": "", "truncated": False}
            replies[request.key] = {**row, "failed": fault}
        else:
            limits.setdefault(request.most_tokens, []).append(question)
    for most_tokens, questions in limits.items():
        answered = answer_questions(
            loaded.model,
            processor,
            questions,
            lambda question: [],
            prompt_of=lambda messages: _rendered(processor, messages),
            partial=partial,
            batch_size=BATCH,
            max_new_tokens=most_tokens,
        )
        for key, row in answered.items():
            text = cut_at_stop(row["answer"], loaded.contract.stop)
            ended = text != row["answer"]
            replies[key] = {
                **row,
                "answer": text.strip(),
                "truncated": row["truncated"] and not ended,
            }
    return replies, {"precision": precision, "device": device.type, "batch_size": BATCH}


def _question(request: Request, processor: Any) -> Question:
    benchmark, order, name = request.key
    system, user = (turn["content"] for turn in request.messages())
    messages = [_turn("system", system), _turn("user", user)]
    if not _is_shown(processor, messages):
        messages = [_turn("user", f"{system}\n\n{user}")]  # a template without a place for the system's text
        if not _is_shown(processor, messages):
            raise ModelError(
                "the judge's chat template leaves out a part of the text; it can't be a judge as it is"
            )
    return Question(benchmark, order, name, name, "judging", "open", messages, [], [])


def _is_shown(processor: Any, messages: list[dict[str, Any]]) -> bool:
    """Says whether a template takes the turns and writes their whole text."""
    from jinja2 import TemplateError

    try:
        text = _rendered(processor, messages)
    except (TemplateError, ValueError, KeyError, TypeError):
        return False
    return all(text_of(turn).strip() in text for turn in messages)


def _rendered(processor: Any, messages: list[dict[str, Any]]) -> str:
    return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def _turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _reserved(processor: Any) -> set[str]:
    """Gives the texts that a tokenizer reads as tokens of the template, or as a picture."""
    added = getattr(processor.tokenizer, "added_tokens_decoder", {}).values()
    own = (getattr(processor, name, None) for name in ("image_token", "boi_token", "video_token"))
    found = {
        *processor.tokenizer.all_special_tokens,
        *(token.content for token in added if token.special),
        *own,
    }
    return {token for token in found if isinstance(token, str) and token}


def _positions(config: Any) -> int:
    """Gives the longest sequence of the language model, 0 where it says none."""
    inner = getattr(config, "text_config", None) or config
    return int(getattr(inner, "max_position_embeddings", 0) or 0)
