"""The real command on shortened recipes: builds, adapts, is killed and goes on, and leaves a model for others."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "checkpoints" / "tiny-general"
SHORT_PHANTOM = (
    "ingest.train=120", "ingest.valid=24", "ingest.test=20", "replay.count=60",
    "see.epochs=1", "align.epochs=1", "instruct.epochs=1", "instruct.checkpoint_every=2",
    "instruct-no-replay.epochs=0.5", "teacher.conversations_per_image=1",
    "hardware.precision=fp32", "hardware.processes=1",
)  # fmt: skip
SHORT_GENERAL = (
    "ingest.train=120", "ingest.valid=24", "ingest.test=16", "build.vision_width=32", "build.vision_layers=1",
    "build.language_width=32", "build.language_layers=1", "build.language_inner=64", "build.vocabulary=600",
    "see.epochs=1", "align.epochs=1", "instruct.epochs=1", "look.epochs=0.5", "practise.epochs=0.5",
)  # fmt: skip

# Plain transformers in a process that refuses to import medkit.
PLAIN = """
import builtins, json, sys
real = builtins.__import__
def guard(name, *rest, **more):
    if name.split(".")[0] == "medkit":
        raise ImportError("medkit is not to be had here")
    return real(name, *rest, **more)
builtins.__import__ = guard
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
folder, asked = sys.argv[1], json.loads(sys.argv[2])
if len(sys.argv) > 3:
    from peft import PeftModel
    base = AutoModelForImageTextToText.from_pretrained(sys.argv[3], dtype="float32")
    model = PeftModel.from_pretrained(base, folder)
else:
    model = AutoModelForImageTextToText.from_pretrained(folder)
processor = AutoProcessor.from_pretrained(folder)
answers = []
for row in asked:
    image = Image.open(row["file"])
    inputs = processor(text=row["prompt"], images=image, return_tensors="pt", add_special_tokens=False)
    out = model.generate(**inputs, max_new_tokens=16, do_sample=False)[0, inputs["input_ids"].shape[1]:]
    answers.append(processor.decode(out, skip_special_tokens=True).strip())
