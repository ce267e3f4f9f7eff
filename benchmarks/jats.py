"""Articles a second on one core: figures with captions, mentions, licences, panels and modality.

    OMP_NUM_THREADS=1 python benchmarks/jats.py --data FOLDER

Takes every article file below the folder, best of the rounds, in turn with pubmed_parser where it is installed
(`pip install pubmed_parser`): its captions alone, and its captions and paragraphs, which hold its references. The
files are in the page cache after the first round. A figure counts as paired when its id comes with a caption that
begins as its own text does; as crossed when it comes with another figure's.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import platform
import re
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from medkit.readers.figures.article import read_article
from medkit.readers.figures.modality import by_caption
from medkit.readers.figures.panels import split_panels
from medkit.readers.figures.xml import XmlError, local, parse

Pairs = dict[str | None, str]


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with article files")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    files = sorted(path for path in arguments.data.rglob("*") if path.suffix in (".xml", ".nxml"))
    tools: dict[str, Callable[[Path], Pairs]] = {"medkit": medkit, **others()}
    seconds = dict.fromkeys(tools, float("inf"))
    failed = dict.fromkeys(tools, 0)
    paired = {name: [0, 0] for name in tools}
    truth = {path: own_captions(path) for path in files}
    for round_number in range(arguments.rounds):
        for name, read in tools.items():
            found: dict[Path, Pairs] = {}
            failed[name] = 0
            begun = time.process_time()
            for path in files:
                # What fails is counted; what the tools print is not part of the measurement.
                try:
                    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                        found[path] = read(path)
                except Exception:
                    failed[name] += 1
            seconds[name] = min(seconds[name], time.process_time() - begun)
            if round_number == 0:
                paired[name] = judge(found, truth)
    size = sum(path.stat().st_size for path in files) / len(files) / 1000
    print(
        f"{date.today()}, {platform.machine()}, one core, {len(files)} articles of {size:.0f} kB on average,",
        end=" ",
    )
    print(f"{sum(map(len, truth.values()))} figures with caption; CPU seconds, best of {arguments.rounds}")
    print("\n| reader | articles/s | failed articles | paired | crossed |\n|---|---|---|---|---|")
    for name in tools:
        rate = len(files) / seconds[name]
        print(f"| {name} | {rate:.0f} | {failed[name]} | {paired[name][0]} | {paired[name][1]} |")


def medkit(path: Path) -> Pairs:
    """Reads an article as the reader does, all options on."""
    article = read_article(parse(path.read_bytes()))
    for figure in article.figures:
        by_caption(figure.caption)
        split_panels(figure.caption)
    return {figure.id: figure.own_caption for figure in article.figures if figure.own_caption}


def others() -> dict[str, Callable[[Path], Pairs]]:
    """Gives pubmed_parser's readers, or none where it isn't installed."""
    try:
        import pubmed_parser
    except ImportError:
        print("pubmed_parser is not installed: medkit is measured alone")
        return {}

    def captions(path: Path) -> Pairs:
        rows: list[dict[str, Any]] = pubmed_parser.parse_pubmed_caption(str(path)) or []
        return {row["fig_id"]: row["fig_caption"] for row in rows if row["fig_caption"]}

    def with_paragraphs(path: Path) -> Pairs:
        pubmed_parser.parse_pubmed_paragraph(str(path), all_paragraph=True)
        return captions(path)

    return {"pubmed_parser, captions": captions, "pubmed_parser, captions and paragraphs": with_paragraphs}


def own_captions(path: Path) -> dict[str, str]:
    """Gives id -> letters of the figure's own caption, by element names alone."""
    try:
        root = parse(path.read_bytes())
    except XmlError:
        return {}
    found: dict[str, str] = {}
    for node in root.iter("{*}fig"):
        for child in node:
            if local(child) == "caption" and node.get("id") and (text := letters("".join(child.itertext()))):
                found[node.get("id")] = text
    return found


def judge(found: dict[Path, Pairs], truth: dict[Path, dict[str, str]]) -> list[int]:
    """Counts figures that came with the beginning of their own caption, and those that came with another's."""
    paired = crossed = 0
    for path, pairs in found.items():
        known = truth[path]
        for name, text in pairs.items():
            begin = letters(text)[:24]
            if name in known and known[name].startswith(begin):
                paired += 1
            elif any(other.startswith(begin) for other in known.values()):
                crossed += 1
    return [paired, crossed]


def letters(text: str) -> str:
    """Gives the letters alone: spaces, numbers of citations and marks are written in many ways."""
    return re.sub(r"[\W\d_]+", "", text).lower()


if __name__ == "__main__":
    main()
