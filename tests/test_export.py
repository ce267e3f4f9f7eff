"""Export: bundles that others load, that answer as their source did, and that are refused when they don't."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml
from fake_run import make_run
from safetensors.torch import load_file, save_file
from tiny_training import LORA, RATES, build_family, picture

from medkit.cli import main
from medkit.errors import ModelError
from medkit.models import canary as canary_module
from medkit.models import export as export_module
from medkit.models.adapters import make_trainable
from medkit.models.canary import check_answers, check_canary, make_canary, read_canary
from medkit.models.contract import Contract
from medkit.models.export import check_bundle, export, find_model
from medkit.models.load import load_model, save_model
from medkit.models.model_card import read_story
from medkit.models.write import classic

# Plain transformers in a process that can't import medkit.
PLAIN = """
import json, sys
sys.modules["medkit"] = None
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
folder, picture, prompt = sys.argv[1:]
model, told = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"], told
inputs = AutoProcessor.from_pretrained(folder)(
    text=prompt, images=Image.open(picture), return_tensors="pt", add_special_tokens=False)
with torch.no_grad():
    logits = model.eval()(**inputs.to(model.dtype)).logits
torch.save({"logits": logits, "dtype": str(model.dtype)}, sys.argv[1] + ".pt")
"""


def strong(folder: Path, family: str = "llava"):
    """Builds a tiny model whose weights are large enough that its answers depend on all of them."""
    loaded = build_family(family, folder)
    with torch.no_grad():
        for weight in loaded.model.parameters():
            if weight.ndim > 1:
                weight.mul_(4.0)
    save_model(loaded, folder, loaded.contract)
    return load_model(folder, "cpu")


def logits(loaded, size=(32, 32)):
    image = picture(size)
    prompt = loaded.processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what colour is it?"}]}],
        add_generation_prompt=True,
        tokenize=False,
    )
    inputs = loaded.processor(text=[prompt], images=[image], return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        return prompt, image, loaded.base_model(**inputs.to(loaded.base_model.dtype)).logits


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A tiny model folder."""
    folder = tmp_path_factory.mktemp("source") / "model"
    strong(folder)
    return folder


@pytest.fixture(scope="module")
def bundle(source, tmp_path_factory):
    """Its export in float32."""
    out = tmp_path_factory.mktemp("bundle") / "out"
    export(source, out, dtype="float32")
    return out


@pytest.fixture
def copied(bundle, tmp_path):
    """A bundle of one's own to damage."""
    import shutil

    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def damage(folder: Path, part: str, factor: float = 1.02) -> None:
    """Multiplies the first matrix of a part by a factor."""
    path = folder / "model.safetensors"
    state = load_file(path)
    name = next(key for key in state if part in key and state[key].ndim == 2)
    state[name] = state[name] * factor
    save_file(state, path, {"format": "pt"})


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.slow
def test_a_bundle_loads_with_plain_transformers_alone(source, tmp_path, dtype):
    told = export(source, tmp_path / "out", dtype=dtype)
    assert (told["dtype"], told["layout"], told["merged"]) == (dtype, "hf", False)
    prompt, image, wanted = logits(load_model(source, "cpu", getattr(torch, dtype)))
    image.save(tmp_path / "picture.png")
    words = [sys.executable, "-c", PLAIN, str(tmp_path / "out"), str(tmp_path / "picture.png"), prompt]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True)
    plain = torch.load(tmp_path / "out.pt", weights_only=True)
    assert plain["dtype"] == f"torch.{dtype}"
    torch.testing.assert_close(plain["logits"], wanted, rtol=0, atol=1e-5 if dtype == "float32" else 0.02)


