"""What the numbers say: the headline, and what a careful reader should distrust."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medkit.report import wording
from medkit.report.read import Run, Step, find_key, mapping

FEW_QUESTIONS, FEW_IMAGES, FEW_IN_SLICE = 100, 30, 30
CONTROL_MARGIN = 0.10  # a control this near to the true score says that the image hardly matters


@dataclass(frozen=True)
class Headline:
    """The one sentence of the report, and the numbers in it.

    Attributes:
        verdict: gain, none, loss, or unknown (nothing to compare yet).
        benchmark: The benchmark it is about, "" when there is none.
        model: The adapted model's stage, "" when there is none.
        sentence: Readable text, no markup.
        base, adapted, difference: Entries with value, low, high; empty when unknown.
    """

    verdict: str
    benchmark: str
    model: str
    sentence: str
    base: dict[str, Any]
    adapted: dict[str, Any]
    difference: dict[str, Any]
    p: str = ""
    test: str = ""


@dataclass(frozen=True)
class Finding:
    """One doubt. ``level`` is warn (weigh it), note (know it) or fine (checked, nothing found)."""

    level: str
    title: str
    detail: str


def benchmark_names(run: Run) -> list[str]:
    """Gives every benchmark that was scored or compared, those of the run's own domain first."""
    names: dict[str, None] = {}
    for scores in run.scores.values():
        names.update(dict.fromkeys(mapping(scores.get("benchmarks"))))
    names.update(dict.fromkeys(mapping(run.comparisons.get("benchmarks"))))
    return sorted(names, key=lambda name: is_general(run, name))


def is_general(run: Run, benchmark: str) -> bool:
    """Whether a benchmark asks about another domain than the one adapted to (it measures forgetting)."""
    if run.alone:
        return False
    general = mapping(mapping(run.comparisons.get("benchmarks")).get(benchmark)).get("general")
    if isinstance(general, bool):
        return general
    domains = [mapping(accuracy(run, model, benchmark).get("source")).get("domain") for model in run.scores]
    domain = next((name for name in domains if name), "same")
    return domain not in ("same", _domain_name(run))


def final_model(run: Run) -> str:
    """Gives the stage that is the run's result: the curriculum's final one, else the last one scored."""
    models = [name for name in run.scores if name != "base"]
    final = find_key(run.resolved, "final")
    if isinstance(final, str) and final in models:
        return final
    return models[-1] if models else ""


def stage_path(run: Run, model: str) -> list[str]:
    """Gives the training stages that lead from the base to a model, in their order; [] where they are unknown."""
    steps = {step.name: step for step in run.of("train")}
    path: list[str] = []
    while model in steps and model not in path:
        path.insert(0, model)
        model = str(find_key(steps[model].settings, "start") or "base")
    return path if model == "base" else []


def accuracy(run: Run, model: str, benchmark: str) -> dict[str, Any]:
    """Gives the scores of one model on one benchmark, empty when there are none."""
    return mapping(mapping(mapping(run.scores.get(model)).get("benchmarks")).get(benchmark))


def compared(run: Run, benchmark: str, stage: str) -> dict[str, Any]:
    """Gives the paired comparison of a stage with the base on one benchmark, empty when there is none."""
    entry = mapping(mapping(run.comparisons.get("benchmarks")).get(benchmark))
    return mapping(mapping(entry.get("stages")).get(stage))


