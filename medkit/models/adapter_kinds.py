"""New adapters of the kinds that PEFT has."""

from __future__ import annotations

import math
from typing import Any

from ..errors import ModelError
from .adapter_folders import factors
from .load import Loaded
from .parts import linear_names, top_modules

# IA3 scales what attention compares, what it gathers, and what enters the second feed-forward layer.
IA3_OUT = ("k_proj", "v_proj", "qkv")
IA3_IN = ("down_proj", "fc2", "linear_fc2")


def wrap(loaded: Loaded, rates: dict[str, float], adapter: dict[str, Any]) -> None:
    """Makes ``loaded.model`` a PeftModel with a new adapter on the parts that have a learning rate.

    Raises:
        ModelError: The adapter fits no layer.
    """
    from peft import get_peft_model, prepare_model_for_kbit_training

    model, family = loaded.base_model, loaded.model_type
    if adapter.get("quantize", "none") != "none":
        # frozen, with the norms and the output in float32; checkpointing is the stage's own setting
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    targets: list[str] = []
    for part in ("language", "vision"):
        if rates.get(part, 0) > 0:
            named = adapter.get("targets") or [] if part == "language" else []
            targets += linear_names(model, family, part, named)
    whole = top_modules(model, family, "projector") if rates.get("projector", 0) > 0 else None
    loaded.model = get_peft_model(model, _config(adapter, targets, whole))
    if adapter["kind"] == "pissa":
        loaded.model.pissa_start = factors(loaded.model)


def _config(adapter: dict[str, Any], targets: list[str], whole: list[str] | None) -> Any:
    from peft import AdaLoraConfig, IA3Config, LoraConfig

    kind = adapter["kind"]
    common: dict[str, Any] = {"modules_to_save": whole, "task_type": "CAUSAL_LM"}
    if kind == "ia3":
        inward = _named(targets, IA3_IN)
        outward = _named(targets, IA3_OUT)
        if not inward + outward:
            raise ModelError(f"ia3 finds none of its layers ({', '.join(IA3_OUT + IA3_IN)}); use kind: lora")
        return IA3Config(target_modules=inward + outward, feedforward_modules=inward, **common)
    rank = adapter["rank"]
    common |= {"target_modules": targets, "lora_alpha": adapter["alpha"], "lora_dropout": adapter["dropout"]}
    if kind == "adalora":
        # half as many ranks again to choose from; the loop sets the true length
        return AdaLoraConfig(target_r=rank, init_r=math.ceil(1.5 * rank), total_step=1, **common)
    return LoraConfig(
        r=rank,
        use_rslora=kind == "rslora",
        use_dora=kind == "dora",
        init_lora_weights="pissa" if kind == "pissa" else True,
        **common,
    )


def _named(targets: list[str], last: tuple[str, ...]) -> list[str]:
    return [name for name in targets if name.rsplit(".", 1)[-1] in last]