def test_a_bundle_has_the_files_and_names_that_servers_read(bundle):
    assert {path.name for path in bundle.iterdir()} == {
        "README.md", "canary.json", "chat_template.jinja", "config.json", "generation_config.json", "medkit.json",
        "model.safetensors", "preprocessor_config.json", "processor_config.json", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    config = json.loads((bundle / "config.json").read_text())
    assert config["architectures"] == ["LlavaForConditionalGeneration"]
    assert config["dtype"] == config["text_config"]["dtype"] == "float32"
    names = set(load_file(bundle / "model.safetensors"))
    assert {name.split(".")[0] for name in names} == {
        "language_model",
        "vision_tower",
        "multi_modal_projector",
    }
    assert "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight" in names
    assert "language_model.model.layers.0.self_attn.q_proj.weight" in names
    pictures = json.loads((bundle / "preprocessor_config.json").read_text())
    assert pictures["image_processor_type"] == "CLIPImageProcessor"
    assert "image_processor" not in json.loads((bundle / "processor_config.json").read_text())
    tokenizer = json.loads((bundle / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert json.loads((bundle / "generation_config.json").read_text())["do_sample"] is False


@pytest.mark.parametrize(
    ("name", "on_disk"),
    [
        (
            "model.language_model.layers.0.mlp.up_proj.weight",
            "language_model.model.layers.0.mlp.up_proj.weight",
        ),
        ("lm_head.weight", "language_model.lm_head.weight"),
        ("model.vision_tower.pre_layrnorm.bias", "vision_tower.vision_model.pre_layrnorm.bias"),
        ("model.vision_tower.vision_model.head.bias", "vision_tower.vision_model.head.bias"),
        ("model.multi_modal_projector.linear_1.bias", "multi_modal_projector.linear_1.bias"),
        ("model.image_newline", "image_newline"),
    ],
)
def test_names_on_disk_are_the_classic_ones(name, on_disk):
    assert classic(name) == on_disk


@pytest.mark.parametrize("family", ["llava_next", "idefics3"])
def test_other_families_leave_by_the_same_door(family, tmp_path):
    loaded = strong(tmp_path / "model", family)
    _, _, wanted = logits(loaded)
    export(tmp_path / "model", tmp_path / "out", dtype="float32")
    torch.testing.assert_close(logits(check_loaded(tmp_path / "out"))[2], wanted, rtol=0, atol=1e-5)


def check_loaded(folder: Path):
    check_bundle(folder)
    return load_model(folder, "cpu")


def test_large_weights_leave_in_several_files(source, tmp_path, monkeypatch):
    monkeypatch.setattr("medkit.models.write.MOST_BYTES", "60KB")
    export(source, tmp_path / "out", dtype="float32")
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert torch.equal(logits(load_model(tmp_path / "out", "cpu"))[2], logits(load_model(source, "cpu"))[2])


def adapted(source: Path, folder: Path):
    """Writes an adapter folder whose adapter changes what the model says."""
    loaded = load_model(source, "cpu")
    make_trainable(loaded, RATES, LORA)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    save_model(loaded, folder, loaded.contract)
    return loaded


def test_an_adapter_is_merged_and_answers_the_same(source, tmp_path):
    adapted(source, tmp_path / "adapter")
    wanted = logits(load_model(tmp_path / "adapter", "cpu"))[2]
    told = export(tmp_path / "adapter", tmp_path / "out", dtype="float32")
    assert told["merged"] is True
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    got = logits(load_model(tmp_path / "out", "cpu"))[2]
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    assert (got - logits(load_model(source, "cpu"))[2]).abs().max() > 0.1


def test_a_half_merged_adapter_is_refused(source, tmp_path, monkeypatch):
    adapted(source, tmp_path / "adapter")

    def forget(loaded):
        return load_model(source, "cpu")  # the base without what the adapter learnt

    monkeypatch.setattr(export_module, "merge", forget)
    with pytest.raises(ModelError, match="merged weights answer otherwise than the adapter on its base"):
        export(tmp_path / "adapter", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_export_is_refused_when_what_was_written_answers_otherwise(
    source, tmp_path, monkeypatch, capsys, dtype
):
    write = export_module.write_checkpoint

    def written(loaded, folder, name):
        write(loaded, folder, name)
        damage(folder, "multi_modal_projector")

    monkeypatch.setattr(export_module, "write_checkpoint", written)
    monkeypatch.setattr(
        sys, "argv", ["medkit", "export", str(source), "--out", str(tmp_path / "out"), "--dtype", dtype]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    message = capsys.readouterr().err
    assert "not exported: the written folder answers otherwise than the weights did in memory" in message
    assert "canary question 'picture'" in message
    assert list(tmp_path.iterdir()) == []


def test_a_refused_export_leaves_the_earlier_one(source, tmp_path, monkeypatch):
    export(source, tmp_path / "out", dtype="float32")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    write = export_module.write_checkpoint

    def written(loaded, folder, name):
        write(loaded, folder, name)
        damage(folder, "language_model", 1.1)

    monkeypatch.setattr(export_module, "write_checkpoint", written)
    with pytest.raises(ModelError, match="not exported"):
        export(source, tmp_path / "out", dtype="float32")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_no_export_is_not_overwritten(source, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match="is there already and is no export"):
        export(source, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_source_that_is_none_is_said(tmp_path):
    with pytest.raises(ModelError, match="no checkpoint is there"):
        find_model(tmp_path)
    (tmp_path / "resolved.json").write_text("{}")
    with pytest.raises(ModelError, match="the run has no model yet"):
        find_model(tmp_path)
    with pytest.raises(ModelError, match="the layouts hf, llava and the types bfloat16, float16, float32"):
        export(tmp_path, tmp_path / "out", dtype="int8")


def test_rounding_that_changes_the_answers_is_refused(source, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "noise_between", lambda exact, rounded: 0.9)
    with pytest.raises(ModelError, match=r"rounding to bfloat16 changes log-probabilities by 0\.90 nats"):
        export(source, tmp_path / "out")


def test_numbers_that_overflow_are_refused(tmp_path):
    loaded = strong(tmp_path / "model")
    with torch.no_grad():
        loaded.model.model.multi_modal_projector.linear_2.bias.fill_(1e6)  # above what float16 can hold
    save_model(loaded, tmp_path / "model", loaded.contract)
    with pytest.raises(ModelError, match="not finite in float16; choose another dtype"):
        export(tmp_path / "model", tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()


def test_the_canary_holds_questions_of_three_kinds(bundle):
    canary = read_canary(bundle)
    assert [question["name"] for question in canary["questions"]] == ["text", "picture", "two turns"]
    assert [len(question["images"]) for question in canary["questions"]] == [0, 1, 1]
    assert canary["tolerance"] == 1e-4
    assert set(canary["versions"]) == {"torch", "transformers"}
    for question in canary["questions"]:
        assert 0 < len(question["token_ids"]) == len(question["log_probs"]) == len(question["margins"]) <= 12
        assert all(value <= 0 for value in question["log_probs"])
    assert (bundle / "canary.json").stat().st_size < 20_000


def test_a_canary_is_the_same_when_made_again(source):
    loaded = load_model(source, "cpu")
    assert make_canary(loaded) == make_canary(loaded)
    assert [one["name"] for one in make_canary(loaded, 5)["questions"]][3:] == ["text 2", "picture 2"]


def test_a_canary_without_text_questions_is_made_where_the_template_refuses_them(source):
    loaded = load_model(source, "cpu")
    refuse = "{% if messages[0]['content'][0]['type'] != 'image' %}{{ raise_exception('no') }}{% endif %}"
    loaded.processor.chat_template = refuse + loaded.processor.chat_template
    assert [question["name"] for question in make_canary(loaded)["questions"]] == ["picture", "two turns"]


def other_template(folder):
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("ASSISTANT:", "ANSWER:"))
    keep_hash(folder, "")


def keep_hash(folder, value):
    path = folder / "medkit.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "template_sha256": value}))


def other_pixels(folder):
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "image_mean": [0.4, 0.5, 0.5]}))


def no_padding(folder):
    path = folder / "medkit.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fit": "stretch"}))


