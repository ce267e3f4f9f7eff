"""Tensors of a checkpoint folder, one at a time and safely: safetensors, or weight files unpickled as tensors only.

Only files that are known to hold weights are opened, by name. ``training_args.bin``, optimiser, scheduler and
random states are pickles of arbitrary classes and are never opened, whatever an index says.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ...errors import ModelError

WHOLE = ("model.safetensors", "pytorch_model.bin")
ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")
REST = ("non_lora_trainables.safetensors", "non_lora_trainables.bin")
PROJECTOR = ("mm_projector.safetensors", "mm_projector.bin")
WEIGHT_FILE = re.compile(r"(model|pytorch_model)[\w.-]*\.(safetensors|bin)")
SHARD_BYTES = 4 << 30


class Weights:
    """The tensors of a checkpoint by name; each is read when it is asked for."""

    def __init__(self) -> None:
        self._sources: dict[str, Callable[[], torch.Tensor]] = {}
        self.origin: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._sources

    def __len__(self) -> int:
        return len(self._sources)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __getitem__(self, name: str) -> torch.Tensor:
        """Gives a tensor as stored.

        Raises:
            KeyError: There is none of that name.
        """
        return self._sources[name]()

    def source(self, name: str) -> Callable[[], torch.Tensor]:
        """Gives the function that reads a tensor."""
        return self._sources[name]

    def put(self, name: str, source: Callable[[], torch.Tensor], origin: str) -> None:
        """Adds or replaces a tensor; ``origin`` says for messages where it comes from."""
        self._sources[name] = source
        self.origin[name] = origin

    def take(self, name: str) -> None:
        """Leaves a tensor out."""
        del self._sources[name], self.origin[name]

    def update(self, others: Weights) -> None:
        """Takes the other's tensors in, replacing those of the same name."""
        for name in others:
            self.put(name, others._sources[name], others.origin[name])

    def renamed(self, rename: Callable[[str], str]) -> Weights:
        """Gives the same tensors under other names."""
        found = Weights()
        for name in self:
            found.put(rename(name), self._sources[name], self.origin[name])
        return found


def read_whole(folder: Path) -> Weights:
    """Reads the weights of a whole model: one file or shards with an index; empty where there is none.

    Raises:
        ModelError: A file is missing, damaged, or holds more than tensors.
    """
    for name in WHOLE:
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _read_shards(folder, index)
        if (folder / name).is_file():
            return read_file(folder / name)
    return Weights()


def read_named(folder: Path, names: Iterable[str]) -> Weights:
    """Reads the first of some weight files that exists; empty where none does."""
    for name in names:
        if (folder / name).is_file():
            return read_file(folder / name)
    return Weights()


def read_file(path: Path) -> Weights:
    """Reads one weight file.

    Raises:
        ModelError: It is damaged or holds more than tensors.
    """
    found = Weights()
    if path.suffix == ".safetensors":
        try:
            handle = safe_open(str(path), framework="pt")
            names = list(handle.keys())
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path}: not a readable safetensors file ({error}); copy it again") from error
        for name in names:
            found.put(name, lambda handle=handle, name=name: handle.get_tensor(name), path.name)
        return found
    for name, tensor in _unpickle(path).items():
        found.put(name, lambda tensor=tensor: tensor, path.name)
    return found


def write_weights(folder: Path, tensors: Iterable[tuple[str, torch.Tensor]]) -> int:
    """Writes tensors as ``model.safetensors``, in shards with an index where they are many.

    Args:
        folder: Where to write.
        tensors: (name, tensor) one after the other; only one shard is held in memory.

    Returns:
        Number of bytes of all tensors.
    """
    shard: dict[str, torch.Tensor] = {}
    files: list[Path] = []
    where: dict[str, int] = {}
    total = held = 0

    def flush() -> None:
        path = folder / f"shard-{len(files)}.safetensors"
        save_file(shard, str(path), metadata={"format": "pt"})
        where.update(dict.fromkeys(shard, len(files)))
        files.append(path)
        shard.clear()

    for name, tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if shard and held + size > SHARD_BYTES:
            flush()
            held = 0
        shard[name] = tensor.contiguous().clone() if tensor.data_ptr() % 16 else tensor.contiguous()
        held, total = held + size, total + size
    flush()
    if len(files) == 1:
        files[0].rename(folder / "model.safetensors")
        return total
    names = [f"model-{place + 1:05d}-of-{len(files):05d}.safetensors" for place in range(len(files))]
    for path, name in zip(files, names, strict=True):
        path.rename(folder / name)
    index = {
        "metadata": {"total_size": total},
        "weight_map": {name: names[place] for name, place in sorted(where.items())},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return total


def _read_shards(folder: Path, index: Path) -> Weights:
    places = _index(index)
    found = Weights()
    for name in sorted(set(places.values())):
        if not WEIGHT_FILE.fullmatch(name):
            raise ModelError(f"{index}: names {name!r}, which is no weight file; mend or remove the index")
        path = folder / name
        if not path.is_file():
            raise ModelError(f"{index}: the shard {name} is missing; copy it into the folder")
        found.update(read_file(path))
    if lost := sorted(set(places) - set(found)):
        raise ModelError(f"{index}: {lost[0]} is not in {places[lost[0]]}; copy the shards again")
    return found


def _index(path: Path) -> dict[str, str]:
    try:
        places = json.loads(path.read_text())["weight_map"]
        if not all(isinstance(name, str) for name in places.values()):
            raise TypeError("a shard's name is no text")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not a readable index ({error}); copy it again") from error
    return places


def _unpickle(path: Path) -> dict[str, torch.Tensor]:
    try:
        try:
            state: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, ValueError) as error:
            if "mmap" not in str(error):
                raise
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: holds more than tensors, or is no weight file, and was not opened; "
            "convert it to safetensors where it came from"
        ) from error
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{path}: not a readable weight file ({first}); copy it again") from error
    if isinstance(state, dict) and set(state) == {"state_dict"}:
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(one, torch.Tensor) for one in state.values()):
        raise ModelError(f"{path}: holds something besides tensors by name; save the plain state dict")
    return {str(name): tensor.detach() for name, tensor in state.items()}
