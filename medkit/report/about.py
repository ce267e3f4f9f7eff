"""The told part of the report: where the data came from, what the model is, how to make it again."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

from medkit.cards.adapters import READS
from medkit.errors import MedkitError
from medkit.report import wording
from medkit.report.read import Run, Step, dataset_folders, find_key, ledger_rows, mapping
from medkit.store import open_dataset


def ledger(run: Run) -> list[dict[str, Any]]:
    """Counts every input record's fate by step, fate and reason, with one example of each."""
    found = []
    for step in run.steps:
        counts: Counter[tuple[str, str]] = Counter()
        examples: dict[tuple[str, str], str] = {}
        for row in ledger_rows(step):
            fate = (str(row.get("fate") or "?"), str(row.get("reason") or ""))
            counts[fate] += 1
            if fate[0] != "kept":
                example = ": ".join(str(row[name]) for name in ("record", "detail") if row.get(name))
                examples.setdefault(fate, example[:200])
        order = sorted(counts, key=lambda fate: (_FATES.get(fate[0], len(_FATES)), -counts[fate]))
        found += [
            {
                "step": step.name,
                "fate": fate[0],
                "reason": wording.words(fate[1]),
                "count": wording.count(counts[fate]),
                "example": examples.get(fate, ""),
            }
            for fate in order
        ]
    return found


_FATES = {"kept": 0, "merged": 1, "rejected": 2, "told": 3}


def data_card(run: Run) -> list[dict[str, Any]]:
    """Describes each dataset of the run: source, licence, teacher, and its counts by split and kind."""
    cards = []
    for step in [*run.of("ingest"), *run.of("teach")]:
        domain = mapping(step.settings.get("domain"))
        facts = [
            ("Title", domain.get("title")),
            ("Description", domain.get("description")),
            ("Licence", domain.get("licence")),
            ("Source", _source(step, domain)),
            ("Text", _text_origin(step) if step.verb == "teach" else None),
            ("Splits", _counts(step, "splits")),
            ("Kinds of sample", _counts(step, "kinds")),
            ("Groups", _counts(step, "groups") if step.verb == "ingest" else None),
        ]
        cards.append(
            {
                "step": step.name,
                "verb": step.verb,
                "facts": [(name, value) for name, value in facts if value],
                "samples": wording.count(_summary(step, "samples")),
                "images": wording.count(_summary(step, "images")),
                "finished": step.finished,
            }
        )
    return cards


def model_card(run: Run, final: str) -> dict[str, Any]:
    """Describes the model of the run: base, adapter, trainable parts of each stage, intended use."""
    domain = next((mapping(step.settings.get("domain")) for step in run.of("ingest")), {})
    title = str(domain.get("title") or wording.words(_plain(run.recipe.get("domain"))) or "the domain")
    stages = []
    for step in run.of("train"):
        parts = step.result.get("trainable")
        parts = parts if isinstance(parts, dict) else {"all": parts} if parts is not None else {}
        stages.append(
            {
                "name": step.name,
                "final": step.name == final,
                "start": find_key(step.settings, "start") or "",
                "parts": [(name, wording.count(amount)) for name, amount in parts.items()],
                "samples": wording.count(step.result.get("samples_seen")),
            }
        )
    return {
        "base": _plain(run.recipe.get("base")) or "not recorded",
        "adapter": _adapter(run.recipe.get("adapter")),
        "curriculum": _plain(run.recipe.get("curriculum")),
        "stages": stages,
        "present": (run.folder / "model").is_dir(),
        "use": f"Short answers to questions about images like those of this run ({title}).",
    }


def reproduce(run: Run) -> dict[str, Any]:
    """Gives the commands that make the run again, the versions they ran with, and the recipe's text."""
    resolved = run.resolved
    return {
        "commands": _commands(run),
        "versions": _pairs(resolved.get("versions")),
        "machine": _pairs(resolved.get("machine")),
        "git": _pairs(resolved.get("git")),
        "recipe": run.recipe_text,
        "resolved": _homeless(json.dumps(resolved, indent=1, ensure_ascii=False)) if resolved else "",
        "steps": [
            {
                "name": step.name,
                "verb": step.verb,
                "seconds": wording.duration(step.summary.get("seconds")) if step.finished else "not finished",
                "fingerprint": str(step.summary.get("fingerprint") or "")[:12],
            }
            for step in run.steps
        ],
    }


def _adapter(adapter: Any) -> str:
    values = mapping(adapter)
    if values.get("kind") == "full":
        return "none: the trainable parts change as a whole"
    told = [
        f"{name} {_plain(value)}"
        for name, value in values.items()
        if name in (*READS.get(str(values.get("kind")), values), "quantize") and name != "kind"
        if value not in (None, [], "none")
    ]
    return ", ".join([_plain(values.get("kind")), *told]) if values else _plain(adapter) or "not recorded"


def _commands(run: Run) -> list[str]:
    command = run.resolved.get("command")
    if isinstance(command, list):
        command = shlex.join(str(part) for part in command)
    if command:
        commands = [str(command)]
    else:
        return []
    version = mapping(run.resolved.get("versions")).get("medkit")
    return [
        _homeless(line) for line in ([f"pip install medkit-lmm=={version}"] if version else []) + commands
    ]


def _homeless(text: str) -> str:
    """Leaves the home folder, and with it the user's name, out of a file that is made to be passed on."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def _pairs(value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [(wording.words(name), _plain(inner)) for name, inner in value.items() if inner is not None]
    return [("state", _plain(value))] if value else []


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return str(value.get("name") or json.dumps(value, ensure_ascii=False))
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    return str(value)


def _source(step: Step, domain: dict[str, Any]) -> str:
    if step.verb != "ingest":
        return ""
    reader = mapping(domain.get("data")).get("reader")
    if reader == "drawn":
        return "drawn by medkit from a seed: invented, no patient and no photograph"
    where = mapping(domain.get("data")).get("where")
    return ". ".join(str(part).rstrip(".") for part in (f"read by {reader}" if reader else "", where) if part)


def _text_origin(step: Step) -> str:
    version = step.result.get("prompt_version", mapping(step.settings.get("teacher")).get("version"))
    source = step.result.get("derived_from") or "annotations"
    named = f" (card version {version})" if version is not None else ""
    return (
        f"derived from {str(source).removeprefix('derived from ').rstrip('.')} by the rule teacher{named}; "
        "no person and no language model wrote it, and it can't be better than the annotations"
    )


def _summary(step: Step, name: str) -> Any:
    value = find_key(step.result, name)
    for folder in dataset_folders(step) if value is None else []:
        try:
            value = open_dataset(folder).summary.get(name)
        except MedkitError:
            continue
    return value


def _counts(step: Step, name: str) -> str:
    value = _summary(step, name)
    if not isinstance(value, dict):
        return "" if wording.number(value) is None else f"{wording.count(value)} (splits are cut by group)"
    counts = {key: amount for key, amount in value.items() if wording.number(amount) is not None}
    return ", ".join(
        f"{wording.words(key)}{wording.SPACE}{wording.count(amount)}" for key, amount in counts.items()
    )
