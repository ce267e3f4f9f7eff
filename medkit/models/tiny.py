"""Builds a small LLaVA from config: CLIP tower, two-layer MLP projector, Llama, its own BPE tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from .contract import Contract
from .load import Loaded, save_model

SPECIAL = {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "unk": "<unk>", "image": "<image>"}

# The header ends without a space and the answer begins with one: the first answer token is the same
# whether it was trained on or generated.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% for part in message['content'] %}{{ part['text'] }}\n{% endfor %}"
    "{% elif message['role'] == 'user' %}USER: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %} "
    "{% else %}ASSISTANT:{% generation %} "
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{{ eos_token }}{% endgeneration %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
GRAY_MEAN = (0.5, 0.5, 0.5)


def build_tiny(sizes: dict[str, Any], corpus: Iterable[str], out: Path, seed: int = 0) -> Loaded:
    """Builds an untrained small LLaVA and writes it as a model folder.

    Args:
        sizes: ``image_px``, ``patch_px``, ``vision_width``, ``vision_layers``, ``language_width``,
            ``language_layers``, ``language_inner``, ``head_width``, ``vocabulary``, ``positions``.
        corpus: Texts that the BPE tokenizer learns its words from.
        out: Model folder to write.
        seed: Of the initial weights.
    """
    tokenizer = train_tokenizer(corpus, sizes["vocabulary"])
    special: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    image_id: Any = tokenizer.convert_tokens_to_ids(SPECIAL["image"])
    patches = (sizes["image_px"] // sizes["patch_px"]) ** 2
    vision = CLIPVisionConfig(
        hidden_size=sizes["vision_width"],
        intermediate_size=4 * sizes["vision_width"],
        num_hidden_layers=sizes["vision_layers"],
        num_attention_heads=sizes["vision_width"] // sizes["head_width"],
        image_size=sizes["image_px"],
        patch_size=sizes["patch_px"],
        projection_dim=sizes["vision_width"],
    )
    heads = sizes["language_width"] // sizes["head_width"]
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes["language_width"],
        intermediate_size=sizes["language_inner"],
        num_hidden_layers=sizes["language_layers"],
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=sizes["positions"],
        tie_word_embeddings=True,
        **special,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=image_id,
        image_seq_length=patches,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
        **special,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        do_sample=False,
        **special,
    )
    square = {"height": sizes["image_px"], "width": sizes["image_px"]}
    image_processor = CLIPImageProcessorPil(
        size=square,
        crop_size=square,
        do_center_crop=False,
        image_mean=GRAY_MEAN,
        image_std=GRAY_MEAN,
    )
    processor = LlavaProcessor(
        image_processor,
        tokenizer,
        patch_size=sizes["patch_px"],
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        image_token=SPECIAL["image"],
        num_additional_image_tokens=1,
    )
    contract = Contract(fit="pad", mean_colour=(128, 128, 128), provenance={"built": sizes, "seed": seed})
    loaded = Loaded(model, processor, contract, out)
    save_model(loaded, out, contract)
    return loaded


def train_tokenizer(corpus: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer: frequent words are one token, nothing is ever unknown.

    Args:
        corpus: Texts.
        vocabulary: Most tokens, special ones included.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL["pad"],
        bos_token=SPECIAL["bos"],
        eos_token=SPECIAL["eos"],
        unk_token=SPECIAL["unk"],
        extra_special_tokens={"image_token": SPECIAL["image"]},
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
