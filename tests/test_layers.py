"""The rules of the house: imports point down, heavy packages stay in their rooms, files stay small."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "medkit"

# Lowest first. A module may import its own room and the floors below, never a room on its own floor.
FLOORS = (
    ("medkit", "errors", "plain_pictures", "progress"),
    ("clusters", "sample", "images", "arrow_files", "digests"),
    ("prepared",),
    ("cards", "store", "privacy"),
    ("readers", "scaffold", "listing", "plan"),
    ("teacher", "models", "state"),
    ("training", "evaluation", "report", "tables", "provenance"),
    ("check", "exchange"),
    ("run", "cli_data", "cli_evaluation", "cli_exchange"),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# The rooms of the steps meet in files only.
STEPS = {"readers", "teacher", "training", "evaluation", "report"}
# The prompt of a test is the prompt of the training: one function, and the only thread between two steps.
BETWEEN_STEPS = {("medkit.evaluation.evaluate", "medkit.training.encode", "render_prompt")}

HEAVY = {
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "tokenizers",
    "torchvision",
    "flash_attn",
    "deepspeed",
    "lmms_eval",
}
HEAVY_AT_TOP = re.compile(
    r"medkit\.(models|training)\..+|medkit\.evaluation\.(generate|likelihood|prefixes)"
    r"|medkit\.exchange\.(answering|lmms_models)"
)
NEVER_AT_TOP = {"datasets", "monai", "openpyxl", "openai", "pandas", "sklearn"}

MOST_LINES = 400
MOST_PARAMETERS = 8


def name_of(path: Path) -> str:
    """Gives ``medkit.cards.load`` for medkit/cards/load.py and ``medkit.cards`` for its ``__init__``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "medkit"


def imports_of(module: str, tree: ast.AST, modules: set[str]) -> list[tuple[str, str]]:
    """Gives (module, imported name or "") of every import below a node."""
    package = module.split(".")
    if MODULES.get(module, Path("x.py")).name != "__init__.py":
        package = package[:-1]
    found: list[tuple[str, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                found.append((inner, "") if inner in modules else (origin, alias.name))
    return found


def at_top(tree: ast.Module) -> list[ast.stmt]:
    """Gives the statements that run at import: no function bodies, nothing for type checkers only."""
    found: list[ast.stmt] = []
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        else:
            waiting += list(ast.iter_child_nodes(node))
    return found


INSIDE = {
    name: [pair for pair in imports_of(name, tree, set(MODULES)) if pair[0].split(".")[0] == "medkit"]
    for name, tree in TREES.items()
}


def test_every_room_has_its_floor() -> None:
    assert {room_of(module) for module in MODULES} == set(FLOOR)


def test_imports_point_down() -> None:
    upward = [
        f"{module} imports {other}"
        for module, pairs in INSIDE.items()
        for other, name in pairs
        if room_of(module) != room_of(other)
        and FLOOR[room_of(other)] >= FLOOR[room_of(module)]
        and (module, other, name) not in BETWEEN_STEPS
    ]
    assert upward == []


def test_steps_meet_in_files_only() -> None:
    between = {
        (module, other, name)
        for module, pairs in INSIDE.items()
        for other, name in pairs
        if {room_of(module), room_of(other)} <= STEPS and room_of(module) != room_of(other)
    }
    assert between == BETWEEN_STEPS


def test_nothing_imports_what_imports_it() -> None:
    waiting = {module: {other for other, _ in pairs} - {module} for module, pairs in INSIDE.items()}
    while free := [module for module, needs in waiting.items() if not needs & waiting.keys()]:
        for module in free:
            del waiting[module]
    assert sorted(waiting) == []


def test_heavy_packages_are_imported_at_the_top_only_where_weights_are() -> None:
    early = [
        f"{module} imports {other}"
        for module, tree in TREES.items()
        for node in at_top(tree)
        for other, _ in imports_of(module, node, set(MODULES))
        if other.split(".")[0] in NEVER_AT_TOP
        or (other.split(".")[0] in HEAVY and not HEAVY_AT_TOP.fullmatch(module))
    ]
    assert early == []


def test_the_light_modules_load_without_torch() -> None:
    light = [module for module in MODULES if not HEAVY_AT_TOP.fullmatch(module)]
    light.remove("medkit.__main__")
    unwanted = sorted(HEAVY | NEVER_AT_TOP)
    code = (
        f"import importlib, sys\nfor name in {light}: importlib.import_module(name)\n"
        f"print([name for name in {unwanted} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_modules_are_small() -> None:
    files = [*MODULES.values(), *ROOT.glob("domains/*/*.py"), *ROOT.glob("evals/*/*.py")]
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_functions_take_few_parameters() -> None:
    many = {}
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = len([one for one in given if one.arg not in ("self", "cls")])
                if count > MOST_PARAMETERS:
                    many[f"{module}.{node.name}"] = count
    assert many == {}


def test_no_file_names_a_place_on_one_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("outside a git checkout there is no list of the project's own files")
    # Written apart, so that this file does not name them either.
    homes = "|".join(("/" + "work", "/" + "root", "/" + "opt", "/" + r"home/\w+", "/" + r"Users/\w+"))
    place = re.compile(rf"(?<![\w.<*}}])({homes})/")
    named = []
    for line in listed.stdout.splitlines():
        path = ROOT / line
        if path.is_file() and b"\0" not in path.read_bytes()[:8000]:
            text = path.read_text(encoding="utf-8", errors="replace")
            named += [f"{line}: {found.group(0)}" for found in place.finditer(text)]
    assert named == []
