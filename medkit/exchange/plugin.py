"""The entry point of lmms-eval (group ``lmms_eval.models``): which models medkit adds to it."""

from __future__ import annotations

from typing import Any


def manifests() -> list[Any]:
    """Gives the manifests of ``medkit`` (a checkpoint) and ``medkit_replay`` (stored answers); lmms-eval calls it."""
    from lmms_eval.models.registry_v2 import ModelManifest  # type: ignore[import-not-found]

    place = "medkit.exchange.lmms_models"
    return [
        ModelManifest("medkit", chat_class_path=f"{place}.Medkit"),
        ModelManifest("medkit_replay", chat_class_path=f"{place}.MedkitReplay"),
    ]
