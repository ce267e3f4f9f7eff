"""Where articles and their pictures lie: unpacked packages, the current PMC layout, flat folders, archives.

* old PMC package: ``PMC13900/bcr-2-1-055.nxml`` with its pictures beside it, or the same as ``PMC13900.tar.gz``
* current PMC layout: ``PMC13900.1/PMC13900.1.xml`` with its media, and ``metadata/PMC13900.1.json``
* flat: ``NAME.xml`` with ``NAME.images/``; or many articles in one folder, pictures named after them

Archives are read member by member in memory; nothing of them is ever written to disk.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from medkit.errors import DataError
from medkit.readers.figures import files as names
from medkit.readers.figures.xml import MAX_BYTES

XML_ENDINGS = (".xml", ".nxml")
ARCHIVES = (".tar.gz", ".tgz", ".tar")
FOLDERS = ("images", "figures", "media", "img")
MAX_METADATA_BYTES = 4 * 1024 * 1024
_VERSIONED = re.compile(r"PMC(\d+)\.(\d+)")


@dataclass(frozen=True)
class Limits:
    """What an archive may hold: members, bytes of one member and of all, after unpacking."""

    members: int = 5_000
    member_bytes: int = 64 * 1024 * 1024
    bytes: int = 1024 * 1024 * 1024


@dataclass
class Source:
    """One article file with what belongs to it.

    Attributes:
        id: Its name below the root, without ending.
        path: The file, or the archive that holds it.
        data: The XML's bytes, or None to read ``path``.
        pictures: Name -> path, or bytes of an archive's member.
        shared: Names of pictures in a folder that holds other articles too.
        metadata: Of the current PMC layout, {} else.
        fault: Why it can't be read, or "".
    """

    id: str
    path: Path
    data: bytes | None = None
    pictures: dict[str, Path | bytes] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)
    metadata: dict[str, Any] = field(default_factory=dict)
    fault: str = ""

    def read(self) -> bytes:
        """Gives the XML's bytes, at most one more than the limit.

        Raises:
            OSError: It can't be read.
        """
        if self.data is not None:
            return self.data
        with self.path.open("rb") as file:
            return file.read(MAX_BYTES + 1)


def sources(root: Path) -> Iterator[Source]:
    """Gives every article file below a folder, sorted by path.

    Raises:
        DataError: The folder is missing.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give the folder that holds the articles")
    for parent, folders, found in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        visible = sorted(name for name in found if not name.startswith("."))
        articles = [name for name in visible if name.lower().endswith(XML_ENDINGS)]
        for name in articles:
            yield _file(root, Path(parent), name, visible, folders, len(articles))
        for name in visible:
            if name.lower().endswith(ARCHIVES):
                yield from archive(Path(parent, name), root)


def version_of(name: str) -> tuple[str, int] | None:
    """Gives ("13900", 2) of PMC13900.2, the current layout's name of an article's version."""
    match = _VERSIONED.fullmatch(PurePosixPath(name).name)
    return (match[1], int(match[2])) if match else None


def archive(path: Path, root: Path, limits: Limits = Limits()) -> Iterator[Source]:
    """Gives the articles of a packed package; links, devices and paths that lead out are never followed."""
    place = path.relative_to(root).as_posix()
    members: dict[str, bytes] = {}
    skipped = 0
    total = 0
    try:
        with tarfile.open(path, "r:*") as tar:
            for count, member in enumerate(tar):
                if count >= limits.members:
                    raise _TooMuch(f"more than {limits.members} members")
                name = PurePosixPath(member.name).name
                if not member.isfile() or not name or name.startswith("."):
                    skipped += 0 if member.isdir() else 1
                    continue
                if not name.lower().endswith((*XML_ENDINGS, *names.ENDINGS)):
                    # Skipping still unpacks the bytes, so they count.
                    total += member.size
                else:
                    if member.size > limits.member_bytes:
                        raise _TooMuch(f"a member of {member.size} bytes")
                    total += member.size
                    if total <= limits.bytes:
                        members[member.name] = _content(tar, member)
                if total > limits.bytes:
                    raise _TooMuch(f"more than {limits.bytes} bytes unpacked")
    except _TooMuch as error:
        yield Source(place, path, fault=f"archive refused: {error}")
        return
    except (tarfile.TarError, EOFError, OSError, ValueError, MemoryError) as error:
        yield Source(place, path, fault=f"archive unreadable: {type(error).__name__}")
        return
    articles = [name for name in members if name.lower().endswith(XML_ENDINGS)]
    if not articles:
        yield Source(place, path, fault="the archive holds no article")
    for name in articles:
        folder = PurePosixPath(name).parent
        pictures: dict[str, Path | bytes] = {
            PurePosixPath(other).name: data
            for other, data in members.items()
            if PurePosixPath(other).parent == folder and other.lower().endswith(names.ENDINGS)
        }
        beside = sum(PurePosixPath(other).parent == folder for other in articles)
        stem = PurePosixPath(name).stem
        base = place.removesuffix(next(one for one in ARCHIVES if place.lower().endswith(one)))
        source = Source(base if len(articles) == 1 else f"{base}/{stem}", path, members[name], pictures)
        source.shared = set(pictures) if beside > 1 else set()
        yield source


class _TooMuch(Exception):
    pass


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    if file is None:
        return b""
    with file:
        return file.read(member.size)


def _file(
    root: Path, parent: Path, name: str, visible: list[str], folders: list[str], articles: int
) -> Source:
    path = parent / name
    stem = name.rpartition(".")[0]
    source = Source((path.parent / stem).relative_to(root).as_posix(), path)
    source.pictures = {one: parent / one for one in visible if one.lower().endswith(names.ENDINGS)}
    if articles > 1:
        source.shared = set(source.pictures)
    for folder in folders:
        own = folder in (f"{stem}.images", f"{stem}_images", f"{stem}_files", stem)
        if own or (folder.lower() in FOLDERS):
            for one in sorted(os.listdir(parent / folder)):
                if one.lower().endswith(names.ENDINGS) and (own or one not in source.pictures):
                    source.pictures[one] = parent / folder / one
                    source.shared.discard(one)
                    if not own and articles > 1:
                        source.shared.add(one)
    source.metadata = _metadata(root, path, stem)
    return source


def _metadata(root: Path, path: Path, stem: str) -> dict[str, Any]:
    """Gives the article's metadata: beside it, or in a folder ``metadata`` up to the root."""
    places = [path.with_name(f"{stem}.json")]
    if version_of(stem):
        for folder in path.parents:
            places.append(folder / "metadata" / f"{stem}.json")
            if folder == root:
                break
    for place in places:
        try:
            if place.is_file() and place.stat().st_size <= MAX_METADATA_BYTES:
                content = json.loads(place.read_bytes())
                if isinstance(content, dict) and "pmcid" in content:
                    return content
        except (OSError, ValueError, RecursionError):
            continue
    return {}
