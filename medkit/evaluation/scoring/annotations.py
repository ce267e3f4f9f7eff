"""What the user's own labellers said of generated reports and their references, read from files and joined by id.

medkit runs neither CheXbert nor RadGraph: weights and licences are the user's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medkit.errors import DataError

from .answer_files import IDS, Row, first_of, read_rows
from .findings import BLANK, CONDITIONS, NEGATIVE, POSITIVE, UNCERTAIN
from .profile import Item
from .profile_labelled import CHEXBERT, RADGRAPH

REPLY, REFERENCE = "reply", "reference"
SIDES = (REPLY, REFERENCE)
EXAMPLES = 5
# Columns whose name says the side. The others are of the side that the row or the file states.
CLASSES = {"hypothesis_classes": REPLY, "reference_classes": REFERENCE, "classes": ""}
LABELS = {"reference_labels": REFERENCE, "labels": ""}
GRAPHS = {"hypothesis": REPLY, "reference": REFERENCE, "reference_radgraph": REFERENCE, "radgraph": ""}
# As CheXbert's and CheXpert's CSV files write a label.
CELLS = {
    "": BLANK, "nan": BLANK, "none": BLANK, "blank": BLANK, "1": POSITIVE, "1.0": POSITIVE, "positive": POSITIVE,
    "0": NEGATIVE, "0.0": NEGATIVE, "negative": NEGATIVE, "-1": UNCERTAIN, "-1.0": UNCERTAIN,
    "uncertain": UNCERTAIN,
}  # fmt: skip

Key = tuple[str, str]
Annotations = dict[Key, dict[str, dict[str, Any]]]


def read_annotations(paths: Sequence[Path], reference_paths: Sequence[Path] = ()) -> Annotations:
    """Reads labels and annotations, by (benchmark or "", id), then labeller, then side.

    A file is CSV, JSON Lines, a JSON list, or a JSON object of RadGraph annotations by id. A row has an ``id``
    and any of:

    - the fourteen conditions as columns, or ``labels`` (condition to label): blank, 1, 0 or -1 as CheXbert writes
      them (positive, negative, uncertain), or these words;
    - ``classes``: CheXbert's fourteen class numbers in its order (0 blank, 1 positive, 2 negative, 3 uncertain),
      ``hypothesis_classes`` and ``reference_classes`` for both sides at once;
    - ``radgraph`` (or ``entities`` itself): ``{entities: {id: {tokens, label, relations}}}``; ``hypothesis`` and
      ``reference`` for both sides at once.

    Args:
        paths: Files about the replies; a row's ``side: reference`` makes it one about the reference.
        reference_paths: Files about the references.

    Raises:
        DataError: A file can't be read, a row has no id or no annotation, a value is none that the labeller
            writes, or the same thing is said twice.
    """
    found: Annotations = {}
    files = [(path, REPLY) for path in paths] + [(path, REFERENCE) for path in reference_paths]
    for path, side in files:
        for number, row in enumerate(_rows(path), start=1):
            where = f"{path}: row {number}"
            name = first_of(row, IDS)
            if name is None:
                raise DataError(f"{where} has no id; it needs one of {', '.join(IDS)}")
            key = str(row.get("benchmark") or ""), str(name)
            for labeller, stated, value in _said(row, where):
                _put(found, key, (labeller, stated or _side(row, side, where)), value, where)
    return found


def annotate(
    items: Mapping[str, Sequence[Item]], annotations: Annotations
) -> tuple[dict[str, list[Item]], dict[str, dict[str, Any]]]:
    """Joins annotations to answers by benchmark and id; nothing is filled in.

    Args:
        items: Answers by benchmark.
        annotations: As ``read_annotations`` gives them; those without a benchmark count for every one.

    Returns:
        The items, and by benchmark and labeller ``{scored, missing, missing_reply, missing_reference, examples}``:
        how many answers have both sides, how many lack one or both, which side, and up to five ids that do.
        Expected are reports, or all answers of a benchmark without any; answers that failed are not. A labeller
        that annotated nothing of a benchmark is not listed.

    Raises:
        DataError: No answer has both sides of any annotation.
    """
    joined: dict[str, list[Item]] = {}
    counts: dict[str, dict[str, Any]] = {}
    for benchmark, own in items.items():
        given = [_of(item, benchmark, annotations) for item in own]
        joined[benchmark] = [
            replace(item, labelled={name: _pair(sides) for name, sides in said.items() if len(sides) == 2})
            for item, said in zip(own, given, strict=True)
        ]
        reports = any(item.answer_type == "report" for item in own)
        expected = [
            (item, said)
            for item, said in zip(own, given, strict=True)
            if not item.failed and (item.answer_type == "report" or not reports)
        ]
        for labeller in (CHEXBERT, RADGRAPH):
            if any(labeller in said for said in given):
                counts.setdefault(benchmark, {})[labeller] = _counts(expected, labeller)
    if not any(count["scored"] for own in counts.values() for count in own.values()):
        raise DataError(
            "no answer has an annotation of both its reply and its reference: give files of both, with the ids of "
            "the answers"
        )
    return joined, counts


def unused(items: Mapping[str, Sequence[Item]], annotations: Annotations) -> int:
    """Gives how many annotated ids belong to no answer, or to one without a reply."""
    known = {(name, item.id) for name, own in items.items() for item in own if not item.failed}
    known |= {("", name) for _, name in known}
    return sum(key not in known for key in annotations)


def _rows(path: Path) -> list[Row]:
    if path.suffix.lower() == ".json":
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError):
            content = None  # read_rows says what is wrong
        if isinstance(content, dict) and content and all(_is_graph(one) for one in content.values()):
            return [{"id": key, "radgraph": one} for key, one in content.items()]
    return read_rows(path)


def _is_graph(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("entities"), dict)


def _side(row: Row, default: str, where: str) -> str:
    side = str(row.get("side") or default).strip().lower()
    if side not in SIDES:
        raise DataError(f"{where}: the side {side!r} is neither reply nor reference")
    return side


def _said(row: Row, where: str) -> list[tuple[str, str, Any]]:
    """Gives (labeller, side or "", value) of everything that a row says."""
    found: list[tuple[str, str, Any]] = []
    for column, side in CLASSES.items():
        if row.get(column) not in (None, ""):
            found.append((CHEXBERT, side, _classes(_decoded(row[column]), f"{where}: {column}")))
    for column, side in LABELS.items():
        if row.get(column) not in (None, ""):
            found.append((CHEXBERT, side, _labels(_decoded(row[column]), f"{where}: {column}")))
    if any(name in row for name in CONDITIONS):
        found.append((CHEXBERT, "", _labels(row, where)))
    for column, side in GRAPHS.items():
        # ``reference`` may also be the text of the reference.
        value = _decoded(row.get(column))
        if isinstance(value, dict) or (column.endswith("radgraph") and value not in (None, "")):
            found.append((RADGRAPH, side, _graph(value, f"{where}: {column}")))
    if "entities" in row:
        found.append((RADGRAPH, "", _graph({"entities": _decoded(row["entities"])}, where)))
    if not found:
        raise DataError(
            f"{where} has no annotation: it needs CheXbert's {len(CONDITIONS)} conditions, labels, classes, or "
            f"radgraph"
        )
    return found


def _decoded(value: Any) -> Any:
    """Gives the value that a CSV cell with JSON holds."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _classes(value: Any, where: str) -> list[int]:
    whole = isinstance(value, list) and len(value) == len(CONDITIONS)
    if not whole or any(type(one) is not int or not BLANK <= one <= UNCERTAIN for one in value):
        raise DataError(
            f"{where} is no list of {len(CONDITIONS)} class numbers from 0 to 3 (blank, positive, negative, uncertain)"
        )
    return value


