"""The fixtures of the original LLaVA code: found by their files, whatever their folders are called."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from medkit.models.contract import prepare_image
from medkit.models.conversations import chat_template, resolve
from medkit.models.load import Loaded, load_model
from medkit.models.original.convert import import_original
from medkit.models.original.detect import detect
from medkit.models.original.tower import find_folder

ROOT = Path(os.environ.get("MEDKIT_SHARED") or Path(__file__).resolve().parent.parent.parent / "shared")
PLACEHOLDER = -200
MARK = re.compile(r"<im_start>(?:<im_patch>)+<im_end>|<image>|(?:<im_patch>)+")
FITS = {"pad": "pad", "anyres": "anyres"}  # everything else is the processor's own resize and crop


@dataclass(frozen=True)
class Fixture:
    """A fixture folder: what the original code gave for a checkpoint."""

    folder: Path
    checkpoint: Path
    base: str | None

    @property
    def reference(self) -> dict[str, Any]:
        return json.loads((self.folder / "reference.json").read_text())

    @property
    def arrays(self) -> Any:
        return np.load(self.folder / "reference.npz")

    @property
    def config(self) -> dict[str, Any]:
        return json.loads((self.checkpoint / "config.json").read_text())

    @property
    def fit(self) -> str:
        """Gives the policy of the checkpoint itself."""
        return FITS.get(self.config.get("image_aspect_ratio") or "", "crop")


def fixtures() -> list[Fixture]:
    """Gives every fixture below the reference folder."""
    found = []
    for path in sorted(ROOT.glob("reference/**/reference.json")):
        if (path.parent / "reference.npz").is_file():
            folder = path.parent
            found.append(Fixture(folder, _checkpoint(folder), _base(folder)))
    return found


def _checkpoint(folder: Path) -> Path:
    """Gives the folder in the original layout inside a fixture; one that the reference names, if it does."""
    reference = json.loads((folder / "reference.json").read_text())
    named = {value.strip("/") for value in reference.values() if isinstance(value, str)}
    found = []
    for path in sorted(folder.glob("**/config.json")):
        config = json.loads(path.read_text())
        extra = any(list(path.parent.glob(f"{name}.*")) for name in ("non_lora_trainables", "mm_projector"))
        if extra or any(key.startswith("mm_") for key in config):
            # where one folder is another's base, the checkpoint is the one that adds to it
            found.append((path.parent.name not in named, not extra, str(path.parent)))
    assert found, f"{folder} holds no checkpoint"
    return Path(min(found)[2])


def _base(folder: Path) -> str | None:
    """Gives the fixture's plain language model where the checkpoint needs one and names none that is here."""
    layout = detect(_checkpoint(folder))
    named = layout.adapter_config.get("base_model_name_or_path") or layout.config.get("_name_or_path") or ""
    if layout.kind == "full" or (layout.kind != "delta" and find_folder(str(named), layout.folder)):
        return None
    plain = [
        path.parent
        for path in sorted(folder.glob("**/config.json"))
        if json.loads(path.read_text()).get("model_type") in ("llama", "mistral", "qwen2")
        and "mm_vision_tower" not in json.loads(path.read_text())
    ]
    return str(plain[0]) if plain else None


@cache
def imported(fixture: Fixture, fit: str, out: Path) -> Loaded:
    """Imports a fixture with one picture policy, and loads it in float32."""
    target = out / f"{fixture.folder.name}-{fit}"
    own = None if fit == fixture.fit else fit
    import_original(fixture.checkpoint, target, base=fixture.base, fit=own)
    return load_model(target, device="cpu")


def fit_of(case: dict[str, Any]) -> str:
    return FITS.get(case.get("image_aspect_ratio") or "", "crop")


