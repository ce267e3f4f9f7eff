"""Loads and saves model folders in plain Hugging Face layout, adapters included."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as transformers_logging

from ..errors import MedkitError, ModelError
from .contract import Contract, read_contract, template_hash, write_contract

if TYPE_CHECKING:
    from transformers import PreTrainedModel

transformers_logging.disable_progress_bar()  # medkit shows its own progress


@dataclass
class Loaded:
    """A checkpoint ready for use.

    Attributes:
        model: The transformers model; for an adapter folder a ``peft.PeftModel``.
        processor: Tokenizer and image processor with the chat template.
        contract: The image policy.
        folder: Where it was loaded from.
    """

    model: Any
    processor: Any
    contract: Contract
    folder: Path

    @property
    def base_model(self) -> PreTrainedModel:
        """The transformers model inside, adapters injected."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    @property
    def model_type(self) -> str:
        """The family, for example ``llava``."""
        return self.base_model.config.model_type


def pick_device(device: str = "auto") -> torch.device:
    """Gives the device that a recipe's ``auto|cpu|cuda`` means here.

    Raises:
        ModelError: ``cuda`` was asked for and none is there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError("hardware.device is cuda but torch sees no GPU; use device: auto or cpu")
    return torch.device(device)


def pick_precision(precision: str, device: torch.device) -> str:
    """Gives ``bf16`` or ``fp32``: ``auto`` means bf16 wherever the processor computes in it."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return "bf16" if any(getattr(torch.cpu, probe, bool)() for probe in probes) else "fp32"


def load_model(folder: str | Path, device: str = "auto", dtype: torch.dtype = torch.float32) -> Loaded:
    """Loads a model folder, a hub id, or an adapter folder with its base.

    Args:
        folder: Model folder, adapter folder or hub id.
        device: ``auto``, ``cpu`` or ``cuda``.
        dtype: Of the weights in memory.

    Raises:
        ModelError: The folder is no checkpoint, or contradicts its contract.
    """
    path = Path(folder)
    if path.exists() and not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise ModelError(
            f"{path}: no config.json or adapter_config.json here; give a Hugging Face model folder"
        )
    try:
        model = _load_weights(path, str(folder), dtype)
        processor = AutoProcessor.from_pretrained(str(folder))
    except MedkitError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{folder}: the checkpoint can't be loaded: {first_line}") from error
    if not getattr(processor, "chat_template", None):
        raise ModelError(
            f"{folder}: the checkpoint has no chat template; put a chat_template.jinja beside its weights"
        )
    model.to(pick_device(device)).eval()
    config = model.get_base_model().config if hasattr(model, "peft_config") else model.config
    return Loaded(model, processor, read_contract(path, processor, config), path)


def _load_weights(path: Path, name: str, dtype: torch.dtype) -> Any:
    if not (path / "adapter_config.json").is_file():
        return _load_whole(name, dtype)
    from peft import PeftModel

    base = json.loads((path / "adapter_config.json").read_text())["base_model_name_or_path"]
    if not Path(base).is_absolute() and (path / base).exists():
        base = str(path / base)
    if Path(base).is_absolute() and not Path(base).exists():
        raise ModelError(
            f"{path}: its base checkpoint {base} is gone; mend base_model_name_or_path in adapter_config.json"
        )
    return PeftModel.from_pretrained(_load_whole(base, dtype), name)


def _load_whole(name: str, dtype: torch.dtype) -> PreTrainedModel:
    """Loads a full checkpoint; weights that it lacks would stay random numbers, so they are an error."""
    whole: Any = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype, output_loading_info=True)
    model, told = whole
    if missing := sorted(told["missing_keys"]):
        raise ModelError(
            f"{name}: the checkpoint lacks {len(missing)} weights, such as {missing[0]}; give a whole one"
        )
    return model


def save_model(loaded: Loaded, folder: Path, contract: Contract, dtype: torch.dtype | None = None) -> None:
    """Writes weights (safetensors), processor, chat template and contract; the folder appears as a whole.

    Args:
        loaded: What to save.
        folder: Target; replaced when it exists.
        contract: Written as ``medkit.json``.
        dtype: Cast full checkpoints to this on disk; None keeps the dtype in memory. Adapters keep theirs.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if dtype is not None and not hasattr(loaded.model, "peft_config"):
        state = {
            name: tensor.to(dtype) if tensor.is_floating_point() else tensor
            for name, tensor in _untied(loaded.model).items()
        }
        loaded.model.save_pretrained(partial, state_dict=state)
        name_dtype(partial / "config.json", str(dtype).removeprefix("torch."))
    else:
        _point_at_base(loaded)
        loaded.model.save_pretrained(partial)
    loaded.processor.save_pretrained(partial)
    mask = os.umask(0)
    os.umask(mask)
    for path in partial.iterdir():
        path.chmod(0o666 & ~mask)  # safetensors writes 0600: a server under another user could not read it
    write_contract(partial, replace(contract, template_sha256=template_hash(loaded.processor)))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def _point_at_base(loaded: Loaded) -> None:
    """Gives an adapter's base folder its full path, so that plain peft finds it from any working folder."""
    for config in getattr(loaded.model, "peft_config", {}).values():
        if Path(config.base_model_name_or_path or "").is_dir():
            config.base_model_name_or_path = str(Path(config.base_model_name_or_path).resolve())


def name_dtype(path: Path, dtype: str) -> None:
    """Writes the type of the saved weights into a config, where transformers puts the type in memory."""
    config = json.loads(path.read_text())
    for section in (config, *config.values()):
        if isinstance(section, dict) and "dtype" in section:
            section["dtype"] = dtype
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _untied(model: Any) -> dict[str, torch.Tensor]:
    """Gives the state without second names of shared storage (a head tied to the embeddings)."""
    state, seen = {}, set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            state[name] = tensor
    return state