def _labels(value: Any, where: str) -> list[int]:
    missing = [name for name in CONDITIONS if not isinstance(value, dict) or name not in value]
    if missing:
        raise DataError(f"{where} lacks the condition {missing[0]}; all {len(CONDITIONS)} are needed")
    found = []
    for name in CONDITIONS:
        cell = "" if value[name] is None else str(value[name]).strip().lower()
        if cell not in CELLS:
            raise DataError(
                f"{where}: {name} is {value[name]!r}; a label is blank, 1, 0 or -1, as CheXbert writes them (class "
                f"numbers go into a list named classes)"
            )
        found.append(CELLS[cell])
    return found


def _graph(value: Any, where: str) -> dict[str, Any]:
    if not _is_graph(value):
        raise DataError(f"{where} is no RadGraph annotation {{entities: {{id: ...}}}}")
    entities = value["entities"]
    for name, entity in entities.items():
        relations = entity.get("relations") if isinstance(entity, dict) else None
        texts = isinstance(entity, dict) and all(
            isinstance(entity.get(key), str) for key in ("tokens", "label")
        )
        fine = isinstance(relations, list) and all(
            isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) and str(one[1]) in entities
            for one in relations
        )
        if not texts or not fine:
            raise DataError(
                f"{where}: entity {name} needs tokens, a label and relations, pairs of a kind and another entity"
            )
    whole = {
        name: {**entity, "relations": [[kind, str(to)] for kind, to in entity["relations"]]}
        for name, entity in entities.items()
    }
    return {"entities": whole}


def _put(found: Annotations, key: Key, place: tuple[str, str], value: Any, where: str) -> None:
    sides = found.setdefault(key, {}).setdefault(place[0], {})
    if place[1] in sides:
        raise DataError(f"{where}: {key[1]} has {place[0]} of its {place[1]} already")
    sides[place[1]] = value


def _of(item: Item, benchmark: str, annotations: Annotations) -> dict[str, dict[str, Any]]:
    if not item.id:
        raise DataError("annotations are joined by id: give every answer one")
    own: dict[str, dict[str, Any]] = {}
    for key in (("", item.id), (benchmark, item.id)):
        for labeller, sides in annotations.get(key, {}).items():
            own[labeller] = own.get(labeller, {}) | sides
    return own


def _pair(sides: dict[str, Any]) -> tuple[Any, Any]:
    return sides[REPLY], sides[REFERENCE]


def _counts(expected: Sequence[tuple[Item, dict[str, dict[str, Any]]]], labeller: str) -> dict[str, Any]:
    lacking = {
        side: [item.id for item, said in expected if side not in said.get(labeller, {})] for side in SIDES
    }
    either = dict.fromkeys([*lacking[REPLY], *lacking[REFERENCE]])
    return {
        "scored": len(expected) - len(either),
        "missing": len(either),
        "missing_reply": len(lacking[REPLY]),
        "missing_reference": len(lacking[REFERENCE]),
        "examples": list(either)[:EXAMPLES],
    }
