"""Runs the steps of a plan: each once, atomically, and only those whose outputs are not there yet."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from .cards.load import Cards
from .errors import MedkitError
from .plan import Step, final_stage, plan
from .provenance import resolved
from .state import State, read_json, states
from .tables import closing_table, plan_table, seconds_text

Verb = Callable[[dict[str, Any], dict[str, Path], Path], dict[str, Any]]

VERBS = {
    "ingest": "medkit.readers.ingest:ingest",
    "teach": "medkit.teacher.teach:teach",
    "benchmark": "medkit.readers.benchmarks:read_benchmark",
    "build": "medkit.models.build:build",
    "train": "medkit.training.train:train",
    "evaluate": "medkit.evaluation.evaluate:evaluate",
    "compare": "medkit.evaluation.compare:compare",
}


class Stopped(MedkitError):
    """Someone pressed Ctrl-C; what is done stays."""

    exit_code = 130


def run_recipe(
    cards: Cards,
    folder: Path,
    *,
    command: Sequence[str] = (),
    verbs: Mapping[str, Verb] | None = None,
    console: Console | None = None,
) -> Path:
    """Runs a recipe to its report.

    Args:
        cards: The loaded recipe.
        folder: The run folder, made if it is not there.
        command: The command line, for ``resolved.json``.
        verbs: Verb -> function; medkit's own when None.
        console: Where progress is written.

    Returns:
        The path of the report.

    Raises:
        MedkitError: A step can't go on; the message names it.
        Stopped: Ctrl-C.
    """
    console = console or Console()
    steps = plan(cards)
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(folder):
        found = states(steps, folder)
        fingerprints = {state.step.name: state.identity.fingerprint for state in found}
        finished = read_json(folder / "finished.json")
        report = folder / "report.html"
        waiting = [state for state in found if state.state != "done"]
        complete = (
            finished.get("fingerprints") == fingerprints and report.is_file() and (folder / "model").is_dir()
        )
        if not waiting and complete:
            console.print(
                f"Nothing to do: all {len(steps)} steps of {cards.recipe.name} are done with these settings."
            )
            console.print(closing_table(folder, steps))
            console.print(f"Report: {report}", soft_wrap=True)
            return report
        _set_aside(folder, steps)
        (folder / "recipe.yaml").write_text(cards.text, encoding="utf-8")
        write_json(folder / "resolved.json", resolved(cards, found, command))
        console.print(plan_table(found, title=f"{cards.recipe.title} ({folder})"))
        run(steps, folder, verbs=verbs, console=console, found=found)
        final = next(step for step in steps if step.name == final_stage(cards))
        place_model(folder / final.folder / "model", folder / "model")
        report = _verb("report", {**(verbs or {})})(folder)
        write_json(folder / "finished.json", {"fingerprints": fingerprints, "finished": _now()})
    console.print(closing_table(folder, steps))
    console.print(f"Model:  {folder / 'model'}", soft_wrap=True)
    console.print(f"Report: {report}", soft_wrap=True)
    return Path(report)


def run(
    steps: Sequence[Step],
    folder: Path,
    *,
    verbs: Mapping[str, Verb] | None = None,
    console: Console | None = None,
    found: Sequence[State] | None = None,
) -> list[str]:
    """Runs what is not done of a plan, in order.

    Args:
        steps: The plan.
        folder: The run folder.
        verbs: Verb -> function; medkit's own when None.
        console: Where progress is written.
        found: The steps' states where the caller has them.

    Returns:
        The names of the steps that ran.

    Raises:
        MedkitError: A step can't go on; the message names it.
        Stopped: Ctrl-C.
    """
    console = console or Console()
    folder.mkdir(parents=True, exist_ok=True)
    ran: list[str] = []
    for state in found or states(steps, folder):
        step = state.step
        label = f"[bold]{step.number}/{len(steps)} {step.name}[/bold]"
        if state.state == "done":
            _renumber(state, folder)
            continue
        console.print(f"{label} {'goes on' if state.state == 'resume' else step.about}", highlight=False)
        started = time.monotonic()
        try:
            _run_step(state, steps, folder, verbs or {})
        except KeyboardInterrupt:
            message = f"Stopped in step {step.folder}; what is done is kept: the same command goes on there."
            raise Stopped(message) from None
        except MedkitError as error:
            error.args = (f"step {step.folder}: {error}",)
            raise
        ran.append(step.name)
        console.print(f"{label} done in {seconds_text(time.monotonic() - started)}", highlight=False)
    return ran


def place_model(source: Path, target: Path) -> None:
    """Puts a model folder at another place as a whole, by hard links where the disk allows them.

    Raises:
        MedkitError: There is no model to place.
    """
    if not source.is_dir():
        raise MedkitError(
            f"{source}: the final stage left no model folder; delete its step folder and run again"
        )
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, copy_function=_link_or_copy)
    old = target.with_name(f"{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never a half."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _run_step(state: State, steps: Sequence[Step], folder: Path, verbs: Mapping[str, Verb]) -> None:
    step, identity, out = state.step, state.identity, folder / state.step.folder
    if state.state == "redo" and state.folder and not _remembers(state):
        shutil.rmtree(state.folder)
    _renumber(state, folder)
    out.mkdir(exist_ok=True)
    # The summary is the mark of a finished step: it must not lie there while the step runs again.
    (out / "summary.json").unlink(missing_ok=True)
    write_json(out / "started.json", identity.as_dict())
    started = time.monotonic()
    result = _verb(step.verb, verbs)(step.settings, step_inputs(step, steps, folder), out)
    summary = {
        "step": step.name,
        "verb": step.verb,
        "fingerprint": identity.fingerprint,
        "settings": step.settings,
        "inputs": {role: value["fingerprint"] for role, value in identity.inputs.items()},
        "external": identity.external,
        "seconds": round(time.monotonic() - started, 3),
        "finished": _now(),
        "result": result,
    }
    write_json(out / "summary.json", summary)


def _remembers(state: State) -> bool:
    """Says whether a step takes what is still right from its old folder: pictures of files that didn't change."""
    old = read_json((state.folder or Path()) / "started.json")
    same = (state.identity.verb, state.identity.revision)
    return state.identity.verb == "ingest" and (old.get("verb"), old.get("revision")) == same