DAMAGES = [
    (lambda folder: damage(folder, "multi_modal_projector"), "'picture': token 1 of .* has log-probability"),
    (
        lambda folder: damage(folder, "vision_tower.vision_model.encoder"),
        "'picture': token . of .* has log-prob",
    ),
    (
        lambda folder: damage(folder, "language_model.model.layers", 1.1),
        "'text': token . of .* has log-probability",
    ),
    (other_template, "'text': the chat template writes"),
    (other_pixels, "'picture': the picture becomes other pixels"),
    (no_padding, "'picture': the picture becomes other pixels"),
]


@pytest.mark.parametrize(("change", "message"), DAMAGES)
def test_a_damaged_bundle_is_noticed(copied, change, message):
    assert check_bundle(copied)["dtype"] == "float32"
    change(copied)
    with pytest.raises(ModelError, match=message):
        check_bundle(copied)


def test_a_bundle_of_16_bits_answers_as_its_canary_in_32(source, tmp_path):
    export(source, tmp_path / "out", dtype="bfloat16")
    canary = read_canary(tmp_path / "out")
    assert 0.05 <= canary["tolerance"] < 0.5
    check_canary(load_model(tmp_path / "out", "cpu", torch.float32), canary)


def served(canary):
    return [{"text": question["text"]} for question in canary["questions"]]


