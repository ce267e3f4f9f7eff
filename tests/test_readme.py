"""The commands of README.md and CONTRIBUTING.md: the cheap ones run, all others parse."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from medkit.cards.load import load_recipe
from medkit.check import load
from medkit.cli import app
from medkit.models.parts import FAMILIES
from medkit.sample import Sample, assistant_turn, user_turn
from medkit.store import DatasetWriter

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "docs/recipes.md", "benchmarks/README.md")
SHELF = ("checkpoints", "curricula", "domains", "evals", "recipes")
HOME_DATA = {"BCCD": "blood", "fashion_mnist": "retail", "trashnet": "sorting", "vqa_rad": "vqa-rad"}
BLOCK = re.compile(
    r"^(?P<mark> *<!-- test: run -->\n)? *```console\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Command:
    """A command of a page with the output lines that follow it."""

    text: str
    output: list[str]
    runs: bool


def commands_of(page: str) -> list[Command]:
    found: list[Command] = []
    for block in BLOCK.finditer((ROOT / page).read_text(encoding="utf-8")):
        for line in block["body"].splitlines():
            if line.strip().startswith("$ "):
                found.append(Command(line.strip()[2:], [], bool(block["mark"])))
            elif line.strip():
                found[-1].output.append(line.strip())
    return found


COMMANDS = {page: commands_of(page) for page in ("README.md", "CONTRIBUTING.md")}
ALL = [command for commands in COMMANDS.values() for command in commands]


def squeezed(text: str) -> str:
    """Takes out what a table's column widths put in."""
    return re.sub(r"\s+", " ", text)


def words_of(command: str) -> list[str]:
    """Gives the arguments of a medkit command, variables in front of it left out; [] for other commands."""
    words = shlex.split(command)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return words[1:] if words[:1] == ["medkit"] else []


def parsed(words: list[str]) -> Any:
    """Parses arguments as the command line does, down to the last verb, and gives its context."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("medkit", list(words))
    while hasattr(command, "resolve_command"):
        rest = [*getattr(context, "_protected_args", []), *context.args]
        _, command, rest = command.resolve_command(context, rest)
        context = command.make_context(command.name, rest, parent=context)
    return context


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A copy of the shelf, a home with a tiny set of every recipe, and a run with a dataset of one sample."""
    place = tmp_path / "place"
    for folder in SHELF:
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, domain in HOME_DATA.items():
        shutil.copytree(ROOT / "domains" / domain / "fixture", tmp_path / "home" / name)
    with DatasetWriter(place / "runs" / "phantom" / "2-teach", "phantom") as writer:
        ref = writer.add_image(np.full((8, 8, 3), 90, np.uint8))
        turns = [user_turn("What is shown?", images=1), assistant_turn("a grey square")]
        source = {"dataset": "phantom", "record": "0", "split": "train", "kind": "caption", "group": "0"}
        writer.add(Sample("one", turns, [ref], {}, source))
    shim = tmp_path / "bin" / "medkit"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m medkit "$@"\n')
    shim.chmod(0o755)
    return place


@pytest.mark.parametrize("page", COMMANDS)
def test_marked_commands_do_what_the_page_says(page: str, workplace: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MEDKIT_")}
    environment |= {
        "HOME": str(workplace.parent / "home"),
        "PATH": f"{workplace.parent / 'bin'}{os.pathsep}{environment.get('PATH', '')}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }
    marked = [command for command in COMMANDS[page] if command.runs]
    assert marked
    for command in marked:
        done = subprocess.run(
            ["sh", "-c", command.text],
            cwd=workplace,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command.text}\n{done.stdout}{done.stderr}"
        missing = [line for line in command.output if squeezed(line) not in squeezed(done.stdout)]
        assert missing == [], f"{command.text}\n{done.stdout}"


@pytest.mark.parametrize("text", sorted({command.text for command in ALL if words_of(command.text)}))
def test_every_medkit_command_parses(text: str) -> None:
    assert parsed(words_of(text)).command.callback is not None


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["run", "phantom", "--epochs", "2"], "No such option"),
        (["adapt", "phantom"], "No such command"),
        (["new", "domain"], "Missing"),
    ],
)
def test_a_wrong_command_does_not_parse(words: list[str], fault: str) -> None:
    with pytest.raises(
        Exception
    ) as failure:  # typer brings its own click, or an installed one: no type to name
        parsed(words)
    assert fault in f"{failure.value} {getattr(failure.value, 'message', '')} {type(failure.value).__name__}"


def test_settings_of_unmarked_runs_exist() -> None:
    """``run`` isn't run here, but its recipe and its settings are read; the data folder is left out."""
    for command in ALL:
        words = words_of(command.text)
        if words[:1] == ["run"] and words[1] != "welds":
            given = parsed(words).params
            settings = [one for one in given["settings"] or [] if not one.startswith("data=")]
            assert load(given["recipe"], settings, need_data=False).recipe.name == words[1]


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    wanted = set(re.findall(r"(?:`|\$ )make ([a-z]+)", text))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert wanted <= targets
    if page == "README.md":
        assert {"run", "test", "fast", "lint", "install"} <= wanted


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in links if not ((ROOT / page).parent / link).is_file()] == []


def test_the_recipe_of_the_readme_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    shutil.copytree(ROOT / "domains" / "blood" / "fixture", tmp_path / "BCCD")
    (tmp_path / "blood-lora.yaml").write_text(text.replace("~/BCCD", str(tmp_path / "BCCD")))
    cards = load_recipe(tmp_path / "blood-lora.yaml")
    assert (cards.recipe.adapter.rank, cards.recipe.adapter.alpha) == (16, 32)
    assert cards.curriculum.stages["instruct"].epochs == 6


def test_the_readme_names_every_family() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [family for family in FAMILIES if f"`{family}`" not in text] == []


@pytest.mark.slow
def test_the_python_of_the_readme_answers(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    shutil.copytree(ROOT / "checkpoints" / "tiny-general", tmp_path / "runs" / "phantom" / "model")
    Image.new("RGB", (64, 64), (200, 40, 40)).save(tmp_path / "picture.png")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"[a-z]", done.stdout)
