"""Chat templates of the LLaVA family: literal prompts, stop strings, guesses, response formats."""

from __future__ import annotations

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from medkit.errors import ModelError
from medkit.models.conversations import (
    ALIASES,
    LLAVA_FORMATS,
    NAMES,
    answer_formats,
    as_asked,
    chat_template,
    format_question,
    guess,
    resolve,
    stop_strings,
)
from medkit.sample import assistant_turn, user_turn

ASKED = [user_turn("what is it?", images=1)]
TALK = [*ASKED, assistant_turn("a hand"), user_turn("which?"), assistant_turn("left")]
BRIEF = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
NO_SYSTEM = {"role": "system", "content": [{"type": "text", "text": ""}]}


def _render(name, messages, prompt=False, **marks):
    template = chat_template(name, **marks)
    rendered, spans = render_jinja_template(
        [messages], chat_template=template, return_assistant_tokens_mask=True, add_generation_prompt=prompt
    )
    return rendered[0], [rendered[0][first:last] for first, last in spans[0]]


@pytest.mark.parametrize(
    ("name", "text", "learnt"),
    [
        (
            "v1",
            "Be brief. USER: <image>\nwhat is it? ASSISTANT: a hand</s>USER: which? ASSISTANT: left</s>",
            [" a hand</s>", " left</s>"],
        ),
        (
            "v0",
            "Be brief.\n\n### Human: <image>\nwhat is it?\n### Assistant: a hand\n### Human: which?\n"
            "### Assistant: left\n### ",
            [" a hand\n###", " left\n###"],
        ),
        (
            "llava_llama_2",
            "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n<image>\nwhat is it? [/INST] a hand </s>"
            "<s>[INST] which? [/INST] left </s>",
            [" a hand </s>", " left </s>"],
        ),
        (
            "mpt",
            "<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\n<image>\nwhat is it?<|im_end|>"
            "<|im_start|>assistant\na hand<|im_end|><|im_start|>user\nwhich?<|im_end|>"
            "<|im_start|>assistant\nleft<|im_end|>",
            ["a hand<|im_end|>", "left<|im_end|>"],
        ),
        (
            "qwen_1_5",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<image>\nwhat is it?<|im_end|>\n"
            "<|im_start|>assistant\na hand<|im_end|>\n<|im_start|>user\nwhich?<|im_end|>\n"
            "<|im_start|>assistant\nleft<|im_end|>\n",
            ["a hand<|im_end|>", "left<|im_end|>"],
        ),
    ],
)
def test_a_system_message_replaces_the_templates_own(name, text, learnt):
    assert _render(name, [BRIEF, *TALK]) == (text, learnt)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("v1", "USER: <image>\nwhat is it? ASSISTANT:"),
        ("v0_med", "### Human: <image>\nwhat is it?\n### Assistant:"),
        ("llava_llama_2", "[INST] <image>\nwhat is it? [/INST]"),
        ("mistral_instruct", "[INST] <image>\nwhat is it? [/INST]"),
        ("chatml_direct", "<|im_start|>user\n<image>\nwhat is it?<|im_end|><|im_start|>assistant\n"),
        ("plain", "<image>"),
    ],
)
def test_an_empty_system_message_leaves_nothing_behind(name, text):
    assert _render(name, [NO_SYSTEM, *ASKED], prompt=True)[0] == text


