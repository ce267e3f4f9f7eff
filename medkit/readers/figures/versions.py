"""Of an article's versions in the current PMC layout only one is read."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from medkit.readers.figures.layout import MAX_METADATA_BYTES, XML_ENDINGS, version_of


def superseded(root: Path) -> dict[Path, str]:
    """Gives the article files that another version replaces, with that version's name.

    The publisher's version is preferred to an author manuscript, born-digital text to recognised scans, then
    the higher number: PMC's largest number alone may be a manuscript.
    """
    versions: dict[str, list[Path]] = defaultdict(list)
    for ending in XML_ENDINGS:
        for path in root.rglob(f"PMC*.*{ending}"):
            version = version_of(path.stem)
            if version:
                versions[version[0]].append(path)
    older: dict[Path, str] = {}
    for paths in versions.values():
        if len(paths) > 1:
            best = max(paths, key=lambda path: _rank(root, path))
            older.update({path: best.stem for path in paths if path != best})
    return older


def _rank(root: Path, path: Path) -> tuple[bool, bool, int]:
    metadata: dict[str, object] = {}
    for folder in path.parents:
        for place in (folder / "metadata" / f"{path.stem}.json", folder / f"{path.stem}.json"):
            if not metadata and place.is_file() and place.stat().st_size <= MAX_METADATA_BYTES:
                try:
                    content = json.loads(place.read_bytes())
                    metadata = content if isinstance(content, dict) else {}
                except (OSError, ValueError, RecursionError):
                    continue
        if folder == root:
            break
    version = version_of(path.stem)
    assert version is not None
    return not metadata.get("is_historical_ocr"), not metadata.get("is_manuscript"), version[1]