def messages_of(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Turns a case's texts into messages with image parts."""
    messages = []
    for index, text in enumerate(case["messages"]):
        parts: list[dict[str, str]] = []
        for piece in re.split(f"({MARK.pattern})", text):
            if MARK.fullmatch(piece):
                if parts and parts[-1].get("text") == "\n":
                    parts.pop()  # the template breaks the line between pictures
                parts.append({"type": "image"})
            elif piece:
                parts.append({"type": "text", "text": piece})
        if parts and parts[0]["type"] == "image":
            last = max(at for at, part in enumerate(parts) if part["type"] == "image")
            if len(parts) > last + 1:
                parts[last + 1]["text"] = parts[last + 1]["text"].removeprefix("\n")
        messages.append({"role": ("user", "assistant")[index % 2], "content": parts})
    return messages


def rendered(loaded: Loaded, case: dict[str, Any]) -> str:
    """Renders a case in its own conversation, with ``<image>`` for every picture."""
    template = chat_template(resolve(case["conv_mode"]))
    return loaded.processor.apply_chat_template(
        messages_of(case), chat_template=template, add_generation_prompt=True, tokenize=False
    )


def pictures(fixture: Fixture, case: dict[str, Any]) -> list[Image.Image]:
    names = case.get("images") or []
    return [Image.open(fixture.folder / "images" / name).convert("RGB") for name in names]


def inputs_of(loaded: Loaded, text: str, images: list[Image.Image]) -> Any:
    """Gives the model's inputs for a prompt of the original code."""
    token = loaded.processor.image_token
    around = (
        ("<im_start>", "<im_end>") if "<im_start>" in (loaded.processor.chat_template or "") else ("", "")
    )
    text = MARK.sub(token if "<im_start>" not in text else around[0] + token + around[1], text)
    shown = [prepare_image(image, loaded.contract) for image in images]
    return loaded.processor(text=[text], images=shown or None, return_tensors="pt")


def collapsed(loaded: Loaded, ids: list[int]) -> list[int]:
    """Writes every run of image tokens as one placeholder, as the original does."""
    found: list[int] = []
    image = loaded.base_model.config.image_token_id
    for number in ids:
        if number not in (image, PLACEHOLDER):
            found.append(number)
        elif not found or found[-1] != PLACEHOLDER:
            found.append(PLACEHOLDER)
    return found


@torch.inference_mode()
def forward(loaded: Loaded, inputs: Any) -> torch.Tensor:
    """Gives the logits of every position, float32 [T, V]."""
    return loaded.model(**inputs).logits[0].float()


@torch.inference_mode()
def embedded(loaded: Loaded, inputs: Any) -> dict[str, torch.Tensor]:
    """Gives inputs of which the last picture alone is seen, as LLaVA-Med v1.0 made of several pictures."""
    ids = inputs["input_ids"]
    image = loaded.base_model.config.image_token_id
    whole = loaded.model.get_input_embeddings()(ids).clone()
    shown = loaded.model.get_image_features(inputs["pixel_values"]).pooler_output[-1]
    places = (ids[0] == image).nonzero()[-len(shown) :, 0]
    whole[0, places] = shown.to(whole.dtype)
    return {"inputs_embeds": whole, "attention_mask": inputs["attention_mask"]}


def tiles(pixels: np.ndarray) -> np.ndarray:
    """Gives pixels as [tiles, 3, height, width], without the empty tiles that fill up a batch."""
    flat = np.asarray(pixels, dtype=np.float32).reshape(-1, *pixels.shape[-3:])
    return flat[np.any(flat != 0, axis=(1, 2, 3))]


def moved_by_one(loaded: Loaded, images: list[Image.Image]) -> list[Image.Image]:
    """Pads as LLaVA-Med v1.5 does at random: one pixel further than the centre."""
    found = []
    for image in images:
        side = max(image.size)
        square = Image.new("RGB", (side, side), loaded.contract.mean_colour)
        place = [(side - length) // 2 + (1 if length < side else 0) for length in image.size]
        square.paste(image, (place[0], place[1]))
        found.append(square)
    return found
