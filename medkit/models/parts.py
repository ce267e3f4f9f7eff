"""Which parameters belong to the vision tower, the projector and the language model, for every family."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..errors import ModelError

if TYPE_CHECKING:
    from torch import nn

PARTS = ("vision", "projector", "language")

# In-memory module names of transformers 5. A parameter belongs to the first pattern that matches its name;
# what matches none (token embeddings, norms, lm_head) is language.
_LLAVA_LIKE = {"projector": r"\.multi_modal_projector\.|\.image_newline$", "vision": r"\.vision_tower\."}
_QWEN_LIKE = {"projector": r"\.visual\.(merger|deepstack_merger_list)\.", "vision": r"\.visual\."}
_IDEFICS_LIKE = {"projector": r"\.connector\.", "vision": r"\.vision_model\."}
_BLOCK = re.compile(r"\.(layers?|blocks)\.\d+\.")
FAMILIES: dict[str, dict[str, str]] = {
    "llava": _LLAVA_LIKE,
    "llava_next": _LLAVA_LIKE,
    "llava_onevision": _LLAVA_LIKE,
    "gemma3": _LLAVA_LIKE,
    "internvl": _LLAVA_LIKE,
    "qwen2_5_vl": _QWEN_LIKE,
    "qwen3_vl": _QWEN_LIKE,
    "idefics3": _IDEFICS_LIKE,
    "smolvlm": _IDEFICS_LIKE,
}


def part_of(name: str, model_type: str) -> str:
    """Gives the part (``vision``, ``projector`` or ``language``) of a parameter or module by its full name.

    Raises:
        ModelError: The family is not in the table.
    """
    if model_type not in FAMILIES:
        raise ModelError(
            f"model type {model_type!r} is not supported; supported: {', '.join(sorted(FAMILIES))}"
        )
    dotted = "." + name
    for part, pattern in FAMILIES[model_type].items():
        if re.search(pattern, dotted if dotted.endswith("image_newline") else dotted + "."):
            return part
    return "language"


def parameters_by_part(model: nn.Module, model_type: str) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Groups the named parameters of a model by part."""
    grouped: dict[str, list[tuple[str, nn.Parameter]]] = {part: [] for part in PARTS}
    for name, parameter in model.named_parameters():
        grouped[part_of(name, model_type)].append((name, parameter))
    return grouped


def linear_names(model: nn.Module, model_type: str, part: str, targets: list[str]) -> list[str]:
    """Gives the full names of the linear layers of a part that an adapter should wrap.

    Args:
        model: The model, without adapters.
        model_type: Its family.
        part: ``vision``, ``projector`` or ``language``.
        targets: Last names of the layers (``["q_proj", "v_proj"]``); empty for every linear layer inside the
            transformer blocks. Vision blocks whose output is not used are left out.

    Raises:
        ModelError: No layer matches.
    """
    from torch import nn

    unused = unused_vision(model, model_type)
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and part_of(name, model_type) == part
        and _BLOCK.search(name)
        and not any(name.startswith(module + ".") for module in unused)
        and (not targets or name.rsplit(".", 1)[-1] in targets)
    ]
    if not names:
        raise ModelError(
            f"no linear layer of the {part} part matches the targets {targets!r}; leave targets out for all"
        )
    return names


def top_modules(model: nn.Module, model_type: str, part: str) -> list[str]:
    """Names the outermost modules with parameters that wholly belong to a part, lists by their members."""
    from torch import nn

    found: list[str] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(outer + ".") for outer in found)
        if not name or inside or isinstance(module, nn.ModuleList) or next(module.parameters(), None) is None:
            continue
        parts = {part_of(f"{name}.{inner}", model_type) for inner, _ in module.named_parameters()}
        if parts == {part}:
            found.append(name)
    return found


def unused_vision(model: Any, model_type: str) -> list[str]:
    """Names the vision modules above the layer whose features are used: no gradient reaches them."""
    layer = getattr(model.config, "vision_feature_layer", None)
    tower = getattr(getattr(model, "model", model), "vision_tower", None)
    if tower is None or not isinstance(layer, int):
        return []
    named = dict(tower.named_modules())
    encoder = next((name for name in named if name.endswith("encoder")), "")
    if not hasattr(named[encoder], "layers"):
        return []
    blocks = list(named[encoder].layers)
    # hidden_states has the embeddings first, so [k] is the output of the first k blocks and [-1] of all
    used = layer if layer >= 0 else len(blocks) + layer + 1
    above = [f"{encoder}.layers.{number}" for number in range(used, len(blocks))]
    above += [name for name in named if name.endswith("post_layernorm")]
    prefix = next(name for name, module in model.named_modules() if module is tower)
    return [f"{prefix}.{name}" for name in above]