print("ANSWERS" + json.dumps(answers))
"""

pytestmark = pytest.mark.slow


def medkit(folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a folder, with one thread."""
    return subprocess.run(
        [sys.executable, "-m", "medkit", *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=check,
    )


def environment() -> dict[str, str]:
    """The environment of a run: this checkout's code, one thread."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def flags(settings: tuple[str, ...]) -> list[str]:
    """Settings as --set flags."""
    return [word for setting in settings for word in ("--set", setting)]


def plain_answers(
    stage: str, run: Path, scratch: Path, base: Path | None = None
) -> tuple[list[str], list[str]]:
    """Gives medkit's stored answers and those of plain transformers for the first questions."""
    from medkit.models.contract import Contract, prepare_image
    from medkit.store import open_dataset

    rows = [
        json.loads(line)
        for line in next(run.glob(f"*-evaluate-{stage}/answers.jsonl")).read_text().splitlines()
    ]
    rows = [row for row in rows if row["benchmark"] == "held-out" and row["control"] == "none"][:12]
    dataset = open_dataset(next(run.glob("*-teach")))
    told = json.loads((run / "model" / "medkit.json").read_text())
    contract = Contract(told["fit"], tuple(told["mean_colour"]))
    asked = []
    for number, row in enumerate(rows):
        file = scratch / f"{number}.png"
        prepare_image(dataset.image(row["image"]), contract).save(file)
        asked.append({"prompt": row["prompt"], "file": str(file)})
    words = [
        sys.executable,
        "-c",
        PLAIN,
        str(run / "model"),
        json.dumps(asked),
        *([str(base)] if base else []),
    ]
    done = subprocess.run(words, cwd=scratch, capture_output=True, text=True, check=True)
    return [row["answer"] for row in rows], json.loads(done.stdout.split("ANSWERS")[1])


def weights(folder: Path) -> str:
    """The hash of a model's weights."""
    return hashlib.sha256(next(folder.glob("*model.safetensors")).read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished short run of the default recipe; gives the folder that it was started in."""
    folder = tmp_path_factory.mktemp("phantom")
    medkit(folder, "run", "phantom", *flags(SHORT_PHANTOM))
    return folder


def test_the_default_recipe_ends_with_a_report_and_a_model(phantom: Path):
    run = phantom / "runs" / "phantom"
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert (run / "model" / "medkit.json").is_file()
    assert {path.name.split("-", 1)[1] for path in run.glob("[0-9]*-*")} >= {
        "ingest",
        "teach",
        "align",
        "instruct",
        "instruct-no-replay",
        "compare",
    }
    scores = json.loads(next(run.glob("*-evaluate-instruct/scores.json")).read_text())["benchmarks"]
    assert set(scores) == {"held-out", "general-scenes"}
    assert set(scores["held-out"]["controls"]) == {"blank", "shuffled"}


def test_a_second_run_redoes_nothing_and_says_so(phantom: Path):
    started = time.time()
    done = medkit(phantom, "run", "phantom", *flags(SHORT_PHANTOM))
    assert "Nothing to do" in done.stdout
    changed = [
        path
        for path in (phantom / "runs" / "phantom").rglob("*")
        if path.is_file() and path.stat().st_mtime > started
    ]
    assert [path.name for path in changed if path.name != ".lock"] == []


def test_a_changed_setting_redoes_what_depends_on_it(phantom: Path):
    told = medkit(phantom, "check", "phantom", *flags(SHORT_PHANTOM), "--set", "instruct.epochs=2").stdout
    state = {
        line.split()[1]: line.split()[2]
        for line in told.splitlines()
        if line.strip()[:1].isdigit() and " of " not in line
    }
    redone = {name for name, what in state.items() if what == "redo"}
    assert redone == {"instruct", "evaluate-instruct", "compare"}
    assert "epochs" in told


def test_plain_transformers_gives_the_same_answers(phantom: Path, tmp_path: Path):
    run = phantom / "runs" / "phantom"
    ours, theirs = plain_answers("instruct", run, tmp_path)
    assert len(ours) == 12
    assert ours == theirs


def test_a_killed_run_goes_on_and_ends_the_same(phantom: Path, tmp_path: Path):
    words = [sys.executable, "-m", "medkit", "run", "phantom", *flags(SHORT_PHANTOM)]
    process = subprocess.Popen(
        words, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    run = tmp_path / "runs" / "phantom"
    deadline = time.monotonic() + 240
    while not list(run.glob("*-instruct/checkpoints/step-????????")) and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before its first checkpoint"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not next(run.glob("[0-9]-instruct")).joinpath("summary.json").exists()
    told = medkit(tmp_path, "run", "phantom", *flags(SHORT_PHANTOM)).stdout
    assert "instruct goes on" in told
    assert weights(run / "model") == weights(phantom / "runs" / "phantom" / "model")


def test_an_adapter_folder_loads_with_plain_peft(tmp_path: Path):
    settings = (
        "ingest.train=60", "ingest.valid=12", "ingest.test=12", "adapter.kind=lora", "adapter.rank=4",
        "curriculum=instruct-only", "instruct.epochs=0.3", "benchmarks=[held-out]",
    )  # fmt: skip
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "lora.yaml").write_text(
        "name: lora\ntitle: LoRA\nbase: tiny-general\ndomain: phantom\ncurriculum: instruct-only\n"
        "stages: {instruct: {batch: 16, train: {projector: 1.0e-3, language: 1.0e-3}}}\n"
    )
    medkit(tmp_path, "run", "lora", *flags(settings))
    run = tmp_path / "runs" / "lora"
    assert (run / "model" / "adapter_model.safetensors").is_file()
    ours, theirs = plain_answers("instruct", run, tmp_path, base=BASE)
    assert ours == theirs


def test_the_recipe_of_the_shipped_checkpoint_still_runs(tmp_path: Path):
    medkit(tmp_path, "run", "tiny-general", *flags(SHORT_GENERAL))
    run = tmp_path / "runs" / "tiny-general"
    logged = [json.loads(line) for line in next(run.glob("*-see/log.jsonl")).read_text().splitlines()]
    assert logged[-1]["loss"] < logged[0]["loss"]
    provenance = json.loads((run / "model" / "medkit.json").read_text())["provenance"]
    assert {"built", "stage:see", "stage:align", "stage:instruct"} <= set(provenance)


def test_the_shipped_checkpoint_is_the_one_its_recipe_made():
    note = json.loads((BASE / "made.json").read_text())
    assert note["sha256"] == weights(BASE)
    assert note["recipe"] == "recipes/tiny-general.yaml"
    assert (BASE / "model.safetensors").stat().st_size <= 12 * 1024 * 1024
