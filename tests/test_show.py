"""Looking into a dataset folder or a run."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from PIL import Image

from medkit.errors import DataError
from medkit.readers.contact_sheet import choose
from medkit.readers.show import show
from medkit.sample import Sample, assistant_turn, user_turn
from medkit.store import DatasetWriter, open_dataset


def _write(folder, count: int = 30):
    with DatasetWriter(folder, "smears") as to:
        for number in range(count):
            ref = to.add_image(np.full((20, 30, 3), number, np.uint8))
            split = ("train", "valid", "test")[number % 3]
            source = {"dataset": "d", "record": f"r{number}", "group": f"g{number}", "split": split}
            facts = {
                "labels": {"class": "ab"[number % 2]},
                "objects": [{"label": "WBC", "box": [0.1, 0.2, 0.5, 0.9], "attributes": {}}],
            }
            turns = [user_turn("Is it <b>bad</b> & why?", images=1), assistant_turn("no")]
            to.add(Sample(f"s{number}", turns, [ref], facts, source))
        to.reject("r99", "image unreadable", "<script>alert(1)</script>")


def test_show_counts_and_writes_both_sheets(tmp_path):
    _write(tmp_path / "d")
    shown = show(tmp_path / "d")
    assert shown.lines == [
        "d: 30 samples, 30 images, 30 groups",
        "  splits: test 10, train 10, valid 10",
        "  kinds: conversation 30",
        "  rejected: image unreadable 1",
    ]
    assert (shown.html, shown.png) == (
        tmp_path / "d/show/contact-sheet.html",
        tmp_path / "d/show/contact-sheet.png",
    )
    assert str(shown).endswith(f"wrote {shown.png}")
    assert open_dataset(tmp_path / "d")[0].id == "s0"


def test_the_page_is_self_contained_and_escapes_the_data(tmp_path):
    _write(tmp_path / "d")
    shown = show(tmp_path / "d", tmp_path / "sheet.html", samples=7)
    assert shown.png is None and shown.html is not None
    page = shown.html.read_text()
    assert page.count("<article") == 7
    assert page.count("data:image/webp;base64,") == 7
    assert not re.search(r"https?://|<script", page)
    assert "Is it &lt;b&gt;bad&lt;/b&gt; &amp; why?" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "prefers-color-scheme: dark" in page and "@media print" in page


def test_the_picture_holds_every_sample_and_draws_boxes(tmp_path):
    _write(tmp_path / "d")
    shown = show(tmp_path / "d", tmp_path / "sheet.png", samples=6)
    assert shown.html is None and shown.png is not None
    sheet = Image.open(shown.png)
    assert sheet.width == 6 * (224 + 14) + 14
    colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 20) or []}
    assert (15, 118, 110) in colours  # the box's hue


def test_samples_are_spread_over_splits_and_labels_and_stay_the_same(tmp_path):
    _write(tmp_path / "d")
    dataset = open_dataset(tmp_path / "d")
    chosen = choose(dataset, 6)
    assert {(s.split, s.facts["labels"]["class"]) for s in chosen} == {
        (s, c) for s in ("train", "valid", "test") for c in "ab"
    }
    assert choose(dataset, 6) == chosen
    assert len(choose(dataset, 500)) == 30


def test_a_run_shows_its_datasets_in_the_order_of_its_steps(tmp_path):
    _write(tmp_path / "run/10-teach")
    _write(tmp_path / "run/2-ingest", count=3)
    (tmp_path / "run/3-align").mkdir()
    shown = show(tmp_path / "run", tmp_path / "out")
    assert [line.split(":")[0] for line in shown.lines if line[0] != " "] == ["2-ingest", "10-teach"]
    assert (tmp_path / "out/contact-sheet.html").read_text().count("<h2>") == 2


def test_what_can_not_be_shown_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="is no folder"):
        show(tmp_path / "none")
    with pytest.raises(DataError, match="holds no finished dataset"):
        show(tmp_path)
    _write(tmp_path / "d", count=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written"):
        show(tmp_path / "d", tmp_path / "file" / "out")


def test_text_only_samples_and_large_sets_are_shown_quickly(tmp_path):
    with DatasetWriter(tmp_path / "d", "d") as to:
        for number in range(4000):
            to.add(Sample(f"s{number}", [user_turn("Why?"), assistant_turn("So.")], []))
    start = time.perf_counter()
    shown = show(tmp_path / "d")
    assert shown.html is not None
    assert shown.html.read_text().count("<article") == 36
    assert time.perf_counter() - start < 10
