"""The model card of an exported bundle: README.md in Hugging Face's form, from what the run wrote down.

What nobody wrote down is said to be unknown; nothing is guessed.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .contract import Contract

UNKNOWN = "unknown"
# What the Hub knows as a licence's name; others go in as "other" with their text.
HUB_LICENCES = {
    "apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "cc-by-nc-sa-4.0", "bsd-3-clause",
    "llama2", "llama3", "gemma", "openrail", "gpl-3.0",
}  # fmt: skip
WORDS = {
    "blank": "a blank image",
    "shuffled": "another question's image",
    "noise": "noise in place of the image",
    "text": "no image at all",
}


@dataclass(frozen=True)
class Story:
    """What is known of how a checkpoint came to be.

    Attributes:
        run: The run folder's name, "" for a checkpoint outside of a run.
        stage: The training stage whose model it is.
        resolved: The run's ``resolved.json``.
        domains: Settings of the domains that were read, the recipe's own first.
        trained: Stage name -> {settings, result} of the stages that led to it, in their order.
        scores: ``base`` and the stage's name -> ``scores.json``.
        paired: Benchmark name -> the paired comparison with the base.
        leaks: What the comparison found in both training and test.
        base_licence: The licence that the base's own README names, "" when it names none.
    """

    run: str = ""
    stage: str = ""
    resolved: dict[str, Any] = field(default_factory=dict)
    domains: list[dict[str, Any]] = field(default_factory=list)
    trained: dict[str, dict[str, Any]] = field(default_factory=dict)
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    paired: dict[str, Any] = field(default_factory=dict)
    leaks: dict[str, Any] = field(default_factory=dict)
    base_licence: str = ""

    @property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe, {} when there is no run."""
        return self.resolved.get("recipe", {})

    @property
    def base(self) -> str:
        """The base's name: a hub id, a shipped checkpoint or the last part of its path."""
        named = str(self.recipe.get("base") or "")
        return named if re.fullmatch(r"[\w.-]+/[\w.-]+", named) else Path(named).name


def read_story(source: Path, model: Path) -> Story:
    """Reads what a run folder says about one of its models; an empty story for a model outside of a run.

    Args:
        source: What the user named: a run folder, a step's folder or a model folder.
        model: The model folder in it.
    """
    places = [source.absolute(), *source.absolute().parents[:2]]
    run = next((place for place in places if (place / "resolved.json").is_file()), None)
    if run is None:
        return Story(base_licence=_licence_of(model))
    resolved = _json(run / "resolved.json")
    steps = {}
    for path in sorted(run.iterdir(), key=lambda path: _number(path.name)):
        summary = _json(path / "summary.json") if _number(path.name) else {}
        if "verb" in summary:
            steps[summary["step"]] = (path, summary)
    stage = str(resolved.get("final", ""))
    inner = model.absolute().relative_to(run).parts
    if len(inner) > 1:
        stage = inner[0].partition("-")[2]
    stages = resolved.get("curriculum", {}).get("stages", {})
    wanted, at = [], stage
    while at in stages and at not in wanted:
        wanted.insert(0, at)
        at = stages[at].get("start", "base")
    base = resolved.get("recipe", {}).get("base_path", "")
    compared = next((path for path, summary in steps.values() if summary["verb"] == "compare"), None)
    comparisons = _json(compared / "comparisons.json") if compared else {}
    return Story(
        run=run.resolve().name,
        stage=stage,
        resolved=resolved,
        domains=[
            summary["settings"]["domain"] for _, summary in steps.values() if summary["verb"] == "ingest"
        ],
        trained={name: steps[name][1] for name in wanted if name in steps},
        scores={
            name: _json(steps[f"evaluate-{name}"][0] / "scores.json").get("benchmarks", {})
            for name in ("base", stage)
            if f"evaluate-{name}" in steps
        },
        paired={
            name: entry["stages"][stage]
            for name, entry in comparisons.get("benchmarks", {}).items()
            if stage in entry.get("stages", {})
        },
        leaks=comparisons.get("leaks", {}),
        base_licence=_licence_of(Path(base)) if base else "",
    )


