"""Conversation templates of the LLaVA family, as Jinja chat templates that render the original prompts.

A checkpoint answers well only in the template it was trained in, and original checkpoints name theirs by a word
in the code that made them. Headers end without a space and answers begin with one, so that the first answer
token is the same in training and in generation; ``{% generation %}`` stands around what is learnt: the answer
and what ends it.

Source: prompts written by haotian-liu/LLaVA c121f04 and v1.1.3, LLaVA-VL/LLaVA-NeXT df17966, microsoft/LLaVA-Med
v1.0.0 while training. None of them writes the first token (``<s>``): the tokenizer adds it where it has one.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import ModelError

NAMES: tuple[str, ...] = (
    "plain", "v0", "v1", "llava_llama_2", "mistral_instruct", "mpt", "chatml_direct", "qwen_1_5", "v0_med",
)  # fmt: skip

ALIASES = {
    "simple": "v0_med",
    "default": "v0",
    "llava_v0": "v0",
    "vicuna_v0": "v0",
    "conv_v1_2": "v0_med",
    "v1_2": "v0_med",
    "llava_v1": "v1",
    "vicuna_v1": "v1",
    "conv_vicuna_v1": "v1",
    "conv_llava_v1": "v1",
    "v1_mmtag": "v1",
    "llama_2": "llava_llama_2",
    "conv_llava_llama_2": "llava_llama_2",
    "mistral": "mistral_instruct",
    "conv_mistral_instruct": "mistral_instruct",
    "mpt_text": "mpt",
    "conv_mpt": "mpt",
    "chatml": "chatml_direct",
    "conv_chatml_direct": "chatml_direct",
    "qwen": "qwen_1_5",
    "qwen_2": "qwen_1_5",
    "conv_qwen": "qwen_1_5",
    "llava_plain": "plain",
    "conv_llava_plain": "plain",
}

_HUMAN = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
SYSTEM = {
    "plain": "",
    "v0": _HUMAN,
    "v0_med": _HUMAN,
    "v1": (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    ),
    "llava_llama_2": (
        "You are a helpful language and vision assistant. You are able to understand the visual content that "
        "the user provides, and assist the user with a variety of tasks using natural language."
    ),
    "mistral_instruct": "",
    "mpt": (
        "A conversation between a user and an LLM-based AI assistant. "
        "The assistant gives helpful and honest answers."
    ),
    "chatml_direct": "Answer the questions.",
    "qwen_1_5": "You are a helpful assistant.",
}

LLAVA_FORMATS = {
    "short": "Answer the question using a single word or phrase.",
    "choice": "Answer with the option's letter from the given choices directly.",
}

# A turn's text. A picture before any words stands on a line of its own, later ones where they are.
_BODY = """\
{%- macro body(content) -%}
{%- if content is string -%}{{ content }}
{%- else -%}
{%- set at = namespace(gap='', words=false) -%}
{%- for part in content -%}
{%- if part['type'] == 'image' -%}{{ at.gap + IMAGE }}{%- set at.gap = '' if at.words else '\\n' -%}
{%- elif part['text'] -%}{{ at.gap + part['text'] }}{%- set at.gap = '' -%}{%- set at.words = true -%}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- set told = namespace(system=SYSTEM, turns=messages) -%}
{%- if messages and messages[0]['role'] == 'system' -%}
{%- set told.system = body(messages[0]['content']) -%}{%- set told.turns = messages[1:] -%}
{%- endif -%}
"""

# "SYSTEM USER: question ASSISTANT: answer</s>USER: ..."; an empty turn is its bare header.
_V1 = """\
{%- if told.system -%}{{ told.system + ' ' }}{%- endif -%}
{%- for turn in told.turns -%}
{%- set text = body(turn['content']) -%}
{%- if turn['role'] == 'user' -%}{{ 'USER: ' + text + ' ' if text else 'USER:' }}
{%- else -%}{{ 'ASSISTANT:' }}
{%- if text -%}{%- generation -%}{{ ' ' + text + '</s>' }}{%- endgeneration -%}{%- endif -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}
"""

# "SYSTEM\n\n### Human: question\n### Assistant: answer\n### "; the model ends its turn with "\n###".
_V0 = """\
{%- if told.system -%}{{ told.system + '\\n\\n' }}{%- endif -%}
{{ '### ' }}
{%- for turn in told.turns -%}
{%- set text = body(turn['content']) -%}
{%- if turn['role'] == 'user' -%}{{ 'Human: ' + text + '\\n### ' }}
{%- else -%}{{ 'Assistant:' }}{%- generation -%}{{ ' ' + text + '\\n###' }}{%- endgeneration -%}{{ ' ' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}
"""

# "[INST] <<SYS>>\nSYSTEM\n<</SYS>>\n\nquestion [/INST] answer </s>[INST] ..."; FIRST is "<s>" or "".
_INST = """\
{%- for turn in told.turns -%}
{%- set text = body(turn['content']) -%}
{%- if turn['role'] == 'user' -%}
{%- if loop.first and not text -%}{{ raise_exception('the first question is empty') }}{%- endif -%}
{%- if loop.first and told.system -%}
{%- set text = '<<SYS>>\\n' + told.system + '\\n<</SYS>>\\n\\n' + text -%}
{%- endif -%}
{%- if text -%}{{ ('' if loop.first else FIRST) + '[INST] ' + text + ' [/INST]' }}{%- endif -%}
{%- elif text -%}{%- generation -%}{{ ' ' + text + ' </s>' }}{%- endgeneration -%}
{%- endif -%}
{%- endfor -%}
"""

# "<|im_start|>user\nquestion<|im_end|>" + BREAK; KEEP says whether an empty turn is ended too.
_CHATML = """\
{%- if told.system -%}{{ '<|im_start|>system\\n' + told.system + '<|im_end|>' + BREAK }}{%- endif -%}
{%- for turn in told.turns -%}
{%- set text = body(turn['content']) -%}
{{ '<|im_start|>' + turn['role'] + '\\n' }}
{%- if text or KEEP -%}
{%- if turn['role'] == 'user' -%}{{ text + '<|im_end|>' + BREAK }}
{%- else -%}{%- generation -%}{{ text + '<|im_end|>' }}{%- endgeneration -%}{{ BREAK }}
{%- endif -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""

# "<image>caption\n": the question is not written.
_PLAIN = """\
{%- set asked = told.turns | selectattr('role', 'equalto', 'user') | list -%}
{%- set shown = namespace(images=0) -%}
{%- for turn in told.turns -%}
{%- if turn['role'] == 'user' -%}
{%- if turn['content'] is not string -%}
{%- for part in turn['content'] if part['type'] == 'image' -%}
{%- set shown.images = shown.images + 1 -%}{{ IMAGE }}
{%- endfor -%}
{%- endif -%}
{%- else -%}{%- generation -%}{{ body(turn['content']) + '\\n' }}{%- endgeneration -%}
{%- endif -%}
{%- endfor -%}
{%- if asked | length != 1 or told.turns | length > 2 or not shown.images -%}
{{ raise_exception('plain takes a picture and its caption, nothing else') }}
{%- endif -%}
"""

_LAYOUT = {
    "plain": (_PLAIN, {}),
    "v0": (_V0, {}),
    "v0_med": (_V0, {}),
    "v1": (_V1, {}),
    "llava_llama_2": (_INST, {"FIRST": "<s>"}),
    "mistral_instruct": (_INST, {"FIRST": ""}),
    "mpt": (_CHATML, {"BREAK": "", "KEEP": False}),
    "chatml_direct": (_CHATML, {"BREAK": "", "KEEP": False}),
    "qwen_1_5": (_CHATML, {"BREAK": "\n", "KEEP": True}),
}


def resolve(name: str) -> str:
    """Gives the name in ``NAMES`` that a name or an alias of the original code means.

    Raises:
        ModelError: There is no such conversation.
    """
    known = ALIASES.get(name, name)
    if known not in NAMES:
        raise ModelError(f"there is no conversation template {name!r}; use one of {', '.join(NAMES)}")
    return known


def chat_template(name: str, image: str = "<image>", start: str = "", end: str = "") -> str:
    """Gives the Jinja chat template that renders messages as the original code writes its training prompt.

    A system message replaces the template's own system text. The original code's demos leave out the line
    breaks of ``v0`` when they ask (``###Human: ...###Assistant:``); what the model was trained on is rendered
    here, in generation too.

    Args:
        name: One of ``NAMES`` or an alias.
        image: What a picture is written as; the processor expands it.
        start: Written before every picture (``mm_use_im_start_end``).
        end: Written after every picture.

    Raises:
        ModelError: There is no such conversation.
    """
    known = resolve(name)
    layout, constants = _LAYOUT[known]
    values = {"IMAGE": start + image + end, "SYSTEM": SYSTEM[known], **constants}
    text = _BODY + layout
    for word, value in values.items():
        text = text.replace(word, _quoted(value))
    return text


def stop_strings(name: str) -> list[str]:
    """Gives the strings that end an answer besides the tokenizer's end token."""
    known = resolve(name)
    if known in ("v0", "v0_med"):
        return ["###"]
    if known in ("mpt", "chatml_direct", "qwen_1_5"):
        return ["<|im_end|>"]
    return ["\n"] if known == "plain" else []


def guess(config: dict[str, Any]) -> str:
    """Gives the conversation that an original ``config.json`` most likely was trained in.

    The file doesn't say it: whoever knows better should name the conversation.

    Args:
        config: The content of ``config.json``.
    """
    kind = f"{config.get('model_type', '')} {' '.join(config.get('architectures') or [])}".lower()
    for word, name in (("mistral", "mistral_instruct"), ("qwen", "qwen_1_5"), ("mpt", "mpt")):
        if word in kind:
            return name
    linear = config.get("mm_projector_type", "linear") == "linear"
    return "v0_med" if config.get("mm_use_im_start_end") and linear else "v1"


def format_question(text: str, kind: str, formats: dict[str, str]) -> str:
    """Adds the response-format prompt that a checkpoint was trained with to a question.

    Args:
        text: The question.
        kind: ``short`` (a word or phrase), ``choice`` (an option's letter) or ``open``.
        formats: The contract's ``answer_formats``: kind to the line that follows the question.

    Returns:
        The question, with the line where the checkpoint has one for the kind and the question has not.
    """
    line = formats.get(kind, "")
    if not line or text.rstrip().endswith(line):
        return text
    return f"{text.rstrip()}\n{line}"


def as_asked(messages: list[dict[str, Any]], choices: bool, formats: dict[str, str]) -> list[dict[str, Any]]:
    """Gives the turns of a benchmark's question as a checkpoint with response-format prompts was trained on them.

    Args:
        messages: The turns; the last user turn is the question.
        choices: The question gives options to choose from.
        formats: The contract's ``answer_formats``; {} changes nothing.
    """
    last = max((at for at, turn in enumerate(messages) if turn["role"] == "user"), default=None)
    if not formats or last is None:
        return messages
    parts = list(messages[last]["content"])
    words = max((at for at, part in enumerate(parts) if part["type"] == "text"), default=None)
    if words is None:
        return messages
    text = format_question(parts[words]["text"], "choice" if choices else "short", formats)
    parts[words] = {**parts[words], "text": text}
    return [*messages[:last], {**messages[last], "content": parts}, *messages[last + 1 :]]


def answer_formats(name: str, config: dict[str, Any]) -> dict[str, str]:
    """Gives the response-format prompts that an original checkpoint was trained with.

    Those with the ``v1`` template and a projector of two layers or tiles come from LLaVA-1.5's and LLaVA-NeXT's
    training mix, which asks for short answers so; of others nothing is known.

    Args:
        name: The conversation.
        config: The original ``config.json``.
    """
    mixed = resolve(name) == "v1" and config.get("mm_projector_type") == "mlp2x_gelu"
    return dict(LLAVA_FORMATS) if mixed else {}


def _quoted(value: str | bool) -> str:
    """Writes a constant as a Jinja literal."""
    return json.dumps(value, ensure_ascii=False)
