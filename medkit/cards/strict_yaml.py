"""YAML that means one thing: what YAML 1.1 and 1.2 read differently is refused, with line and way out.

A card is data that people write by hand, so a value that is silently something else (``no`` that is false,
``1e-3`` that is text, a key given twice of which one vanishes) costs hours. Mapping keys are always words:
``on:`` and ``no:`` are fine as keys.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import Problem

Place = tuple[str, int]
Trail = tuple[str | int, ...]

LARGEST_CARD_BYTES = 2_000_000
# What YAML itself finds in text without tags, "!" being a quoted word.
_TAGS = {"str", "int", "float", "bool", "null", "timestamp", "merge", "value", "map", "seq", "!"}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_BOOLEAN_WORDS = {
    "yes": "true",
    "on": "true",
    "true": "true",
    "no": "false",
    "off": "false",
    "false": "false",
}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?")
_BARE_EXPONENT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+")
_UNSIGNED_EXPONENT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)[eE][0-9]+")
_OTHER_NUMBER = re.compile(r"[-+]?(0[0-9]+|0[xob][0-9a-fA-F_]+|[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?)")
_CLOCK = re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?")


@dataclass
class Document:
    """A parsed card with the place of every value.

    Attributes:
        file: The card's path as the user would type it.
        value: The mapping, empty when the card can't be read.
        places: ``{trail: (file, line)}``; a trail is the tuple of keys and positions that leads to a value.
        problems: What is wrong with the text itself.
    """

    file: str
    value: dict[str, Any]
    places: dict[Trail, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, trail: Trail) -> Place:
        """Gives (file, line) of a value, or of the nearest mapping around it."""
        for end in range(len(trail), -1, -1):
            if trail[:end] in self.places:
                return self.places[trail[:end]]
        return self.file, 1

    def problem(self, trail: Trail, message: str, hint: str = "") -> Problem:
        """Makes a Problem at the place of a value."""
        file, line = self.place(trail)
        return Problem(file, line, dotted(trail), message, hint)

    def put(self, trail: tuple[str, ...], value: Any, place: Place) -> None:
        """Sets a value, making the mappings on the way; what is put over a list or a word replaces it."""
        inner: dict[str, Any] = self.value
        for position, key in enumerate(trail[:-1]):
            if not isinstance(inner.get(key), dict):
                inner[key] = {}
                self.places[trail[: position + 1]] = place
            inner = inner[key]
        inner[trail[-1]] = value
        for known in [known for known in self.places if known[: len(trail)] == trail]:
            del self.places[known]
        self.places[trail] = place


def dotted(trail: Trail) -> str:
    """Writes a trail as people read it: ``stages.instruct.on[0]``."""
    text = ""
    for key in trail:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text


def read_card(path: Path, shown: str | None = None) -> Document:
    """Reads one card file.

    Args:
        path: The file.
        shown: The path to show in messages; the file's own when None.

    Returns:
        The document; a card that can't be read comes back empty with its problems.
    """
    file = shown or str(path)
    try:
        raw = path.read_bytes()
        if len(raw) > LARGEST_CARD_BYTES:
            message = f"{len(raw)} bytes are no card (at most {LARGEST_CARD_BYTES})"
            return Document(file, {}, problems=[Problem(file, 0, "", message)])
        text = raw.decode("utf-8-sig")
    except OSError as error:
        return Document(file, {}, problems=[Problem(file, 0, "", f"can't be read ({error.strerror})")])
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        return Document(file, {}, problems=[Problem(file, line, "", "is not UTF-8 text", "save it as UTF-8")])
    return parse(text, file)


def parse(text: str, file: str) -> Document:
    """Parses the text of a card; the document's problems say what was refused and where."""
    document = Document(file, {})
    refuse = document.problems.append
    for number, line in enumerate(text.splitlines(), 1):
        indent = line[: len(line) - len(line.lstrip())]
        if "\t" in indent:
            refuse(Problem(file, number, "", "a tab indents this line", "use spaces"))
    if document.problems:
        return document
    try:
        if "*" in text:
            for token in yaml.scan(text, Loader=_LOADER):
                if isinstance(token, yaml.AliasToken):
                    message = f"the alias *{token.value} is not read in cards"
                    refuse(Problem(file, token.start_mark.line + 1, "", message, "write the value out"))
        if document.problems:
            return document
        node = yaml.compose(text, Loader=_LOADER)
    except RecursionError:
        refuse(Problem(file, 0, "", "is nested too deeply to be a card"))
        return document
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"is not YAML: {error.problem or error.context}"
        hint = "quote text that holds ': ' or ' #' or that starts with a sign"
        if "single document" in str(error.context):
            message, hint = "holds more than one document", "keep one, without '---' lines"
        refuse(Problem(file, mark.line + 1 if mark else 0, "", message, hint))
        return document
    except yaml.YAMLError as error:
        refuse(Problem(file, 0, "", f"is not YAML: {' '.join(str(error).split())}"))
        return document
    if not isinstance(node, yaml.MappingNode):
        what = "is empty" if node is None else "must be a mapping of keys to values"
        refuse(Problem(file, 1, "", what, "start with a line such as 'name: ...'"))
        return document
    document.places[()] = (file, 1)
    document.value = _build(node, (), document)
    return document


