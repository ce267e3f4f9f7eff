"""What to distrust in a comparison of models, the gravest first."""

from __future__ import annotations

from typing import Any

from medkit.report import wording
from medkit.report.findings import CONTROL_MARGIN, FEW_IMAGES, FEW_QUESTIONS, Finding

Found = dict[str, Any]
MOST_FAULTY = 0.01
SAME_BUDGET = 1.02  # replay is drawn, so equal recipes differ by a few samples


def doubts(found: Found, order: list[str]) -> list[Finding]:
    """Lists what speaks against a comparison; a check that found nothing is listed as such."""
    listed: list[Finding] = []
    bases = {model["name"] for model in found["models"] if model["model"] == "base"}
    for name in order:
        entry = found["benchmarks"][name]
        listed += _asked(name, entry) + _told(name, entry) + _settings(name, entry)
        listed += (
            _size(name, entry) + _controls(name, entry, bases) + _answers(name, entry) + _seeds(name, entry)
        )
    listed += _leaks(found["models"]) + _budgets(found["models"])
    if not any(entry["repeats"] for entry in found["benchmarks"].values()):
        detail = "Intervals cover the choice of questions and images, not the luck of training."
        listed.append(Finding("note", "One training run of each model", detail))
    level = {"warn": 0, "note": 1, "fine": 2}
    return sorted(listed, key=lambda finding: level[finding.level])


def _asked(name: str, entry: Found) -> list[Finding]:
    differs, found = entry["differs"], []
    if "questions" in differs:
        left = [
            f"{amount:,} of {model}" for model, amount in differs["questions"]["left_out"].items() if amount
        ]
        detail = (
            f"Compared on the {wording.plural(entry['questions'], 'question')} that all answered; left out: "
            f"{wording.listed(left)}. Accuracies here are of these questions only."
        )
        found.append(Finding("warn", f"{name}: different questions", detail))
    if "references" in differs:
        amount = wording.plural(differs["references"], "question")
        detail = f"{amount} with the same id but other gold answers: left out. Are these the same data?"
        found.append(Finding("warn", f"{name}: different gold answers", detail))
    if entry["absent"]:
        detail = f"{wording.listed(entry['absent'])} did not answer it."
        found.append(Finding("note", f"{name}: not answered by all", detail))
    return found


def _told(name: str, entry: Found) -> list[Finding]:
    found = []
    for what, title in (
        ("question", "wording"),
        ("prompt", "prompts"),
        ("image", "images"),
        ("group", "groups"),
    ):
        if what not in entry["differs"]:
            continue
        one = entry["differs"][what]
        examples = " against ".join(f"“{_short(text)}”" for text in one["example"])
        detail = f"For {wording.plural(one['count'], 'question')}, for example {examples}. "
        detail += "The gap is then the effect of model and prompt together." if what == "prompt" else ""
        found.append(Finding("warn", f"{name}: different {title}", detail.strip()))
    if not found and not {"questions", "references"} & entry["differs"].keys() and entry["questions"]:
        detail = f"{wording.plural(entry['questions'], 'question')}, paired by id; gold answers are the same."
        found.append(Finding("fine", f"{name}: the same questions, prompts and images", detail))
    return found


def _settings(name: str, entry: Found) -> list[Finding]:
    found = []
    for what, values in entry["differs"].get("settings", {}).items():
        detail = "; ".join(f"{model}: {_short(str(value))}" for model, value in values.items()) + "."
        level = "note" if what in ("batch size", "device") else "warn"
        found.append(Finding(level, f"{name}: different {what}", detail))
    if "decoder_unknown" in entry["differs"]:
        listed = wording.listed(entry["differs"]["decoder_unknown"])
        detail = f"{listed}: files of answers don't say how replies were made, so it can't be checked."
        found.append(Finding("note", f"{name}: prompt and decoder not known", detail))
    return found


def _size(name: str, entry: Found) -> list[Finding]:
    found = []
    if 0 < entry["questions"] < FEW_QUESTIONS or 0 < entry["groups"] < FEW_IMAGES:
        size = (
            f"{wording.plural(entry['questions'], 'question')} in {wording.plural(entry['groups'], 'group')}"
        )
        found.append(
            Finding("warn", f"{name}: a small test", f"{size}: a handful of answers moves the order.")
        )
    power = entry["power"]
    if power:
        detail = (
            f"Between {wording.listed(power['models'])}, a difference of {wording.points(power['detectable'])[1:]} "
            f"points would be seen 8 times in 10; to see {100 * power['target']:g} points takes about "
            f"{wording.plural(power['questions_for_target'], 'question')}, at as many an image as here."
        )
        found.append(Finding("note", f"{name}: what it can show", detail))
    return found


