"""Pictures in NumPy archives (``SPLIT.npz``: images, labels), or as PNG with the class in the name."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medkit.errors import DataError
from medkit.readers import (
    Record,
    Rejected,
    check_options,
    group_of,
    ids_of,
    image_files,
    split_in,
    split_of,
)

OPTIONS = (
    "layout", "images", "labels", "source", "names", "label_pattern", "attribute", "modality", "rename",
    "group_pattern", "licence",
)  # fmt: skip
MAX_ARRAY_BYTES = 8 * 1024**3


def read(root: Path, options: dict[str, Any]) -> Iterator[Record | Rejected]:
    """Reads arrays of pictures with class numbers, or a PNG folder with the class in each name.

    Options:
        layout: "npz", "png", or "auto" (default): npz where the folder has one, else png.
        images, labels, source: Names of the arrays ("images", "labels", "source"); source is optional.
        names: File with the list of class names ("labels.json"), looked for here and one folder up.
        rename: Class name -> the name to use.
        label_pattern: Regular expression on the PNG's name; its first group is the class number or name.
        attribute, modality, group_pattern, licence: As in class_folders.

    Raises:
        DataError: The folder is missing, holds neither, or an archive lacks its arrays.
    """
    check_options("arrays", options, OPTIONS)
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give the folder that holds the .npz files or the PNG folders")
    layout = options.get("layout", "auto")
    if layout not in ("auto", "npz", "png"):
        raise DataError(f"reader arrays: layout {layout!r} is none of auto, npz, png")
    archives = sorted(root.glob("*.npz"))
    names = _class_names(root, options)
    if layout == "npz" or (layout == "auto" and archives):
        if not archives:
            raise DataError(f"{root} holds no .npz file")
        for archive in archives:
            yield from _read_archive(archive, names, options)
    else:
        yield from _read_pictures(root, names, options)


def _class_names(root: Path, options: dict[str, Any]) -> list[str] | None:
    for path in (
        root / options.get("names", "labels.json"),
        root.parent / options.get("names", "labels.json"),
    ):
        if path.is_file():
            try:
                names = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise DataError(f"{path} is no JSON ({error})") from None
            if isinstance(names, dict):
                names = [names[key] for key in sorted(names, key=lambda key: int(key))]
            rename = options.get("rename", {})
            return [str(rename.get(name, name)) for name in names]
    return None


def _read_archive(
    path: Path, names: list[str] | None, options: dict[str, Any]
) -> Iterator[Record | Rejected]:
    images, labels, sources = _load(path, options)
    split = split_in(path.stem, options.get("splits", ())) or path.stem
    for index in range(len(images)):
        record_id = f"{path.stem}-{index:06d}"
        facts = _facts(labels[index].item(), names, options)
        if isinstance(facts, str):
            yield Rejected(record_id, "unknown class", facts)
            continue
        extra = {"file": str(sources[index])} if sources is not None else {}
        yield Record(
            record_id,
            images[index],
            facts,
            group=group_of(extra.get("file", record_id), options.get("group_pattern"))
            if extra
            else record_id,
            split=split,
            licence=options.get("licence", ""),
            extra=extra,
        )


def _load(path: Path, options: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    keys = [options.get(key, key) for key in ("images", "labels", "source")]
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_ARRAY_BYTES:
            raise DataError(f"{path} unfolds to {size} bytes, more than the limit of {MAX_ARRAY_BYTES}")
        # Pickled objects inside an archive could run code.
        with np.load(path, allow_pickle=False) as arrays:
            missing = [key for key in keys[:2] if key not in arrays.files]
            if missing:
                raise DataError(f"{path} has no array {', '.join(missing)}; it has {', '.join(arrays.files)}")
            images, labels = arrays[keys[0]], arrays[keys[1]]
            sources = arrays[keys[2]] if keys[2] in arrays.files else None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} can't be read as an .npz archive ({error})") from None
    lengths = [len(part) for part in (images, labels, sources) if part is not None]
    if images.ndim not in (3, 4) or len(set(lengths)) != 1:
        raise DataError(
            f"{path}: images {list(images.shape)} and labels {list(labels.shape)} don't belong together"
        )
    return images, labels.reshape(len(labels), -1)[:, 0], sources


def _read_pictures(
    root: Path, names: list[str] | None, options: dict[str, Any]
) -> Iterator[Record | Rejected]:
    pattern = re.compile(options.get("label_pattern", r"_label(\w+)$"))
    files = image_files(root)
    if not files:
        raise DataError(f"{root} holds neither .npz files nor pictures")
    ids = ids_of(files, root)
    for path in files:
        match = pattern.search(path.stem)
        if match is None:
            yield Rejected(ids[path], "no class in the file name", path.name)
            continue
        word = match.group(1)
        facts = _facts(int(word) if word.isdigit() else word, names, options)
        if isinstance(facts, str):
            yield Rejected(ids[path], "unknown class", facts)
            continue
        yield Record(
            ids[path],
            path,
            facts,
            group=group_of(ids[path], options.get("group_pattern")),
            split=split_of(path, root, options.get("splits", ())),
            licence=options.get("licence", ""),
        )


def _facts(label: Any, names: list[str] | None, options: dict[str, Any]) -> dict[str, Any] | str:
    """Gives the facts of a class, or what is wrong with it as a string."""
    if names is not None and isinstance(label, int):
        if not 0 <= label < len(names):
            return f"class number {label}, but only {len(names)} names"
        label = names[label]
    facts: dict[str, Any] = {
        "labels": {options.get("attribute", "class"): str(label)},
        "objects": [],
        "complete": False,
    }
    if options.get("modality"):
        facts["modality"] = options["modality"]
    return facts
