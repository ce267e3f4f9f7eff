"""Loads and saves model folders in plain Hugging Face layout, adapters included."""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText
from transformers.utils import logging as transformers_logging

from ..errors import MedkitError, ModelError
from .adapter_folders import kind_of, load_adapter, save_adapter
from .contract import Contract, read_contract, template_hash, write_contract
from .processors import load_processor, save_processor
from .quantize import quantization, steady

if TYPE_CHECKING:
    from transformers import PreTrainedModel

transformers_logging.disable_progress_bar()  # medkit shows its own progress
# bitsandbytes misses an optional kernel and peft asks for a renamed property: nothing that a user could mend
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)


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


def load_model(
    folder: str | Path,
    device: str = "auto",
    dtype: torch.dtype = torch.float32,
    quantize: str = "none",
    compute: torch.dtype = torch.float32,
) -> Loaded:
    """Loads a model folder, a hub id, or an adapter folder with its base.

    Args:
        folder: Model folder, adapter folder or hub id.
        device: ``auto``, ``cpu`` or ``cuda``.
        dtype: Of the weights in memory.
        quantize: ``nf4`` or ``int8`` keeps the language model's weights in 4 or 8 bits.
        compute: Type that 4-bit weights are unpacked to.

    Raises:
        ModelError: The folder is no checkpoint, or contradicts its contract.
    """
    path = Path(folder)
    if path.exists() and not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise ModelError(
            f"{path}: no config.json or adapter_config.json here; give a Hugging Face model folder"
        )
    options: dict[str, Any] = {"dtype": dtype}
    try:
        if quantize != "none":
            options |= {
                "quantization_config": quantization(_base_of(path, str(folder)), quantize, compute),
                "device_map": {"": str(pick_device(device))},
            }
        model = _load_weights(path, str(folder), options)
        processor = load_processor(str(folder))
    except MedkitError:
        raise
    except (ImportError, OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{folder}: the checkpoint can't be loaded: {first_line}") from error
    if not getattr(processor, "chat_template", None):
        raise ModelError(
            f"{folder}: the checkpoint has no chat template; put a chat_template.jinja beside its weights"
        )
    if quantize == "none":
        model.to(pick_device(device))
    else:
        steady(model)
    model.eval()
    config = model.get_base_model().config if hasattr(model, "peft_config") else model.config
    return Loaded(model, processor, read_contract(path, processor, config), path)


def _load_weights(path: Path, name: str, options: dict[str, Any]) -> Any:
    base = _base_of(path, name)
    model = _load_whole(base, options)
    return model if base == name else load_adapter(model, name)


def _base_of(path: Path, name: str) -> str:
    """Gives the model that an adapter folder is for, and the name itself for a model.

    Raises:
        ModelError: The base is a folder that is not there.
    """
    if not (path / "adapter_config.json").is_file():
        return name
    base = json.loads((path / "adapter_config.json").read_text())["base_model_name_or_path"]
    if not Path(base).is_absolute() and (path / base).exists():
        base = str(path / base)
    if Path(base).is_absolute() and not Path(base).exists():
        raise ModelError(
            f"{path}: its base checkpoint {base} is gone; mend base_model_name_or_path in adapter_config.json"
        )
    return base


def _load_whole(name: str, options: dict[str, Any]) -> PreTrainedModel:
    """Loads a full checkpoint; weights that it lacks would stay random numbers, so they are an error."""
    whole: Any = AutoModelForImageTextToText.from_pretrained(name, **options, output_loading_info=True)
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
    if kind_of(loaded.model):
        _point_at_base(loaded)
        save_adapter(loaded.model, partial)
    elif dtype is not None:
        state = {
            name: tensor.to(dtype) if tensor.is_floating_point() else tensor
            for name, tensor in _untied(loaded.model).items()
        }
        loaded.model.save_pretrained(partial, state_dict=state)
        name_dtype(partial / "config.json", str(dtype).removeprefix("torch."))
    else:
        loaded.model.save_pretrained(partial)
    save_processor(loaded.processor, partial)
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
