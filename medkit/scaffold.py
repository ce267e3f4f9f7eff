"""Writes new cards that pass ``medkit check`` as they are, to be filled in."""

from __future__ import annotations

import glob
import json
import re
import struct
import zlib
from pathlib import Path

from .cards.models import NAME
from .cards.strict_yaml import parse_value
from .errors import MedkitError

RECIPE = """\
name: {name}
title: {title}
description: Say here what this recipe is for.
base: tiny-general            # a shipped checkpoint, a model folder, or a hub id such as owner/model
domain: {domain}
# data: path/to/the/folder    # or --set data=..., or the domain's environment variable
curriculum: align-instruct
adapter: {{kind: full}}         # or {{kind: lora, rank: 16, alpha: 32}}
benchmarks: [held-out]
seed: 0
# stages:                     # changes to the curriculum's stages
#   instruct: {{epochs: 2}}
"""

BENCHMARK = """\
name: {name}
title: {title}
description: Say here what a right answer shows.
licence: Apache-2.0
source: {{domain: {domain}, split: test}}   # same: the recipe's own domain
scorer: answer                            # exact after normalising; yes/no and choices by their own rule
controls: [blank, shuffled]               # does the model look at the image at all?
max_new_tokens: 16
"""

CUSTOM = """\
name: {name}
title: {title}
description: Say here what a right answer shows.
licence: unknown
data:
  reader: questions           # columns image, question, answer, and optionally options (a|b|c) and kind
  path: {folder}
  options: {{files: {file}}}
  expected: {{questions: {rows}}}   # what differs from it is told
scorer: answer                # exact after normalising; yes/no and choices by their own rule
controls: [blank, shuffled]   # does the model look at the image at all?
max_new_tokens: 16
"""

DOMAIN = """\
name: {name}
title: {title}
description: Say here what the images show and what is asked about them.
licence: unknown
data:
  reader: class_folders       # SPLIT/CLASS/*.jpg; other readers: table, boxes, arrays, llava_json, drawn
  options: {{attribute: class}}
  env: MEDKIT_{variable}
  where: Say here in one sentence where the set can be had.
  splits: {{train: train, test: test}}
teacher: teacher.yaml
fixture: fixture              # a tiny invented set in the same layout; check reads it
"""

TEACHER = """\
# The words of the domain. The rule teacher makes captions, conversations and questions of facts with them.
version: {name}-1
thing: [object, objects]

labels:
  class: {{values: [first, second]}}

caption_prompts:
  - Give a short caption.
  - What does the picture show?
captions:
  - "The picture shows {{a_class}}."
  - "An image of {{a_class}}."

description:
  prompts:
    - Describe the image in detail.
    - What is in the image?
  opening:
    - "This is an image of {{a_class}}."

questions:
  - kind: class
    ask: label
    of: class
    templates:
      - What does the image show?
      - Which class is this?
      - What is it?
      - Name what is shown.
  - kind: is-class
    ask: label_is
    of: class
    templates:
      - "Does the image show {{a_value}}?"
      - "Is this {{a_value}}?"
      - "Can {{a_value}} be seen?"
      - "Is {{a_value}} shown here?"
"""


def write_recipe(name: str, domain: str, root: Path) -> list[Path]:
    """Writes ``recipes/NAME.yaml`` below a folder.

    Raises:
        MedkitError: The name can't be used, or the file is there.
    """
    return _write(
        root,
        {
            f"recipes/{_checked(name)}.yaml": RECIPE.format(
                name=_word(name), title=_title(name), domain=_word(domain)
            )
        },
    )


def write_benchmark(name: str, domain: str, root: Path, table: tuple[Path, int] | None = None) -> list[Path]:
    """Writes ``evals/NAME/eval.yaml`` below a folder: of a domain's questions, or of a table's (its file, its rows).

    Raises:
        MedkitError: The name can't be used, or the file is there.
    """
    if table is not None:
        return _write(root, {f"evals/{_checked(name)}/eval.yaml": _custom(name, table, root)})
    text = BENCHMARK.format(name=_word(_checked(name)), title=_title(name), domain=_word(domain))
    return _write(root, {f"evals/{name}/eval.yaml": text})


def write_domain(name: str, root: Path) -> list[Path]:
    """Writes ``domains/NAME/`` below a folder: card, teacher card and an invented fixture of four pictures.

    Raises:
        MedkitError: The name can't be used, or a file is there.
    """
    variable = re.sub(r"[^A-Z0-9]", "_", _checked(name).upper())
    folder = f"domains/{name}"
    files: dict[str, str | bytes] = {
        f"{folder}/domain.yaml": DOMAIN.format(name=_word(name), title=_title(name), variable=variable),
        f"{folder}/teacher.yaml": TEACHER.format(name=name),
    }
    colours = {"first": (200, 60, 60), "second": (60, 60, 200)}
    for split, shade in (("train", 0), ("test", 30)):
        for label, (red, green, blue) in colours.items():
            picture = _png(16, (red + shade, green + shade, blue + shade))
            files[f"{folder}/fixture/{split}/{label}/{split}-{label}.png"] = picture
    return _write(root, files)


def _custom(name: str, table: tuple[Path, int], root: Path) -> str:
    """Gives the card of a table; one below the working folder is named from there, so that both can move."""
    path, rows = table
    folder = path.parent.resolve()
    inside = folder.is_relative_to(root.resolve())
    shown = str(folder.relative_to(root.resolve())) if inside else str(folder)
    return CUSTOM.format(
        name=_word(name),
        title=_title(name),
        folder=json.dumps(shown, ensure_ascii=False),
        file=json.dumps(glob.escape(path.name), ensure_ascii=False),
        rows=rows,
    )


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise MedkitError(f'"{name}": must be a name of lower-case letters, digits, "-", "_" or "."')
    return name


def _title(name: str) -> str:
    words = re.sub(r"[-_.]+", " ", name).strip() or name
    return _word(f"{words[:1].upper()}{words[1:]}")


def _word(text: str) -> str:
    """Puts text into quotes where YAML would read something else, as in ``no`` or ``1e3``."""
    return text if parse_value(text) == (text, "") else f'"{text}"'


def _write(root: Path, files: dict[str, str | bytes] | dict[str, str]) -> list[Path]:
    there = [name for name in files if (root / name).exists()]
    if there:
        raise MedkitError(f"{there[0]} is there already; choose another name or delete it first")
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [Path(name) for name in files]


def _png(side: int, colour: tuple[int, int, int]) -> bytes:
    """Makes a PNG of one colour; a picture library would take longer to import than the command to run."""
    rows = (b"\0" + bytes(colour) * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body