def licences(story: Story, contract: Contract) -> dict[str, Any]:
    """Gives the contract's ``licence`` of a checkpoint: ``base`` and ``data``, as far as they are known."""
    data = [*contract.licence.get("data", []), *(str(domain.get("licence", "")) for domain in story.domains)]
    base = str(contract.licence.get("base") or story.base_licence or UNKNOWN)
    return {"base": base, "data": list(dict.fromkeys(filter(None, data))) or [UNKNOWN]}


def model_card(story: Story, contract: Contract, told: dict[str, Any]) -> str:
    """Gives the README.md of a bundle.

    Args:
        story: What is known of the checkpoint.
        contract: Its contract, the licence filled in.
        told: ``name``, ``layout``, ``dtype``, ``parameters`` and ``merged`` of the export.
    """
    name = told["name"]
    front = yaml.safe_dump(_front(story, contract, name), sort_keys=False, allow_unicode=True)
    sections = [
        f"---\n{front}---\n\n# {name}\n\n{_opening(story)}",
        "## Intended use\n\n" + _use(story),
        "## Results\n\n" + _results(story),
        "## Training\n\n" + _training(story, contract, told),
        "## Data and licences\n\n" + _data(story, contract),
        "## Use\n\n" + _howto(contract, told["layout"]),
        "## Limitations\n\n" + _limits(story),
    ]
    return "\n\n".join(section.rstrip() for section in sections) + "\n"


def _front(story: Story, contract: Contract, name: str) -> dict[str, Any]:
    licence = contract.licence["base"]
    front: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["medkit"],
    }
    if licence.lower() in HUB_LICENCES:
        front["license"] = licence.lower()
    else:
        front |= {"license": "other", "license_name": licence}
    if story.base:
        front["base_model"] = story.base
    if story.domains:
        front["datasets"] = list(dict.fromkeys(domain["name"] for domain in story.domains))
    own = story.scores.get(story.stage, {})
    if own:
        front["metrics"] = ["accuracy"]
        front["model-index"] = [{"name": name, "results": [_indexed(*entry) for entry in own.items()]}]
    return front


def _indexed(benchmark: str, entry: dict[str, Any]) -> dict[str, Any]:
    accuracy = entry["accuracy"]
    return {
        "task": {"type": "visual-question-answering"},
        "dataset": {"name": str(entry.get("title", benchmark)), "type": benchmark, "split": _split(entry)},
        "metrics": [
            {
                "type": "accuracy",
                "name": f"{entry['scorer']} (95 % interval {accuracy['low']:.4f} to {accuracy['high']:.4f})",
                "value": accuracy["value"],
            }
        ],
    }


def _split(entry: dict[str, Any]) -> str:
    return str(entry.get("source", {}).get("split", "test"))


def _opening(story: Story) -> str:
    if not story.run:
        return (
            "An image-text-to-text checkpoint, exported by medkit. It was not exported from a run folder, so "
            "what it was trained and tested on is not known here."
        )
    about = story.domains[0] if story.domains else {}
    return (
        f"{story.base or 'A base model'} adapted to {about.get('title', UNKNOWN)} by medkit (run `{story.run}`, "
        f"stage `{story.stage}`). {about.get('description', '')}"
    ).rstrip()


def _use(story: Story) -> str:
    if not story.domains:
        return (
            "Unknown: the export had no run folder to read it from. Test the model on questions of your own "
            "before you rely on an answer.\n\n" + _OUT_OF_SCOPE
        )
    title = story.domains[0].get("title", UNKNOWN)
    return (
        f"Short answers to questions about single images like those of {title}, for research and for work on "
        f"such models.\n\n{_OUT_OF_SCOPE}"
    )


