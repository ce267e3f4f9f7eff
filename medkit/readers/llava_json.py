"""Conversations in LLaVA's JSON, with the defects that published files have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.readers import Record, Rejected, check_options, inside, split_in
from medkit.readers.format_files import read_rows
from medkit.sample import Sample

OPTIONS = ("files", "images", "form", "modality", "licence")


def read(root: Path, options: dict[str, Any]) -> Iterator[Record | Rejected]:
    """Reads conversations about pictures.

    Options:
        files: Pattern of the files below the root ("*.json" and "*.jsonl"), or the root is the file itself.
        images: Folder that picture names are relative to (the root).
        form: "llava" (default), "sharegpt", "swift" or "messages": see ``medkit.readers.formats``.
        modality, licence: As in class_folders.

    Rows may spell ``conversatons``, hold ``image`` as a list, or have no picture. The group is the first
    picture.

    Raises:
        DataError: There is no such file.
    """
    check_options("llava_json", options, OPTIONS)
    root = Path(root)
    if root.is_file():
        files, root = [root], root.parent
    elif options.get("files"):
        files = sorted(root.glob(options["files"]))
    else:
        files = sorted(path for path in root.glob("*.json*") if path.name != "dataset_info.json")
    if not files:
        raise DataError(
            f"{root} holds no {options.get('files', '*.json')}; give the conversations' file or folder"
        )
    for path in files:
        split = split_in(path.stem, options.get("splits", ()))
        for row in read_rows(path, options.get("form", "llava")):
            if isinstance(row, Rejected):
                yield row
            else:
                yield _record(root, row, split, options)


def _record(root: Path, sample: Sample, split: str | None, options: dict[str, Any]) -> Record | Rejected:
    images = []
    for name in sample.images:
        image = inside(root, str(Path(options.get("images", "")) / name))
        if image is None:
            return Rejected(sample.id, "image outside the data folder", name)
        if not image.is_file():
            return Rejected(sample.id, "image missing", name)
        images.append(image)
    if not any(message["role"] == "assistant" for message in sample.messages):
        return Rejected(sample.id, "no answer", "no assistant turn to learn from")
    facts = {**sample.facts}
    if options.get("modality"):
        facts.setdefault("modality", options["modality"])
    extra = {key: value for key, value in sample.source.items() if key in ("extra", "mended", "original_id")}
    notes = tuple(("row mended", detail) for detail in sample.source.get("mended", ()))
    return Record(
        sample.id,
        images,
        facts,
        messages=[images_first(message) for message in sample.messages]
        if len(images) == 1
        else sample.messages,
        group=sample.images[0] if images else sample.id,
        split=sample.source.get("split") or split,
        licence=options.get("licence", ""),
        notes=notes,
        extra=extra,
    )


def images_first(message: dict[str, Any]) -> dict[str, Any]:
    """Moves a turn's pictures before its text, stripped, as the original code does before training."""
    pictures = [part for part in message["content"] if part["type"] == "image"]
    if not pictures:
        return message
    text = "".join(part.get("text", "") for part in message["content"] if part["type"] == "text").strip()
    return {"role": message["role"], "content": [*pictures, {"type": "text", "text": text}]}
