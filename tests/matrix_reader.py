"""Reads what the matrix test saved with transformers and PEFT alone; run in a process that has no medkit.

Usage: python matrix_reader.py FOLDER..., where FOLDER/cells.json lists the cells. Writes FOLDER/read.safetensors.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig


def read(cell, base):
    """Gives the model of a cell as a user of plain libraries loads it."""
    folder = cell["folder"]
    if cell["form"] == "whole":
        return AutoModelForImageTextToText.from_pretrained(folder)
    options = {}
    if cell["quantization"]:
        options = {
            "quantization_config": BitsAndBytesConfig(**cell["quantization"]),
            "device_map": {"": "cpu"},
        }
    if cell["form"] == "own":
        sys.path.insert(0, folder)
        from llama_adapter import load

        model = load(folder, **options)
        sys.path.pop(0)
        del sys.modules["llama_adapter"]
    else:
        from peft import PeftModel

        named = json.loads((Path(folder) / "adapter_config.json").read_text())["base_model_name_or_path"]
        assert named == base, f"{folder} names {named}"
        model = PeftModel.from_pretrained(
            AutoModelForImageTextToText.from_pretrained(base, **options), folder
        )
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def main(folder):
    """Writes the logits of every cell."""
    told = json.loads((folder / "cells.json").read_text())
    inputs = load_file(folder / "inputs.safetensors")
    made = {}
    with torch.no_grad():
        for cell in told["cells"]:
            made[cell["name"]] = read(cell, told["base"]).eval()(**inputs).logits.contiguous()
    save_file(made, folder / "read.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for argument in sys.argv[1:]:
        main(Path(argument))
    assert not [name for name in sys.modules if name.split(".")[0] == "medkit"]
