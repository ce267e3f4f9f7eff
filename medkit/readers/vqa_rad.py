"""VQA-RAD: radiology images with questions that clinicians asked, one JSON Lines file a split.

``questions_SPLIT.jsonl`` holds the rows as they were published (qid, question, answer, answer_type,
question_type, phrase_type, image_organ, image_name, and image: the picture's path); ``images_SPLIT.jsonl``,
where it is there, the pictures with the group of their near-duplicates. The source's own train and test share
pictures, so its ``official_split`` is kept as a value and never used as a split.

Source: Lau et al., 2018, "A dataset of clinically generated visual questions and answers about radiology
images", Scientific Data 5:180251.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.readers import Record, Rejected, check_options, inside
from medkit.readers.table import find_tables, question_facts, table_rows
from medkit.sample import assistant_turn, user_turn

OPTIONS = ("files", "listings", "describe", "licence")
ORGANS = {"HEAD": "head", "CHEST": "chest", "ABD": "abdomen"}
# What the set was gathered as: heads in CT or MRI, chest X-rays, abdominal CTs (Lau et al., Methods).
USUAL_MODALITY = {"chest": "X-ray", "abdomen": "CT"}
MODALITIES = {
    "X-ray": r"\bx[ -]?rays?\b|\bcxr\b|\bxr\b|plain film|radiograph",
    "MRI": r"\bmri?\b|flair|\bt[12]\b|\bdwi\b|\badc\b|diffusion",
    "CT": r"\bct\b",
}
PLANES = {"axial": r"\baxial\b", "coronal": r"\bcoronal\b", "sagittal": r"\bsagittal\b"}
# The paper's kinds of question; rows may name several, and two are misspelt in places.
KINDS = {
    "ABN": "abnormality", "ATTRIB": "attribute", "COLOR": "colour", "COUNT": "count", "MODALITY": "modality",
    "ORGAN": "organ", "OTHER": "other", "PLANE": "plane", "POS": "position", "PRES": "presence", "SIZE": "size",
}  # fmt: skip
MISSPELT = {"PRSE": "PRES", "ATRIB": "ATTRIB"}


def read(root: Path, options: dict[str, Any]) -> Iterator[Record | Rejected]:
    """Reads the questions of every split that is there, and what the rows say of the pictures themselves.

    Options:
        files: Pattern of the questions' files below the root ("questions_{split}.jsonl").
        listings: Pattern of the pictures' files ("images_*.jsonl"), for the groups of near-duplicates.
        describe: Source splits whose pictures also become records of organ, modality and plane, for a teacher
            to talk about (["train"]). The facts come from ``image_organ``, from the answers to questions about
            modality and plane, and from how the set was gathered.
        licence: As in class_folders.

    A question stays one in the training splits, too: it is learnt as it is asked. The group is the picture
    with its near-duplicates.

    Raises:
        DataError: The folder or the questions' files are missing.
    """
    check_options("vqa_rad", options, OPTIONS)
    root = Path(root)
    pattern = options.get("files", "questions_{split}.jsonl")
    tables = find_tables(root, pattern) if root.is_dir() else []
    if not tables:
        raise DataError(f"{root} holds no {pattern.replace('{split}', 'SPLIT')}; give the set's folder")
    pictures = _listed(root, options.get("listings", "images_*.jsonl"))
    groups = {name: str(row.get("near_duplicate_group") or name) for name, row in pictures.items()}
    told: dict[tuple[str | None, str], list[dict[str, Any]]] = defaultdict(list)
    asked: set[tuple[str, str, str]] = set()
    for path, split in tables:
        for number, row in table_rows(path):
            place = f"{path.name}:{number}"
            if isinstance(row, str):
                yield Rejected(place, "row unreadable", row)
                continue
            record = _question(root, place, row, split, groups)
            if isinstance(record, Record):
                key = (record.group, row["question"].strip().lower(), str(row["answer"]).strip().lower())
                if key in asked:
                    note = ("question repeated", "the same question with the same answer stands above")
                    record = _noted(record, note)
                asked.add(key)
                told[split, str(record.image)].append(row)
            yield record
    described = options.get("describe", ["train"])
    for (split, image), rows in told.items():
        if split in described:
            yield _picture(Path(image), rows, split, groups, options)
    seen = {Path(image).name for _, image in told}
    for name in sorted(pictures.keys() - seen):
        yield Rejected(name, "picture without question", "listed, but no question is about it")


def _listed(root: Path, pattern: str) -> dict[str, dict[str, Any]]:
    """Gives the rows of the pictures' listings by file name."""
    found = {}
    for path in sorted(root.glob(pattern)):
        for _, row in table_rows(path):
            if isinstance(row, dict) and isinstance(row.get("image"), str):
                found[Path(row["image"]).name] = row
    return found


