"""Questions with their image, before and after: drawn by a seeded rule, never picked by hand."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import Any

from PIL import Image

from medkit.errors import MedkitError
from medkit.report.findings import Headline
from medkit.report.read import Run, dataset_folders
from medkit.report.wording import number
from medkit.sample import text_of
from medkit.store import Dataset, open_dataset

SHOWN = {"fixed": 6, "still wrong": 3, "newly wrong": 3, "right before and after": 3}
IMAGE_PIXELS = 256  # longest side of an embedded image
IMAGES_BYTES = 1_500_000  # all embedded images together, before base64 adds a third
TEXT_SHOWN = 600  # characters of an answer or a sample


class Images:
    """Finds images of a run by reference and gives them as data URIs, within the report's size."""

    def __init__(self, run: Run):
        folders = [
            folder
            for step in [*run.of("teach"), *run.of("ingest"), *run.of("benchmark")]
            for folder in dataset_folders(step)
        ]
        self.datasets: list[Dataset] = []
        for folder in folders:
            try:
                self.datasets.append(open_dataset(folder))
            except (MedkitError, OSError, ValueError):
                run.missing.append(
                    f"{folder.relative_to(run.folder)} can't be opened: its images are left out."
                )
        self.bytes = 0
        self.made: dict[str, dict[str, Any]] = {}

    def embed(self, ref: str) -> dict[str, Any] | None:
        """Gives ``{"uri", "width", "height"}``, or None when the image is gone or the report is full."""
        if ref not in self.made:
            picture = self._find(ref)
            if picture is None:
                return None
            picture.thumbnail((IMAGE_PIXELS, IMAGE_PIXELS))
            encoded = _webp(picture)
            if self.bytes + len(encoded) > IMAGES_BYTES:
                return None
            self.bytes += len(encoded)
            uri = "data:image/webp;base64," + base64.b64encode(encoded).decode("ascii")
            self.made[ref] = {"uri": uri, "width": picture.width, "height": picture.height}
        return self.made[ref]

    def _find(self, ref: str) -> Image.Image | None:
        for dataset in self.datasets:
            try:
                return dataset.image(ref).convert("RGB")
            except (MedkitError, KeyError, OSError, ValueError):
                continue
        return None


def gallery(run: Run, head: Headline, images: Images) -> dict[str, Any]:
    """Gives questions of the headline's benchmark in four groups, each drawn by the seeded rule.

    The rule: within a group, the questions with the smallest sha256 of ``seed|id``; an image is shown once.
    """
    before = _answered(run, "base", head.benchmark)
    after = _answered(run, head.model, head.benchmark)
    seed = run.recipe.get("seed") or 0
    groups: dict[str, list[str]] = {name: [] for name in SHOWN}
    for name in before.keys() & after.keys():
        was, is_now = _right(before[name]), _right(after[name])
        groups[_GROUPS[(was, is_now)]].append(name)
    found = []
    for title, names in groups.items():
        cards: list[dict[str, Any]] = []
        seen: set[str] = set()
        for name in sorted(names, key=lambda name: _draw(seed, name)):
            ref = str(after[name].get("image") or "")
            if len(cards) < SHOWN[title] and (not ref or ref not in seen):
                seen.add(ref)
                cards.append(_card(before[name], after[name], images.embed(ref)))
        found.append({"title": title, "total": len(names), "cards": cards})
    return {"groups": found, "total": sum(len(names) for names in groups.values()), "seed": seed}


def taught(run: Run, images: Images) -> list[dict[str, Any]]:
    """Gives one training sample of each kind, drawn by the same rule among the first 400 of the kind."""
    seed = run.recipe.get("seed") or 0
    found = []
    for kind in ("caption", "conversation", "description", "reasoning"):
        sample = next(
            (sample for dataset in images.datasets if (sample := _drawn(dataset, kind, seed))), None
        )
        if sample is not None:
            turns = [(str(turn["role"]), text_of(turn)[:TEXT_SHOWN]) for turn in sample.messages[:6]]
            image = images.embed(sample.images[0]) if sample.images else None
            found.append({"kind": kind, "turns": turns, "image": image})
    return found


_GROUPS = {
    (False, True): "fixed",
    (False, False): "still wrong",
    (True, False): "newly wrong",
    (True, True): "right before and after",
}


def _answered(run: Run, model: str, benchmark: str) -> dict[str, dict[str, Any]]:
    return {
        str(row["id"]): row
        for row in run.answers.get(model, [])
        if row.get("benchmark") == benchmark and row.get("control", "none") == "none" and "id" in row
    }


def _draw(seed: Any, name: str) -> str:
    return hashlib.sha256(f"{seed}|{name}".encode()).hexdigest()


def _card(before: dict[str, Any], after: dict[str, Any], image: dict[str, Any] | None) -> dict[str, Any]:
    references = after.get("references")
    return {
        "image": image,
        "kind": str(after.get("kind") or "").replace("_", " "),
        "question": _short(after.get("question")),
        "choices": [str(choice) for choice in after.get("choices") or []],
        "gold": " or ".join(_short(reference) for reference in references)
        if isinstance(references, list)
        else "",
        "before": _short(before.get("answer")),
        "after": _short(after.get("answer")),
        "was": _right(before),
        "now": _right(after),
    }


def _right(row: dict[str, Any]) -> bool:
    # A headline scorer may give parts of a point; more than half counts as right here.
    return (number(row.get("correct")) or 0) > 0.5


def _short(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN] + " …"


def _drawn(dataset: Dataset, kind: str, seed: Any) -> Any:
    indices = dataset.select(kinds=[kind], splits=["train"])[:400]
    samples = [dataset[int(index)] for index in indices]
    return min(samples, key=lambda sample: _draw(seed, sample.id), default=None)


def _webp(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    small = picture.width * picture.height <= 128 * 128
    # Small drawn images keep every pixel; photographs are larger and stand a lossy encoding.
    picture.save(buffer, "WEBP", lossless=small, quality=80)
    return buffer.getvalue()
