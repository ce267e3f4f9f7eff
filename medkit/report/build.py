"""Writes a run's report: one HTML file that holds everything it shows, has no script and loads nothing."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from medkit import __version__
from medkit.report import about, cautions, charts, findings, tables, trust, wording
from medkit.report.gallery import Images, gallery, taught
from medkit.report.read import Run, read_run
from medkit.store import write_atomically


def write_report(run_folder: Path | str) -> Path:
    """Writes ``report.html`` into a run folder from what the folder holds, complete or not.

    Args:
        run_folder: A folder made by ``medkit run``, or by ``medkit evaluate``.

    Returns:
        The path of the report.

    Raises:
        MedkitError: When the folder is missing.
    """
    folder = Path(run_folder)
    path = folder / "report.html"
    write_atomically(path, render(read_run(folder)))
    return path


def render(run: Run) -> str:
    """Gives the report's HTML; all text of the run is escaped by the template engine."""
    head = findings.headline(run)
    images = Images(run)
    view = {
        "head": head,
        "head_rows": tables.headline_chart(run, head),
        "doubts": findings.by_gravity([*findings.doubts(run, head), *cautions.cautions(run, head)]),
        "overview": tables.overview(run),
        "slices": tables.slices(run, head),
        "controls": tables.controls(run),
        "poor": trust.corruptions(run),
        "certainty": trust.calibrated(run),
        "definitions": trust.definitions(run),
        "asked": trust.asked(run),
        "forgetting": tables.forgetting(run),
        "training": tables.training(run),
        "budget": tables.budget(run),
        "equal": trust.equal_budget(run, head),
        "gallery": gallery(run, head, images),
        "data": about.data_card(run),
        "taught": taught(run, images),
        "ledger": about.ledger(run),
        "model": about.model_card(run, head.model),
        "make": about.reproduce(run),
    }
    title = str(run.recipe.get("title") or (head.model if run.alone else "") or run.name)
    engine = template_engine()
    if run.alone:
        engine.globals |= {"legend_words": {**_LEGEND, "final": head.model}, "unshown": ("base", "stage")}
    return engine.get_template("template.html").render(
        **view,
        title=title,
        name=run.name,
        # the comparison counts each stage by itself; where the stages can be added up, the table says more
        note="" if view["equal"]["rows"] else str(run.comparisons.get("note") or ""),
        definition=str(findings.accuracy(run, head.model or "base", head.benchmark).get("definition") or ""),
        missing=run.missing,
        alone=run.alone,
        contents=[(anchor, label) for anchor, label in _CONTENTS if _has(view, anchor, run.alone)],
    )


def template_engine() -> Environment:
    """Gives the engine of all pages, with the wording and the charts that they share."""
    # Escaping by name would leave style.css and strings alone; here every value is text unless it is Markup.
    engine = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.globals |= {
        "key": charts.key,
        "axis": charts.axis(),
        "percent": wording.percent,
        "interval": wording.interval,
        "points": wording.points,
        "points_interval": wording.points_interval,
        "count": wording.count,
        "legend_words": _LEGEND,
        "unshown": (),
        "level_words": _LEVELS,
        "version": __version__,
    }
    return engine


_LEGEND = {
    "base": "base",
    "stage": "another stage",
    "final": "adapted",
    "control": "image withheld",
    "majority": "always the most frequent answer of the kind",
    "loss": "loss",
    "valid": "validation loss",
    "diagonal": "as sure as right",
}
_LEVELS = {"warn": "Caution", "note": "Note", "fine": "Checked"}
_CONTENTS = (
    ("result", "Result"),
    ("distrust", "What to distrust"),
    ("benchmarks", "Benchmarks"),
    ("slices", "By kind"),
    ("controls", "Controls"),
    ("poor", "Poor pictures"),
    ("certainty", "Certainty"),
    ("definitions", "Other definitions"),
    ("forgetting", "Forgetting"),
    ("training", "Training"),
    ("gallery", "Before and after"),
    ("asked", "How it was asked"),
    ("data", "Data card"),
    ("ledger", "Ledger"),
    ("model", "Model card"),
    ("reproduce", "Make it again"),
)
_OF_RUNS = ("data", "ledger", "model", "reproduce")
_OPTIONAL = {"benchmarks": "overview"} | {
    name: name for name in ("slices", "controls", "poor", "certainty", "definitions", "forgetting", "asked")
}


def _has(view: dict, anchor: str, alone: bool) -> bool:
    if alone and anchor in _OF_RUNS:
        return False
    if anchor == "gallery":
        return bool(view["gallery"]["total"])
    return bool(view[_OPTIONAL.get(anchor, anchor)]) if anchor in (*_OPTIONAL, "training") else True
