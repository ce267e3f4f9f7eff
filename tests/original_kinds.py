"""Small checkpoints in the original layout, of every kind, and what they compute, without medkit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from medkit.models.original.sentencepiece_file import (
    BPE,
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    SentencePieceFile,
    write_sentencepiece,
)

SIDE, PATCH, WIDTH, HIDDEN = 28, 14, 64, 32
TOKENS = (SIDE // PATCH) ** 2
TOWER = CLIPVisionConfig(
    hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=3, num_attention_heads=1, image_size=SIDE,
    patch_size=PATCH, projection_dim=WIDTH,
)  # fmt: skip
LETTERS = "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,:?![]/#'\""
WORDS = ("he", "the", "▁the", "in", "an", "▁an", "US", "USER", "image", "▁image", "##", "###", "IN", "INST")


def write_tokenizer(folder: Path, legacy: bool, added: dict[str, int] | None = None, **settings: Any) -> int:
    """Writes a small SentencePiece tokenizer; gives the number of its ids, added ones included."""
    parts = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    parts += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    steps: list[str] = []
    for word in WORDS:
        steps += [word[:end] for end in range(2, len(word) + 1) if word[:end] not in steps]
    parts += [(text, -float(place), NORMAL) for place, text in enumerate([*steps, *LETTERS])]
    folder.mkdir(parents=True, exist_ok=True)
    write_sentencepiece(folder / "tokenizer.model", SentencePieceFile(parts, BPE, True, False))
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": legacy, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    total = len(parts)
    if added:
        (folder / "added_tokens.json").write_text(json.dumps({k: total + v for k, v in added.items()}))
        total += len(added)
    return total


def language(kind: str, rows: int, seed: int = 0) -> Any:
    """Gives a small random language model."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "vocab_size": rows, "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0,
    }  # fmt: skip
    if kind == "mistral":
        return MistralForCausalLM(MistralConfig(**sizes, sliding_window=None, rope_theta=1e6)).eval()
    return LlamaForCausalLM(LlamaConfig(**sizes, rope_theta=1e4)).eval()


def tower(seed: int = 1) -> CLIPVisionModel:
    """Gives a small random CLIP tower with features that matter."""
    torch.manual_seed(seed)
    model = CLIPVisionModel(TOWER).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def projector(layers: int, seed: int = 2) -> dict[str, torch.Tensor]:
    """Gives a random projector under original names: one linear layer or two."""
    torch.manual_seed(seed)
    if layers == 1:
        return {
            "model.mm_projector.weight": torch.randn(HIDDEN, WIDTH) * 0.3,
            "model.mm_projector.bias": torch.randn(HIDDEN) * 0.3,
        }
    return {
        "model.mm_projector.0.weight": torch.randn(HIDDEN, WIDTH) * 0.3,
        "model.mm_projector.0.bias": torch.randn(HIDDEN) * 0.3,
        "model.mm_projector.2.weight": torch.randn(HIDDEN, HIDDEN) * 0.3,
        "model.mm_projector.2.bias": torch.randn(HIDDEN) * 0.3,
    }


def language_tensors(model: Any) -> dict[str, torch.Tensor]:
    """Gives a language model's weights, named as the original code does."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def tower_tensors(model: CLIPVisionModel, prefix: str) -> dict[str, torch.Tensor]:
    """Gives a tower's weights under a prefix, in CLIP's own names (``vision_model.``)."""
    return {
        f"{prefix}vision_model.{name.removeprefix('vision_model.')}": tensor.detach().clone()
        for name, tensor in model.state_dict().items()
        if not name.endswith("position_ids")
    }


def config_of(model: Any, **more: Any) -> dict[str, Any]:
    """Gives a config.json as the original code writes it."""
    config = model.config
    keys = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "hidden_act",
    )  # fmt: skip
    mistral = config.model_type == "mistral"
    return {
        **{key: getattr(config, key) for key in keys},
        "rope_theta": config.rope_parameters["rope_theta"],
        **({"sliding_window": None} if mistral else {"rope_scaling": None}),
        "model_type": "llava_mistral" if mistral else "llava_llama",
        "architectures": ["LlamaForCausalLM"],  # as stage-1 and LoRA runs say, whatever they hold
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "mm_vision_tower": "clip-tower",
        "mm_hidden_size": WIDTH,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
        **more,
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_tower(folder: Path, model: CLIPVisionModel) -> None:
    """Writes a tower folder as the hub has them."""
    write_json(folder / "config.json", {**TOWER.to_dict(), "model_type": "clip_vision_model"})
    save_file(tower_tensors(model, ""), str(folder / "model.safetensors"))
    processor = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    write_json(folder / "preprocessor_config.json", {**processor, "do_center_crop": True})


def write_shards(folder: Path, tensors: dict[str, torch.Tensor], pickled: bool) -> None:
    """Writes weights in two shards with an index."""
    stem, end = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
    names = sorted(tensors)
    places = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"{stem}-{number:05d}-of-00002.{end}"
        shard = {name: tensors[name] for name in part}
        if pickled:
            torch.save(shard, folder / file)
        else:
            save_file(shard, str(folder / file))
        places |= dict.fromkeys(part, file)
    write_json(folder / f"{stem}.{end}.index.json", {"metadata": {}, "weight_map": places})


@torch.inference_mode()
def features(vision: CLIPVisionModel, layers: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """Gives projected patch features, float32 [pictures, patches, hidden]."""
    seen = vision(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    if "model.mm_projector.weight" in layers:
        return seen @ layers["model.mm_projector.weight"].T + layers["model.mm_projector.bias"]
    inner = seen @ layers["model.mm_projector.0.weight"].T + layers["model.mm_projector.0.bias"]
    inner = torch.nn.functional.gelu(inner)
    return inner @ layers["model.mm_projector.2.weight"].T + layers["model.mm_projector.2.bias"]


@torch.inference_mode()
def logits_of(model: Any, ids: list[int], image: int, shown: torch.Tensor) -> torch.Tensor:
    """Gives the logits of a prompt whose image tokens are replaced by features, float32 [T, V]."""
    places = torch.tensor(ids) == image
    embedded = model.get_input_embeddings()(torch.tensor([0 if one == image else one for one in ids]))
    embedded[places] = shown
    return model(inputs_embeds=embedded[None]).logits[0]
