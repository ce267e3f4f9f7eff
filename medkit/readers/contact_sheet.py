"""Contact sheets: samples of a dataset folder as one PNG or as a self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image, ImageDraw, ImageFont

from medkit.errors import DataError
from medkit.sample import Sample, text_of
from medkit.store import Dataset

TILE, MARGIN, TEXT_LINES, LINE = 224, 14, 5, 16
COLUMNS = 6
# Ten hues that stay apart in light and dark and for most colour-blind eyes (Okabe and Ito, two shades more).
HUES = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#8b5cf6",
    "#b45309",
    "#0f766e",
    "#be123c",
)


@dataclass(frozen=True)
class Section:
    """What a sheet shows of one dataset folder.

    Attributes:
        title: Its heading.
        dataset: The folder.
        samples: The samples chosen.
    """

    title: str
    dataset: Dataset
    samples: list[Sample]


def choose(dataset: Dataset, count: int) -> list[Sample]:
    """Chooses samples evenly over splits, kinds and first label, the same ones every time."""
    columns = {name: dataset.column(name) for name in ("split", "kind", "facts", "id")}
    strata: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for row, (split, kind, facts) in enumerate(
        zip(columns["split"], columns["kind"], columns["facts"], strict=True)
    ):
        strata[(split, kind, _first_label(facts))].append(row)
    queues = []
    for key in sorted(strata, key=lambda key: hashlib.sha256(repr(key).encode()).digest()):
        queues.append(
            sorted(strata[key], key=lambda row: hashlib.sha256(columns["id"][row].encode()).digest())
        )
    chosen: list[int] = []
    depth = 0
    while len(chosen) < min(count, len(dataset)):
        chosen += [queue[depth] for queue in queues if depth < len(queue)]
        depth += 1
    order = {"train": 0, "valid": 1, "test": 2}
    rows = sorted(
        chosen[:count], key=lambda row: (order.get(columns["split"][row], 3), columns["kind"][row], row)
    )
    return [dataset[row] for row in rows]


def png_sheet(sections: list[Section]) -> Image.Image:
    """Draws the sections' samples as one picture: each with its boxes, split and text.

    Raises:
        DataError: There is no sample to show.
    """
    cells = [(section, sample) for section in sections for sample in section.samples]
    if not cells:
        raise DataError("there is no sample to show")
    columns = min(COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    cell_height = TILE + TEXT_LINES * LINE + 2 * MARGIN
    sheet = Image.new("RGB", (columns * (TILE + MARGIN) + MARGIN, rows * cell_height + MARGIN), "#f6f7f9")
    pen = ImageDraw.Draw(sheet)
    font, strong = ImageFont.load_default(size=12), ImageFont.load_default(size=13)
    for number, (section, sample) in enumerate(cells):
        x = MARGIN + number % columns * (TILE + MARGIN)
        y = MARGIN + number // columns * cell_height
        pen.rounded_rectangle(
            (x - 5, y - 5, x + TILE + 4, y + cell_height - MARGIN - 2), 8, "#ffffff", "#dde1e7"
        )
        if sample.images:
            tile, box = _tile(section.dataset.image(sample.images[0]))
            corner = (x + (TILE - tile.width) // 2, y + (TILE - tile.height) // 2)
            sheet.paste(tile, corner)
            _draw_boxes(pen, sample.facts.get("objects", []), corner, box)
        pen.text((x, y + TILE + 4), _fitted(f"{sample.split} · {sample.id}", pen, strong), "#1b2330", strong)
        for line_number, line in enumerate(_wrapped(_words(sample), pen, font)):
            pen.text((x, y + TILE + 4 + LINE * (line_number + 1)), line, "#4a5568", font)
    return sheet


def html_sheet(title: str, sections: list[Section]) -> str:
    """Writes the sections as one HTML page without any outside request."""
    template = Path(__file__).with_name("contact_sheet.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = [_described(section) for section in sections]
    return environment.from_string(template).render(title=title, sections=page)


def _described(section: Section) -> dict[str, Any]:
    summary = section.dataset.summary
    tables = {
        "Splits": summary.get("splits", {}),
        "Kinds": summary.get("kinds", {}),
        "Rejected": summary.get("rejected", {}),
    }
    told = [row for row in section.dataset.ledger() if row["fate"] != "kept"]
    return {
        "title": section.title,
        "numbers": [
            ("samples", summary.get("samples", 0)),
            ("images", summary.get("images", 0) or len(section.dataset.refs())),
            ("groups", summary.get("groups", 0)),
            ("near-duplicates across splits", summary.get("near_duplicates_across_splits")),
        ],
        "tables": {name: _bars(table) for name, table in tables.items() if table},
        "ledger": told[:200],
        "ledger_more": max(0, len(told) - 200),
        "cards": [_card(section.dataset, sample) for sample in section.samples],
    }


def _bars(table: dict[str, int]) -> list[tuple[str, int, float]]:
    most = max(table.values())
    return [
        (name, value, 100 * value / most) for name, value in sorted(table.items(), key=lambda item: -item[1])
    ]


def _card(dataset: Dataset, sample: Sample) -> dict[str, Any]:
    hues = _hues(sample.facts.get("objects", []))
    boxes = []
    for item in sample.facts.get("objects", []):
        if _is_box(item.get("box")):
            x0, y0, x1, y1 = (100 * edge for edge in item["box"])
            boxes.append(
                {
                    "x": x0,
                    "y": y0,
                    "w": x1 - x0,
                    "h": y1 - y0,
                    "hue": hues[item["label"]],
                    "label": item["label"],
                }
            )
    counts: dict[str, int] = defaultdict(int)
    for item in sample.facts.get("objects", []):
        counts[str(item.get("label"))] += 1
    labels = [f"{name}: {value}" for name, value in sample.facts.get("labels", {}).items()]
    return {
        "id": sample.id,
        "split": sample.split,
        "kind": sample.kind,
        "images": [_data_uri(dataset.image(ref)) for ref in sample.images],
        "small": bool(sample.images) and max(dataset.image(sample.images[0]).size) < 200,
        "boxes": boxes,
        "labels": labels + ([sample.facts["modality"]] if sample.facts.get("modality") else []),
        "objects": [(label, count, hues[label]) for label, count in counts.items()],
        "turns": [(message["role"], text_of(message)) for message in sample.messages],
    }


def _tile(image: Image.Image) -> tuple[Image.Image, tuple[int, int]]:
    scale = TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # Enlarged pictures show their real pixels.
    method = Image.Resampling.NEAREST if scale > 1.5 else Image.Resampling.LANCZOS
    return image.resize(size, method), size


def _draw_boxes(
    pen: ImageDraw.ImageDraw, objects: list[dict[str, Any]], corner: tuple[int, int], size: tuple[int, int]
) -> None:
    hues = _hues(objects)
    for item in objects:
        if _is_box(item.get("box")):
            x0, y0, x1, y1 = (
                offset + edge * (side - 1)
                for edge, offset, side in zip(item["box"], corner * 2, size * 2, strict=True)
            )
            pen.rectangle((x0, y0, x1, y1), outline=hues[item["label"]], width=2)


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, list) and len(box) == 4 and 0 <= box[0] <= box[2] <= 1 and 0 <= box[1] <= box[3] <= 1
    )


def _hues(objects: list[dict[str, Any]]) -> dict[str, str]:
    labels = {str(item.get("label")) for item in objects}
    # By name and not by place, so that a label has one hue on the whole sheet.
    return {label: HUES[int(hashlib.sha256(label.encode()).hexdigest(), 16) % len(HUES)] for label in labels}


def _words(sample: Sample) -> str:
    if sample.messages:
        return " | ".join(text_of(message) for message in sample.messages if message["role"] != "system")
    labels = ", ".join(f"{name} {value}" for name, value in sample.facts.get("labels", {}).items())
    counts: dict[str, int] = defaultdict(int)
    for item in sample.facts.get("objects", []):
        counts[str(item.get("label"))] += 1
    objects = ", ".join(f"{count} {label}" for label, count in counts.items())
    return "; ".join(part for part in (labels, objects) if part)


def _wrapped(text: str, pen: ImageDraw.ImageDraw, font: Any) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if pen.textlength(longer, font) <= TILE or not lines[-1]:
            lines[-1] = longer
        elif len(lines) == TEXT_LINES - 1:
            lines[-1] += " …"
            break
        else:
            lines.append(word)
    return [_fitted(line, pen, font) for line in lines]


def _fitted(text: str, pen: ImageDraw.ImageDraw, font: Any) -> str:
    while text and pen.textlength(text, font) > TILE:
        text = text[:-2].rstrip() + "…" if len(text) > 2 else ""
    return text


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    small = image.copy()
    small.thumbnail((320, 320))
    small.save(buffer, format="WEBP", lossless=max(small.size) < 100, quality=82)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _first_label(facts: dict[str, Any]) -> str:
    question = facts.get("question")
    if isinstance(question, dict):
        return str(question.get("kind"))
    labels = facts.get("labels") or {}
    return str(next(iter(labels.values()), ""))
