"""Pictures with boxes: Pascal VOC (one XML a picture) and COCO (one JSON a split)."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from PIL import Image

from medkit.errors import DataError
from medkit.images import FORMATS
from medkit.readers import (
    Record,
    Rejected,
    check_options,
    group_of,
    ids_of,
    image_files,
    inside,
    split_in,
    split_of,
)
from medkit.readers.box_tables import box_rows
from medkit.readers.truths import coco_mask

OPTIONS = (
    "layout", "files", "columns", "incomplete", "complete", "rename", "modality", "group_pattern", "licence",
)  # fmt: skip
MAX_ANNOTATION_BYTES = 512 * 1024 * 1024
MAX_XML_BYTES = 16 * 1024 * 1024
# A label, its corners as written, and what else an annotation tells of it.
Mark = tuple[str, list[Any], dict[str, Any]]


def read(root: Path, options: dict[str, Any]) -> Iterator[Record | Rejected]:
    """Reads pictures with boxes.

    Options:
        layout: "voc", "coco", "table" (a row a box), or "auto" (default): voc where the folder has XML files, else
            coco.
        files: With table: pattern of the tables ("*.csv"); ``{split}`` in it stands for the split's name.
        columns: With table: role -> column, for what isn't named as usual. Roles: image, label, left, top and right,
            bottom or width, height; in px.
        complete: Whether every object of the annotated kinds has a box (true). False: the absence of a box
            proves nothing.
        incomplete: Labels of which not every object was boxed; they go into ``facts["incomplete"]``.
        rename: Source label -> label.
        modality, group_pattern, licence: As in class_folders.

    Of COCO, masks (polygons, run lengths) go into ``objects`` as ``mask`` with their ``area`` as a share of the
    picture, and text attributes as ``attributes``.

    Boxes without area, outside the picture or with broken numbers are skipped and told in the ledger; their
    picture stays.

    Raises:
        DataError: The folder is missing or holds no annotation.
    """
    check_options("boxes", options, OPTIONS)
    root = Path(root)
    layout = options.get("layout", "auto")
    if layout not in ("auto", "voc", "coco", "table"):
        raise DataError(f"reader boxes: layout {layout!r} is none of auto, voc, coco, table")
    files = image_files(root)
    annotations = sorted(path for path in root.rglob("*.xml") if not path.name.startswith("."))
    if layout == "table":
        yield from _read_table(root, files, options)
    elif layout == "voc" or (layout == "auto" and annotations):
        if not annotations:
            raise DataError(f"{root} holds no Pascal VOC annotation (*.xml)")
        yield from _read_voc(root, files, annotations, options)
    else:
        yield from _read_coco(root, files, options)


def _read_table(root: Path, files: list[Path], options: dict[str, Any]) -> Iterator[Record | Rejected]:
    used = set()
    for item in box_rows(root, files, options):
        if isinstance(item, Rejected):
            yield item
            continue
        name, image, split, boxes = item
        if image is None:
            yield Rejected(name or "row without a picture", "image missing", "")
            continue
        used.add(image)
        split = split or split_of(image, root, options.get("splits", ()))
        try:
            marks: list[Mark] = [(label, corners, {}) for label, corners in boxes]
            yield _record(Path(name).stem, image, _header_size(image), marks, split, options)
        except _Refused as error:
            yield Rejected(Path(name).stem, "image unreadable", str(error))
    for path in files:
        if path not in used:
            yield Rejected(path.relative_to(root).as_posix(), "no annotation")


class _Refused(Exception):
    """An annotation that is not read; the message is the ledger's detail."""


def _read_voc(
    root: Path, files: list[Path], annotations: list[Path], options: dict[str, Any]
) -> Iterator[Record | Rejected]:
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        by_stem[path.stem].append(path)
    ids = ids_of(annotations, root)
    lists = _split_lists(root)
    used = set()
    for annotation in annotations:
        record_id = ids[annotation]
        image = _nearest(annotation, by_stem.get(annotation.stem, []))
        if image is None:
            yield Rejected(record_id, "image missing", f"no picture named {annotation.stem}.*")
            continue
        used.add(image)
        try:
            size, boxes = _parse_voc(annotation)
            size = size or _header_size(image)
        except _Refused as error:
            yield Rejected(record_id, "annotation unreadable", str(error))
            continue
        split = split_of(annotation, root, options.get("splits", ())) or lists.get(annotation.stem)
        yield _record(record_id, image, size, boxes, split, options)
    for path in files:
        if path not in used:
            yield Rejected(path.relative_to(root).as_posix(), "no annotation")


