"""The dataset card: true counts, names that the hub knows, and nothing that identifies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from medkit.cli import app
from medkit.errors import DataError
from medkit.readers.dataset_card import write_card
from medkit.readers.ingest import ingest
from medkit.sample import Sample, assistant_turn, user_turn
from medkit.store import DatasetWriter

SECRET = "MUSTERMANN"


def drawing(number: int) -> Image.Image:
    image = Image.new("RGB", (40, 40), (10 * number, 40, 200 - 10 * number))
    ImageDraw.Draw(image).rectangle((number, 2 * number, 20 + number, 38), fill=(255, 200, 10 * number))
    return image


def parts_of(card: str) -> tuple[dict[str, Any], str]:
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose files, groups, licences and notes hold a name."""
    root = tmp_path_factory.mktemp("card")
    (root / "in").mkdir()
    licences = ["CC BY 4.0", "CC BY 4.0", "CC0-1.0", f"by {SECRET}", "", "MIT", "CC-BY-NC-4.0", "CC BY 4.0"]
    lines = ["image,caption,licence,group"]
    for number, licence in enumerate(licences):
        drawing(number).save(root / "in" / f"{SECRET}-{number}.png")
        lines.append(f"{SECRET}-{number}.png,Report of {SECRET}.,{licence},{SECRET}{number}")
    lines.append(f"{SECRET}-gone.png,Report.,MIT,{SECRET}9")
    (root / "in" / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    options = {"licence_column": "licence", "modality": "X-ray"}
    domain = {
        "name": "ward",
        "title": "Ward | <b>films</b>",
        "description": "Films of a ward,\nwith what was said.",
        "licence": "per picture",
        "data": {"reader": "table", "options": options, "where": "Nowhere.", "license": "any", "splits": {}},
    }
    ingest({"domain": domain, "data": str(root / "in")}, {}, root / "out")
    return root / "out"


def test_an_ingest_writes_its_card(made: Path) -> None:
    front, body = parts_of((made / "README.md").read_text(encoding="utf-8"))
    assert front == {
        "pretty_name": "Ward / ‹b›films‹/b›",
        "license": ["cc-by-4.0", "cc-by-nc-4.0", "cc0-1.0", "mit", "other"],
        "size_categories": ["n<1K"],
        "task_categories": ["image-to-text"],
        "tags": ["medkit", "image-text", "x-ray"],
    }
    for line in (
        "# Ward / ‹b›films‹/b›",
        "Films of a ward, with what was said.",
        "| samples | 8 |",
        "| groups | 8 |",
        "| kind | train | test |",
        "| caption | 7 | 1 |",
        "| X-ray | 8 |",
        "| CC BY 4.0 | 3 | yes | yes |",
        "| not in the table of licences | 2 | no | no |",
        "| CC BY-NC 4.0 | 1 | yes | no |",
        "| dataset | ward | 8 |",
        "Read by medkit's reader `table`. Nowhere.",
        "| kept | 8 |",
        "| rejected | image missing | 1 |",
        "Cut here by a hash of the group: test. The others are the source's.",
        "Held-out pictures with a near-duplicate in another split: 0.",
    ):
        assert line in body.splitlines(), line


def test_no_name_gets_onto_the_card(made: Path) -> None:
    assert any(SECRET in row for row in (made / "ledger.jsonl").read_text(encoding="utf-8").splitlines())
    assert SECRET not in (made / "README.md").read_text(encoding="utf-8")


def test_the_command_writes_the_same_card_again(made: Path) -> None:
    before = (made / "README.md").read_bytes()
    (made / "README.md").unlink()
    said = CliRunner().invoke(app, ["data", "card", str(made)])
    assert said.exit_code == 0
    assert said.output.strip() == f"Card: {made / 'README.md'}"
    assert (made / "README.md").read_bytes() == before


def test_a_page_of_somebody_stays(tmp_path: Path) -> None:
    write_set(tmp_path / "set", [])
    (tmp_path / "set" / "README.md").write_text("Mine.", encoding="utf-8")
    with pytest.raises(DataError, match="was written by somebody"):
        write_card(tmp_path / "set")
    assert (tmp_path / "set" / "README.md").read_text(encoding="utf-8") == "Mine."


def test_an_unfinished_folder_has_no_card(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        write_card(tmp_path / "missing")


def write_set(folder: Path, sources: list[dict[str, Any]]) -> None:
    with DatasetWriter(folder, name="set") as to:
        for number, source in enumerate(sources):
            ref = to.add_image(drawing(number))
            messages = [user_turn("What?", 1), assistant_turn("A film.")]
            facts = {"modality": source.pop("modality", ""), "objects": [{"label": "nodule"}]}
            source = {"dataset": "set", "kind": "conversation", "split": "train", "group": "g", **source}
            to.add(Sample(f"s{number}", messages, [ref], facts, source))


def test_what_is_no_short_phrase_is_not_repeated(tmp_path: Path) -> None:
    odd = f"CT of {SECRET}, who lives in a street | <script>, and so on and on and on and on"
    write_set(tmp_path / "set", [{"modality": odd, "dataset": odd, "teacher": "rules"}, {"modality": "CT"}])
    front, body = parts_of(write_card(tmp_path / "set").read_text(encoding="utf-8"))
    assert SECRET not in body
    assert "| other | 1 |" in body.splitlines()
    assert "| text made by | rules | 1 |" in body.splitlines()
    assert "| objects | 2 |" in body.splitlines()
    assert front["license"] == "unknown"
    assert front["task_categories"] == ["object-detection", "visual-question-answering"]


def test_the_hub_reads_the_front_matter(made: Path) -> None:
    cards = pytest.importorskip("huggingface_hub")
    card = cards.DatasetCard.load(made / "README.md")
    assert card.data.pretty_name == "Ward / ‹b›films‹/b›"
    assert card.data.size_categories == ["n<1K"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_card_of_many_samples_takes_the_memory_of_few(tmp_path: Path) -> None:
    source = {"dataset": "d", "kind": "record", "split": "train", "licence": "MIT"}
    with DatasetWriter(tmp_path / "out", "d") as to:
        for number in range(40_000):
            to.add(
                Sample(f"r{number}", [], [], {"labels": {"n": "x" * 1500}}, {**source, "group": str(number)})
            )
    code = (
        "import sys; from pathlib import Path; from medkit.readers.dataset_card import write_card\n"
        "most = lambda: int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        "before = most(); write_card(sys.argv[1]); print(most() - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    grown = int(subprocess.run(command, check=True, capture_output=True).stdout) * 1024
    assert (tmp_path / "out/samples.arrow").stat().st_size > 60_000_000
    assert grown < 30_000_000
    assert "| samples | 40000 |" in (tmp_path / "out/README.md").read_text()