def headline(run: Run) -> Headline:
    """Puts the run's result into one sentence that says plainly when no gain is shown."""
    names = benchmark_names(run)
    benchmark = names[0] if names else ""
    model = final_model(run)
    base = mapping(accuracy(run, "base", benchmark).get("accuracy"))
    scored = accuracy(run, model, benchmark)
    adapted = mapping(scored.get("accuracy"))
    paired = compared(run, benchmark, model)
    difference = mapping(paired.get("difference"))
    parts: dict[str, Any] = {"benchmark": benchmark, "model": model, "base": base, "adapted": adapted}
    if not base and not adapted:
        text = "Nothing has been evaluated yet, so this report can't say whether the adaptation helped."
        return Headline("unknown", sentence=text, difference={}, **parts)
    if run.alone and adapted:
        asked = f"{_amount(scored.get('count'))} {benchmark} questions about {_amount(scored.get('images'))} images"
        text = f"On {asked}, {model} answers {_measured(adapted, named=True)} correctly."
        return Headline("unknown", sentence=text, difference={}, **parts)
    if not base or not adapted:
        who, entry = ("base", base) if base else ("adapted", adapted)
        text = (
            f"Only the {who} model has been evaluated ({_measured(entry, named=True)} on {benchmark}), "
            "so this report can't say whether the adaptation helped."
        )
        return Headline("unknown", sentence=text, difference={}, **parts)
    low, high = wording.bounds(difference)
    questions, images = _amount(scored.get("count")), _amount(scored.get("images"))
    asked = f"on {questions} {benchmark} questions about {images} images"
    if low is None or high is None:
        text = (
            f"{_upper(asked)}, the base answers {_measured(base)} correctly and the adapted model "
            f"{_measured(adapted)}; there is no paired test yet, so no gain is claimed."
        )
        return Headline("unknown", sentence=text, difference={}, **parts)
    p, test = wording.p_value(paired.get("p_value")), str(paired.get("test") or "paired test")
    proof = "; ".join(
        part for part in (wording.points_interval(difference), f"{test}, {p}" if p else "") if part
    )
    change = f"{wording.points(difference.get('value'))} points ({proof})"
    pair = f"from {_measured(base, named=True)} with the base to {_measured(adapted)} after adaptation"
    verdict = "gain" if low > 0 else "loss" if high < 0 else "none"
    if verdict == "gain":
        text = f"{_upper(asked)}, accuracy rose {pair}: {change}."
    elif verdict == "loss":
        text = f"The adapted model is worse: {asked}, accuracy fell {pair}: {change}."
    else:
        text = (
            f"No gain is shown: {asked}, accuracy went {pair}, and the interval of the difference "
            f"includes zero: {change}."
        )
    return Headline(verdict, sentence=text, difference=difference, p=p, test=test, **parts)


def doubts(run: Run, head: Headline) -> list[Finding]:
    """Lists what to distrust; a check that found nothing is listed as such."""
    found: list[Finding] = []
    if head.verdict == "none":
        found.append(Finding("warn", "No gain is shown", "The interval of the difference includes zero."))
    if head.verdict == "loss":
        found.append(
            Finding("warn", "Worse than the base", "The whole interval of the difference is below zero.")
        )
    for benchmark in benchmark_names(run):
        scored = accuracy(run, head.model or "base", benchmark)
        if scored:
            found += _about_controls(benchmark, scored)
            found += _about_counts(benchmark, scored)
            found += _about_answers(benchmark, scored)
            found += _about_kinds(benchmark, scored)
        if is_general(run, benchmark):
            found += _about_forgetting(benchmark, compared(run, benchmark, head.model))
    return found + _about_leaks(run) + _about_training(run) + _about_data(run)


def by_gravity(found: list[Finding]) -> list[Finding]:
    """Puts the gravest findings first."""
    order = {"warn": 0, "note": 1, "fine": 2}
    return sorted(found, key=lambda finding: order[finding.level])


def _about_controls(benchmark: str, scored: dict[str, Any]) -> list[Finding]:
    controls = mapping(scored.get("controls"))
    value = wording.number(mapping(scored.get("accuracy")).get("value"))
    if not controls or value is None:
        detail = "Without a blank or shuffled image one can't tell whether the answers come from the image."
        return [Finding("warn", f"{benchmark}: no image control was run", detail)]
    measured = {name: control for name, entry in controls.items() if (control := _value(entry)) is not None}
    # A checkpoint that never saw a prompt without an image may fail there whatever it looks at.
    if not measured.keys() - {"text"}:
        detail = (
            "Asked without any image a model may fail whether it looks or not; blank or shuffled images tell."
        )
        return [Finding("warn", f"{benchmark}: no image control was run", detail)]
    close = [name for name, control in measured.items() if value - control < CONTROL_MARGIN]
    seen = [_under_control(name, controls[name]) for name in measured]
    detail = f"Accuracy is {wording.percent(value)} with the right image, {wording.listed(seen)}."
    if close:
        return [Finding("warn", f"{benchmark}: the image hardly matters", detail)]
    return [Finding("fine", f"{benchmark}: the image is used", detail)]