_OUT_OF_SCOPE = (
    "**Out of scope:** diagnosis, triage and any other decision about a person; images of other kinds, devices or "
    "populations than it was tested on; languages other than that of its training text; questions whose answer "
    "is not in the image. It is no medical device."
)


def _results(story: Story) -> str:
    own = story.scores.get(story.stage, {})
    if not own:
        return "Not known: no evaluation of this checkpoint was found."
    lines = [
        "| benchmark | questions | base | this model | difference | p |",
        "|---|---|---|---|---|---|",
    ]
    for benchmark, entry in own.items():
        paired = story.paired.get(benchmark, {})
        before = story.scores.get("base", {}).get(benchmark, {}).get("accuracy")
        difference = _points(paired["difference"]) if paired else UNKNOWN
        p_value = f"{paired['p_value']:.2g}" if paired else ""
        lines.append(
            f"| {benchmark} ({_split(entry)}) | {entry['count']:,} about {entry['images']:,} images | "
            f"{_percent(before) if before else UNKNOWN} | {_percent(entry['accuracy'])} | {difference} | {p_value} |"
        )
    lines += ["", "Brackets hold 95 % intervals. Controls, and how answers are scored:", ""]
    for benchmark, entry in own.items():
        controls = ", ".join(
            f"with {WORDS.get(name, name)} {_percent(value)}"
            for name, value in entry.get("controls", {}).items()
        )
        lines.append(
            f"- {benchmark}: {controls or 'no control was run'}; always the most frequent answer "
            f"{100 * entry['majority']:.1f} %. {entry['definition']} Questions sha256 "
            f"`{str(entry.get('questions_sha256', UNKNOWN))[:16]}`."
        )
    return "\n".join(lines) + _leaks(story)


def _leaks(story: Story) -> str:
    found = story.leaks
    if not {"images", "test_images", "near_duplicate_images", "questions", "test_questions"} <= found.keys():
        return ""
    return (
        f"\n\nOf {found['test_images']:,} test images {found['images']:,} are training images, too, and "
        f"{found['near_duplicate_images']:,} look like one; {found['questions']:,} of {found['test_questions']:,} "
        "test questions are asked of the same image, or of its look-alike, in the training set."
    )


def _percent(interval: dict[str, float]) -> str:
    return f"{100 * interval['value']:.1f} % ({100 * interval['low']:.1f} to {100 * interval['high']:.1f})"


def _points(interval: dict[str, float]) -> str:
    return f"{100 * interval['value']:+.1f} points ({100 * interval['low']:+.1f} to {100 * interval['high']:+.1f})"


