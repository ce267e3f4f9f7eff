"""An evaluation outside of a run: a checkpoint folder or an endpoint on the questions of a dataset folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medkit.cards.faults import did_you_mean
from medkit.cards.load import load_card
from medkit.cards.models import Benchmark, Hardware
from medkit.cards.shelf import open_shelf
from medkit.cards.strict_yaml import parse_value
from medkit.errors import CardError, MedkitError
from medkit.evaluation.endpoint_card import MANNERS, EndpointCard
from medkit.evaluation.evaluate import PARTIAL, REPLIES, evaluate
from medkit.evaluation.replies import claim, forget_failed
from medkit.state import digest

IDENTITY = "evaluation.json"
BATCH_CHECK = 8
HARDWARE = ("device", "precision", "processes")  # keys of a recipe's hardware that answering heeds


def evaluate_alone(
    model: Path | EndpointCard,
    benchmarks: Sequence[Benchmark],
    data: Path,
    out: Path,
    *,
    retry_failed: bool = False,
    hardware: Hardware | None = None,
) -> dict[str, Any]:
    """Scores a model on benchmarks and writes ``answers.jsonl`` and ``scores.json`` as a run does.

    Called again on the folder of a killed evaluation it asks only what has no answer yet, on a finished one
    nothing.

    Args:
        model: A model folder, or an endpoint.
        benchmarks: Their cards.
        data: Dataset folder with the questions.
        out: Folder of this evaluation and no other.
        retry_failed: Ask questions again that ended without a reply; endpoints only.
        hardware: What a model folder answers on; how many processes may change between calls.

    Returns:
        The content of ``scores.json``.

    Raises:
        MedkitError: ``out`` holds another evaluation, or what ``evaluate`` raises.
    """
    remote = isinstance(model, EndpointCard)
    hardware = hardware or Hardware()
    if retry_failed and not remote:
        raise MedkitError("--retry-failed is for endpoints: a model folder replies to every question")
    if remote and hardware != Hardware():
        raise MedkitError("--set hardware.… is for a model folder: an endpoint answers on its own machine")
    identity: dict[str, Any] = {
        "model": model.model_dump(exclude=set(MANNERS)) if remote else digest(str(model)),
        "benchmarks": [card.model_dump() for card in benchmarks],
        "data": digest(str(data)),
    }
    # Both may change an answer; what is not stated is left out, so that older folders stay as they are.
    stated = hardware.model_dump(include={"device", "precision"}, exclude_defaults=True)
    if stated:
        identity["hardware"] = stated
    if identity["model"] == "absent":
        raise MedkitError(f"{model}: no model folder is there")
    claim(out, identity, IDENTITY)
    if retry_failed and remote:
        forget_failed(out, PARTIAL, REPLIES)
        (out / "scores.json").unlink(missing_ok=True)
    if not (out / "scores.json").exists():
        settings = {
            "name": model.model if isinstance(model, EndpointCard) else model.resolve().name,
            "benchmarks": identity["benchmarks"],
            "batch_check": BATCH_CHECK,
            "hardware": hardware.model_dump(),
            "endpoint": model if remote else None,
        }
        inputs = {"data": data}
        evaluate(settings, inputs if isinstance(model, EndpointCard) else inputs | {"model": model}, out)
    return json.loads((out / "scores.json").read_text(encoding="utf-8"))


def find_benchmarks(names: Sequence[str], settings: Sequence[str] = ()) -> list[Benchmark]:
    """Gives benchmark cards of the shelf, changed by ``KEY=VALUE`` texts.

    Raises:
        CardError: A card is missing or faulty.
        MedkitError: A setting is no key of a benchmark, or its value is not allowed.
    """
    shelf = open_shelf()
    found: list[Benchmark] = []
    for name in dict.fromkeys(names):
        path = shelf.find("benchmark", name)
        if path is None:
            hint = did_you_mean(name, shelf.names("benchmark"))
            raise MedkitError(f"{name}: there is no such benchmark{'; ' + hint if hint else ''}")
        card, problems = load_card("benchmark", path)
        if problems:
            raise CardError(problems)
        found.append(_changed(card, settings))
    return found


def read_hardware(settings: Sequence[str]) -> tuple[Hardware, list[str]]:
    """Gives what ``hardware.KEY=VALUE`` texts say, and the other texts, which are for ``find_benchmarks``.

    Raises:
        MedkitError: A key is not one of those that answering heeds, or its value is not allowed.
    """
    values: dict[str, Any] = {}
    others = []
    for text in settings:
        key, equals, raw = text.partition("=")
        head, dot, name = key.strip().partition(".")
        if head != "hardware" or not dot:
            others.append(text)
            continue
        if not equals or name not in HARDWARE:
            raise MedkitError(
                f"--set {text}: must be hardware.KEY=VALUE with {', '.join(HARDWARE[:-1])} or {HARDWARE[-1]}"
            )
        values[name] = _parsed(text, raw)
    try:
        return Hardware.model_validate(values), others
    except ValidationError as error:
        raise _refused(error, "hardware.") from None


def summary_lines(scores: dict[str, Any]) -> list[str]:
    """Writes scores for the command line, a line or two for each benchmark."""
    lines = []
    for name, entry in scores["benchmarks"].items():
        failed = f"{entry['failed']} questions have no reply and enter no number"
        if entry["accuracy"] is None:
            lines.append(f"{name}: no accuracy: none of {entry['failed']} questions has a reply")
            continue
        score = entry["accuracy"]
        line = f"{name}: {score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f}), {entry['count']} questions"
        for control, value in entry["controls"].items():
            line += f"; {control} {value['value']:.3f}"
        lines.append(line)
        for kind, levels in entry.get("corruptions", {}).items():
            found = ", ".join(f"{severity}: {value['value']:.3f}" for severity, value in levels.items())
            lines.append(f"  {kind} by severity: {found}")
        if "calibration" in entry:
            sure, half = (
                entry["calibration"],
                next(one for one in entry["selective"]["at"] if one["coverage"] == 0.5),
            )
            lines.append(
                f"  sure of its answers {sure['confidence']:.3f}, calibration error {sure['ece']:.3f}; of the surer "
                f"half {half['accuracy']:.3f} are right"
            )
        if entry.get("metrics"):
            lines.append(f"  {_published(entry)}")
        if entry["failed"]:
            bounds = entry["bounds"]
            lines.append(
                f"  {failed}: with them all wrong it were {bounds['low']:.3f}, right {bounds['high']:.3f}"
            )
    reasons = scores["decoding"].get("failed", {})
    if reasons:
        told = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
        lines.append(f"Without a reply, controls included: {told}; --retry-failed asks them again")
    check = scores["decoding"].get("batch_check")
    if check:
        lines.append(
            f"Asked alone, {check['same']} of {check['asked_alone']} answers are the same as in a batch"
        )
    return lines


def _published(entry: dict[str, Any]) -> str:
    """Gives the scores that papers report for a set, with the profile that defines them."""
    profiles = entry["profiles"]
    holding = (
        name for name, one in profiles.items() if {*entry["metrics"]} & {*one["scores"], *one["corpus"]}
    )
    profile = next(holding, next(iter(profiles)))
    found = profiles[profile]
    said = []
    for name in entry["metrics"]:
        if name in found["scores"]:
            score = found["scores"][name]
            said.append(f"{name} {score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})")
        elif name in found["corpus"]:
            said.append(f"{name} {found['corpus'][name]['value']:.3f}")
        else:
            said.append(f"{name} applies to no question")
    return f"as published ({profile}, version {found['version']}): {', '.join(said)}"


def _changed(card: Benchmark, settings: Sequence[str]) -> Benchmark:
    values = card.model_dump()
    for text in settings:
        key, equals, raw = text.partition("=")
        if not equals or key not in values or key == "name":
            raise MedkitError(
                f"--set {text}: must be KEY=VALUE with a key of a benchmark, for example --set limit=100"
            )
        value = _parsed(text, raw)
        if isinstance(values[key], list) and isinstance(value, str):  # a list without its brackets
            value = [parse_value(part.strip())[0] for part in value.split(",")]
        values[key] = value
    try:
        return Benchmark.model_validate(values)
    except ValidationError as error:
        raise _refused(error) from None


def _parsed(text: str, raw: str) -> Any:
    value, fault = parse_value(raw.strip())
    if fault:
        raise MedkitError(f"--set {text}: {fault}")
    return value


def _refused(error: ValidationError, prefix: str = "") -> MedkitError:
    first = error.errors(include_url=False)[0]
    return MedkitError(f"--set {prefix}{'.'.join(map(str, first['loc']))}: {first['msg']}")
