"""The wheel alone is medkit: code, cards and checkpoint, in an environment without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parent.parent
SHELF = ("checkpoints", "curricula", "domains", "evals", "recipes")
NOISE = ("__pycache__", ".pyc", ".partial")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel that borrows this one's packages, but not its .pth files."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    python = folder / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "-q",
        "--no-index",
        "--no-deps",
    ]
    subprocess.run([*install, str(wheel)], check=True)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def run(command: list[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    hidden = ("PYTHONPATH", "MEDKIT_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    environment["COLUMNS"] = "200"
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_holds_the_package_and_the_shelf_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "medkit").rglob("*") if path.is_file()}
    shelf = {
        f"medkit/_shelf/{path.relative_to(ROOT).as_posix()}"
        for folder in SHELF
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    }
    wanted = {name for name in code | shelf if not any(noise in name for noise in NOISE)}
    info = {name for name in names if name.startswith("medkit_lmm-") and ".dist-info/" in name}
    assert names - info == wanted
    assert "medkit/report/template.html" in names
    assert "medkit/report/style.css" in names
    assert "medkit/readers/contact_sheet.html" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in info)


def test_the_installed_code_is_the_wheels(clean: Path, tmp_path: Path) -> None:
    code = "import medkit, importlib.metadata as m; print(medkit.__file__); print(m.version('medkit-lmm'))"
    done = run([clean / "bin" / "python", "-c", code], tmp_path)
    file, version = done.stdout.split()
    assert Path(file).is_relative_to(clean)
    assert version == "0.1.0"


def test_list_names_everything_that_ships(clean: Path, tmp_path: Path) -> None:
    done = run([clean / "bin" / "medkit", "list"], tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {tuple(line.split()[:2]) for line in done.stdout.splitlines() if line.strip()}
    assert rows >= {
        ("recipe", "phantom"),
        ("recipe", "blood"),
        ("recipe", "retail"),
        ("recipe", "sorting"),
        ("recipe", "tiny-general"),
        ("curriculum", "align-instruct"),
        ("domain", "phantom"),
        ("domain", "scenes"),
        ("benchmark", "held-out"),
        ("benchmark", "general-scenes"),
        ("checkpoint", "tiny-general"),
    }


def test_check_plans_the_shipped_example(clean: Path, tmp_path: Path) -> None:
    done = run([clean / "bin" / "medkit", "check", "phantom"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "steps would run" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_check_finds_no_fault_in_what_ships(clean: Path, tmp_path: Path) -> None:
    done = run([clean / "bin" / "medkit", "check"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