def _controls(name: str, entry: Found, bases: set[str]) -> list[Finding]:
    missing = [row["model"] for row in entry["rows"] if not row["controls"]]
    blind: dict[str, str] = {}
    survives = []
    for row in entry["rows"]:
        values = [
            one["value"] for one in row["controls"].values() if wording.number(one["value"]) is not None
        ]
        shares = [
            one["survives"] for one in row["controls"].values() if wording.number(one["survives"]) is not None
        ]
        if values and row["own_accuracy"] - max(values) < CONTROL_MARGIN:
            blind[row["model"]] = wording.percent(max(values))
        elif shares:
            survives.append(f"{wording.percent(max(shares))} of {row['model']}")
    found = []
    if missing:
        detail = f"{wording.listed(missing)}: whether the answers come from the image can't be told."
        found.append(Finding("warn", f"{name}: no image control", detail))
    if blind:
        # A base that knows nothing of the domain is expected to guess.
        level = "warn" if any(one not in bases for one in blind) else "note"
        detail = wording.listed([f"{one} ({share} without its image)" for one, share in blind.items()])
        found.append(Finding(level, f"{name}: the image hardly matters", f"{detail}."))
    if survives:
        detail = f"Right answers that survive without their image: {wording.listed(survives)}."
        found.append(Finding("note", f"{name}: what needs no image", detail))
    return found


def _answers(name: str, entry: Found) -> list[Finding]:
    return _no_reply(name, entry) + _faulty(name, entry)


def _no_reply(name: str, entry: Found) -> list[Finding]:
    failed = [f"{row['model']} {row['failed']:,}" for row in entry["rows"] if row["failed"]]
    if not failed:
        return []
    detail = (
        f"{'; '.join(failed)}. They are left out for every model; which ones fail need not be chance, so the "
        "bounds in scores.json say how far the number could move."
    )
    return [Finding("warn", f"{name}: questions without a reply", detail)]


def _faulty(name: str, entry: Found) -> list[Finding]:
    faulty, many = [], False
    for row in entry["rows"]:
        counts = {key: row[key] for key in ("empty", "truncated", "unparsed") if row[key]}
        if counts:
            many = many or sum(counts.values()) > MOST_FAULTY * row["asked"]
            parts = wording.listed([f"{amount:,} {key}" for key, amount in counts.items()])
            faulty.append(f"{row['model']} {parts} of {row['asked']:,}")
    if not faulty:
        return [
            Finding("fine", f"{name}: every answer is whole", "None is known to be empty, cut or unparsed.")
        ]
    detail = f"{'; '.join(faulty)}. They count as they stand, usually as wrong."
    return [Finding("warn" if many else "note", f"{name}: empty, truncated or unparsed answers", detail)]


def _seeds(name: str, entry: Found) -> list[Finding]:
    found = []
    for one in entry["repeats"]:
        seeds = wording.listed([str(seed) for seed in one["seeds"]])
        detail = (
            f"{wording.listed(one['models'])} differ in the seed only ({seeds}), so their order says nothing "
            f"about recipes. Over seeds and questions: {wording.percent(one['mean']['value'])} "
            f"({wording.interval(one['mean'])}), deviation between seeds {100 * one['deviation']:.1f} points, "
            f"single runs {100 * min(one['values']):.1f} to {100 * max(one['values']):.1f}{wording.SPACE}%."
        )
        level = "note" if entry["general"] else "warn"
        found.append(Finding(level, f"{name}: one recipe, several seeds", detail))
    return found


def _leaks(models: list[Found]) -> list[Finding]:
    words = (("images", "image"), ("near_duplicate_images", "look-alike image"), ("questions", "question"))
    dirty: dict[str, list[str]] = {}
    clean, unknown = [], []
    for model in models:
        if model["model"] == "base":
            continue
        if model["leaks"] is None:
            unknown.append(model["name"])
            continue
        shared = [wording.plural(model["leaks"][key], word) for key, word in words if model["leaks"].get(key)]
        if shared:
            dirty.setdefault(wording.listed(shared), []).append(model["name"])
        else:
            clean.append(model["name"])
    found = []
    if dirty:
        parts = [f"{shared} of the test in training ({', '.join(names)})" for shared, names in dirty.items()]
        found.append(Finding("warn", "Train and test overlap", f"{'; '.join(parts)}."))
    if unknown:
        detail = f"{wording.listed(unknown)}: images or questions of the test may have been trained on."
        found.append(Finding("warn", "Leaks were not counted", detail))
    if clean:
        found.append(Finding("fine", "No leak between train and test", f"{wording.listed(clean)}."))
    return found


def _budgets(models: list[Found]) -> list[Finding]:
    seen = {model["name"]: model["samples_seen"] for model in models if model["samples_seen"]}
    if len(seen) < 2 or max(seen.values()) <= SAME_BUDGET * min(seen.values()):
        return []
    detail = wording.listed([f"{name} {amount:,}" for name, amount in seen.items()])
    detail = f"Samples seen: {detail}. A gap is the effect of method and budget together."
    return [Finding("note", "Unequal training budgets", detail)]


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"
