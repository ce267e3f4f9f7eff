"""Files of replies that grow while a model is asked: after a kill whole lines count, a torn end is cut off."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from medkit.arrow_files import write_atomically
from medkit.errors import MedkitError

Key = tuple[str, str, str]


def read_replies(path: Path) -> Iterator[tuple[Key, dict[str, Any]]]:
    """Gives the whole replies of a file and cuts off what follows the last whole line.

    Args:
        path: JSON Lines with ``benchmark``, ``control`` and ``id``, the key; it need not be there.
    """
    if not path.exists():
        return
    with path.open("r+b") as file:
        whole = 0
        for line in file:
            try:
                reply = json.loads(line)
                key = reply["benchmark"], reply["control"], reply["id"]
            except (ValueError, TypeError, KeyError):
                break
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            yield key, reply
        file.truncate(whole)


def append_replies(file: BinaryIO, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows in one go, on the disk when this returns."""
    file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    file.flush()
    os.fsync(file.fileno())


def claim(folder: Path, identity: dict[str, Any], name: str) -> None:
    """Makes a folder that of one task: what was answered for another must not count for it.

    Args:
        folder: Made where it is not there.
        identity: What makes the task, as JSON.
        name: File in the folder that keeps it.

    Raises:
        MedkitError: The folder belongs to another task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(identity, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    path = folder / name
    if not path.exists():
        write_atomically(path, text)
        return
    if path.read_text(encoding="utf-8") != text:
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            other = [key for key in identity if before.get(key) != identity[key]]
        except (ValueError, AttributeError):
            other = []
        raise MedkitError(
            f"{folder} belongs to another task (other {', '.join(other) or 'settings'}, see {name}); "
            f"give another --out"
        )


def forget_failed(folder: Path, partial: str, kept: str) -> None:
    """Puts the replies of a folder back to where asking goes on from, the failed ones left out."""
    path = folder / partial if (folder / partial).exists() else folder / kept
    rows = [reply for _, reply in read_replies(path) if "failed" not in reply]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(folder / partial, text)