def _question(
    root: Path, place: str, row: dict[str, Any], split: str | None, groups: dict[str, str]
) -> Record | Rejected:
    identifier = str(row["qid"]) if row.get("qid") not in (None, "") else place
    name = row.get("image") or f"{split}/images/{row.get('image_name')}"
    image = inside(root, str(name))
    if image is None:
        return Rejected(identifier, "image outside the data folder", str(name))
    if not image.is_file():
        return Rejected(identifier, "image missing", str(name))
    question, answer, notes = row.get("question"), row.get("answer"), []
    if not isinstance(question, str) or not question.strip():
        return Rejected(identifier, "question missing", place)
    if answer is None or not str(answer).strip():
        return Rejected(identifier, "question without answer", place)
    if not isinstance(answer, str):
        notes.append(("answer is a number", f"{answer!r} is read as text"))
    if (isinstance(answer, str) and answer != answer.strip()) or question != question.strip():
        notes.append(("spaces around text", "taken off"))
    answer, question = str(answer).strip(), question.strip()
    closed = str(row.get("answer_type", "")).strip().upper() == "CLOSED"
    if row.get("answer_type") not in ("OPEN", "CLOSED"):
        notes.append(("answer_type misspelt", repr(row.get("answer_type"))))
    kinds, fault = _kinds(row.get("question_type"))
    if fault:
        notes.append(fault)
    facts = question_facts(answer, kinds[0])
    if closed and facts["answer_type"] != "yes_no":
        notes.append(("closed question without yes or no", answer))
    return Record(
        identifier,
        image,
        {"question": facts},
        messages=[user_turn(question, images=1), assistant_turn(answer)],
        group=groups.get(image.name, image.name),
        split=split,
        kind="question",
        notes=tuple(notes),
        extra={
            "closed": closed,
            "question_types": kinds,
            "phrase_type": str(row.get("phrase_type", "")),
            "official_split": str(row.get("official_split", "")),
        },
    )


def _kinds(value: Any) -> tuple[list[str], tuple[str, str] | None]:
    """Gives the kinds that a row names, the first one first, and what was wrong with them."""
    words = [word.strip().upper() for word in str(value or "").split(",") if word.strip()]
    mended = [MISSPELT.get(word, word) for word in words]
    kinds = [KINDS.get(word, "other") for word in mended] or ["other"]
    if mended != words or str(value) != ", ".join(mended):
        return kinds, ("question_type misspelt", f"{value!r} is read as {', '.join(kinds)}")
    if len(kinds) > 1:
        return kinds, ("several question types", f"counted as {kinds[0]}")
    return kinds, None


def _picture(
    image: Path,
    rows: list[dict[str, Any]],
    split: str | None,
    groups: dict[str, str],
    options: dict[str, Any],
) -> Record:
    """Gives the record of a picture: what its questions' rows agree on."""
    organs = {ORGANS.get(str(row.get("image_organ", "")).strip().upper(), "") for row in rows}
    labels = {"organ": organs.pop() if len(organs) == 1 else ""}
    modality = _agreed(rows, "MODALITY", MODALITIES) or USUAL_MODALITY.get(labels["organ"], "")
    labels["plane"] = _agreed(rows, "PLANE", PLANES)
    facts: dict[str, Any] = {
        "labels": {name: value for name, value in labels.items() if value},
        "objects": [],
        "complete": False,
    }
    if modality:
        facts["modality"] = modality
    return Record(
        f"image-{image.stem}",
        image,
        facts,
        group=groups.get(image.name, image.name),
        split=split,
        licence=options.get("licence", ""),
    )


def _agreed(rows: list[dict[str, Any]], kind: str, values: dict[str, str]) -> str:
    """Gives the value that open questions of a kind were answered with, "" when none or several were."""
    found: Counter[str] = Counter()
    for row in rows:
        if kind in str(row.get("question_type", "")):
            answer = str(row.get("answer", "")).lower()
            found.update(name for name, pattern in values.items() if re.search(pattern, answer))
    return next(iter(found)) if len(found) == 1 else ""


def _noted(record: Record, note: tuple[str, str]) -> Record:
    return replace(record, notes=(*record.notes, note))