def step_inputs(step: Step, steps: Sequence[Step], folder: Path) -> dict[str, Path]:
    """Gives the paths that a step reads: step folders, model folders, outside paths."""
    places = {other.name: folder / other.folder for other in steps}
    inputs = {role: Path(path.removeprefix("hub:")) for role, path in step.external.items()}
    for role, name in step.inputs.items():
        inputs[role] = places[name] / "model" if role in ("start", "model") else places[name]
    return inputs


def _verb(name: str, verbs: Mapping[str, Any]) -> Any:
    if name in verbs:
        return verbs[name]
    module, _, function = {**VERBS, "report": "medkit.report.build:write_report"}[name].partition(":")
    return getattr(import_module(module), function)


def _renumber(state: State, folder: Path) -> None:
    """Moves a step's folder to its number in this plan."""
    wanted = folder / state.step.folder
    if state.folder and state.folder.exists() and state.folder != wanted:
        shutil.rmtree(wanted, ignore_errors=True)
        state.folder.rename(wanted)


def _set_aside(folder: Path, steps: Sequence[Step]) -> None:
    """Moves folders of steps that the plan no longer has to ``unused/``, where no report reads them."""
    names = {step.name for step in steps}
    datasets = {step.folder for step in steps if step.verb in ("ingest", "teach")}
    for path in sorted(folder.iterdir()):
        number, _, name = path.name.partition("-")
        if not number.isdigit() or not path.is_dir():
            continue
        moved_dataset = name.partition("-")[0] in ("ingest", "teach") and path.name not in datasets
        if name not in names or moved_dataset:
            unused = folder / "unused" / path.name
            unused.parent.mkdir(exist_ok=True)
            shutil.rmtree(unused, ignore_errors=True)
            path.rename(unused)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Keeps two runs out of one folder; the lock goes with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # a system without file locks
        yield
        return
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            message = (
                f"{folder}: another medkit run works in this folder; wait for it or give --name another name"
            )
            raise MedkitError(message) from None
        yield


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