def test_a_server_that_gives_text_alone_is_held_to_what_the_canary_was_sure_of(bundle):
    canary = read_canary(bundle)
    question = canary["questions"][1]
    question["margins"] = [3.0, 1e-5, *question["margins"][2:]]
    check_answers(served(canary), canary)
    answers = served(canary)
    answers[1]["text"] = question["prefixes"][0] + " something else"  # after a toss-up anything may follow
    check_answers(answers, canary)
    answers[1]["text"] = "something else"
    with pytest.raises(ModelError, match="question 'picture': the answer is 'something else' instead of"):
        check_answers(answers, canary)
    with pytest.raises(ModelError, match="has 3 questions and 2 answers came back"):
        check_answers(answers[:2], canary)


def test_a_server_that_gives_log_probabilities_is_held_to_them(bundle):
    canary = read_canary(bundle)
    answers = [
        {key: question[key] for key in ("text", "token_ids", "log_probs")} for question in canary["questions"]
    ]
    check_answers(answers, canary)
    answers[0] = {**answers[0], "log_probs": [answers[0]["log_probs"][0] - 0.03]}
    check_answers(answers, canary, tolerance=0.05)
    with pytest.raises(ModelError, match=r"token 1 of .* \(tolerance 0\.0001\)"):
        check_answers(answers, canary)
    answers[0]["log_probs"] = [float("nan")]
    with pytest.raises(ModelError, match="log-probability nan"):
        check_answers(answers, canary, tolerance=0.05)


def test_stop_strings_end_the_canary_s_answers(source):
    loaded = load_model(source, "cpu")
    plain = make_canary(loaded)["questions"][1]["text"].strip()
    stop = plain[len(plain) // 2 :][:1]
    loaded.contract = Contract("pad", loaded.contract.mean_colour, stop=[stop])
    assert make_canary(loaded)["questions"][1]["text"].strip() == plain.partition(stop)[0].strip()


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 1}', '{"version": 9, "questions": []}'])
def test_a_broken_canary_is_said(copied, text):
    (copied / "canary.json").write_text(text)
    with pytest.raises(ModelError, match=r"canary\.json: "):
        read_canary(copied)
    (copied / "canary.json").unlink()
    with pytest.raises(ModelError, match=r"no canary\.json here; `medkit export` writes one"):
        read_canary(copied)


def original_rooms(monkeypatch, change) -> dict:
    """Stands in for the import and export of original layouts: a copy under another folder, changed or not."""
    import shutil

    seen = {}

    def export_original(folder: Path, out: Path) -> dict:
        seen["files"] = {path.name for path in folder.iterdir()}
        shutil.copytree(folder, out / "inner")
        return {}

    def import_original(folder: Path, out: Path) -> dict:
        shutil.copytree(folder / "inner", out)
        change(out)
        return {}

    rooms = {"write": export_original, "convert": import_original}
    monkeypatch.setitem(sys.modules, "medkit.models.original", types.ModuleType("medkit.models.original"))
    for name, function in rooms.items():
        module = types.ModuleType(f"medkit.models.original.{name}")
        setattr(module, function.__name__, function)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return seen