@pytest.mark.parametrize("name", NAMES)
def test_generation_starts_from_a_prefix_of_what_was_trained(name):
    talk = TALK[:2] if name == "plain" else TALK
    for turn in range(1, len(talk), 2):
        trained, learnt = _render(name, talk)
        prompt, _ = _render(name, talk[:turn], prompt=True)
        assert trained.startswith(prompt + learnt[turn // 2])
        assert prompt == prompt.rstrip(" ")  # a space would merge with the answer's first token


def test_pictures_are_written_as_asked_and_only_the_first_stand_on_their_own_line():
    marks = {"image": "<im_patch>", "start": "<im_start>", "end": "<im_end>"}
    turn = {
        "role": "user",
        "content": [{"type": "image"}, {"type": "text", "text": "and "}, {"type": "image"}],
    }
    text, _ = _render("v0_med", [NO_SYSTEM, turn], **marks)
    assert text == "### Human: <im_start><im_patch><im_end>\nand <im_start><im_patch><im_end>\n### "
    assert _render("v1", [NO_SYSTEM, user_turn("", images=2)])[0] == "USER: <image>\n<image> "


def test_plain_takes_a_picture_and_its_caption_only():
    assert _render("plain", TALK[:2]) == ("<image>a hand\n", ["a hand\n"])
    for talk in (TALK, [user_turn("what?"), assistant_turn("a hand")]):
        with pytest.raises(Exception, match="plain takes a picture and its caption, nothing else"):
            _render("plain", talk)


def test_names_of_the_original_code_are_understood():
    assert all(name in NAMES for name in ALIASES.values())
    assert resolve("vicuna_v1") == "v1"
    assert resolve("conv_vicuna_v1") == "v1"
    assert resolve("qwen_1_5") == "qwen_1_5"
    with pytest.raises(ModelError, match="there is no conversation template 'v7'; use one of plain, v0"):
        chat_template("v7")


def test_stop_strings_are_given_where_no_end_token_ends_the_turn():
    assert stop_strings("v0") == stop_strings("simple") == ["###"]
    assert stop_strings("vicuna_v1") == stop_strings("mistral_instruct") == []
    assert stop_strings("chatml_direct") == ["<|im_end|>"]
    assert stop_strings("plain") == ["\n"]


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"model_type": "llava_llama", "mm_projector_type": "mlp2x_gelu"}, "v1"),
        ({"model_type": "llava"}, "v1"),
        ({"model_type": "llava", "mm_use_im_start_end": True}, "v0_med"),
        ({"model_type": "llava", "mm_use_im_start_end": True, "mm_projector_type": "mlp2x_gelu"}, "v1"),
        ({"model_type": "llava_mistral", "mm_use_im_start_end": False}, "mistral_instruct"),
        ({"model_type": "llava", "architectures": ["LlavaMistralForCausalLM"]}, "mistral_instruct"),
        ({"model_type": "llava_qwen"}, "qwen_1_5"),
        ({"model_type": "llava_mpt"}, "mpt"),
    ],
)
def test_the_conversation_is_guessed_from_an_original_config(config, name):
    assert guess(config) == name


def test_a_question_gets_the_response_format_that_the_checkpoint_was_trained_with():
    formats = {"short": "Answer the question using a single word or phrase."}
    asked = format_question("Is it a PA film? ", "short", formats)
    assert asked == "Is it a PA film?\nAnswer the question using a single word or phrase."
    assert format_question(asked, "short", formats) == asked
    assert format_question("Which? A. B.", "choice", formats) == "Which? A. B."
    assert format_question("Is it?", "short", {}) == "Is it?"


def test_questions_of_a_benchmark_get_the_checkpoints_response_format():
    turns = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which lobe? "}]},
        {"role": "assistant", "content": [{"type": "text", "text": "upper"}]},
    ]
    asked = as_asked(turns, False, LLAVA_FORMATS)
    assert asked[0]["content"][1]["text"] == (
        "Which lobe?\nAnswer the question using a single word or phrase."
    )
    assert asked[1] == turns[1] and as_asked(asked, False, LLAVA_FORMATS) == asked
    assert as_asked(turns, True, LLAVA_FORMATS)[0]["content"][1]["text"].endswith("given choices directly.")
    assert as_asked(turns, False, {}) is turns
    assert answer_formats("vicuna_v1", {"mm_projector_type": "mlp2x_gelu"}) == LLAVA_FORMATS
    assert answer_formats("mistral_instruct", {"mm_projector_type": "mlp2x_gelu"}) == {}
