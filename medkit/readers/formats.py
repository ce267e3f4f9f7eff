"""Conversations in the forms of other tools; a round trip through any of them loses nothing.

======== =============================================================== ====================
form     row                                                             read by
======== =============================================================== ====================
llava    {id, image: str | [str], conversations: [{from, value}]}        LLaVA, LLaVA-NeXT
sharegpt {id, images: [str], conversations: [{from, value}]}             LLaMA-Factory
swift    {id, images: [str], messages: [{role, content: str}]}           ms-swift
messages {id, images: [str], messages: [{role, content: [parts]}]}       TRL, datasets
======== =============================================================== ====================

In memory a row is a ``Sample`` whose ``images`` are the names as written. What a form has no place for
travels under the key ``medkit`` (facts, source); keys that medkit doesn't know travel in
``source["extra"]``. Text whose spacing around ``<image>`` is unusual is kept in ``source["verbatim"]``
and written again as it was.
"""

from __future__ import annotations

from typing import Any

from medkit.errors import DataError
from medkit.sample import Sample

FORMS = ("llava", "sharegpt", "swift", "messages")
TOKEN = "<image>"
TO_ROLE = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
FROM_ROLE = {"user": "human", "assistant": "gpt"}
TURN_KEYS = {
    "llava": "conversations",
    "sharegpt": "conversations",
    "swift": "messages",
    "messages": "messages",
}


def to_row(sample: Sample, form: str) -> dict[str, Any]:
    """Gives a sample as a row of a form."""
    source = dict(sample.source)
    extra = source.pop("extra", {})
    row: dict[str, Any] = {}
    identifier = source.pop("original_id", sample.id) if "original_id" in source else sample.id
    if identifier is not None:
        row["id"] = identifier
    if form == "llava":
        if sample.images:
            row["image"] = sample.images[0] if len(sample.images) == 1 else list(sample.images)
    else:
        row["images"] = list(sample.images)
    verbatim = source.pop("verbatim", None)
    source.pop("mended", None)
    if form == "messages":
        row["messages"] = [
            {**turn, "content": [dict(part) for part in turn["content"]]} for turn in sample.messages
        ]
        kept = verbatim
    else:
        texts = [_joined(turn["content"]) for turn in sample.messages]
        kept = None
        if verbatim is not None and len(verbatim) == len(texts):
            texts = [
                old if _parts(old) == turn["content"] else text
                for old, text, turn in zip(verbatim, texts, sample.messages, strict=True)
            ]
        keys = ("role", "content") if form == "swift" else ("from", "value")
        roles = [turn["role"] for turn in sample.messages]
        if form != "swift":
            roles = [FROM_ROLE.get(role, role) for role in roles]
        row[TURN_KEYS[form]] = [dict(zip(keys, pair, strict=True)) for pair in zip(roles, texts, strict=True)]
    if kept is not None:
        source["verbatim"] = kept
    row.update({key: value for key, value in extra.items() if key not in row})
    hidden: dict[str, Any] = {}
    if sample.facts:
        hidden["facts"] = sample.facts
    if source:
        hidden["source"] = source
    if form != "messages" and not _survives(row, sample, form):
        # Text that itself holds "<image>": other tools must not take it for a picture.
        hidden["messages"] = sample.messages
        for turn in row[TURN_KEYS[form]]:
            key = "content" if form == "swift" else "value"
            turn[key] = turn[key].replace(TOKEN, "<img>")
        _put_tokens(row[TURN_KEYS[form]], sample, "content" if form == "swift" else "value")
    if hidden:
        row["medkit"] = hidden
    return row


