"""Figures of scientific articles in JATS or NLM XML: picture, caption, mentions, licence. From disk only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.readers import Picture as Image
from medkit.readers import Record, Rejected, check_options, split_of
from medkit.readers.figures import files, layout
from medkit.readers.figures.article import read_article
from medkit.readers.figures.licence import normalised, strictest
from medkit.readers.figures.modality import Classifier, classifier
from medkit.readers.figures.panels import split_panels
from medkit.readers.figures.parts import Article, Figure
from medkit.readers.figures.versions import superseded
from medkit.readers.figures.xml import XmlError, parse
from medkit.readers.licences import USES, allows

OPTIONS = ("use", "retracted", "mentions", "panels", "modality", "classifier", "certain", "give", "licence")


def read(root: Path, options: dict[str, Any]) -> Iterator[Record | Rejected]:
    """Reads the figures of articles in any of the layouts of ``medkit.readers.figures.layout``.

    Options:
        use: What the figures must be free for: "any" (default), "research" (a known open licence) or
            "commercial" (none of NC, ND, unknown).
        retracted: "drop" (default) or "keep", with ``facts["retracted"]``.
        mentions: At most so many sentences that refer to the figure (8).
        panels: Whether the caption is split by panel letters, into ``facts["panels"]`` (false).
        classifier: "rules" (default) or the name of an installed classifier.
        give: What is made of a figure: [caption] (default), [record] (facts alone, of which a teacher makes text;
            figures without caption are always that), or both.
        certain: Least confidence at which a modality is taken (0.6).
        modality, licence: As in class_folders; they replace what is found.

    A record is a figure: its caption, its pictures in order, and in its facts ``caption``, ``mentions``,
    ``label`` and ``modality``. All figures of an article are one group.

    Raises:
        DataError: The folder is missing or an option has a value that it can't have.
    """
    check_options("figures", options, OPTIONS)
    if options.get("use", "any") not in USES:
        raise DataError(f"reader figures: use {options['use']!r} is none of {', '.join(USES)}")
    if options.get("retracted", "drop") not in ("drop", "keep"):
        raise DataError(f"reader figures: retracted {options['retracted']!r} is neither drop nor keep")
    if not set(options.get("give", ["caption"])) <= {"caption", "record"}:
        raise DataError(
            f"reader figures: give {options['give']!r} holds something else than caption and record"
        )
    judge = classifier(options.get("classifier", "rules"))
    root = Path(root)
    older = superseded(root)
    for source in layout.sources(root):
        newer = older.get(source.path)
        if newer:
            yield Rejected(source.id, "another version is preferred", newer)
        else:
            yield from _records(root, source, options, judge)


def _records(
    root: Path, source: layout.Source, options: dict[str, Any], judge: Classifier
) -> Iterator[Record | Rejected]:
    if source.fault:
        yield Rejected(source.id, "archive unreadable", source.fault)
        return
    try:
        article = read_article(parse(source.read()))
    except XmlError as error:
        yield Rejected(source.id, "article unreadable", str(error))
        return
    except (OSError, RecursionError) as error:
        yield Rejected(source.id, "article unreadable", type(error).__name__)
        return
    _add_metadata(article, source.metadata)
    if article.retracted and options.get("retracted", "drop") == "drop":
        yield Rejected(source.id, "retracted article", f"{len(article.figures)} figures")
        return
    if not article.figures:
        yield Rejected(source.id, "article without figures", article.kind)
        return
    mine = {
        name: picture
        for name, picture in source.pictures.items()
        if name not in source.shared or files.belongs(name, (source.path.name, *article.ids.values()))
    }
    index = files.index(mine)
    split = split_of(source.path, root, options.get("splits", ()))
    give = options.get("give", ["caption"])
    for figure in article.figures:
        record = _record(source, article, figure, (mine, index), split, options, judge)
        if isinstance(record, Rejected) or record.caption is None or "caption" in give:
            yield record
        if isinstance(record, Record) and record.caption is not None and "record" in give:
            yield replace(record, id=f"{record.id}:facts", caption=None)


def _record(
    source: layout.Source,
    article: Article,
    figure: Figure,
    pictures: tuple[dict[str, Path | bytes], dict[str, str]],
    split: str | None,
    options: dict[str, Any],
    judge: Classifier,
) -> Record | Rejected:
    mine, index = pictures
    record_id = f"{source.id}/{figure.id}"
    licence = options.get("licence") or figure.licence
    use = options.get("use", "any")
    if use != "any" and figure.third_party:
        return Rejected(record_id, "third-party figure", "the caption or its permissions name another right")
    if not allows(licence, use):
        return Rejected(record_id, "licence not allowed", f"{licence or 'unknown'}, for use: {use}")
    if not figure.pictures:
        return Rejected(record_id, "figure without graphic", figure.label)
    images: list[Image] = []
    for picture in figure.pictures:
        found = files.find(picture, index)
        if not found.name:
            return Rejected(record_id, found.rule, files.last_part(picture.names[0]))
        images.append(mine[found.name])
    facts = _facts(article, figure, images, options, judge)
    extra = {
        "article": {**article.ids, "journal": article.journal, "title": article.title, "kind": article.kind},
        "third_party": figure.third_party,
    }
    notes = () if figure.caption else (("no caption", "the figure stays as a record"),)
    return Record(
        record_id,
        images[0] if len(images) == 1 else images,
        facts,
        caption=figure.caption or None,
        group=_group(source, article),
        split=split,
        licence=licence,
        notes=notes,
        extra=extra,
    )


def _facts(
    article: Article, figure: Figure, images: list[Image], options: dict[str, Any], judge: Classifier
) -> dict[str, Any]:
    facts: dict[str, Any] = {"labels": {}, "objects": [], "complete": False}
    facts["label"] = figure.label
    facts["caption"] = figure.caption
    facts["mentions"] = [mention.text for mention in figure.mentions[: int(options.get("mentions", 8))]]
    if article.retracted:
        facts["retracted"] = True
    if options.get("modality"):
        facts["modality"] = options["modality"]
    elif figure.caption:
        name, confidence = judge(figure.caption, images[0])
        if name and confidence >= float(options.get("certain", 0.6)):
            facts["modality"], facts["modality_confidence"] = name, confidence
    if options.get("panels"):
        panels = split_panels(figure.caption)
        facts["panels"] = [{"letters": list(letters), "text": text} for letters, text in panels.parts]
        facts["panels_lead"], facts["panels_confidence"] = panels.lead, panels.confidence
    return facts


def _add_metadata(article: Article, metadata: dict[str, Any]) -> None:
    """Adds what PMC's metadata says: a retraction, and a licence where the stricter of both counts."""
    if metadata.get("is_retracted") is True:
        article.retracted = True
    for key in ("pmcid", "pmid", "doi"):
        value = metadata.get(key)
        if value:
            article.ids.setdefault(key, str(value).removeprefix("PMC"))
    code = normalised(str(metadata.get("license_code") or ""))
    if code and strictest([article.licence, code] if article.licence else [code]) == code != article.licence:
        for figure in article.figures:
            if figure.licence == article.licence:
                figure.licence = code
        article.licence = code


def _group(source: layout.Source, article: Article) -> str:
    for key in ("doi", "pmcid", "pmid"):
        if article.ids.get(key):
            return f"{key}:{article.ids[key].lower()}"
    return source.id
