"""Cards: every fault is one line with file and line, all at once; the YAML traps are refused."""

# The table of broken cards shows each said line whole.
# ruff: noqa: E501

from __future__ import annotations

from pathlib import Path

import pytest
from card_shelf import REPOSITORY, medkit, python, replace_in, write_shelf

from medkit.cards import load_card, load_recipe
from medkit.cards.models import Recipe
from medkit.cards.settings import apply_settings
from medkit.cards.shelf import Shelf, open_shelf
from medkit.cards.stages import stage_order
from medkit.cards.strict_yaml import parse, parse_value
from medkit.check import check_shelf
from medkit.errors import CardError, MedkitError

R, C, D, B = "recipes/small.yaml", "curricula/two.yaml", "domains/cells/domain.yaml", "evals/asked/eval.yaml"
TRAP = "without quotes is a trap (YAML 1.1 reads"

# (what is broken, file, old text, new text, the one line that must be said)
BROKEN = [
    ("typo in a key", R, "adapter:", "adaptor:", f"{R}:7: adaptor: unknown key; did you mean adapter?"),
    ("typo in an inner key", R, "rank: 8", "rnak: 8", f"{R}:7: adapter.rnak: unknown key; did you mean rank?"),
    ("word for a number", R, "rank: 8", "rank: eight", f'{R}:7: adapter.rank: must be a whole number, not "eight"'),
    ("quoted number", R, "seed: 1", 'seed: "1"', f'{R}:13: seed: must be a whole number, not "1"'),
    ("number for text", R, "title: A small recipe", "title: 7", f'{R}:2: title: must be text, not 7; put it in quotes: "7"'),
    ("truth for a number", R, "seed: 1", "seed: true", f"{R}:13: seed: must be a whole number, not true"),
    ("word for a mapping", R, "adapter: {kind: lora, rank: 8}", "adapter: lora",
     f'{R}:7: adapter: must be a mapping of keys to values, not "lora"; keys: kind, rank, alpha, dropout, targets, '
     "prompt_tokens, prompt_layers, quantize"),
    ("word for a list", R, "benchmarks: [asked]", "benchmarks: asked", f'{R}:9: benchmarks: must be a list, not "asked"'),
    ("empty list", R, "benchmarks: [asked]", "benchmarks: []", f"{R}:9: benchmarks: must not be empty"),
    ("negative epochs", R, "epochs: 2", "epochs: -2", f"{R}:12: stages.instruct.epochs: must be greater than 0, not -2"),
    ("rate above one", C, "projector: 1.0e-3}\n  instruct", "projector: 10}\n  instruct",
     f"{C}:8: stages.align.train.projector: must be at most 1, not 10"),
    ("unknown adapter", R, "kind: lora", "kind: loro",
     f'{R}:7: adapter.kind: must be full or lora or rslora or dora or pissa or adalora or ia3 or llama_adapter, not "loro"; '
     "did you mean lora?"),
    ("missing key", R, "base: little\n", "", f"{R}:1: base: is missing; add 'base: ...'"),
    ("repeated key", R, "seed: 1", "seed: 1\nbase: little",
     f"{R}:14: base: the key is given twice (first on line 3); keep one of them"),
    ("unquoted no", R, "title: A small recipe", "title: no",
     f'{R}:2: title: no {TRAP} false); write "no" for the word or false'),
    ("unquoted Yes in a list", R, "[asked]", "[Yes]",
     f'{R}:9: benchmarks[0]: Yes {TRAP} true); write "Yes" for the word or true'),
    ("exponent without a point", C, "language: 2.0e-4", "language: 2e-4",
     f"{C}:11: stages.instruct.train.language: 2e-4 is a trap (YAML 1.1 reads text, not a number); write 2.0e-4"),
    ("octal number", R, "seed: 1", "seed: 010",
     f'{R}:13: seed: 010 {TRAP} a number in another base or with marks); write "010" for the text or a plain number'),
    ("clock time", R, "title: A small recipe", "title: 12:30",
     f'{R}:2: title: 12:30 {TRAP} a number to base 60); write "12:30" for the text or a plain number'),
    ("tab", R, "    epochs: 2", "\tepochs: 2", f"{R}:12: a tab indents this line; use spaces"),
    ("two documents", R, "seed: 1", "---\nseed: 1",
     f"{R}:13: holds more than one document; keep one, without '---' lines"),
    ("unclosed bracket", R, "[asked]", "[asked", f"{R}:10: is not YAML:"),
    ("alias", R, "seed: 1", "seed: &one 1\nbuild: *one", f"{R}:14: the alias *one is not read in cards; write the value out"),
    ("loop of aliases", R, "seed: 1", "build: &loop [*loop]",
     f"{R}:13: the alias *loop is not read in cards; write the value out"),
    ("tag that makes objects", R, "seed: 1", "seed: !!python/object:os.system 1",
     f"{R}:13: seed: the tag tag:yaml.org,2002:python/object:os.system is not read in cards; leave it out"),
    ("unknown domain", R, "domain: cells", "domain: cels",
     f'{R}:4: domain: there is no domain "cels" (domains/cels/domain.yaml is not on the shelf); did you mean cells?'),
    ("unknown curriculum", R, "curriculum: two", "curriculum: tow",
     f'{R}:6: curriculum: there is no curriculum "tow" (curricula/tow.yaml is not on the shelf); did you mean two?'),
    ("unknown benchmark", R, "[asked]", "[askd]",
     f'{R}:9: benchmarks[0]: there is no benchmark "askd" (evals/askd/eval.yaml is not on the shelf); did you mean asked?'),
    ("unknown base", R, "base: little", "base: litle",
     f'{R}:3: base: there is no model "litle"; did you mean little? (or a model folder, or a hub id such as owner/model)'),
    ("path out of the shelf", R, "domain: cells", "domain: ../cells",
     f'{R}:4: domain: must be a name of lower-case letters, digits, \'-\', \'_\' or \'.\', not "../cells"'),
    ("missing data path", R, "data: cells-data", "data: nowhere",
     f'{R}:5: data: "nowhere" does not exist; give --set data=FOLDER or set the environment variable '
     "MEDKIT_CELLS=FOLDER; where to get it: Say here in one sentence where the set can be had."),
    ("no data path", R, "data: cells-data\n", "",
     f"{R}:4: domain: the domain cells needs the folder of its data; give --set data=FOLDER or set the environment "
     "variable MEDKIT_CELLS=FOLDER; where to get it: Say here in one sentence where the set can be had."),
    ("stages in a circle", C, "start: base", "start: instruct",
     f"{C}:6: stages.align.start: stages start from one another in a circle: align -> instruct -> align; "
     "let one of them start from base"),
    ("stage from an unknown stage", C, "start: align", "start: algn",
     f"{C}:10: stages.instruct.start: there is no stage algn; did you mean align?"),
    ("final stage missing", C, "final: instruct", "final: instrct",
     f"{C}:3: final: there is no stage instrct; did you mean instruct?"),
    ("nothing trained", C, "train: {projector: 1.0e-3}\n", "train: {}\n",
     f"{C}:8: stages.align.train: every part is frozen, so the stage trains nothing; "
     "give vision, projector or language a learning rate"),
    ("unknown sample kind", C, "on: [caption]", "on: [captoin]",
     f"{C}:7: stages.align.on[0]: must be caption or description or conversation or reasoning or question or record, "
     'not "captoin"; did you mean caption?'),
    ("packing what is not text", C, "    on: [caption]\n    train: {projector: 1.0e-3}",
     "    on: [record]\n    train: {vision: 1.0e-3}\n    objective: see\n    pack: true",
     f"{C}:10: stages.align.pack: a stage that learns to see reads no text; leave it out"),
    ("micro batch above batch", C, "batch: 8", "batch: 8\n    micro_batch: 9",
     f"{C}:14: stages.instruct.micro_batch: must be at most batch (8), not 9"),
    ("changes to an unknown stage", R, "  instruct:", "  instrct:",
     f"{R}:11: stages.instrct: the curriculum has no stage instrct; did you mean instruct?"),
    ("build without base build", R, "seed: 1", "build: {image_px: 32}",
     f'{R}:13: build: is read only with base: build, not "little"'),
    ("pictures ordered of a domain that isn't drawn", R, "seed: 1", "ingest: {train: 9}",
     f"{R}:13: ingest.train: is read only for domains that medkit draws; use limit"),
    ("name of another file", R, "name: small", "name: other",
     f'{R}:1: name: "other" is not the name of its file (small); write \'name: small\' or rename the file'),
    ("benchmark of an unknown domain", B, "licence: Apache-2.0", "licence: MIT\nsource: {domain: moon}",
     f'{R}:9: benchmarks[0]: there is no domain "moon" (domains/moon/domain.yaml is not on the shelf); known: '),
    ("unknown reader", D, "reader: class_folders", "reader: class_folder",
     f"{D}:6: data.reader: there is no reader class_folder; did you mean class_folders?"),
    ("teacher without a key", "domains/cells/teacher.yaml", "version: cells-1\n", "",
     "domains/cells/teacher.yaml:1: version: is missing; add 'version: ...'"),
    ("fixture that isn't there", D, "fixture: fixture", "fixture: fixtures",
     f"{D}:12: fixture: fixtures is not in the domain's folder; add a tiny invented fixture or leave the key out"),
]  # fmt: skip


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_shelf(tmp_path))
    monkeypatch.delenv("MEDKIT_SHELF", raising=False)
    monkeypatch.delenv("MEDKIT_CELLS", raising=False)
    return tmp_path


