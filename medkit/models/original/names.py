"""Names of tensors: the original layout and Hugging Face's classic one on disk, both ways."""

from __future__ import annotations

import re

TOWER = "model.vision_tower.vision_tower."
PROJECTOR = "model.mm_projector."
NEWLINE = "model.image_newline"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
NORM = "model.norm.weight"

# Made anew from the config by every version that has them.
_BUFFERS = re.compile(r"rotary_emb\.inv_freq$|embeddings\.position_ids$|\.masked_bias$")
_LANGUAGE = re.compile(r"model\.(embed_tokens|layers\.\d+|norm)\.")
_LINEARS = {"0": "linear_1", "2": "linear_2", "linear_1": "0", "linear_2": "2"}


def is_buffer(name: str) -> bool:
    """Says whether a tensor is no weight but a table that the model computes itself."""
    return bool(_BUFFERS.search(name))


def bare(name: str) -> str:
    """Removes what wrappers put in front: ``module.`` (data parallel) and ``base_model.model.`` (adapters)."""
    while True:
        for prefix in ("module.", "_orig_mod.", "base_model.model."):
            if name.startswith(prefix):
                name = name.removeprefix(prefix)
                break
        else:
            return name


def kind_of(name: str) -> str:
    """Gives ``vision``, ``projector``, ``newline``, ``language`` or "" for an original tensor's name."""
    if name.startswith("model.vision_tower."):
        return "vision"
    if name.startswith(PROJECTOR):
        return "projector"
    if name == NEWLINE:
        return "newline"
    return "language" if _LANGUAGE.match(name) or name.startswith("lm_head.") else ""


def tower_name(name: str) -> str:
    """Gives the name inside the tower, from ``embeddings.`` or ``encoder.`` on, in any layout of CLIP."""
    for prefix in (TOWER, "model.vision_tower.", "vision_tower.", "vision_model."):
        name = name.removeprefix(prefix)
    return name


def to_classic(name: str) -> str:
    """Gives Hugging Face's classic name of an original tensor (``linear`` projectors are not named here)."""
    kind = kind_of(name)
    if kind == "vision":
        return f"vision_tower.vision_model.{tower_name(name)}"
    if kind == "newline":
        return "image_newline"
    if kind == "projector":
        layer, rest = name.removeprefix(PROJECTOR).split(".", 1)
        return f"multi_modal_projector.{_LINEARS[layer]}.{rest}"
    return f"language_model.{name}"


def in_memory(classic: str) -> str:
    """Gives the parameter that transformers 5 loads a classic name into."""
    if classic.startswith("language_model.lm_head."):
        return classic.removeprefix("language_model.")
    classic = classic.replace("language_model.model.", "language_model.", 1)
    return "model." + classic.replace("vision_tower.vision_model.", "vision_tower.", 1)


def from_memory(name: str) -> str:
    """Gives the original name of a parameter of a Hugging Face LLaVA, from any of its layouts on disk."""
    name = name.removeprefix("model.")
    if name.startswith("vision_tower."):
        return f"{TOWER}vision_model.{tower_name(name)}"
    if name.startswith("multi_modal_projector."):
        layer, rest = name.removeprefix("multi_modal_projector.").split(".", 1)
        return f"{PROJECTOR}{_LINEARS[layer]}.{rest}"
    if name.endswith("image_newline"):
        return NEWLINE
    name = name.removeprefix("language_model.").removeprefix("model.")
    return name if name.startswith("lm_head.") else f"model.{name}"
