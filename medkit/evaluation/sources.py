"""What models can be compared: their answers by question, read from run folders and files of answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.evaluation.scoring.answer_files import items_of, read_items
from medkit.evaluation.scoring.profile import Item
from medkit.evaluation.scoring.profiles import find_profiles

PROFILE, SCORE = "medkit", "answer"
UNNAMED = "answers"


@dataclass(frozen=True)
class Answer:
    """One model's answer to one question, with its score in 0..1."""

    score: float
    answer: str
    group: str
    references: tuple[str, ...]
    question: str = ""
    prompt: str = ""
    image: str = ""


@dataclass
class Source:
    """One model under comparison.

    Attributes:
        name: How the page calls it, unique.
        path: The folder or file of its answers.
        model: base, or the stage; "" of a file.
        answers: Benchmark -> question id -> answer, controls left out.
        scores: Benchmark -> its entry of scores.json; of a file the counts of empty and truncated replies.
        decoding: How replies were made, empty where unknown.
        limits: Benchmark -> most new tokens of a reply.
        leaks: The run's leak counts, None where nothing was counted.
        samples_seen: In all training stages since the base; None where unknown.
        recipe: The resolved recipe without seed and names, as text; "" where unknown.
        seed: The recipe's.
        stored: Rows of the file, for scoring again.
    """

    name: str
    path: Path
    model: str = ""
    answers: dict[str, dict[str, Answer]] = field(default_factory=dict)
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    decoding: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    leaks: dict[str, Any] | None = None
    samples_seen: int | None = None
    recipe: str = ""
    seed: int | None = None
    stored: list[dict[str, Any]] = field(default_factory=list)


def read_sources(paths: list[Path]) -> list[Source]:
    """Reads what is to be compared.

    A run folder gives its base and its final model; bases with the same answers become one. An evaluation's
    folder (``runs/x/9-evaluate-align``) gives its model. A file is one of those that ``medkit score`` reads,
    or what it wrote with ``--json``, whose answers are looked up. As soon as one file is there, all answers
    are scored by medkit's profile, so that one definition holds for all.

    Raises:
        DataError: A path holds no answers, is given twice, has no question ids or an id twice.
    """
    twice = [
        path for number, path in enumerate(paths) if path.resolve() in [p.resolve() for p in paths[:number]]
    ]
    if twice:
        raise DataError(f"{twice[0]} is given twice; a model compared with itself shows nothing")
    sources: list[Source] = []
    for path in paths:
        sources += _read(path)
    sources = _one_base(sources)
    _name_apart(sources)
    if any(not source.scores for source in sources):
        for source in sources:
            _score_again(source)
        _match_benchmarks(sources)
    return sources


def _read(path: Path) -> list[Source]:
    if (path / "scores.json").is_file() and (path / "answers.jsonl").is_file():
        return [_evaluation(path)]
    if (path / "answers.jsonl").is_file():
        return [Source(path.name, path / "answers.jsonl")]
    if path.is_file():
        return [Source(path.stem, _answers_of(path))]
    if not path.is_dir():
        raise DataError(f"{path} is not there; give run folders, evaluation folders or files of answers")
    steps = [step for step in path.glob("*-evaluate*/") if (step / "scores.json").is_file()]
    found = [_evaluation(step) for step in sorted(steps, key=_number)]
    if not found:
        raise DataError(f"{path} holds no finished evaluation; run it to the end, or give files of answers")
    resolved = _json(path / "resolved.json")
    final = resolved.get("curriculum", {}).get("final")
    stages = [source for source in found if source.model != "base"]
    chosen = [source for source in stages if source.model == final] or stages[-1:]
    comparisons = next((_json(step) for step in sorted(path.glob("*-compare/comparisons.json"))), {})
    for source in found:
        source.leaks = comparisons.get("leaks") or None
    name = path.resolve().name
    for source in chosen:
        source.name = name
        own = comparisons.get("budget", {}).get(source.model, {}).get("samples_seen")
        source.samples_seen = _seen_since_base(path, source.model) or own
        recipe = resolved.get("recipe", {})
        source.seed = recipe.get("seed")
        # Runs of several seeds may well be named after them.
        same = {
            key: value for key, value in recipe.items() if key not in ("seed", "name", "title", "description")
        }
        source.recipe = json.dumps(same, sort_keys=True) if recipe else ""
    bases = [source for source in found if source.model == "base"]
    for source in bases:
        source.name, source.samples_seen = f"base of {name}", 0
    return chosen + bases


def _seen_since_base(run: Path, model: str) -> int | None:
    """Adds up the samples of the stages that lead from a run's base to a model; None where a stage is unknown."""
    stages = {step.name.partition("-")[2]: step for step in run.glob("*-*/") if _number(step)}
    total, seen = 0, set()
    while model != "base":
        summary = _json(stages[model] / "summary.json") if model in stages and model not in seen else {}
        samples = (summary.get("result") or {}).get("samples_seen")
        if not isinstance(samples, int):
            return None
        total += samples
        seen.add(model)
        model = str((summary.get("settings") or {}).get("start") or "base")
    return total


