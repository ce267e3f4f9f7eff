"""What the model and training tests share: tiny models of three families and datasets of drawn scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from medkit.cards.strict_yaml import read_card
from medkit.models.contract import Contract
from medkit.models.load import Loaded
from medkit.models.tiny import build_tiny, train_tokenizer
from medkit.readers.drawn import load_draw
from medkit.sample import Sample, assistant_turn, user_turn
from medkit.store import DatasetWriter, open_dataset
from medkit.teacher.teach import teach
from medkit.training.examples import ExampleSet

torch.set_num_threads(1)  # two threads on two busy cores wait for each other for minutes

DOMAINS = Path(__file__).resolve().parents[1] / "domains"
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
CORPUS = [
    " is there a red circle? yes no",
    " how many squares are there? 1 2 3",
    " what colour is it? red green blue",
]
FULL = {"kind": "full"}
LORA = {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.1, "targets": []}
RATES = {"vision": 1e-3, "projector": 1e-3, "language": 1e-3}


def build(folder: Path, seed: int = 0, **sizes: int) -> Loaded:
    """Builds a tiny LLaVA."""
    return build_tiny({**SIZES, **sizes}, CORPUS, folder, seed)


def build_family(family: str, folder: Path) -> Loaded:
    """Builds a tiny model of ``llava``, ``llava_next`` or ``idefics3`` with a tokenizer of its own."""
    return {"llava": build, "llava_next": _llava_next, "idefics3": _idefics3}[family](folder)


def scenes(folder: Path, train: int = 24, valid: int = 6, conversations: int = 1) -> Path:
    """Draws scenes, lets the rule teacher talk about them, and gives the folder with the text."""
    draw = load_draw(DOMAINS / "scenes" / "domain.py")
    with DatasetWriter(folder / "records", "scenes") as writer:
        for index in range(train + valid):
            pixels, facts = draw(1, index)
            source = {
                "dataset": "scenes",
                "record": f"s{index}",
                "licence": "CC0-1.0",
                "group": f"s{index}",
                "split": "train" if index < train else "valid",
                "kind": "record",
            }
            writer.add(Sample(f"s{index}", [], [writer.add_image(pixels)], facts, source))
    card = read_card(DOMAINS / "scenes" / "teacher.yaml").value
    settings = {
        "teacher": card,
        "conversations_per_image": conversations,
        "questions_per_image": 1,
        "seed": 0,
    }
    (folder / "taught").mkdir()
    teach(settings, {"ingest": folder / "records"}, folder / "taught")
    return folder / "taught"


def answers(folder: Path, count: int = 12, split: str = "train") -> Path:
    """Writes noise pictures with one short conversation each, their answers of unlike lengths."""
    rng = np.random.default_rng(0)
    with DatasetWriter(folder, "answers") as writer:
        for index in range(count):
            ref = writer.add_image(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
            colour = ("red", "green", "blue")[index % 3]
            turns = [
                user_turn("what colour is it?", images=1),
                assistant_turn(" ".join([colour] * (1 + index % 4))),
            ]
            if index % 2:
                turns += [
                    user_turn("is there a red circle?"),
                    assistant_turn("yes" if index % 3 == 0 else "no"),
                ]
            source = {"record": f"r{index}", "split": split, "kind": "conversation", "group": f"r{index}"}
            writer.add(Sample(f"r{index}", turns, [ref], {}, source))
    return folder


def examples(
    loaded: Loaded, folder: Path, split: str = "train", augment: list[str] | None = None
) -> ExampleSet:
    """Opens a dataset folder as examples."""
    dataset = open_dataset(folder)
    samples = [(0, sample) for sample in dataset if sample.split == split and sample.messages]
    return ExampleSet(loaded, [dataset], samples, 512, augment or [], 0)


def picture(size: tuple[int, int] = (32, 32), seed: int = 0) -> Image.Image:
    """Gives a picture of noise; ``size`` is (width, height)."""
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    )


def stage(**changes: Any) -> dict[str, Any]:
    """Gives the settings of a train step."""
    settings = {
        "stage": "instruct",
        "objective": "answer",
        "on": ["caption", "description", "conversation", "reasoning"],
        "train": RATES,
        "epochs": 1.0,
        "batch": 8,
        "micro_batch": None,
        "warmup": 0.1,
        "weight_decay": 0.01,
        "clip": 1.0,
        "schedule": "cosine",
        "replay": 0.0,
        "augment": [],
        "validate_every": None,
        "patience": None,
        "checkpoint_every": None,
        "gradient_checkpointing": False,
        "max_tokens": 512,
        "trackers": [],
        "optimizer": "adamw",
        "adapter": FULL,
        "seed": 0,
        "hardware": {"device": "cpu", "precision": "fp32", "threads": 1},
    }
    return settings | changes


def _llama(tokenizer: Any):
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


CHATML = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}</s>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def _llava_next(folder: Path) -> Loaded:
    from transformers import (
        CLIPVisionConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextProcessor,
    )
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    tokenizer = train_tokenizer(CORPUS, 400)
    grid = [[32, 64], [64, 32], [64, 64]]
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    torch.manual_seed(0)
    model = LlavaNextForConditionalGeneration(
        LlavaNextConfig(
            vision_config=vision,
            text_config=_llama(tokenizer),
            image_grid_pinpoints=grid,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            tie_word_embeddings=False,
        )
    )
    image_processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=grid
    )
    processor = LlavaNextProcessor(
        image_processor,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=CHATML,
        num_additional_image_tokens=1,
    )
    return Loaded(model.eval(), processor, Contract("crop"), folder)


def _idefics3(folder: Path) -> Loaded:
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    tokenizer = train_tokenizer(CORPUS, 400)
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<global-img>", *tiles]})
    image_processor = Idefics3ImageProcessorPil(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
    )
    processor = Idefics3Processor(image_processor, tokenizer, image_seq_len=4, chat_template=CHATML)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    torch.manual_seed(0)
    model = Idefics3ForConditionalGeneration(
        Idefics3Config(
            vision_config=vision,
            text_config=_llama(tokenizer),
            scale_factor=2,
            pad_token_id=tokenizer.pad_token_id,
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            tie_word_embeddings=False,
        )
    )
    return Loaded(model.eval(), processor, Contract("stretch"), folder)