def test_the_original_layout_is_written_and_read_back_by_its_room(source, tmp_path, monkeypatch):
    seen = original_rooms(monkeypatch, lambda folder: None)
    told = export(source, tmp_path / "out", layout="llava", dtype="float16")
    assert told["layout"] == "llava"
    assert {"config.json", "model.safetensors", "canary.json"} <= seen["files"]
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"inner", "medkit.json", "canary.json", "README.md"}
    assert "In the layout of the original LLaVA code" in (tmp_path / "out" / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_original_layout_that_comes_back_otherwise_is_refused(source, tmp_path, monkeypatch):
    original_rooms(monkeypatch, lambda folder: damage(folder, "multi_modal_projector"))
    with pytest.raises(ModelError, match="the original layout, imported again, answers otherwise"):
        export(source, tmp_path / "out", layout="llava", dtype="float32")
    assert list(tmp_path.iterdir()) == []


def front(text: str) -> dict:
    return yaml.safe_load(text.split("---")[1])


def test_the_card_of_a_model_without_a_run_says_what_is_unknown(bundle):
    card = (bundle / "README.md").read_text()
    head = front(card)
    assert (head["pipeline_tag"], head["license"], head["license_name"]) == (
        "image-text-to-text",
        "other",
        "unknown",
    )
    assert "model-index" not in head and "datasets" not in head
    assert "what it was trained and tested on is not known here" in card
    assert "no evaluation of this checkpoint was found" in card
    assert json.loads((bundle / "medkit.json").read_text())["licence"] == {
        "base": "unknown",
        "data": ["unknown"],
    }


@pytest.fixture
def run(source, tmp_path):
    """An invented run whose final model and whose first stage's model are the tiny one."""
    import shutil

    folder = make_run(tmp_path / "runs" / "fake")
    shutil.rmtree(folder / "model")
    shutil.copytree(source, folder / "model")
    shutil.copytree(source, next(folder.glob("[0-9]-align")) / "model")
    path = folder / "resolved.json"
    resolved = json.loads(path.read_text())
    resolved["curriculum"]["stages"] = {"align": {"start": "base"}, "instruct": {"start": "align"}}
    resolved["command"] += ["--set", "data=/somewhere/private/scans"]
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: llama2\n---\n# Base\n")
    resolved["recipe"]["base_path"] = str(base)
    path.write_text(json.dumps(resolved))
    return folder


def test_the_card_of_a_run_tells_data_licences_metrics_and_commands(run, tmp_path):
    export(run, tmp_path / "bundle")
    card = (tmp_path / "bundle" / "README.md").read_text()
    head = front(card)
    assert (head["license"], head["base_model"], head["datasets"]) == (
        "llama2",
        "tiny-general",
        ["phantom", "scenes"],
    )
    result = head["model-index"][0]["results"][0]
    assert result["metrics"] == [
        {"type": "accuracy", "name": "answer (95 % interval 0.9000 to 0.9600)", "value": 0.93}
    ]
    for text in (
        "| held-out (test) | 200 about 20 images | 41.0 % (38.0 to 44.0) | 93.0 % (90.0 to 96.0) "
        "| +52.0 points (+49.0 to +55.0) | 1e-12 |",
        "with a blank image 44.0 % (41.0 to 47.0)",
        "## Intended use", "**Out of scope:** diagnosis", "It is no medical device", "## Limitations",
        "| instruct |", "3,200", "(licence: llama2)", "Drawn phantoms (licence: Apache-2.0)",
        "$ medkit run recipes/fake.yaml --set instruct.epochs=2 --set data=.../scans",
        "$ medkit export runs/fake --dtype bfloat16",
        "transformers 5.23.0",
    ):  # fmt: skip
        assert text in card, text
    assert "/somewhere" not in card and str(tmp_path) not in card
    contract = json.loads((tmp_path / "bundle" / "medkit.json").read_text())
    assert contract["licence"] == {"base": "llama2", "data": ["Apache-2.0"]}


def test_the_card_of_a_stage_tells_that_stage(run, tmp_path):
    stage = next(run.glob("[0-9]-align"))
    export(stage, tmp_path / "bundle")
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "stage `align`" in card and "| 55.0 % (52.0 to 58.0) |" in card
    assert "| instruct |" not in card
    assert read_story(stage / "model", stage / "model").stage == "align"


def test_a_model_that_does_not_look_is_said_to(run, tmp_path):
    path = next(run.glob("*-evaluate-instruct")) / "scores.json"
    scores = json.loads(path.read_text())
    scores["benchmarks"]["held-out"]["controls"]["blank"]["value"] = 0.92
    path.write_text(json.dumps(scores))
    export(run, tmp_path / "bundle")
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "On held-out it does no better than with a blank image: it may not look." in card


def test_every_stated_tolerance_is_one_that_the_page_names():
    page = (Path(__file__).resolve().parent.parent / "docs" / "export.md").read_text()
    named = dict(re.findall(r"\| `(float32|float16|bfloat16)` \| ([\d.e-]+) \|", page))
    assert {name: float(value) for name, value in named.items()} == canary_module.TOLERANCE