def _evaluation(folder: Path) -> Source:
    scores, summary = _json(folder / "scores.json"), _json(folder / "summary.json")
    model = str(scores.get("model", "model"))
    numbered = folder.resolve().name.partition("-")[0].isdigit()
    name = f"{folder.resolve().parent.name}/{model}" if numbered else folder.resolve().name
    source = Source(name, folder, model, scores=scores.get("benchmarks", {}))
    source.decoding = scores.get("decoding", {})
    for card in summary.get("settings", {}).get("benchmarks", []):
        source.limits[card["name"]] = card.get("max_new_tokens", 16)
    with (folder / "answers.jsonl").open(encoding="utf-8") as lines:
        source.stored = [row for line in lines if (row := json.loads(line))["control"] == "none"]
    for row in source.stored:
        if row.get("failed"):  # no reply came: there is nothing to compare, and the count is in the scores
            continue
        answer = Answer(
            float(row["correct"]), row["answer"], row["group"], tuple(row["references"]),
            row["question"], row["prompt"], row["image"],
        )  # fmt: skip
        _put(source, row["benchmark"], row["id"], answer)
    return source


def _put(source: Source, benchmark: str, key: str, answer: Answer) -> None:
    known = source.answers.setdefault(benchmark, {})
    if not key:
        raise DataError(f"{source.path}: a row has no id; questions are paired by id, so give each one")
    if key in known:
        raise DataError(f"{source.path}: id {key} comes twice in {benchmark}; questions are paired by id")
    known[key] = answer


def _answers_of(path: Path) -> Path:
    """Follows a file of ``medkit score --json`` to the answers that it scored."""
    content = _json(path) if path.suffix == ".json" else {}
    named = content.get("answers")
    if not isinstance(named, str) or "benchmarks" not in content:
        return path
    for candidate in (Path(named), path.parent / named):
        answers = candidate / "answers.jsonl" if candidate.is_dir() else candidate
        if answers.is_file():
            return answers
    raise DataError(f"{path} holds scores of {named}, which is not there; give the file of answers itself")


def _score_again(source: Source) -> None:
    by_benchmark = items_of(source.stored, str(source.path)) if source.scores else _items(source.path)
    score = next(one for one in find_profiles(PROFILE)[0].scores if one.name == SCORE)
    old, source.answers = source.answers, {}
    for name, items in by_benchmark.items():
        for item in items:
            mark = score.mark(item)
            if mark is None:
                continue
            before = old.get(name, {}).get(item.id)
            about = (before.question, before.prompt, before.image) if before else ()
            group = before.group if before else item.group
            # An item's gold option is a letter, a run's is its text.
            texts = tuple(item.choices.get(one, one) for one in item.references)
            references = before.references if before else texts
            _put(source, name, item.id, Answer(mark.value, item.answer, group, references, *about))
        source.scores[name] = source.scores.get(name) or {
            "failed": sum(bool(item.failed) for item in items),
            "empty": sum(not (item.answer.strip() or item.failed) for item in items),
            "truncated": sum(item.truncated for item in items),
        }
        source.scores[name] |= {"scorer": f"{PROFILE}/{SCORE}", "definition": score.definition}


def _items(path: Path) -> dict[str, list[Item]]:
    # Rows that state no benchmark are named by their file, under which two tools' files would never meet.
    found = read_items(path)
    return {UNNAMED if name == path.stem else name: items for name, items in found.items()}


def _match_benchmarks(sources: list[Source]) -> None:
    """Gives answers of no stated benchmark the name of the one that asks most of their questions."""
    named = {name for source in sources for name in source.answers if name != UNNAMED}
    for source in sources:
        asked = source.answers.get(UNNAMED, {})
        shared = {
            name: max(len(asked.keys() & other.answers.get(name, {}).keys()) for other in sources)
            for name in named - source.answers.keys()
        }
        best = max(sorted(shared), key=lambda name: shared[name], default="")
        if asked and best and shared[best] * 2 >= len(asked):
            source.answers[best] = source.answers.pop(UNNAMED)
            source.scores[best] = source.scores.pop(UNNAMED)


def _one_base(sources: list[Source]) -> list[Source]:
    kept: list[Source] = []
    for source in sources:
        same = [one for one in kept if one.model == source.model == "base" and one.answers == source.answers]
        if same:
            same[0].name = "base"
        else:
            kept.append(source)
    bases = [source for source in kept if source.name.startswith("base of ")]
    if len(bases) == 1 and all(source.name != "base" for source in kept):
        bases[0].name = "base"
    return kept


def _name_apart(sources: list[Source]) -> None:
    for depth in (2, 3):
        names = [source.name for source in sources]
        for source in sources:
            if names.count(source.name) > 1:
                source.name = f"{'/'.join(source.path.resolve().parts[-depth:-1])}/{source.name}"
    for number, source in enumerate(sources):
        if source.name in {other.name for other in sources[:number]}:
            source.name = f"{source.name} ({number + 1})"


def _number(step: Path) -> int:
    head = step.name.partition("-")[0]
    return int(head) if head.isdigit() else 0


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error
    return content if isinstance(content, dict) else {}
