"""Rows of a benchmark's tables: CSV, TSV, JSON, JSON Lines or Parquet, in the wrappings that they circulate in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.readers import SPLIT_NAMES
from medkit.readers.table import table_rows

# Under these keys published JSON files hold their list of rows, beside remarks on the set.
WRAPPERS = ("data", "questions", "annotations", "rows")
_PARQUET_ROWS = 64


def rows_of(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Gives (number, row) or (number, what is wrong with it).

    JSON may be a list, lines, rows by their id, a list under one of ``WRAPPERS``, or lists by the name of their
    split, which then is the rows' ``split``.

    Raises:
        DataError: The file can't be read as what its ending says.
    """
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
    elif path.suffix != ".json":
        yield from table_rows(path)
    else:
        content = _unwrapped(_json(path))
        for number, row in enumerate(content if isinstance(content, list) else [content], 1):
            yield number, row if isinstance(row, dict) else "not an object"


def _json(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is no JSON: it is no UTF-8 text") from None
    try:
        return json.loads(text)
    except ValueError:
        content = [_line(line) for line in text.splitlines() if line.strip()]
        if not any(isinstance(row, dict) for row in content):
            raise DataError(f"{path} is no JSON") from None
        return content
    except RecursionError:
        raise DataError(f"{path} is no JSON: it is nested too deeply") from None


def _unwrapped(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    if content and all(isinstance(row, dict) for row in content.values()):
        return [{"id": key, **row} for key, row in content.items()]
    if content and all(key in SPLIT_NAMES and isinstance(rows, list) for key, rows in content.items()):
        return [
            {"split": key, **row} if isinstance(row, dict) else row
            for key, rows in content.items()
            for row in rows
        ]
    return next((content[key] for key in WRAPPERS if isinstance(content.get(key), list)), content)


def _line(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} can't be read as Parquet ({error})") from None
