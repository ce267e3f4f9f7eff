"""Files of conversations in the forms of other tools, read and written; see ``medkit.readers.formats``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from medkit.errors import DataError
from medkit.readers import Rejected
from medkit.readers.formats import check_form, from_row, id_or, to_row
from medkit.sample import Sample
from medkit.store import Dataset, write_atomically


def read_rows(path: Path, form: str) -> Iterator[Sample | Rejected]:
    """Reads a file: a JSON list, JSON Lines, or Parquet (by its suffix).

    Args:
        path: The file. For "sharegpt" a ``dataset_info.json`` beside it is followed where it names the file.
        form: One of ``FORMS``.

    Raises:
        DataError: The file can't be read as a whole.
    """
    check_form(form)
    path = Path(path)
    described = _described(path) if form == "sharegpt" else {}
    for number, row in _raw_rows(path):
        place = f"{path.name}:{number}"
        if not isinstance(row, dict):
            yield Rejected(place, "row unreadable", str(row) if isinstance(row, str) else "not an object")
            continue
        try:
            yield from_row(_renamed(row, described) if form == "sharegpt" else row, form, place)
        except (DataError, KeyError, TypeError, ValueError, AttributeError) as error:
            yield Rejected(id_or(row, place), "row unreadable", f"{place}: {error}")


def write_rows(samples: Iterable[Sample], path: Path, form: str) -> int:
    """Writes samples in a form: ``.jsonl`` as JSON Lines, ``.parquet`` as Parquet, else a JSON list.

    "sharegpt" also writes or extends LLaMA-Factory's ``dataset_info.json`` beside the file.

    Returns:
        How many rows were written.
    """
    check_form(form)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [to_row(sample, form) for sample in samples]
    if path.suffix == ".parquet":
        _write_parquet(rows, path)
    elif path.suffix == ".jsonl":
        write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    else:
        write_atomically(path, json.dumps(rows, ensure_ascii=False, indent=1))
    if form == "sharegpt":
        _describe(path)
    return len(rows)


def export(
    dataset: Dataset,
    out: Path,
    form: str,
    kinds: Iterable[str] | None = None,
    splits: Iterable[str] | None = None,
) -> Path:
    """Writes a dataset folder for another tool: one file of rows and the pictures beside it.

    Returns:
        The file of rows, ``out/NAME.json`` or ``.jsonl``; pictures are in ``out/images``.
    """
    out = Path(out)
    folder = out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, str] = {}
    samples = []
    for index in dataset.select(kinds, splits):
        sample = dataset[index]
        if not sample.messages:
            continue
        for ref in sample.images:
            if ref not in names:
                data = dataset.image_bytes(ref)
                names[ref] = f"images/{ref}.{_suffix(data)}"
                (out / names[ref]).write_bytes(data)
        images = [names[ref] for ref in sample.images]
        samples.append(Sample(sample.id, sample.messages, images, sample.facts, sample.source))
    path = out / f"{dataset.summary['name']}.{'jsonl' if form in ('swift', 'messages') else 'json'}"
    write_rows(samples, path, form)
    return path


def _raw_rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        if path.suffix == ".parquet":
            yield from _parquet_rows(path)
            return
        if path.suffix == ".jsonl":
            with path.open(encoding="utf-8-sig") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield number, _loaded(line)
            return
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} can't be read ({error})") from None
    if not isinstance(content, list):
        raise DataError(f"{path} holds no list of rows")
    yield from enumerate(content, 1)


def _loaded(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"no JSON ({error})"


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    for batch in parquet.ParquetFile(path).iter_batches():
        for row in batch.to_pylist():
            number += 1
            for turn in row.get("messages") or []:
                if isinstance(turn.get("content"), list):
                    turn["content"] = [
                        {k: v for k, v in part.items() if v is not None} for part in turn["content"]
                    ]
            rest = row.pop("rest", None)
            yield number, {**{k: v for k, v in row.items() if v is not None}, **json.loads(rest or "{}")}


def _write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    """Writes id, images and turns as columns; everything else as one JSON column, since rows differ in it."""
    table = []
    for row in rows:
        rest = {
            key: value for key, value in row.items() if key not in ("images", "messages", "conversations")
        }
        columns = {key: row[key] for key in ("images", "messages", "conversations") if key in row}
        table.append({"id": id_or(row, ""), **columns, "rest": json.dumps(rest, ensure_ascii=False)})
    partial = path.with_name(path.name + ".partial")
    parquet.write_table(pa.Table.from_pylist(table), partial)
    partial.replace(path)


def _described(path: Path) -> dict[str, Any]:
    """Gives the entry of LLaMA-Factory's dataset_info.json for a file, or {}."""
    info = path.parent / "dataset_info.json"
    try:
        entries = json.loads(info.read_text(encoding="utf-8")) if info.is_file() else {}
    except ValueError:
        return {}
    return next((entry for entry in entries.values() if entry.get("file_name") == path.name), {})


def _renamed(row: dict[str, Any], described: dict[str, Any]) -> dict[str, Any]:
    """Brings a row's columns and tags, as dataset_info.json names them, to ShareGPT's own."""
    columns, tags = described.get("columns", {}), described.get("tags", {})
    for ours, key in (("conversations", "messages"), ("images", "images"), ("system", "system")):
        name = columns.get(key)
        if name and name != ours and name in row:
            row = {**{k: v for k, v in row.items() if k != name}, ours: row[name]}
    if "messages" in row and "conversations" not in row:
        row = {**{k: v for k, v in row.items() if k != "messages"}, "conversations": row["messages"]}
    if tags and isinstance(row.get("conversations"), list):
        who, what = tags.get("role_tag", "from"), tags.get("content_tag", "value")
        names = {tags.get("user_tag", "human"): "human", tags.get("assistant_tag", "gpt"): "gpt",
                 tags.get("system_tag", "system"): "system"}  # fmt: skip
        turns = [
            {"from": names.get(turn[who], turn[who]), "value": turn[what]} for turn in row["conversations"]
        ]
        row = {**row, "conversations": turns}
    return row


def _describe(path: Path) -> None:
    info = path.parent / "dataset_info.json"
    try:
        entries = json.loads(info.read_text(encoding="utf-8")) if info.is_file() else {}
    except ValueError:
        raise DataError(f"{info} is no JSON; mend or remove it") from None
    entries[re.sub(r"\W+", "_", path.stem)] = {
        "file_name": path.name,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "images": "images"},
        "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt",
                 "system_tag": "system"},
    }  # fmt: skip
    write_atomically(info, json.dumps(entries, indent=1, ensure_ascii=False))


def _suffix(data: bytes) -> str:
    if data.startswith(b"\x89PNG"):
        return "png"
    return "jpg" if data.startswith(b"\xff\xd8") else "webp"