def _value(entry: Any) -> float | None:
    return wording.number(mapping(entry).get("value"))


def _under_control(name: str, entry: Any) -> str:
    text = f"{wording.percent(_value(entry))} with {_CONTROL_WORDS.get(name, name)}"
    survives = wording.number(mapping(entry).get("survives"))
    return text if survives is None else f"{text} ({wording.percent(survives)} of the right answers survive)"


_CONTROL_WORDS = {
    "blank": "a blank image",
    "shuffled": "another question's image",
    "noise": "noise in place of the image",
    "text": "no image at all",
}


def _about_counts(benchmark: str, scored: dict[str, Any]) -> list[Finding]:
    questions, images = wording.number(scored.get("count")), wording.number(scored.get("images"))
    found = []
    if (questions is not None and questions < FEW_QUESTIONS) or (images is not None and images < FEW_IMAGES):
        size = f"{wording.plural(questions, 'question')} about {wording.plural(images, 'image')}"
        detail = f"{size}: the intervals are wide, and a handful of answers moves the score."
        found.append(Finding("warn", f"{benchmark}: a small test", detail))
    small = [
        f"{wording.words(kind)} ({wording.count(entry.get('count'))})"
        for kind, entry in mapping(mapping(scored.get("slices")).get("kind")).items()
        if (wording.number(mapping(entry).get("count")) or 0) < FEW_IN_SLICE
    ]
    if small:
        few = f"Fewer than {FEW_IN_SLICE} questions in {wording.listed(small)}"
        detail = f"{few}: read their intervals, not their values."
        found.append(Finding("note", f"{benchmark}: small slices", detail))
    return found


def _about_answers(benchmark: str, scored: dict[str, Any]) -> list[Finding]:
    total = wording.number(scored.get("count")) or 0
    counts = {name: wording.number(scored.get(name)) or 0 for name in ("empty", "truncated", "unparsed")}
    faulty = [f"{wording.count(amount)} {name}" for name, amount in counts.items() if amount]
    if not faulty:
        detail = "No answer was empty, cut off, or unreadable to the scorer."
        return [Finding("fine", f"{benchmark}: every answer is whole", detail)]
    level = "warn" if total and sum(counts.values()) > 0.01 * total else "note"
    share = f"{wording.listed(faulty)} of {wording.count(total)} answers"
    detail = f"{share}; all are counted as they stand, usually as wrong."
    return [Finding(level, f"{benchmark}: empty, truncated or unparsed answers", detail)]


def _about_kinds(benchmark: str, scored: dict[str, Any]) -> list[Finding]:
    kinds = mapping(mapping(scored.get("slices")).get("kind"))
    behind, unclear = [], []
    for kind, entry in kinds.items():
        value, majority = (wording.number(mapping(entry).get(name)) for name in ("value", "majority"))
        low = wording.bounds(entry)[0]
        if value is None or majority is None:
            continue
        line = f"{wording.words(kind)} ({wording.percent(value)} against {wording.percent(majority)})"
        if value <= majority:
            behind.append(line)
        elif low is not None and low <= majority:
            unclear.append(line)
    found = []
    if behind:
        title = f"{benchmark}: kinds that do not beat the most frequent answer"
        found.append(Finding("warn", title, f"{wording.listed(behind)}."))
    if unclear:
        title = f"{benchmark}: kinds whose interval reaches the most frequent answer"
        found.append(Finding("note", title, f"{wording.listed(unclear)}."))
    if kinds and not found:
        detail = f"{wording.plural(len(kinds), 'kind')} of question, each with its interval above it."
        found.append(Finding("fine", f"{benchmark}: every kind beats the most frequent answer", detail))
    return found


def _about_forgetting(benchmark: str, paired: dict[str, Any]) -> list[Finding]:
    difference = mapping(paired.get("difference"))
    low, high = wording.bounds(difference)
    if low is None or high is None:
        return []
    change = f"{wording.points(difference.get('value'))} points ({wording.points_interval(difference)})"
    if high < 0:
        detail = f"The adapted model lost what the base knew of other images: {change}."
        return [Finding("warn", f"{benchmark}: something was forgotten", detail)]
    return [Finding("fine", f"{benchmark}: no forgetting is shown", f"Change against the base: {change}.")]


