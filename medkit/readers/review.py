"""``medkit data review``: the pictures of a folder that may show a name, on one page for a person to look at.

The page shows what the dataset keeps back, so it belongs to the key's holder: it is readable by its owner only and
is never written into the data. Files stand on it under the pseudonyms of the ledger.
"""

from __future__ import annotations

import base64
import io
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from medkit import images as pictures
from medkit.errors import DataError
from medkit.privacy.masks import masks_of_file
from medkit.privacy.ocr import Line, check_installed, find_text, say
from medkit.privacy.text import Known, known_values
from medkit.readers.dicom.burned_in import check_is_picture
from medkit.readers.dicom.decode import describe
from medkit.readers.dicom.files import DEFAULT_LIMITS, quiet, read_file
from medkit.readers.dicom.identity import KEY_VARIABLE, Pseudonyms
from medkit.readers.dicom.loading import Loading
from medkit.readers.dicom.profiles import choose_profiles
from medkit.readers.dicom.reasons import REASONS, Refused, one_file
from medkit.readers.dicom.screening import Screening

SIDE = 640
MOST = 300


@dataclass(frozen=True)
class Doubt:
    """A picture that a person should look at.

    Attributes:
        record: Its pseudonym.
        reason, detail: As in the ledger.
        shown: A small WebP as a data address, "" where the picture can't be read.
        about: Its size and number of frames.
        boxes: Lines of text that OCR found, as (left, top, width, height) in percent.
        releasable: Whether the reader that keeps it back takes a list of released files.
    """

    record: str
    reason: str
    detail: str
    shown: str
    about: str
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    releasable: bool = True


@dataclass
class Review:
    """What was looked through: doubts in the files' order, and how many files ended how."""

    doubts: list[Doubt] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    random_key: bool = False


def write_review(
    folder: Path, out: Path, ocr: bool = False, masks: Path | None = None, most: int = MOST
) -> str:
    """Writes the page and gives what was found, in words.

    Args:
        folder: DICOM files and pictures.
        out: The page, outside of the folder.
        ocr: Whether every picture that isn't kept back anyway is searched for text.
        masks: A file of site masks, as the card has them.
        most: How many pictures are shown; the rest is counted.

    Raises:
        DataError: The folder has no file, or the page can't be written there.
    """
    if out.suffix.lower() != ".html":
        raise DataError(f"--out {out}: the page's name must end in .html")
    if folder.resolve() in out.resolve().parents:
        raise DataError("the page shows what the data must not; keep it outside of the data folder")
    found = review(folder, ocr, masks, most)
    page = _page(found, ocr, most)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.unlink(missing_ok=True)
        with open(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(page)
    except OSError as error:
        raise DataError(f"{out} can't be written ({error.strerror})") from None
    doubtful = [f"{count} {reason}" for reason, count in found.counts.most_common()]
    return "\n".join([*doubtful, f"Page: {out} (pictures may show names: for the key's holder only)"])


def review(folder: Path, ocr: bool = False, masks: Path | None = None, most: int = MOST) -> Review:
    """Looks through a folder for pictures that a person should see.

    Raises:
        DataError: The folder has no file, the masks can't be used, or OCR isn't installed.
    """
    if ocr:
        check_installed("data review")
    screening = Screening(masks=masks_of_file(masks) if masks is not None else ())
    names = Pseudonyms()
    result = Review(random_key=names.random)
    for path in _files(folder):
        record = names.name("file", path.relative_to(folder).as_posix())
        try:
            with one_file(), quiet():
                doubt = _look(path, record, screening, ocr)
        except Refused as refused:
            result.counts["not a picture" if refused.reason == "not DICOM" else refused.reason] += 1
            continue
        result.counts[doubt.reason if doubt else "nothing seen" if ocr else "not kept back"] += 1
        if doubt and len(result.doubts) < most:
            result.doubts.append(doubt)
    if not result.counts:
        raise DataError(f"{folder} holds no file")
    return result


def _files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder")
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _look(path: Path, record: str, screening: Screening, ocr: bool) -> Doubt | None:
    """Gives a file's doubt, or None where there is none.

    Raises:
        Refused: The file is no picture, or can't be read.
    """
    if path.name.lower().endswith(pictures.SUFFIXES):
        if not ocr:
            return None
        try:
            picture = np.asarray(pictures.decode(pictures.read_limited(path)).image)
        except DataError:
            raise Refused("header unreadable") from None
        return _doubt_of_text(record, picture, None, f"{picture.shape[1]} x {picture.shape[0]} px")
    dataset = read_file(path, DEFAULT_LIMITS, pixels=False)
    check_is_picture(dataset)
    about = describe(dataset, DEFAULT_LIMITS, has_pixels=False)
    kept_back = None
    keep = None
    try:
        keep = screening.regions(dataset, about, record)
    except Refused as refused:
        kept_back = refused
    if kept_back is None and not ocr:
        return None
    loading = Loading(
        ((path, (about.frames // 2,)),),
        choose_profiles("window")["*"],
        DEFAULT_LIMITS,
        keep,
        masks=screening.masks,
    )
    try:
        picture = loading().images[0]
    except Refused as refused:
        if kept_back is None:
            raise
        about_it = f"can't be shown: {refused.reason}"
        return Doubt(record, kept_back.reason, kept_back.detail, "", about_it, releasable=False)
    assert isinstance(picture, np.ndarray)
    size = f"{about.columns} x {about.rows} px"
    if about.frames > 1:
        size += f", the middle one of {about.frames} frames"
    if kept_back is not None:
        return Doubt(record, kept_back.reason, kept_back.detail, _small(picture), size)
    return _doubt_of_text(record, picture, known_values(dataset), size)


def _doubt_of_text(record: str, picture: np.ndarray, known: Known | None, about: str) -> Doubt | None:
    lines = find_text(picture, known)
    if not lines:
        return None
    boxes = [_percent(line, picture) for line in lines]
    # A picture outside of DICOM has no header, and no reader that would keep it back.
    return Doubt(record, "shows text", say(lines), _small(picture), about, boxes, known is not None)


def _percent(line: Line, picture: np.ndarray) -> tuple[float, float, float, float]:
    height, width = picture.shape[:2]
    left, top, right, bottom = line.box
    return 100 * left / width, 100 * top / height, 100 * (right - left) / width, 100 * (bottom - top) / height


def _small(picture: np.ndarray) -> str:
    image = Image.fromarray(picture).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _page(found: Review, ocr: bool, most: int) -> str:
    sections: dict[str, list[Doubt]] = {}
    for doubt in found.doubts:
        sections.setdefault(doubt.reason, []).append(doubt)
    rows: list[dict[str, Any]] = [
        {"reason": reason, "means": REASONS.get(reason, ""), "doubts": doubts, "count": found.counts[reason]}
        for reason, doubts in sorted(sections.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    template = Path(__file__).with_name("review.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        sections=rows,
        counts=found.counts.most_common(),
        files=sum(found.counts.values()),
        releasable=0 if found.random_key else sum(doubt.releasable for doubt in found.doubts),
        ocr=ocr,
        random_key=found.random_key,
        variable=KEY_VARIABLE,
        most=most,
    )