def parse_value(text: str) -> tuple[Any, str]:
    """Reads the value of ``--set key=value``: typed like a card's, but ``1e-3`` is a number here.

    The command line is no YAML file that other tools would read differently, so a plain exponent is safe.

    Returns:
        (value, fault); the fault is "" when the value was read.
    """
    if _BARE_EXPONENT.fullmatch(text) or _UNSIGNED_EXPONENT.fullmatch(text):
        return float(text), ""
    document = Document("", {})
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except (yaml.YAMLError, RecursionError):
        return None, "is no YAML value"
    if node is None:
        return None, ""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:
        return text, ""  # "a: b" and "- a" are words here; mappings and lists are written {a: b} and [a]
    value = _build(node, (), document)
    if document.problems:
        problem = document.problems[0]
        return None, problem.message + (f"; {problem.hint}" if problem.hint else "")
    return value, ""


def _build(node: yaml.Node, trail: Trail, document: Document) -> Any:
    """Turns a node into a value, noting places and refusing traps."""
    line = node.start_mark.line + 1
    document.places.setdefault(trail, (document.file, line))
    if node.tag.removeprefix("tag:yaml.org,2002:") not in _TAGS:
        message = f"the tag {node.tag} is not read in cards"
        document.problems.append(Problem(document.file, line, dotted(trail), message, "leave it out"))
        return None
    if isinstance(node, yaml.MappingNode):
        return _build_mapping(node, trail, document)
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*trail, position), document) for position, item in enumerate(node.value)]
    if not isinstance(node, yaml.ScalarNode) or node.style:
        return node.value
    value, fault, hint = _plain(node.value)
    if fault:
        document.problems.append(Problem(document.file, line, dotted(trail), fault, hint))
    return value


def _build_mapping(node: yaml.MappingNode, trail: Trail, document: Document) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            fault = Problem(document.file, line, dotted(trail), "a key must be a word", "write 'key: value'")
            document.problems.append(fault)
            continue
        key = key_node.value
        inner = (*trail, key)
        if key == "<<" and not key_node.style:
            message = "the merge key << is not read in cards"
            fault = Problem(document.file, line, dotted(trail), message, "write the keys out")
            document.problems.append(fault)
            continue
        if key in built:
            first = document.places[inner][1]
            message = f"the key is given twice (first on line {first})"
            fault = Problem(document.file, line, dotted(inner), message, "keep one of them")
            document.problems.append(fault)
            continue
        # A key's line is the one to show: a block value starts on the line below it.
        document.places[inner] = (document.file, line)
        built[key] = _build(value_node, inner, document)
    return built


def _plain(text: str) -> tuple[Any, str, str]:
    """Reads an unquoted scalar: (value, fault, hint)."""
    if text in ("", "~", "null"):
        return None, "", ""
    if text in ("true", "false"):
        return text == "true", "", ""
    meant = _BOOLEAN_WORDS.get(text.lower())
    if meant:
        hint = f'write "{text}" for the word or {meant}'
        return None, f"{text} without quotes is a trap (YAML 1.1 reads {meant})", hint
    if text.lower() == "null":
        return (
            None,
            f"{text} without quotes is a trap (YAML reads nothing)",
            f'write "{text}" for the word or null',
        )
    if _INTEGER.fullmatch(text):
        return int(text), "", ""
    if _FLOAT.fullmatch(text):
        return float(text), "", ""
    if _BARE_EXPONENT.fullmatch(text) or _UNSIGNED_EXPONENT.fullmatch(text):
        return None, f"{text} is a trap (YAML 1.1 reads text, not a number)", f"write {_with_point(text)}"
    for pattern, meant in ((_OTHER_NUMBER, "a number in another base or with marks"),
                           (_CLOCK, "a number to base 60"), (_DATE, "a date")):  # fmt: skip
        if pattern.fullmatch(text):
            hint = f'write "{text}" for the text or a plain number'
            return None, f"{text} without quotes is a trap (YAML 1.1 reads {meant})", hint
    return text, "", ""


def _with_point(text: str) -> str:
    """Writes an exponent so that every YAML reader takes it for a number: 1e-3 -> 1.0e-3, 1.5e3 -> 1.5e+3."""
    mantissa, exponent = re.split("[eE]", text)
    mantissa = mantissa if "." in mantissa else mantissa + ".0"
    return f"{mantissa}e{exponent if exponent[0] in '-+' else '+' + exponent}"
