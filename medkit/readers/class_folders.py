"""Pictures in one folder a class: ``CLASS/*.jpg``, ``SPLIT/CLASS/*.jpg``, ``SPLIT/images/CLASS/*.jpg``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.readers import Record, Rejected, check_options, group_of, ids_of, image_files, split_of

OPTIONS = ("attribute", "classes", "modality", "group_pattern", "licence")


def read(root: Path, options: dict[str, Any]) -> Iterator[Record | Rejected]:
    """Reads pictures whose folder is their class.

    Options:
        attribute: Name of the label ("class").
        classes: Folder name -> class name; folders that it lacks are rejected. Without it every folder is
        a class.
        modality: Written into the facts.
        group_pattern: Regular expression whose first group, found in the id, is the record's group.
        licence: The source's licence.

    Raises:
        DataError: The folder is missing or holds no picture in a class folder.
    """
    check_options("class_folders", options, OPTIONS)
    root = Path(root)
    files = image_files(root)
    if not any(path.parent != root for path in files):
        raise DataError(
            f"{root} holds no picture inside a class folder; expected SPLIT/CLASS/*.jpg or CLASS/*.jpg"
        )
    ids = ids_of(files, root)
    classes = options.get("classes")
    for path in files:
        if path.parent == root:
            yield Rejected(ids[path], "no class folder", path.name)
            continue
        folder = path.parent.name
        if classes is not None and folder not in classes:
            yield Rejected(ids[path], "unknown class", folder)
            continue
        label = classes[folder] if classes else folder
        facts: dict[str, Any] = {"labels": {options.get("attribute", "class"): str(label)}, "objects": []}
        # No object was annotated, so nothing follows from an empty list.
        facts["complete"] = False
        if options.get("modality"):
            facts["modality"] = options["modality"]
        # The class folder's own name never names a split: a class may be called "test".
        split = split_of(path.parent, root, options.get("splits", ()))
        yield Record(
            ids[path],
            path,
            facts,
            group=group_of(ids[path], options.get("group_pattern")),
            split=split,
            licence=options.get("licence", ""),
        )