def from_row(row: dict[str, Any], form: str, place: str = "row") -> Sample:
    """Gives a row of a form as a sample.

    Args:
        row: The row; ``conversatons``, a list-valued ``image`` and rows without a picture are understood.
        form: One of ``FORMS``.
        place: Where the row stands; the id of a row without one.

    Raises:
        DataError: There are no turns, or pictures and ``<image>`` places don't match.
    """
    row = dict(row)
    hidden = row.pop("medkit", None) or {}
    facts, source = dict(hidden.get("facts") or {}), dict(hidden.get("source") or {})
    mended = []
    identifier = row.pop("id", None)
    if not isinstance(identifier, str):
        source["original_id"] = identifier
    images = _images(row, form)
    turns_key = TURN_KEYS[form]
    if turns_key not in row and "conversatons" in row:
        row[turns_key] = row.pop("conversatons")
        mended.append("conversatons -> conversations")
    turns = row.pop(turns_key, None)
    if not isinstance(turns, list) or not turns:
        raise DataError(f"no turns under {turns_key!r}")
    if form == "messages":
        messages = [_message(turn) for turn in turns]
    else:
        messages, texts = _parsed(turns, "swift" if "role" in turns[0] else "llava", row)
        texts_again = [_joined(turn["content"]) for turn in messages]
        if "messages" in hidden:
            messages = hidden["messages"]
        elif texts_again != texts:
            source["verbatim"] = texts
    found = sum(part["type"] == "image" for turn in messages for part in turn["content"])
    if found == 0 and images:
        # A picture without its place belongs before the first user turn's text.
        first = next((turn for turn in messages if turn["role"] == "user"), None)
        if first is None:
            raise DataError(f"{len(images)} pictures and no user turn")
        first["content"] = [{"type": "image"} for _ in images] + first["content"]
        mended.append("<image> added to the first user turn")
    elif found != len(images):
        raise DataError(f"{found} <image> places and {len(images)} pictures")
    if row:
        source["extra"] = row
    if mended:
        source["mended"] = mended
    return Sample(
        identifier if isinstance(identifier, str) else _id_of(identifier, place),
        messages,
        images,
        facts,
        source,
    )


def _parsed(turns: list[Any], style: str, row: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    who, what = ("role", "content") if style == "swift" else ("from", "value")
    messages, texts = [], []
    system = row.get("system")
    if isinstance(system, str) and system and not any(turn.get(who) == "system" for turn in turns):
        messages.append({"role": "system", "content": _parts(row.pop("system"))})
        texts.append(system)
    for turn in turns:
        text = turn[what]
        if not isinstance(text, str):
            raise DataError(f"a turn's {what} is {type(text).__name__}, not text")
        role = turn[who]
        messages.append({"role": TO_ROLE.get(role, role), "content": _parts(text)})
        texts.append(text)
    return messages, texts


def _message(turn: dict[str, Any]) -> dict[str, Any]:
    content = turn["content"]
    if isinstance(content, str):
        return {"role": turn["role"], "content": [{"type": "text", "text": content}]}
    parts = []
    for part in content:
        if part["type"] == "text":
            parts.append({"type": "text", "text": part["text"]})
        elif part["type"] == "image":
            parts.append({"type": "image"})
        else:
            raise DataError(f"a part of type {part['type']!r}; only text and image are known")
    return {"role": turn["role"], "content": parts}


def _parts(text: str) -> list[dict[str, Any]]:
    """Splits text at ``<image>``; one line break after a picture belongs to its place."""
    parts: list[dict[str, Any]] = []
    pieces = text.split(TOKEN)
    for number, piece in enumerate(pieces):
        if number:
            parts.append({"type": "image"})
            piece = piece.removeprefix("\n")
        if piece or len(pieces) == 1:
            parts.append({"type": "text", "text": piece})
    return parts


def _joined(parts: list[dict[str, Any]]) -> str:
    return "".join(TOKEN + "\n" if part["type"] == "image" else part.get("text", "") for part in parts)


def _survives(row: dict[str, Any], sample: Sample, form: str) -> bool:
    try:
        again = from_row(row, form)
    except DataError:
        return False
    return again.messages == sample.messages and again.images == sample.images


def _put_tokens(turns: list[dict[str, Any]], sample: Sample, key: str) -> None:
    for turn, message in zip(turns, sample.messages, strict=True):
        pieces = (
            {"type": "text", "text": part.get("text", "").replace(TOKEN, "<img>")}
            if part["type"] == "text"
            else part
            for part in message["content"]
        )
        turn[key] = _joined(list(pieces))


def _images(row: dict[str, Any], form: str) -> list[str]:
    value = row.pop("image", None) if form == "llava" else row.pop("images", None)
    if value in (None, ""):
        return []
    if isinstance(value, str):
        return [value]
    names = []
    for item in value:
        name = item.get("path") if isinstance(item, dict) else item
        if not isinstance(name, str) or not name:
            raise DataError("a picture's name is no text")
        names.append(name)
    return names


def _id_of(identifier: Any, place: str) -> str:
    return place if identifier is None else str(identifier)


def id_or(row: dict[str, Any], place: str) -> str:
    """Gives a row's id as text, or its place when it has none."""
    return _id_of(row.get("id"), place)


def check_form(form: str) -> None:
    """Refuses a form that medkit doesn't know."""
    if form not in FORMS:
        raise DataError(f"there is no form {form!r}; forms: {', '.join(FORMS)}")