def _training(story: Story, contract: Contract, told: dict[str, Any]) -> str:
    merged = " An adapter was merged into the weights." if told["merged"] else ""
    weights = f"{told['parameters']:,} parameters in {told['dtype']}.{merged}"
    if not story.trained:
        known = ", ".join(sorted(contract.provenance)) or "nothing"
        return f"{weights} The folder's own record names: {known}."
    paper = story.resolved.get("curriculum", {}).get("paper", "")
    lines = [
        f"{weights} Curriculum `{story.recipe.get('curriculum', UNKNOWN)}`"
        + (f": {paper.rstrip('.')}." if paper else "."),
        "",
        "| stage | from | learning rates | epochs | batch | samples seen | adapter |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, summary in story.trained.items():
        settings, result = summary["settings"], summary["result"]
        rates = ", ".join(f"{part} {rate:g}" for part, rate in settings.get("train", {}).items() if rate)
        adapter = settings.get("adapter", {})
        kind = adapter.get("kind", UNKNOWN)
        rank = f", rank {adapter['rank']}" if kind not in ("full", UNKNOWN) and "rank" in adapter else ""
        lines.append(
            f"| {name} | {settings.get('start', 'base')} | {rates} | {settings.get('epochs', UNKNOWN)} | "
            f"{settings.get('batch', UNKNOWN)} | {result.get('samples_seen', 0):,} | {kind}{rank} |"
        )
    command = shlex.join(str(word) for word in story.resolved.get("command", []))
    versions = story.resolved.get("versions", {})
    lines += ["", "```console", f"$ {_placeless(command) or 'medkit run ' + story.run}"]
    lines += [f"$ medkit export runs/{story.run} --dtype {told['dtype']} --out NAME", "```", ""]
    lines.append(
        "Versions: " + ", ".join(f"{package} {version}" for package, version in versions.items()) + "."
    )
    return "\n".join(lines)


def _placeless(text: str) -> str:
    """Leaves folders, and with them users' names, out of a file that is made to be passed on."""
    return re.sub(r"(?<![^\s='\"])(?:~|/)[^\s'\"]*/([^/\s'\"]+)", r".../\1", text)


def _data(story: Story, contract: Contract) -> str:
    base = f"{story.base} " if story.base else ""
    lines = [f"- Base: {base}(licence: {contract.licence['base']}).".replace("Base: (", "Base (")]
    for domain in story.domains:
        where = domain.get("data", {}).get("where", "")
        about = f" {where.rstrip('.')}." if where else ""
        lines.append(f"- {domain['title']} (licence: {domain['licence']}).{about}")
    if not story.domains:
        lines.append(f"- Training data: licence {', '.join(contract.licence['data'])}.")
    lines.append("\nThe stricter of these licences governs what may be done with the weights.")
    return "\n".join(lines)


def _howto(contract: Contract, layout: str) -> str:
    colour = "#{:02x}{:02x}{:02x}".format(*contract.mean_colour)
    ways = {
        "pad": f"Pictures are padded to a square, centred, with the colour {colour} before the processor sees them.",
        "crop": "The processor cuts the middle square out of a picture.",
        "stretch": "The processor resizes a picture as its settings say.",
    }
    stops = (
        f" Answers also end at {', '.join(repr(text) for text in contract.stop)}." if contract.stop else ""
    )
    loads = (
        "Loads with `AutoModelForImageTextToText` and `AutoProcessor` of transformers; its files have the names "
        "that vLLM (`vllm serve FOLDER`) and SGLang (`python -m sglang.launch_server --model-path FOLDER`) read."
        if layout == "hf"
        else "In the layout of the original LLaVA code; `medkit import` turns it into a Hugging Face folder."
    )
    return (
        f"{loads}\n\n{ways[contract.fit]}{stops} `medkit.json` holds this contract. `canary.json` holds questions, "
        "pictures and the answers with log-probabilities that the weights gave when they were exported: a server that "
        "gives others uses another template, other pixels or other weights."
    )


def _limits(story: Story) -> str:
    lines = [
        "- It answers every question, also those that it can't know; an answer carries no warning.",
        "- Accuracy holds for questions and images like those that it was tested on.",
    ]
    for benchmark, entry in story.scores.get(story.stage, {}).items():
        for name, value in entry.get("controls", {}).items():
            if value["value"] >= entry["accuracy"]["low"]:
                lines.append(
                    f"- On {benchmark} it does no better than with {WORDS.get(name, name)}: it may not look."
                )
    if not story.run:
        lines.append("- Nothing of its training is known here, and no test of it.")
    return "\n".join(lines)


def _licence_of(folder: Path) -> str:
    """Gives the licence in the front matter of a folder's README.md, "" where there is none."""
    path = folder / "README.md"
    if not path.is_file():
        return ""
    found = re.match(r"---\n(.*?)\n---", path.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        front = yaml.safe_load(found.group(1)) if found else None
    except yaml.YAMLError:
        return ""
    if not isinstance(front, dict):
        return ""
    licence = str(front.get("license") or "")
    return str(front.get("license_name") or licence) if licence == "other" else licence


def _number(name: str) -> int:
    head = name.partition("-")[0]
    return int(head) if head.isdigit() else 0


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