def _about_leaks(run: Run) -> list[Finding]:
    found = []
    leaks = run.comparisons.get("leaks")
    if not isinstance(leaks, dict) or not leaks:
        detail = "The comparison did not count images or questions shared by train and test."
        if run.alone:
            detail = "An evaluation does not know what its model was trained on; medkit leaks TRAIN TEST counts it."
        found.append(Finding("warn", "Leaks were not counted", detail))
    else:
        total = {name: wording.number(leaks.get(name)) or 0 for name in _LEAK_WORDS}
        shared = [f"{wording.plural(amount, _LEAK_WORDS[name])}" for name, amount in total.items() if amount]
        if shared:
            detail = (
                f"{wording.listed(shared)} of the test also occur in training: those answers prove little."
            )
            found.append(Finding("warn", "Train and test overlap", detail))
        else:
            detail = "No image, near-duplicate image or question of the test occurs in training."
            found.append(Finding("fine", "No leak between train and test", detail))
    # The comparison confirms candidates on the pixels; the hash of ingest alone also meets in plain images.
    level = "note" if leaks else "warn"
    for step in run.of("ingest"):
        near = wording.number(find_key(step.result, "near_duplicates_across_splits"))
        if near:
            detail = (
                f"Told by perceptual hash alone: {wording.plural(near, 'image')} with a look-alike "
                "in another split; the ledger names each."
            )
            found.append(Finding(level, f"{step.name}: look-alikes across splits", detail))
    return found


_LEAK_WORDS = {"images": "image", "near_duplicate_images": "near-duplicate image", "questions": "question"}


def _about_training(run: Run) -> list[Finding]:
    found = []
    for step in run.of("train"):
        losses = [
            value
            for row in run.logs.get(step.name, [])
            if (value := wording.number(row.get("valid_loss"))) is not None
        ]
        if len(losses) > 1 and losses[-1] > 1.05 * min(losses):
            lowest = wording.figure(min(losses))
            detail = f"It ended at {wording.figure(losses[-1])} after a lowest value of {lowest}."
            found.append(Finding("note", f"{step.name}: validation loss rose again", detail))
        dropped = wording.number(step.result.get("dropped"))
        if dropped:
            detail = (
                f"{wording.plural(dropped, 'sample')} had no room or no supervised token and did not train."
            )
            found.append(Finding("note", f"{step.name}: samples dropped", detail))
    if run.of("train"):
        detail = (
            "The intervals cover the choice of questions and images, not the luck of training: "
            "another seed gives another model."
        )
        found.append(Finding("note", "One training run", detail))
    return found


def _about_data(run: Run) -> list[Finding]:
    found = [_rejections(step) for step in run.of("ingest")]
    # a source with questions of its own (VQA sets) brings the test's wording; the teacher wrote the rest
    own = any(mapping(find_key(step.result, "kinds")).get("question") for step in run.of("ingest"))
    if run.of("teach") and not own:
        detail = (
            "Questions and answers are derived from annotations by the rule teacher, for training and for "
            "test alike: a wrong annotation is a wrong gold answer, and free wording by people is not tested."
        )
        found.append(Finding("note", "The wording of train and test has one source", detail))
    return [finding for finding in found if finding]


def _rejections(step: Step) -> Finding | None:
    rejected = find_key(step.result, "rejected")
    amount = sum(value for value in mapping(rejected).values() if isinstance(value, int))
    kept = wording.number(find_key(step.result, "samples")) or 0
    if not amount or amount <= 0.05 * (amount + kept):
        return None
    share = f"{wording.count(amount)} of {wording.count(amount + kept)} records"
    detail = f"{share}; the ledger below has the reasons."
    return Finding("warn", f"{step.name}: many records were rejected", detail)


def _domain_name(run: Run) -> str:
    domain = run.recipe.get("domain")
    return str(domain.get("name") if isinstance(domain, dict) else domain)


def _measured(entry: dict[str, Any], named: bool = False) -> str:
    span = wording.interval(entry)
    name = f"95{wording.SPACE}% interval " if named else ""
    return wording.percent(entry.get("value")) + (f" ({name}{span})" if span else "")


def _amount(value: Any) -> str:
    return "an unknown number of" if wording.number(value) is None else wording.count(value)


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