class _NoDoctype(ElementTree.TreeBuilder):
    # Entities (and with them the billion laughs and external files) need a DOCTYPE; annotations have none.
    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise _Refused("the XML declares a DOCTYPE, which annotations don't need")


def _parse_voc(path: Path) -> tuple[tuple[float, float] | None, list[Mark]]:
    """Gives the declared size (None when absent) and the boxes as (label, [x0, y0, x1, y1] as written)."""
    try:
        if path.stat().st_size > MAX_XML_BYTES:
            raise _Refused(f"the XML is larger than {MAX_XML_BYTES} bytes")
        tree = ElementTree.fromstring(path.read_bytes(), parser=ElementTree.XMLParser(target=_NoDoctype()))
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise _Refused(f"{type(error).__name__}: {error}") from None
    width, height = (_number(tree.findtext(f"size/{side}")) for side in ("width", "height"))
    size = (width, height) if width and height and width > 0 and height > 0 else None
    boxes = []
    for item in tree.iter("object"):
        corners = [item.findtext(f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
        boxes.append(((item.findtext("name") or "").strip(), corners, {}))
    return size, boxes


def _nearest(annotation: Path, candidates: list[Path]) -> Path | None:
    """Chooses the picture that shares most of the annotation's folders (the same split's, not another's)."""
    shared = [
        sum(1 for a, b in zip(annotation.parts, path.parts, strict=False) if a == b) for path in candidates
    ]
    return candidates[shared.index(max(shared))] if candidates else None


def _split_lists(root: Path) -> dict[str, str]:
    """Reads VOC's ImageSets/Main/{train,val,test}.txt: picture name -> split."""
    lists: dict[str, str] = {}
    for folder in root.rglob("ImageSets/Main"):
        for name in ("train", "val", "test"):
            path = folder / f"{name}.txt"
            if path.is_file():
                words = path.read_text(encoding="utf-8", errors="replace").split()
                lists.update({word: name for word in words})
    return lists


def _read_coco(root: Path, files: list[Path], options: dict[str, Any]) -> Iterator[Record | Rejected]:
    found = False
    for path in sorted(root.rglob("*.json")):
        content = _coco_content(path)
        if content is None:
            continue
        found = True
        if isinstance(content, str):
            yield Rejected(path.relative_to(root).as_posix(), "annotation unreadable", content)
            continue
        known = options.get("splits", ())
        split = split_in(re.sub(r"\d+", " ", path.stem), known) or split_of(path, root, known)
        yield from _coco_records(root, path, content, split, files, options)
    if not found:
        raise DataError(
            f"{root} holds neither Pascal VOC (*.xml) nor COCO (*.json with images and annotations) boxes"
        )


def _coco_content(path: Path) -> dict[str, Any] | str | None:
    """Gives a COCO file's content, what is wrong with it, or None for JSON that is something else."""
    if path.stat().st_size > MAX_ANNOTATION_BYTES:
        return f"larger than {MAX_ANNOTATION_BYTES} bytes"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"
    if not isinstance(content, dict) or "images" not in content or "annotations" not in content:
        return None
    if not isinstance(content["images"], list) or not isinstance(content["annotations"], list):
        return "images and annotations must be lists"
    return content


def _coco_records(
    root: Path,
    path: Path,
    content: dict[str, Any],
    split: str | None,
    files: list[Path],
    options: dict[str, Any],
) -> Iterator[Record | Rejected]:
    names = {
        item.get("id"): str(item.get("name", ""))
        for item in content.get("categories", [])
        if isinstance(item, dict)
    }
    boxes: dict[Any, list[Mark]] = defaultdict(list)
    for item in content["annotations"]:
        box = item.get("bbox") if isinstance(item, dict) else None
        if (
            not isinstance(item, dict)
            or not isinstance(item.get("image_id"), str | int)
            or item.get("iscrowd")
        ):
            continue
        x, y, width, height = (
            [_number(value) for value in box] if isinstance(box, list) and len(box) == 4 else [None] * 4
        )
        corners = [
            x,
            y,
            None if x is None or width is None else x + width,
            None if y is None or height is None else y + height,
        ]
        told = item.get("attributes")
        told = told if isinstance(told, dict) else {}
        more = {
            "attributes": {str(name): value for name, value in told.items() if isinstance(value, str)},
            "segmentation": item.get("segmentation"),
        }
        category = item.get("category_id")
        label = names.get(category, "") if isinstance(category, str | int) else ""
        boxes[item["image_id"]].append((label, corners, more))
    by_name = {file.name: file for file in files}
    for row, item in enumerate(content["images"]):
        if not isinstance(item, dict) or not isinstance(item.get("file_name"), str):
            yield Rejected(f"{path.name}:images[{row}]", "record unreadable", "no file_name")
            continue
        name = item["file_name"]
        image = inside(path.parent, name) or inside(root, name)
        if image is None or not image.is_file():
            image = by_name.get(Path(name).name)
        if image is None:
            yield Rejected(Path(name).stem, "image missing", name)
            continue
        width, height = _number(item.get("width")), _number(item.get("height"))
        try:
            size = (width, height) if width and height and width > 0 and height > 0 else _header_size(image)
        except _Refused as error:
            yield Rejected(Path(name).stem, "image unreadable", str(error))
            continue
        yield _record(Path(name).stem, image, size, boxes.get(item.get("id"), []), split, options)


def _record(
    record_id: str,
    image: Path,
    size: tuple[float, float],
    boxes: list[Mark],
    split: str | None,
    options: dict[str, Any],
) -> Record:
    rename = options.get("rename", {})
    objects, notes = [], []
    for label, corners, more in boxes:
        label = str(rename.get(label, label))
        mask, around, said = coco_mask(more.get("segmentation"), size)
        if said:
            notes.append(("mask left out" if mask is None else "long mask", f"{label}: {said}"))
        if around is not None and all(corner is None for corner in corners):
            corners = around
        box, fault = _normalised(corners, size)
        if not label:
            notes.append(("box without label", f"{corners}"))
        elif box is None:
            notes.append((fault, f"{label} at {', '.join(str(corner) for corner in corners)}"))
        else:
            made: dict[str, Any] = {"label": label, "box": box, "attributes": more.get("attributes", {})}
            objects.append(made if mask is None else {**made, "mask": mask})
    facts: dict[str, Any] = {
        "labels": {},
        "objects": objects,
        "complete": bool(options.get("complete", True)),
    }
    if options.get("incomplete"):
        facts["incomplete"] = [str(rename.get(label, label)) for label in options["incomplete"]]
    if options.get("modality"):
        facts["modality"] = options["modality"]
    group = group_of(record_id, options.get("group_pattern"))
    return Record(
        record_id,
        image,
        facts,
        group=group,
        split=split,
        licence=options.get("licence", ""),
        notes=tuple(notes),
    )


def _normalised(corners: list[Any], size: tuple[float, float]) -> tuple[list[float] | None, str]:
    """Gives a box in 0..1 of the annotated size, or None with the reason for the ledger."""
    numbers = [_number(corner) for corner in corners]
    x0, y0, x1, y1 = numbers
    if x0 is None or y0 is None or x1 is None or y1 is None:
        return None, "box unreadable"
    if x1 <= x0 or y1 <= y0:
        return None, "zero-size box"
    width, height = size
    box = [
        min(max(value / side, 0.0), 1.0)
        for value, side in zip((x0, y0, x1, y1), (width, height) * 2, strict=True)
    ]
    if box[2] <= box[0] or box[3] <= box[1]:
        return None, "box outside the image"
    return [round(value, 6) for value in box], ""


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _header_size(path: Path) -> tuple[float, float]:
    try:
        with Image.open(path, formats=FORMATS) as image:
            return float(image.width), float(image.height)
    except Exception as error:
        raise _Refused(f"the picture's size can't be read ({type(error).__name__})") from None
