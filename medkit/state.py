"""What of a plan is already on disk: fingerprints, the state of each step, and why a step must be redone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .plan import REVISIONS, Step

# Files of an input up to this many bytes in all are told apart by content, others by listing.
CONTENT_LIMIT_BYTES = 32_000_000

# Settings that change no output: where things lie, how they are described, how progress is kept.
NEUTRAL = {
    "data",
    "domain.folder",
    "domain.title",
    "domain.description",
    "domain.teacher",
    "domain.fixture",
    "domain.data.env",
    "domain.data.where",
    "workers",
    "engine",
    "hardware.threads",
    "hardware.processes",
    "hardware.engine",
    "title",
    "trackers",
    "checkpoint_every",
    "benchmarks.title",
    "benchmarks.description",
    "benchmarks.citation",
    "benchmarks.data",  # what was read is an input
    "benchmarks.fixture",
}


@dataclass(frozen=True)
class Identity:
    """Everything that a step's output depends on; what ``started.json`` holds."""

    verb: str
    revision: int
    settings: dict[str, Any]
    inputs: dict[str, dict[str, str]]  # role -> {"step": name, "fingerprint": ...}
    external: dict[str, str]  # role -> digest
    fingerprint: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Gives the JSON form."""
        return {key: getattr(self, key) for key in self.__dataclass_fields__}


@dataclass(frozen=True)
class State:
    """Where a step stands.

    Attributes:
        step: The step.
        state: ``done``, ``resume`` (begun with these settings), ``redo`` (done with others) or ``new``.
        identity: What the step depends on now.
        reasons: For ``redo``: what changed, from what to what.
        folder: The folder that is there, under whatever number; None for ``new``.
    """

    step: Step
    state: Literal["done", "resume", "redo", "new"]
    identity: Identity
    reasons: list[str] = field(default_factory=list)
    folder: Path | None = None


def states(steps: Sequence[Step], folder: Path) -> list[State]:
    """Gives the state of every step in a run folder, which need not exist."""
    return [_state(step, identity, folder) for step, identity in zip(steps, identities(steps), strict=True)]


def identities(steps: Sequence[Step]) -> list[Identity]:
    """Gives what each step depends on; reads the external data and models that the steps name."""
    found: dict[str, Identity] = {}
    digests: dict[str, str] = {}
    for step in steps:
        for path in step.external.values():
            if path not in digests:
                digests[path] = digest(path)
        inputs = {
            role: {"step": name, "fingerprint": found[name].fingerprint} for role, name in step.inputs.items()
        }
        external = {role: digests[path] for role, path in step.external.items()}
        settings = without_neutral(step.settings)
        revision = REVISIONS.get(step.verb, 1)
        parts = [step.verb, revision, settings, inputs, external]
        encoded = json.dumps(parts, sort_keys=True, ensure_ascii=True).encode()
        fingerprint = hashlib.sha256(encoded).hexdigest()
        found[step.name] = Identity(step.verb, revision, settings, inputs, external, fingerprint)
    return list(found.values())


def digest(path: str) -> str:
    """Gives a digest of a file or folder that a step reads.

    Small inputs count by content, so a copy or a fresh checkout is the same; large ones by the names, sizes
    and times of their files. A hub id counts by its name, a path that is not there by nothing.
    """
    if path.startswith("hub:"):
        return path
    root = Path(path)
    if not root.exists():
        return "absent"
    files = sorted(file for file in ([root] if root.is_file() else root.rglob("*")) if file.is_file())
    stats = [file.stat() for file in files]
    by_content = sum(stat.st_size for stat in stats) <= CONTENT_LIMIT_BYTES and len(files) <= 1000
    total = hashlib.sha256()
    for file, stat in zip(files, stats, strict=True):
        total.update(f"{file.relative_to(root)}\0{stat.st_size}\0".encode(errors="surrogatepass"))
        total.update(
            hashlib.sha256(file.read_bytes()).digest() if by_content else str(stat.st_mtime_ns).encode()
        )
    return f"{'content' if by_content else 'listing'}:{total.hexdigest()}"


def without_neutral(value: Any, trail: str = "") -> Any:
    """Gives settings without what changes no output."""
    if isinstance(value, dict):
        kept = {}
        for key, inner in value.items():
            name = f"{trail}.{key}" if trail else str(key)
            if name not in NEUTRAL:
                kept[key] = without_neutral(inner, name)
        return kept
    if isinstance(value, list):
        return [without_neutral(inner, trail) for inner in value]
    return value


def read_json(path: Path) -> dict[str, Any]:
    """Gives a JSON object from disk, {} when it is absent or broken."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Says which settings differ: ``train.projector: 0.001 -> 0.002``."""
    before, after = _flat(old), _flat(new)
    lines = []
    for key in dict.fromkeys([*before, *after]):
        if before.get(key, _ABSENT) != after.get(key, _ABSENT):
            lines.append(f"{key}: {_short(before.get(key, _ABSENT))} -> {_short(after.get(key, _ABSENT))}")
    return lines


