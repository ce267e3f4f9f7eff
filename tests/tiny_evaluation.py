"""What the evaluation tests share: a small LLaVA with random weights and a dataset folder with questions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medkit.sample import Sample, assistant_turn, user_turn
from medkit.store import DatasetWriter

SIZES = {
    "image_px": 28, "patch_px": 14, "vision_width": 32, "vision_layers": 2, "language_width": 32,
    "language_layers": 2, "language_inner": 64, "head_width": 16, "vocabulary": 300, "positions": 256,
}  # fmt: skip
TEXTS = {
    "exists": ("is there a circle?", "yes_no"),
    "count": ("how many cells can be seen in this picture?", "number"),
    "side": ("on which side?", "choice"),
}
GOLD = {"exists": ["no", "yes"], "count": ["1", "2", "3"], "side": ["left", "right"]}


def build_model(folder: Path):
    """Builds the small model; random weights answer differently for different pictures and questions."""
    import torch

    from medkit.models.tiny import build_tiny

    corpus = [text for text, _ in TEXTS.values()] + ["yes", "no", "left", "right"]
    loaded = build_tiny(SIZES, corpus, folder, seed=3)
    # Untied: with tied embeddings an untrained model repeats its last token. Larger weights bring logits far
    # from ties and make them depend on the picture.
    model = loaded.model
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn(model.lm_head.weight.shape))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "lm_head" not in name:
                weight.mul_(6.0 if "projector" in name or "embed" in name else 3.0)
    loaded.model.save_pretrained(folder)
    loaded.model.eval()
    return loaded


def write_dataset(folder: Path, train: int = 4, test: int = 6, shared: int = 0) -> Path:
    """Writes pictures of noise with a question of each kind; ``shared`` test pictures are in train too."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (20, 24, 3), dtype=np.uint8) for _ in range(train + test)]
    with DatasetWriter(folder, "tiny") as writer:
        for number in range(train + test):
            split = "train" if number < train else "test"
            again = number - train if 0 <= number - train < shared else number
            ref = writer.add_image(pictures[again])
            for kind, (text, answer_type) in TEXTS.items():
                gold = GOLD[kind][number % len(GOLD[kind])]
                asked = {
                    "kind": kind,
                    "answer_type": answer_type,
                    "choices": ["left", "right"] if kind == "side" else [],
                    "references": [gold],
                }
                source = {
                    "dataset": "tiny",
                    "record": f"r{number}",
                    "licence": "CC0-1.0",
                    "group": f"g{number}",
                    "split": split,
                    "kind": "question" if split == "test" else "conversation",
                }
                turns = [user_turn(text, images=1), assistant_turn(gold)]
                writer.add(Sample(f"r{number}-{kind}", turns, [ref], {"question": asked}, source))
    return folder
