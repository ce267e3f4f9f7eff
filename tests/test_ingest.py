"""The ingest step: every record accounted for, splits by group, near-duplicates found."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from real_data import real_set, splits_of

from medkit.errors import DataError
from medkit.readers.duplicates import LOOK_BYTES, coarse_of, greys_of, hashes_of, look_of, near_pairs
from medkit.readers.ingest import ingest
from medkit.readers.splits import STRICT, Splitter
from medkit.store import open_dataset

SHELF = Path(__file__).resolve().parent.parent / "domains"


def _domain(reader: str, splits: dict[str, str] | None = None, **options) -> dict:
    data = {
        "reader": reader,
        "options": options,
        "env": "MEDKIT_NOWHERE",
        "where": "It is nowhere.",
        "splits": splits or {},
    }
    return {"name": "d", "licence": "MIT", "data": data}


def _shipped(name: str) -> dict:
    return yaml.safe_load((SHELF / name / "domain.yaml").read_text(encoding="utf-8"))


def _noise(seed: int, side: int = 48) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def _save(image: Image.Image, path: Path, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def test_every_record_ends_as_a_sample_or_with_a_reason(tmp_path):
    for number in range(6):
        _save(_noise(number), tmp_path / f"in/train/glass/{number}.png")
    _save(_noise(10), tmp_path / "in/test/glass/t.png")
    (tmp_path / "in/train/glass/broken.png").write_bytes(b"\x89PNG broken")
    (tmp_path / "in/train/glass/copy.png").write_bytes((tmp_path / "in/train/glass/0.png").read_bytes())
    _save(_noise(11), tmp_path / "in/elsewhere/glass/x.png")
    result = ingest(
        {"domain": _domain("class_folders"), "data": str(tmp_path / "in"), "seed": 0}, {}, tmp_path / "out"
    )
    dataset = open_dataset(tmp_path / "out")
    fates = {row["record"]: (row["fate"], row["reason"]) for row in dataset.ledger()}
    assert len(fates) == 10
    assert fates["broken"] == ("rejected", "image unreadable")
    assert fates["copy"] == ("merged", "same picture and facts")
    assert result["fates"] == {"kept": 8, "merged": 1, "rejected": 1}
    assert result["samples"] == 8
    assert result["images"] == 8
    sample = dataset[dataset.column("id").index("t")]
    assert sample.facts == {
        "labels": {"class": "glass"},
        "objects": [],
        "complete": False,
        "width": 48,
        "height": 48,
    }
    assert sample.source == {
        "dataset": "d", "record": "t", "licence": "MIT", "group": "t", "kind": "record", "split": "test",
    }  # fmt: skip


def test_a_missing_path_says_where_the_set_can_be_had(tmp_path, monkeypatch):
    monkeypatch.delenv("MEDKIT_NOWHERE", raising=False)
    settings = {"domain": _domain("class_folders"), "data": None}
    with pytest.raises(
        DataError, match=r"give --set data=FOLDER or the environment variable MEDKIT_NOWHERE. It is nowhere."
    ):
        ingest(settings, {}, tmp_path / "out")
    monkeypatch.setenv("MEDKIT_NOWHERE", str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"none of domain d doesn't exist\. It is nowhere\."):
        ingest(settings, {}, tmp_path / "out")


def test_a_source_without_usable_records_is_an_error_with_reasons(tmp_path):
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "in/a/x.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"no record under .* could be used: image unreadable \(1\)"):
        ingest({"domain": _domain("class_folders"), "data": str(tmp_path / "in")}, {}, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def _assigned(members, seed):
    """Splits of (group, the source's split, picture or nothing)."""
    splitter = Splitter(seed)
    for group, split, *pictures in members:
        splitter.add(group, split, pictures)
    codes, made = splitter.assign()
    return [STRICT[code] for code in codes], made


def _twins(first, second):
    """(number of a picture of the first, number of its near-duplicate in the second, distance)."""
    looks = np.frombuffer(b"".join(map(look_of, [*first, *second])), np.uint8).reshape(-1, LOOK_BYTES)
    rows = np.arange(len(first)), np.arange(len(first), len(looks))
    pairs = near_pairs(hashes_of(looks), coarse_of(looks), lambda some: greys_of(looks[some]), rows)
    return [(one, other - len(first), distance) for one, other, distance in pairs]


def test_splits_are_cut_by_group_and_stay_with_the_seed():
    members = [(f"g{number // 3}", None) for number in range(300)]
    splits, made = _assigned(members, seed=1)
    assert made == ["test", "valid"]
    assert Counter(splits) == {"train": 243, "test": 45, "valid": 12}
    by_group = {}
    for member, split in zip(members, splits, strict=True):
        assert by_group.setdefault(member[0], split) == split
    assert _assigned(members, seed=1)[0] == splits
    assert _assigned(members, seed=2)[0] != splits
    more = _assigned([*members, *((f"new{n}", None) for n in range(3))], seed=1)[0]
    moved = sum(a != b for a, b in zip(splits, more, strict=False))
    assert moved <= 6  # new records leave nearly all old ones where they were


def test_given_splits_are_kept_and_valid_comes_out_of_train_up_to_400_groups():
    members = [(f"a{n}", "train") for n in range(10_000)] + [(f"b{n}", "test") for n in range(50)]
    splits, made = _assigned(members, seed=0)
    assert made == ["valid"]
    assert Counter(splits) == {"train": 9600, "valid": 400, "test": 50}
    assert set(splits[10_000:]) == {"test"}
    assert _assigned([("a", "train"), ("b", "valid"), ("c", "test")], 0) == (
        ["train", "valid", "test"],
        [],
    )


def test_groups_with_the_very_same_picture_stay_together():
    members = [(f"g{n}", None, n // 2) for n in range(200)]
    splits, _ = _assigned(members, seed=0)
    assert all(splits[n] == splits[n + 1] for n in range(0, 200, 2))
    assert set(splits) == {"train", "valid", "test"}


def test_one_group_alone_is_training():
    assert _assigned([("a", None)] * 5, 0) == (["train"] * 5, [])


def test_questions_of_one_picture_are_never_on_both_sides(tmp_path):
    rows = []
    for number in range(40):
        _save(_noise(number), tmp_path / f"in/p{number}.png")
        rows += [
            {
                "id": f"{number}-{k}",
                "image": f"p{number}.png",
                "question": f"Q{k}?",
                "answer": "yes",
                "part": part,
            }
            for k, part in enumerate(("train", "train", "test" if number < 10 else "train"))
        ]
    (tmp_path / "in/rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = ingest(
        {"domain": _domain("table", split="part"), "data": str(tmp_path / "in")}, {}, tmp_path / "out"
    )
    dataset = open_dataset(tmp_path / "out")
    assert result["rejected"] == {"group in two splits": 20}
    assert result["splits"] == {"test": 10, "train": 84, "valid": 6}
    assert result["kinds"] == {"conversation": 90, "question": 10}
    sides = {}
    for sample in dataset:
        assert sides.setdefault(sample.images[0], sample.split) == sample.split
    question = dataset[dataset.select(kinds=["question"])[0]]
    assert question.facts["question"]["references"] == ["yes"]


def test_near_duplicates_across_splits_are_found_and_told(tmp_path):
    for number in range(12):
        _save(_noise(number, 96), tmp_path / f"in/train/a/{number}.png")
        _save(_noise(100 + number, 96), tmp_path / f"in/test/a/t{number}.png")
    _save(_noise(3, 96), tmp_path / "in/test/a/jpeg.jpg", quality=40)
    _save(_noise(4, 96).resize((50, 50)), tmp_path / "in/test/a/smaller.png")
    _save(_noise(5, 96), tmp_path / "in/test/a/same.png")
    result = ingest({"domain": _domain("class_folders"), "data": str(tmp_path / "in")}, {}, tmp_path / "out")
    told = {
        row["record"]: row["detail"]
        for row in open_dataset(tmp_path / "out").ledger()
        if row["reason"] == "near-duplicate across splits"
    }
    assert sorted(told) == ["jpeg", "same", "smaller"]
    assert result["near_duplicates_across_splits"] == 3
    assert {(e["record"], e["twin"]) for e in result["near_duplicate_examples"]} == {
        ("jpeg", "3"),
        ("smaller", "4"),
        ("same", "5"),
    }
    assert "0 of 64 hash bits apart" in told["same"]


def test_flat_pictures_of_different_grey_are_no_twins():
    flat = {grey: Image.new("L", (32, 32), grey) for grey in (10, 12, 200)}
    assert _twins([flat[10]], [flat[200], flat[12]]) == [(0, 1, 0)]
    assert _twins([flat[10]], []) == []


def test_deep_pictures_and_oriented_ones_are_read_right(tmp_path):
    ramp = np.linspace(0, 4000, 64 * 64).reshape(64, 64).astype(np.uint16)
    _save(Image.fromarray(ramp), tmp_path / "in/a/deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    _save(_noise(1, 40).resize((40, 20)), tmp_path / "in/a/turned.jpg", exif=exif.tobytes())
    ingest({"domain": _domain("class_folders"), "data": str(tmp_path / "in")}, {}, tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    samples = {sample.id: sample for sample in dataset}
    assert len(np.unique(np.asarray(dataset.image(samples["deep"].images[0])))) == 256
    assert (samples["turned"].facts["width"], samples["turned"].facts["height"]) == (20, 40)


def test_limit_takes_the_same_records_spread_over_classes(tmp_path):
    for label in "abcd":
        for number in range(25):
            _save(_noise(ord(label) * 100 + number, 16), tmp_path / f"in/train/{label}/{label}{number}.png")
    _save(_noise(1), tmp_path / "in/test/a/t.png")
    settings = {"domain": _domain("class_folders"), "data": str(tmp_path / "in"), "limit": 20}
    ingest(settings, {}, tmp_path / "one")
    ingest(settings, {}, tmp_path / "two")
    one, two = open_dataset(tmp_path / "one"), open_dataset(tmp_path / "two")
    assert one.column("id") == two.column("id")
    assert one.summary["splits"] == {"test": 1, "train": 19, "valid": 1}
    assert len({facts["labels"]["class"] for facts in one.column("facts")}) == 4


def test_two_runs_write_the_same_bytes(tmp_path):
    settings = {"domain": _shipped("blood"), "data": str(SHELF / "blood/fixture"), "seed": 3}
    for name in ("one", "two"):
        ingest(settings, {}, tmp_path / name)
    for name in ("images.arrow", "samples.arrow", "ledger.jsonl", "dataset.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


VQA_RAD_TOLD = {
    "answer is a number": 1,
    "answer_type misspelt": 1,
    "question_type misspelt": 1,
    "several question types": 1,
    "spaces around text": 1,
    "closed question without yes or no": 1,
    "question repeated": 1,
}


@pytest.mark.parametrize(
    ("name", "samples", "told"),
    [
        ("blood", 5, {"zero-size box": 1}),
        ("retail", 40, {}),
        ("sorting", 24, {}),
        ("vqa-rad", 15, VQA_RAD_TOLD),
    ],
)
def test_shipped_fixtures_become_datasets(tmp_path, name, samples, told):
    result = ingest({"domain": _shipped(name), "data": str(SHELF / name / "fixture")}, {}, tmp_path / "out")
    assert result["samples"] == samples
    assert result["rejected"] == {}
    rows = [row["reason"] for row in open_dataset(tmp_path / "out").ledger() if row["fate"] == "told"]
    assert Counter(rows) - Counter({"near-duplicate across splits": 99}) == Counter(told)


@pytest.mark.parametrize("name", ["scenes", "phantom"])
def test_drawn_domains_are_found_on_the_shelf(tmp_path, name):
    domain = _shipped(name)
    result = ingest(
        {"domain": {**domain, "folder": str(SHELF / name)}, "data": None, "limit": 30}, {}, tmp_path / "out"
    )
    assert result["splits"] == {"test": 30, "train": 28, "valid": 2}
    dataset = open_dataset(tmp_path / "out")
    for sample in dataset:
        for item in sample.facts["objects"]:
            x0, y0, x1, y1 = item["box"]
            assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
        assert sample.facts["complete"] is True
        assert dataset.image(sample.images[0]).size == (sample.facts["width"], sample.facts["height"])


@pytest.mark.parametrize(("name", "folder"), [("blood", "bccd"), ("sorting", "trashnet")])
def test_real_sets_come_in_whole(tmp_path, name, folder):
    root = real_set(folder)
    listed = splits_of(root, "items_*.jsonl")
    domain = _shipped(name)
    sizes: Counter[str] = Counter()
    for split, rows in listed.items():
        sizes[domain["data"]["splits"].setdefault(split, "test")] += len(rows)
    result = ingest({"domain": domain, "data": str(root), "limit": 60}, {}, tmp_path / "out")
    assert result["samples"] == sum(min(60, size) for size in sizes.values())
    assert result["rejected"] == {}
    assert result["splits"]["test"] == min(60, sizes["test"])
    assert result["splits"]["train"] + result["splits"]["valid"] == min(60, sizes["train"])


def test_real_smears_of_one_field_in_two_splits_are_noticed(tmp_path):
    # Pictures 37 and 38 of the set show the same field at two focus depths.
    root = real_set("bccd")
    paths = {path.stem: path for path in root.glob("*/images/BloodImage_0003[78].jpg")}
    if len(paths) < 2:
        pytest.skip("pictures 37 and 38 are not both here")
    first, second = (Image.open(io.BytesIO(paths[f"BloodImage_000{n}"].read_bytes())) for n in (37, 38))
    assert _twins([first], [second]) == [(0, 0, 4)]