_ABSENT = object()


def _state(step: Step, identity: Identity, run: Path) -> State:
    folder = existing_folder(run, step)
    if folder is None:
        return State(step, "new", identity)
    started = read_json(folder / "started.json")
    if started.get("fingerprint") != identity.fingerprint:
        return State(step, "redo", identity, _reasons(started, identity), folder)
    finished = read_json(folder / "summary.json").get("fingerprint") == identity.fingerprint
    if finished and step.verb in ("train", "build") and not (folder / "model").is_dir():
        return State(step, "resume", identity, ["its model folder is gone"], folder)
    return State(step, "done" if finished else "resume", identity, [], folder)


def existing_folder(run: Path, step: Step) -> Path | None:
    """Finds a step's folder, also under another number when steps before it came or went.

    Dataset folders point to one another by relative path, so theirs must have the very number.
    """
    exact = run / step.folder
    if exact.is_dir():
        return exact
    if step.verb in ("ingest", "teach") or not run.is_dir():
        return None
    for path in sorted(run.iterdir()):
        number, _, name = path.name.partition("-")
        if number.isdigit() and name == step.name and path.is_dir():
            return path
    return None


def _reasons(started: dict[str, Any], identity: Identity) -> list[str]:
    if not started:
        return ["its record of how it was made is gone or broken"]
    reasons = []
    if started.get("verb") != identity.verb:
        reasons.append(f"it is now a {identity.verb} step")
    elif started.get("revision") != identity.revision:
        reasons.append(
            f"medkit's {identity.verb} changed (revision {started.get('revision')} -> {identity.revision})"
        )
    settings = started.get("settings")
    reasons += differences(settings if isinstance(settings, dict) else {}, identity.settings)
    inputs = started.get("inputs")
    inputs = inputs if isinstance(inputs, dict) else {}
    for role in dict.fromkeys([*inputs, *identity.inputs]):
        old, new = inputs.get(role) or {}, identity.inputs.get(role) or {}
        if old.get("step") != new.get("step"):
            reasons.append(
                f"input {role}: {old.get('step', 'outside the run')} -> {new.get('step', 'outside the run')}"
            )
        elif old.get("fingerprint") != new.get("fingerprint"):
            reasons.append(f"its input {new['step']} changed")
    external = started.get("external")
    external = external if isinstance(external, dict) else {}
    for role in dict.fromkeys([*external, *identity.external]):
        if role in external and role in identity.external and external[role] != identity.external[role]:
            names = {"data": "the files of data changed", "code": "domain.py changed"}
            reasons.append(names.get(role, "the base model changed"))
    return list(dict.fromkeys(reasons)) or ["its record of how it was made is incomplete"]


def _flat(value: Any, trail: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        flat: dict[str, Any] = {}
        for key, inner in value.items():
            flat.update(_flat(inner, f"{trail}.{key}" if trail else str(key)))
        return flat
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        names = [item.get("name", item.get("kind")) if isinstance(item, dict) else None for item in value]
        unique = None not in names and len(set(names)) == len(names)
        return _flat(
            {
                str(name if unique else at): item
                for at, (name, item) in enumerate(zip(names, value, strict=True))
            },
            trail,
        )
    return {trail: value}


def _short(value: Any) -> str:
    if value is _ABSENT:
        return "(not set)"
    if isinstance(value, float):
        return f"{value:.12g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
