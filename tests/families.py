"""A tiny model of every family, built from config with a tokenizer and a processor of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from medkit.models.contract import Contract
from medkit.models.load import Loaded
from medkit.models.processors import leave_video_out
from medkit.models.tiny import build_tiny, train_tokenizer

CORPUS = [
    " is there a red circle? yes no",
    " how many squares are there? 1 2 3",
    " what colour is it? red green blue",
]
SIZES = {
    "image_px": 32,
    "patch_px": 8,
    "vision_width": 32,
    "vision_layers": 2,
    "language_width": 32,
    "language_layers": 2,
    "language_inner": 64,
    "head_width": 16,
    "vocabulary": 400,
    "positions": 512,
}
# an image part becomes what the family's processor expands
CHATML = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}</s>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
GRID = [[32, 64], [64, 32], [64, 64]]
CLIP = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
SIGLIP = {**CLIP, "num_hidden_layers": 2}


def build(folder: Path, seed: int = 0, **sizes: int) -> Loaded:
    """Builds a tiny LLaVA."""
    return build_tiny({**SIZES, **sizes}, CORPUS, folder, seed)


def build_family(family: str, folder: Path) -> Loaded:
    """Builds a tiny model of a family of ``medkit.models.parts.FAMILIES``."""
    leave_video_out()
    return BUILDERS[family](folder)


def _text(tokenizer: Any, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        **more,
    }


def _tokenizer(**more: str) -> Any:
    """Gives a tokenizer with further special tokens, which the processors read as attributes."""
    tokenizer = train_tokenizer(CORPUS, 400)
    if more:
        tokenizer.add_special_tokens({"additional_special_tokens": sorted(set(more.values()))})
        tokenizer._set_model_specific_special_tokens({"image_token": "<image>", **more})
    return tokenizer


def _loaded(model_class: Any, config: Any, processor: Any, fit: str, folder: Path) -> Loaded:
    torch.manual_seed(0)
    return Loaded(model_class(config).eval(), processor, Contract(fit), folder)


def _chat(image: str = "<image>") -> str:
    return CHATML.replace("IMAGE", image)


def _llava_next(folder: Path) -> Loaded:
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextProcessor,
    )
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    tokenizer = _tokenizer()
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**CLIP),
        text_config=LlamaConfig(**_text(tokenizer)),
        image_grid_pinpoints=GRID,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=False,
    )
    image_processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=GRID
    )
    processor = LlavaNextProcessor(
        image_processor,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=_chat(),
        num_additional_image_tokens=1,
    )
    return _loaded(LlavaNextForConditionalGeneration, config, processor, "crop", folder)


def _llava_onevision(folder: Path) -> Loaded:
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionProcessor,
        Qwen2Config,
        SiglipVisionConfig,
    )
    from transformers.models.llava_onevision import image_processing_pil_llava_onevision as images

    tokenizer = _tokenizer(video_token="<video>")
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**SIGLIP, vision_use_head=False),
        text_config=Qwen2Config(**_text(tokenizer)),
        image_grid_pinpoints=GRID,
        vision_aspect_ratio="anyres_max_9",
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        tie_word_embeddings=False,
    )
    image_processor = images.LlavaOnevisionImageProcessorPil(
        size={"height": 32, "width": 32}, image_grid_pinpoints=GRID
    )
    processor = LlavaOnevisionProcessor(
        image_processor,
        tokenizer,
        None,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=_chat(),
    )
    return _loaded(LlavaOnevisionForConditionalGeneration, config, processor, "stretch", folder)


QWEN_TOKENS = {
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
}
QWEN_IMAGE = "<|vision_start|><image><|vision_end|>"


def _qwen_ids(tokenizer: Any) -> dict[str, Any]:
    ids = tokenizer.convert_tokens_to_ids
    return {
        "image_token_id": ids("<image>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
        "tie_word_embeddings": False,
    }


def _qwen2_5_vl(folder: Path) -> Loaded:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = _tokenizer(**QWEN_TOKENS)
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "window_size": 32,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 32,
        },
        text_config=_text(
            tokenizer,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        ),
        **_qwen_ids(tokenizer),
    )
    image_processor = Qwen2VLImageProcessorPil(
        patch_size=8,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": 32 * 32, "longest_edge": 64 * 64},
    )
    processor = Qwen2_5_VLProcessor(image_processor, tokenizer, None, chat_template=_chat(QWEN_IMAGE))
    return _loaded(Qwen2_5_VLForConditionalGeneration, config, processor, "stretch", folder)


def _qwen3_vl(folder: Path) -> Loaded:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = _tokenizer(**QWEN_TOKENS)
    config = Qwen3VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        text_config=_text(
            tokenizer,
            head_dim=16,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
        ),
        **_qwen_ids(tokenizer),
    )
    image_processor = Qwen2VLImageProcessorPil(
        patch_size=8,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": 32 * 32, "longest_edge": 64 * 64},
    )
    processor = Qwen3VLProcessor(image_processor, tokenizer, None, chat_template=_chat(QWEN_IMAGE))
    return _loaded(Qwen3VLForConditionalGeneration, config, processor, "stretch", folder)


def _gemma3(folder: Path) -> Loaded:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3Processor
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    tokenizer = _tokenizer(boi_token="<start_of_image>", eoi_token="<end_of_image>")
    ids = tokenizer.convert_tokens_to_ids
    config = Gemma3Config(
        vision_config={**SIGLIP, "vision_use_head": False, "model_type": "siglip_vision_model"},
        text_config=_text(
            tokenizer,
            head_dim=16,
            query_pre_attn_scalar=16,
            sliding_window=64,
            layer_types=["sliding_attention", "full_attention"],
        ),
        mm_tokens_per_image=4,
        image_token_index=ids("<image>"),
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
    )
    image_processor = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    processor = Gemma3Processor(
        image_processor, tokenizer, chat_template=_chat("<start_of_image>"), image_seq_length=4
    )
    loaded = _loaded(Gemma3ForConditionalGeneration, config, processor, "stretch", folder)
    # transformers starts it at zero, so that no picture would be seen
    torch.nn.init.normal_(loaded.model.model.multi_modal_projector.mm_input_projection_weight, std=0.1)
    return loaded


def _idefics_like(folder: Path, names: tuple[str, str, str, str, str]) -> Loaded:
    import importlib

    import transformers

    module, processor_name, config_name, model_name, processor_class = names
    images = importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}")
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer = _tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<global-img>", *tiles]})
    image_processor = getattr(images, processor_name)(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
    )
    parts = (image_processor, tokenizer) + ((None,) if module == "smolvlm" else ())
    processor = getattr(transformers, processor_class)(*parts, image_seq_len=4, chat_template=_chat())
    config = getattr(transformers, config_name)(
        vision_config=SIGLIP,
        text_config=transformers.LlamaConfig(**_text(tokenizer)),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=False,
    )
    return _loaded(getattr(transformers, model_name), config, processor, "stretch", folder)


def _idefics3(folder: Path) -> Loaded:
    return _idefics_like(
        folder,
        (
            "idefics3",
            "Idefics3ImageProcessorPil",
            "Idefics3Config",
            "Idefics3ForConditionalGeneration",
            "Idefics3Processor",
        ),
    )


def _smolvlm(folder: Path) -> Loaded:
    return _idefics_like(
        folder,
        (
            "smolvlm",
            "SmolVLMImageProcessorPil",
            "SmolVLMConfig",
            "SmolVLMForConditionalGeneration",
            "SmolVLMProcessor",
        ),
    )


def _internvl(folder: Path) -> Loaded:
    from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    tokenizer = _tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = InternVLConfig(
        vision_config={
            **SIGLIP,
            "image_size": [32, 32],
            "patch_size": [8, 8],
            "model_type": "internvl_vision",
        },
        text_config={"model_type": "qwen2", **_text(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    image_processor = GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=True, max_patches=4
    )
    processor = InternVLProcessor(
        image_processor, tokenizer, None, image_seq_length=4, chat_template=_chat("<IMG_CONTEXT>")
    )
    return _loaded(InternVLForConditionalGeneration, config, processor, "stretch", folder)


BUILDERS = {
    "llava": build,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "gemma3": _gemma3,
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
    "internvl": _internvl,
}