def test_right_cards_pass(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert medkit("check", "small", monkeypatch=monkeypatch) == 0


@pytest.mark.parametrize(
    ("file", "old", "new", "line"), [case[1:] for case in BROKEN], ids=[c[0] for c in BROKEN]
)
def test_a_broken_card_is_one_line_and_exit_code_2(
    file: str,
    old: str,
    new: str,
    line: str,
    shelf: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    replace_in(shelf / file, old, new)
    assert medkit("check", "small", monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(line) if line.endswith(": ") or line.endswith("YAML:") else said[0] == line


SETTINGS = [
    ("no value", "seed", "--set seed: must be key=value; for example --set instruct.epochs=2"),
    ("unknown key", "sed=1", "--set sed=1: sed: unknown key; did you mean seed?"),
    ("unknown inner key", "instruct.epoch=1", "--set instruct.epoch=1: stages.instruct.epoch: unknown key; did you mean epochs?"),
    ("wrong type", "seed=one", '--set seed=one: seed: must be a whole number, not "one"'),
    ("negative", "align.epochs=-1", "--set align.epochs=-1: stages.align.epochs: must be greater than 0, not -1"),
    ("trap", "title=no", f'--set title=no: title: no {TRAP} false); write "no" for the word or false'),
    ("unknown domain", "domain=cels",
     '--set domain=cels: domain: there is no domain "cels" (domains/cels/domain.yaml is not on the shelf); '
     "did you mean cells?"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line"), [case[1:] for case in SETTINGS], ids=[case[0] for case in SETTINGS]
)
def test_a_bad_setting_is_one_line_that_names_it(
    text: str, line: str, shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert medkit("check", "small", "--set", text, monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err.splitlines() == [line]


def test_all_faults_of_all_cards_are_said_at_once_the_recipe_first(shelf: Path) -> None:
    replace_in(shelf / C, "batch: 8", "batch: 0")
    replace_in(shelf / R, "rank: 8", "rank: -8")
    replace_in(shelf / R, "seed: 1", "sed: 1")
    replace_in(shelf / B, "licence: Apache-2.0\n", "")
    with pytest.raises(CardError) as error:
        load_recipe("small")
    places = [(problem.file, problem.line, problem.path) for problem in error.value.problems]
    assert places == [
        (R, 7, "adapter.rank"),
        (R, 13, "sed"),
        (C, 13, "stages.instruct.batch"),
        (B, 1, "licence"),
    ]


def test_set_is_typed_and_a_stage_name_is_short_for_its_stage(shelf: Path) -> None:
    cards = load_recipe(
        "small", ["instruct.epochs=1", "adapter.rank=4", "instruct.train.language=1e-3", "title=T: x"]
    )
    assert cards.curriculum.stages["instruct"].epochs == 1
    assert cards.curriculum.stages["instruct"].train.language == 0.001
    assert cards.curriculum.stages["instruct"].train.projector == 0.001
    assert cards.recipe.adapter.rank == 4


def test_set_that_is_no_yaml_value_is_refused() -> None:
    assert parse_value("[a") == (None, "is no YAML value")
    assert parse_value("T: x") == ("T: x", "")
    assert parse_value("{a: [1]}") == ({"a": [1]}, "")
    assert parse_value("") == (None, "")
    assert parse_value("-1.5e2") == (-150.0, "")
    assert parse_value("~/data/set 1") == ("~/data/set 1", "")


def test_the_last_of_two_settings_counts() -> None:
    document = parse("seed: 1\n", "x.yaml")
    assert apply_settings(document, ["seed=2", "seed=3"], Recipe.model_fields, set()) == ([], [])
    assert document.value == {"seed": 3}


def test_recipe_changes_win_over_the_curriculum(shelf: Path) -> None:
    stages = load_recipe("small").curriculum.stages
    assert (stages["instruct"].epochs, stages["instruct"].batch, stages["align"].epochs) == (2, 8, 1)


def test_plain_values_are_read_as_both_yaml_versions_read_them() -> None:
    text = 'a: 1\nb: -2.5\nc: 1.0e-3\nd: "no"\ne: true\nf: null\ng: ~\nh: a b\non: x\nno: y\ni: .5\nj: "1e-3"\nk:\n'
    document = parse(text, "x.yaml")
    assert document.problems == []
    assert document.value == {
        "a": 1, "b": -2.5, "c": 0.001, "d": "no", "e": True, "f": None, "g": None, "h": "a b", "on": "x", "no": "y",
        "i": 0.5, "j": "1e-3", "k": None,
    }  # fmt: skip
    assert [document.place((key,))[1] for key in ("a", "on", "k")] == [1, 9, 13]


@pytest.mark.parametrize(
    "text", ["2024-01-31", "1_000", "0x1F", "0b1", "1:30:00", "NULL", "True", "1.5e3", "<<: {a: 1}"]
)
def test_what_yaml_versions_read_differently_is_refused(text: str) -> None:
    document = parse(f"a: {text}\n" if "<<" not in text else f"{text}\n", "x.yaml")
    assert [problem.line for problem in document.problems] == [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.yaml:1: is empty; start with a line such as 'name: ...'"),
        ("- a\n", "x.yaml:1: must be a mapping of keys to values; start with a line such as 'name: ...'"),
        ("? [a]\n: b\n", "x.yaml:1: a key must be a word; write 'key: value'"),
    ],
)
def test_a_card_must_be_a_mapping_of_words(text: str, message: str) -> None:
    assert [str(problem) for problem in parse(text, "x.yaml").problems] == [message]


def test_a_card_that_is_no_text_is_refused(shelf: Path) -> None:
    (shelf / R).write_bytes(b"name: small\ntitle: \xff\n")
    with pytest.raises(CardError, match=r"recipes/small.yaml:2: is not UTF-8 text; save it as UTF-8"):
        load_recipe("small")


def test_deep_nesting_is_a_fault_and_no_crash() -> None:
    document = parse("a: " + "[" * 20_000, "x.yaml")
    assert len(document.problems) == 1


def test_an_unknown_recipe_says_what_is_near(shelf: Path) -> None:
    with pytest.raises(CardError, match=r"smal: there is no such recipe; did you mean small\?"):
        load_recipe("smal")


def test_data_comes_from_the_environment_when_the_recipe_gives_none(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_in(shelf / R, "data: cells-data\n", "")
    monkeypatch.setenv("MEDKIT_CELLS", str(shelf / "cells-data"))
    assert load_recipe("small").domains["cells"].data == shelf / "cells-data"
    monkeypatch.setenv("MEDKIT_CELLS", "nowhere")
    with pytest.raises(CardError, match=r'small.yaml:4: domain: MEDKIT_CELLS="nowhere" does not exist'):
        load_recipe("small")


def test_the_working_folder_comes_before_the_variable_and_that_before_what_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for root in (here, there):
        (root / "curricula").mkdir(parents=True)
    (there / "curricula/one.yaml").write_text("name: one\n")
    (there / "curricula/align-instruct.yaml").write_text("name: align-instruct\n")
    monkeypatch.chdir(here)
    monkeypatch.setenv("MEDKIT_SHELF", str(there))
    shelf = open_shelf()
    assert shelf.find("curriculum", "one") == there / "curricula/one.yaml"
    assert shelf.find("curriculum", "align-instruct") == there / "curricula/align-instruct.yaml"
    assert shelf.find("curriculum", "instruct-only") == REPOSITORY / "curricula/instruct-only.yaml"
    (here / "curricula/one.yaml").write_text("name: one\n")
    assert shelf.find("curriculum", "one") == here / "curricula/one.yaml"
    assert list(Shelf((there,)).names("curriculum")) == ["align-instruct", "one"]


def test_a_shelf_variable_that_is_no_folder_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDKIT_SHELF", "/nowhere/at/all")
    with pytest.raises(MedkitError, match="MEDKIT_SHELF=/nowhere/at/all: is no folder"):
        open_shelf()


def test_a_hub_id_is_a_base_and_is_not_looked_up(shelf: Path) -> None:
    base = load_recipe("small", ["base=owner/model"]).base
    assert (base.kind, base.name, base.path) == ("hub", "owner/model", None)


def test_a_model_folder_is_a_base(shelf: Path) -> None:
    base = load_recipe("small", ["base=checkpoints/little"]).base
    assert (base.kind, base.path) == ("folder", shelf / "checkpoints/little")
    with pytest.raises(CardError, match=r'base: "cells-data" is a folder without a model'):
        load_recipe("small", ["base=cells-data"])


def test_words_of_named_domains_come_from_their_teacher_cards(shelf: Path) -> None:
    cards = load_recipe("small", ["base=build", "build.words_from=[cells]"])
    assert "Which class is this?" in cards.words
    assert "second" in cards.words


def test_every_shipped_card_is_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The shipped checkpoint is a file of its own making; the cards must be right without it.
    (tmp_path / "checkpoints/tiny-general").mkdir(parents=True)
    (tmp_path / "checkpoints/tiny-general/config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDKIT_SHELF", raising=False)
    fine, problems = check_shelf()
    assert [str(problem) for problem in problems] == []
    assert {"blood", "phantom", "retail", "sorting", "tiny-general"} <= set(fine["recipe"])
    assert {"blood", "phantom", "retail", "scenes", "sorting"} <= set(fine["domain"])
    assert {"align-instruct", "instruct-only", "replay-ablation", "see-first", "from-nothing"} <= set(
        fine["curriculum"]
    )
    assert {"held-out", "general-scenes"} <= set(fine["benchmark"])


def test_a_stage_comes_after_the_one_it_starts_from(shelf: Path) -> None:
    text = (shelf / C).read_text()
    head, align, instruct = (
        text.partition("  align:\n")[0],
        text[text.index("  align:") : text.index("  instruct:")],
        "",
    )
    instruct = text[text.index("  instruct:") :]
    (shelf / C).write_text(head + instruct + align)
    card, problems = load_card("curriculum", shelf / C)
    assert problems == []
    assert list(card.stages) == ["instruct", "align"]
    assert stage_order(card) == ["align", "instruct"]


CHECK = "import sys; from medkit.cli import main\ntry: main()\nfinally: print('torch' in sys.modules, file=sys.stderr)"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["check", "small"], 0), (["check", "small", "--set", "seed=-1"], 2), (["check", "none"], 2)],
)
def test_check_never_imports_torch(shelf: Path, arguments: list[str], code: int) -> None:
    done = python(CHECK, shelf, *arguments)
    assert done.stderr.splitlines()[-1] == "False"
    assert done.returncode == code
    assert "Traceback" not in done.stderr
