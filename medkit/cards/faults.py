"""Checks a document against a model and says every fault in the words of the person who wrote the card."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ..errors import Problem
from .strict_yaml import Document, Trail

Model = TypeVar("Model", bound=BaseModel)

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("greater than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def validate(model: type[Model], document: Document) -> tuple[Model | None, list[Problem]]:
    """Gives the validated card, or None with every fault of it.

    Args:
        model: What the card must be.
        document: The parsed card; its own problems come first in the list.
    """
    if document.problems:
        return None, list(document.problems)
    try:
        return model.model_validate(document.value), []
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=True)
        return None, [_problem(model, document, fault) for fault in faults]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Gives ``did you mean x?`` for the nearest known word, else the list of what is known."""
    names = sorted(set(known))
    lowered = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(word).lower(), lowered, n=1, cutoff=0.6)
    if near:
        return f"did you mean {lowered[near[0]]}?"
    return f"known: {', '.join(names)}" if names else ""


def shown(value: Any) -> str:
    """Writes a value short enough for one line of an error."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value).replace("\n", " ")
    text = text if len(text) <= 60 else text[:57] + "..."
    return f'"{text}"' if isinstance(value, str) else text


def _problem(model: type[BaseModel], document: Document, fault: Any) -> Problem:
    trail: Trail = tuple(fault["loc"])
    kind, given, context = fault["type"], fault["input"], fault.get("ctx") or {}
    if trail and trail[-1] == "[key]":
        trail = trail[:-1]
    if kind == "extra_forbidden":
        return document.problem(
            trail, "unknown key", did_you_mean(str(trail[-1]), _keys_at(model, trail[:-1]))
        )
    if kind == "missing":
        return document.problem(trail, "is missing", f"add '{trail[-1]}: ...'")
    if kind in _WANTED:
        hint = (
            f'put it in quotes: "{given}"' if kind == "string_type" and isinstance(given, int | float) else ""
        )
        if kind.startswith("model_"):
            hint = f"keys: {', '.join(_keys_at(model, trail))}"
        return document.problem(trail, f"must be {_WANTED[kind]}, not {shown(given)}", hint)
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return document.problem(trail, f"must be {words} {context[key]:g}, not {shown(given)}")
    if kind == "literal_error":
        expected = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
        near = did_you_mean(str(given), expected)
        hint = near if near.startswith("did") else ""
        message = f"must be {' or '.join(expected)}, not {shown(given)}"
        return document.problem(trail, message, hint)
    if kind == "string_pattern_mismatch":
        message = f"must be a name of lower-case letters, digits, '-', '_' or '.', not {shown(given)}"
        return document.problem(trail, message)
    if kind in ("too_short", "string_too_short"):
        return document.problem(trail, "must not be empty")
    message = fault["msg"].removeprefix("Value error, ")
    message = f"{message[:1].lower()}{message[1:]}"
    return document.problem(
        trail, message if isinstance(given, dict | list) else f"{message}, not {shown(given)}"
    )


def _keys_at(model: type[BaseModel], trail: Trail) -> list[str]:
    """Gives the keys that the model knows at a trail, [] where any key may stand."""
    current: Any = model
    for key in trail:
        current = _model_in(current)
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(key))
            current = field.annotation if field else None
        elif get_origin(current) in (dict, list):
            current = get_args(current)[-1]
        else:
            return []
    current = _model_in(current)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []


def _model_in(annotation: Any) -> Any:
    """Takes the wrappers (Optional, Annotated) off an annotation."""
    while True:
        if hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__
        elif get_origin(annotation) in (Union, types.UnionType):
            annotation = next(part for part in get_args(annotation) if part is not type(None))
        else:
            return annotation
