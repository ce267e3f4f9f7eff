"""Memory and samples a second of adapters on a random LLaVA of 7B shape, on one CUDA GPU.

Usage: python benchmarks/gpu_adapters.py [--steps 10] [--batch 4] [--tokens 768] [--cases lora,lora-nf4]

Builds LLaVA-1.5-7B's shape with random weights in bf16 (about 14 GB of disk in a temporary folder, and as much of
memory for a moment), then takes every case in a process of its own and prints one JSON row: peak memory as torch
counts it, samples a second after two steps of warming up, and trained parameters. A sample is one 336 px picture
(576 tokens) with text up to ``--tokens``, all of the text supervised.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

CARD = {"rank": 16, "alpha": 32.0, "dropout": 0.0, "targets": [], "prompt_tokens": 10, "prompt_layers": 30}
CASES = {
    **{kind: {"kind": kind} for kind in ("lora", "dora", "adalora", "ia3", "llama_adapter")},
    **{f"lora-{bits}": {"kind": "lora", "quantize": bits} for bits in ("nf4", "int8")},
    "dora-nf4": {"kind": "dora", "quantize": "nf4"},
}
RATES = {"vision": 0.0, "projector": 2e-5, "language": 2e-4}
WARM_UP = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=768)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--layers", type=int, default=32, help="fewer for a quick look")
    parser.add_argument("--base", type=Path, help="folder of the model, once built")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu_adapters.py needs a CUDA GPU; torch sees none")
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        base = arguments.base or Path(folder) / "base"
        if not base.exists():
            build(base, arguments.layers)
        for name in arguments.cases.split(","):
            command = [sys.executable, __file__, *sys.argv[1:], "--base", str(base), "--one", name]
            done = subprocess.run(command, capture_output=True, text=True)
            failed = {"case": name, "failed": done.stderr.strip().splitlines()[-1:]}
            print(done.stdout.strip() if done.returncode == 0 else json.dumps(failed), flush=True)


def build(folder: Path, layers: int) -> None:
    """Writes a random model of LLaVA-1.5-7B's shape."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
        image_size=336, patch_size=14, projection_dim=768,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=32064, hidden_size=4096, intermediate_size=11008, num_hidden_layers=layers,
        num_attention_heads=32, max_position_embeddings=4096,
    )  # fmt: skip
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=32000, dtype="bfloat16")
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlavaForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)


def measure(name: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Trains some steps on random samples."""
    from torch.nn import functional
    from transformers import AutoModelForImageTextToText

    from medkit.models.adapters import make_trainable
    from medkit.models.contract import Contract
    from medkit.models.load import Loaded
    from medkit.models.quantize import quantization
    from medkit.training.optimizers import Optimizers

    card = {**CARD, "quantize": "none", **CASES[name]}
    card["prompt_layers"] = min(card["prompt_layers"], arguments.layers)
    options = {"dtype": torch.bfloat16, "device_map": {"": "cuda"}}
    if card["quantize"] != "none":
        options["quantization_config"] = quantization(str(arguments.base), card["quantize"], torch.bfloat16)
    model = AutoModelForImageTextToText.from_pretrained(arguments.base, **options)
    loaded = Loaded(model, None, Contract("pad"), arguments.base)
    groups = make_trainable(loaded, RATES, card)
    for members in groups.values():
        for parameter in members:
            parameter.data = parameter.data.float()
    base = loaded.base_model
    base.gradient_checkpointing_enable({"use_reentrant": False})
    base.train()
    names = {parameter: key for key, parameter in loaded.model.named_parameters()}
    optimizers = Optimizers(groups, RATES, 0.0, arguments.optimizer, names)
    generator = torch.Generator("cuda").manual_seed(0)
    shape = (arguments.batch, arguments.tokens)
    ids = torch.randint(5, 32000, shape, device="cuda", generator=generator)
    ids[:, 1:577] = 32000
    pixels = torch.randn(arguments.batch, 3, 336, 336, device="cuda", generator=generator)
    torch.cuda.reset_peak_memory_stats()
    for step in range(arguments.steps + WARM_UP):
        if step == WARM_UP:
            torch.cuda.synchronize()
            begun = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            hidden = base.model(input_ids=ids, pixel_values=pixels, use_cache=False).last_hidden_state
            logits = base.get_output_embeddings()(hidden[:, 576:-1])
            loss = functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 577:].flatten())
        loss.backward()
        optimizers.step()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - begun
    return {
        "case": name,
        "gpu": torch.cuda.get_device_name(),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "samples_per_s": round(arguments.steps * arguments.batch / seconds, 2),
        "trained": sum(parameter.numel() for members in groups.values() for parameter in members),
        "batch": arguments.batch,
        "tokens": arguments.tokens,
        "optimizer": arguments.optimizer,
    }


if __name__ == "__main__":
    main()
