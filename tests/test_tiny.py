"""The tiny builder: a tokenizer for every text, a template without traps, a folder for plain transformers."""

from __future__ import annotations

import hashlib

import pytest
import torch
from tiny_training import CORPUS, SIZES, build, picture
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

from medkit.models.build import build as build_step
from medkit.models.tiny import CHAT_TEMPLATE, train_tokenizer
from medkit.sample import Sample, assistant_turn, user_turn
from medkit.store import DatasetWriter
from medkit.training.encode import render_prompt

TALK = [
    user_turn("is there a red circle?", images=1),
    assistant_turn("yes"),
    user_turn("how many?"),
    assistant_turn("3"),
]


@pytest.fixture(scope="module")
def _folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    build(folder)
    return folder


@pytest.mark.parametrize(
    "text", ["Zürich, naïve 12.5 µm\n\ttab", "赤血球 🩸", "WBC<neutrophil> {x}", "  two  spaces "]
)
def test_text_that_was_never_seen_comes_back_whole(text):
    tokenizer = train_tokenizer(CORPUS, 400)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text


def test_frequent_words_are_one_token_and_digits_stand_alone():
    tokenizer = train_tokenizer(CORPUS * 50, 400)
    assert len(tokenizer(" circle")["input_ids"]) == 1
    assert len(tokenizer("1234")["input_ids"]) == 4
    assert len(tokenizer) <= 400


def test_special_tokens_are_one_token_each():
    tokenizer = train_tokenizer(CORPUS, 400)
    assert tokenizer("<image>")["input_ids"] == [tokenizer.image_token_id]
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 4]) == ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    assert tokenizer("yes")["input_ids"][0] != tokenizer.bos_token_id  # the template writes it


def test_a_rendered_conversation_is_literally_this(_folder):
    processor = AutoProcessor.from_pretrained(_folder)
    assert processor.apply_chat_template(TALK, tokenize=False) == (
        "<s>USER: <image>\nis there a red circle? ASSISTANT: yes</s>USER: how many? ASSISTANT: 3</s>"
    )


def test_the_prompt_ends_without_a_space_and_begins_the_training_text(_folder):
    processor = AutoProcessor.from_pretrained(_folder)
    prompt = render_prompt(processor, TALK[:3])
    assert prompt.endswith("how many? ASSISTANT:")
    assert processor.apply_chat_template(TALK, tokenize=False).startswith(prompt)


def test_transformers_own_assistant_mask_agrees(_folder):
    from medkit.training.encode import IGNORE, encode

    processor = AutoProcessor.from_pretrained(_folder)
    encoded = encode(processor, TALK, [(32, 32)], 512)
    content = [
        {**TALK[0], "content": [{"type": "image", "image": picture()}, TALK[0]["content"][1]]},
        *TALK[1:],
    ]
    theirs = processor.apply_chat_template(
        content, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, add_special_tokens=False
    )
    assert list(theirs["input_ids"][0]) == encoded.ids.tolist()
    assert list(theirs["assistant_masks"][0]) == (encoded.labels != IGNORE).astype(int).tolist()


def test_the_folder_loads_with_plain_transformers_and_answers(_folder):
    model = AutoModelForImageTextToText.from_pretrained(_folder)
    processor = AutoProcessor.from_pretrained(_folder)
    assert isinstance(model, LlavaForConditionalGeneration)
    assert processor.chat_template == CHAT_TEMPLATE
    prompt = render_prompt(processor, TALK[:1])
    inputs = processor(text=[prompt], images=[picture()], return_tensors="pt", add_special_tokens=False)
    assert inputs["pixel_values"].shape == (1, 3, 32, 32)
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == 16
    assert model.generate(**inputs, max_new_tokens=3).shape[1] <= inputs["input_ids"].shape[1] + 3
    assert not model.generation_config.do_sample


def test_the_seed_alone_decides_the_weights(tmp_path):
    def digest(name: str, seed: int) -> str:
        build(tmp_path / name, seed)
        return hashlib.sha256((tmp_path / name / "model.safetensors").read_bytes()).hexdigest()

    assert digest("one", 1) == digest("again", 1) != digest("other", 2)


def test_the_sizes_are_those_asked_for(tmp_path):
    model = build(tmp_path, vision_layers=1, language_layers=3, image_px=64).model
    assert len(model.model.vision_tower.encoder.layers) == 1
    assert len(model.model.language_model.layers) == 3
    assert model.config.image_seq_length == 64
    assert model.config.text_config.vocab_size <= SIZES["vocabulary"]
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_the_build_step_gives_later_domains_their_words(tmp_path):
    with DatasetWriter(tmp_path / "data", "words") as writer:
        for number in range(20):
            turns = [user_turn("what colour is it?"), assistant_turn("red")]
            writer.add(Sample(f"r{number}", turns, [], {}, {"kind": "conversation"}))
    settings = {"sizes": SIZES, "words": ["neutrophil"], "seed": 0}
    result = build_step(settings, {"data": tmp_path / "data"}, tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    assert result == {"model": "model", "parameters": sum(p.numel() for p in model.parameters())}
    tokenizer = AutoProcessor.from_pretrained(tmp_path / "model").tokenizer
    assert len(tokenizer(" neutrophil")["input_ids"]) == 1
    assert model.dtype == torch.float32
