"""What each kind of adapter does over steps, stages, kills and merges; what is refused before training."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from card_shelf import medkit, replace_in, write_shelf
from families import build
from peft import AdaptionPromptConfig
from peft.tuners.adaption_prompt import AdaptionPromptModel
from tiny_training import ADAPTER, RATES, TEXT, answers, examples, stage

from medkit.cards import adapters as cards
from medkit.errors import ModelError
from medkit.models import llama_adapter
from medkit.models.adalora import allocation
from medkit.models.adapter_folders import kind_of
from medkit.models.adapters import make_trainable
from medkit.models.load import load_model, save_model
from medkit.models.merge import merge
from medkit.models.quantize import is_quantized
from medkit.report.about import _adapter
from medkit.training.loop import LoopSettings, run_loop
from medkit.training.objectives import AnswerObjective
from medkit.training.optimizers import Optimizers
from medkit.training.train import make_accelerator, train

KINDS = ("lora", "rslora", "dora", "pissa", "adalora", "ia3", "llama_adapter")


@pytest.fixture(scope="module")
def _folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    build(folder / "model")
    answers(folder / "data", count=12)
    return folder


def _card(kind: str, **changes) -> dict:
    return {**ADAPTER, "kind": kind, **changes}


def _logits(model) -> torch.Tensor:
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    ids = torch.tensor([[1, *[4] * 16, 60, 61, 62]])
    with torch.no_grad():
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels).logits


def _train(folder: Path, out: Path, kind: str, start: Path | None = None, **changes):
    out.mkdir(parents=True, exist_ok=True)
    settings = stage(adapter=_card(kind), train=TEXT, epochs=4.0, batch=4, warmup=0.0, **changes)
    return train(settings, {"start": start or folder / "model", "data": folder / "data"}, out)


@pytest.mark.parametrize("kind", KINDS)
def test_a_next_stage_goes_on_from_every_kind_of_adapter(_folder, tmp_path, kind):
    first = _train(_folder, tmp_path / "1", kind)
    second = _train(_folder, tmp_path / "2", kind, start=tmp_path / "1" / "model")
    assert second["loss_first"] < first["loss_first"] and second["loss_last"] < first["loss_last"]
    one, two = (load_model(tmp_path / number / "model", "cpu") for number in "12")
    assert kind_of(two.model) == ("lora" if kind == "pissa" else kind)
    assert (_logits(two.model) - _logits(one.model)).abs().max() > 1e-3
    named = json.loads((tmp_path / "2" / "model" / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == str(_folder / "model")
    if kind == "pissa":  # the difference that one stage made, trained on as it is
        assert (named["r"], named["lora_alpha"]) == (8, 16.0)


def test_an_adapter_of_another_kind_or_size_is_not_trained_on(_folder, tmp_path):
    _train(_folder, tmp_path / "ia3", "ia3")
    _train(_folder, tmp_path / "prompts", "llama_adapter")
    with pytest.raises(ModelError, match="adapter is of kind ia3, the recipe wants lora; use the same"):
        make_trainable(load_model(tmp_path / "ia3" / "model", "cpu"), TEXT, _card("lora"))
    with pytest.raises(ModelError, match="has 5 prompt tokens, the recipe wants 7"):
        make_trainable(
            load_model(tmp_path / "prompts" / "model", "cpu"), TEXT, _card("llama_adapter", prompt_tokens=7)
        )
    with pytest.raises(ModelError, match=r"has nothing in vision that could learn; set train\.vision to 0"):
        make_trainable(load_model(tmp_path / "ia3" / "model", "cpu"), RATES, _card("ia3"))


def test_training_the_weights_merges_what_can_be_merged(_folder, tmp_path):
    _train(_folder, tmp_path / "ia3", "ia3")
    _train(_folder, tmp_path / "prompts", "llama_adapter")
    loaded = load_model(tmp_path / "ia3" / "model", "cpu")
    wanted = _logits(loaded.model)
    make_trainable(loaded, TEXT, {"kind": "full"})
    assert kind_of(loaded.model) == ""
    assert (_logits(loaded.model) - wanted).abs().max() < 1e-5
    with pytest.raises(ModelError, match="a llama_adapter can't be merged: its prompts are attended to"):
        make_trainable(load_model(tmp_path / "prompts" / "model", "cpu"), TEXT, {"kind": "full"})


class Killed(Exception):
    """Stands for a kill."""


class Dying(AnswerObjective):
    """Is killed when the batch of a step is made."""

    step, made = 10**9, 0

    def collate(self, indices, epoch):
        self.made += 1
        if self.made > self.step:
            raise Killed
        return super().collate(indices, epoch)


def _run(folder: Path, out: Path, kind: str, optimizer: str, dies_at: int = 10**9):
    out.mkdir(exist_ok=True)
    loaded = load_model(folder / "model", "cpu")
    torch.manual_seed(0)
    groups = make_trainable(loaded, TEXT, _card(kind, dropout=0.1))
    objective = Dying(loaded, examples(loaded, folder / "data"))
    objective.step = dies_at
    names = {parameter: name for name, parameter in objective.named_parameters()}
    optimizers = Optimizers(groups, TEXT, 0.01, optimizer, names)
    settings = LoopSettings(epochs=4.0, batch=4, checkpoint_every=5)
    run_loop(make_accelerator(stage(), out), objective, None, optimizers, settings, out)
    return {name: p.detach().clone() for name, p in objective.named_parameters() if p.requires_grad}, loaded


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [
        *((kind, "adamw") for kind in ("pissa", "adalora", "ia3", "llama_adapter")),
        *(("full", optimizer) for optimizer in cards.EIGHT_BIT),
    ],
)
def test_a_killed_stage_takes_the_path_of_one_that_was_not(_folder, tmp_path, kind, optimizer):
    if optimizer in cards.EIGHT_BIT:
        pytest.importorskip("bitsandbytes")
    whole, _ = _run(_folder, tmp_path / "whole", kind, optimizer)
    with pytest.raises(Killed):
        _run(_folder, tmp_path / "killed", kind, optimizer, dies_at=8)
    assert (tmp_path / "killed" / "checkpoints" / "step-00000005").is_dir()
    resumed, _ = _run(_folder, tmp_path / "killed", kind, optimizer)
    assert whole.keys() == resumed.keys()
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name


@pytest.mark.parametrize("optimizer", cards.EIGHT_BIT)
def test_eight_bit_optimisers_keep_bytes_and_learn(_folder, optimizer):
    pytest.importorskip("bitsandbytes")
    loaded = load_model(_folder / "model", "cpu")
    groups = make_trainable(loaded, RATES, {"kind": "full"})
    objective = AnswerObjective(loaded, examples(loaded, _folder / "data"))
    names = {parameter: name for name, parameter in objective.named_parameters()}
    optimizers = Optimizers(groups, RATES, 0.0, optimizer, names)
    batch = objective.collate(np.arange(12), 0)
    losses = []
    for _ in range(4):
        loss = objective(batch) / objective.weights.sum()
        loss.backward()
        losses.append(float(loss))
        optimizers.step()
    assert losses[-1] < losses[0]
    large = loaded.model.get_input_embeddings().weight  # above the 4096 numbers from which bytes are used
    assert optimizers.members[0].state[large]["state1"].dtype == torch.uint8


def test_adalora_gives_up_ranks_on_schedule(_folder, tmp_path):
    _, loaded = _run(_folder, tmp_path, "adalora", "adamw")
    kept = loaded.model.peft_config["default"].rank_pattern
    ranks = [sum(pattern) for pattern in kept.values()]
    assert len(ranks) == 14 and all(len(pattern) == 6 for pattern in kept.values())
    assert sum(ranks) == 14 * 4  # from six ranks a layer to four on average
    assert len(set(ranks)) > 1
    assert not allocation(loaded.model)["ipt"]  # forgotten when the ranks were settled


def test_pissa_starts_where_the_base_is_and_leaves_it_unchanged(_folder, tmp_path):
    loaded = load_model(_folder / "model", "cpu")
    before = _logits(loaded.model)
    torch.manual_seed(0)
    make_trainable(loaded, TEXT, _card("pissa"))
    assert (_logits(loaded.model) - before).abs().max() < 1e-5
    changed = loaded.base_model.get_submodule(
        "model.language_model.layers.0.self_attn.q_proj.base_layer"
    ).weight
    original = (
        load_model(_folder / "model", "cpu").model.model.language_model.layers[0].self_attn.q_proj.weight
    )
    assert (changed - original).abs().max() > 1e-3
    save_model(loaded, tmp_path / "untrained", loaded.contract)
    assert (_logits(load_model(tmp_path / "untrained", "cpu").model) - before).abs().max() < 1e-5


def test_prompts_are_those_of_peft_on_a_llama(_folder):
    torch.manual_seed(1)
    loaded = load_model(_folder / "model", "cpu")
    before = _logits(loaded.model)
    make_trainable(loaded, {"language": 1e-3}, _card("llama_adapter", prompt_layers=1))
    assert torch.equal(_logits(loaded.model), before)  # the gate is shut
    own = dict(loaded.model.named_parameters())
    assert [name for name in own if own[name].requires_grad] == [
        "model.language_model.layers.1.self_attn.adaption_prompt",
        "model.language_model.layers.1.self_attn.adaption_gate",
    ]
    with torch.no_grad():
        own["model.language_model.layers.1.self_attn.adaption_gate"].fill_(0.7)
    other = load_model(_folder / "model", "cpu").model
    config = AdaptionPromptConfig(
        adapter_layers=1, adapter_len=5, target_modules="self_attn", peft_type="ADAPTION_PROMPT"
    )
    theirs = AdaptionPromptModel(other.model.language_model, {"default": config}, "default")
    state = {
        name.removeprefix("model.language_model."): tensor
        for name, tensor in own.items()
        if "adaption_" in name
    }
    assert not theirs.model.load_state_dict(state, strict=False).unexpected_keys
    assert (_logits(other) - _logits(loaded.model)).abs().max() < 1e-5
    assert (_logits(other) - before).abs().max() > 1e-3


def test_more_layers_than_there_are_is_an_error_that_says_so(_folder):
    with pytest.raises(
        ModelError, match="has 2 attention layers, not 3; change prompt_layers or use kind: lora"
    ):
        make_trainable(load_model(_folder / "model", "cpu"), TEXT, _card("llama_adapter", prompt_layers=3))


def test_a_prompt_folder_with_other_weights_is_refused(_folder, tmp_path):
    _train(_folder, tmp_path, "llama_adapter")
    path = tmp_path / "model" / "adapter_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "adapter_layers": 1}))
    with pytest.raises(ModelError, match=r"does not hold the weights that adapter_config\.json names"):
        load_model(tmp_path / "model", "cpu")
    source = (tmp_path / "model" / llama_adapter.CODE).read_text()
    assert "medkit" not in [
        word for line in source.splitlines() if "import" in line for word in line.split(".")
    ]


def test_a_quantised_stage_is_saved_for_the_base_in_full(_folder, tmp_path):
    pytest.importorskip("bitsandbytes")
    tmp_path.mkdir(exist_ok=True)
    settings = stage(adapter=_card("lora", quantize="nf4"), train=TEXT, epochs=3.0, batch=4,
                     validate_every=2, gradient_checkpointing=True)  # fmt: skip
    result = train(settings, {"start": _folder / "model", "data": _folder / "data"}, tmp_path)
    assert result["loss_last"] < result["loss_first"]
    loaded = load_model(tmp_path / "model", "cpu")
    assert not is_quantized(loaded.base_model)
    assert loaded.model.peft_config["default"].base_model_name_or_path == str(_folder / "model")
    small = load_model(tmp_path / "model", "cpu", quantize="nf4")
    layers = [
        module for module in small.base_model.modules() if hasattr(module, "support_avx512bf16_for_cpu")
    ]
    assert len(layers) == 14 and not any(module.support_avx512bf16_for_cpu for module in layers)
    first, again = _logits(small.model), _logits(small.model)
    assert torch.equal(first, again)
    wanted = _logits(loaded.model)
    merged = merge(small)
    assert not is_quantized(merged.model) and kind_of(merged.model) == ""
    assert (_logits(merged.model) - wanted).abs().max() < 1e-5
    with pytest.raises(ModelError, match="is quantised and has no adapter"):
        merge(load_model(_folder / "model", "cpu", quantize="nf4"))


def test_a_model_without_an_adapter_is_its_own_merge(_folder):
    loaded = load_model(_folder / "model", "cpu")
    assert merge(loaded) is loaded


FAULTS = [
    ("adapter.kind=full", "adapter.quantize=nf4",
     "adapter.quantize: weights kept in nf4 can't be trained themselves; use kind: lora, or quantize: none"),
    ("adapter.kind=pissa", "adapter.quantize=int8",
     "adapter.quantize: pissa starts from the singular values of full weights, which int8 has not; "
     "use kind: lora, or quantize: none"),
    ("adapter.kind=dora", "adapter.quantize=int8",
     "adapter.quantize: dora reads the whole weights at every step, and 8-bit ones lose their scales by that on "
     "a CPU; use quantize: nf4, or kind: lora"),
    ("adapter.kind=llama_adapter", "instruct.train.vision=1.0e-4",
     "adapter.kind: llama_adapter adds prompts to the language model and can't train vision; "
     "set the stages' train.vision to 0, or use kind: lora"),
    ("adapter.kind=ia3", "adapter.targets=[q_proj]",
     "adapter.targets: kind ia3 does not read targets; leave it out"),
    ("adapter.kind=lora", "adapter.prompt_tokens=4",
     "adapter.prompt_tokens: kind lora does not read prompt_tokens; leave it out"),
]  # fmt: skip


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_shelf(tmp_path))
    monkeypatch.delenv("MEDKIT_SHELF", raising=False)
    return tmp_path


def _said(arguments: list[str], monkeypatch, capsys) -> tuple[int, list[str]]:
    code = medkit(
        "check", "small", *(part for one in arguments for part in ("--set", one)), monkeypatch=monkeypatch
    )
    return code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(("first", "second", "line"), FAULTS)
def test_check_refuses_what_cannot_work(first, second, line, shelf, monkeypatch, capsys):
    code, said = _said([first, second], monkeypatch, capsys)
    assert code == 2 and len(said) == 1 and said[0].endswith(line), said


@pytest.mark.parametrize("kind", ["full", *KINDS])
def test_check_lets_every_kind_pass(kind, shelf, monkeypatch, capsys):
    assert _said([f"adapter.kind={kind}"], monkeypatch, capsys)[0] == 0


def test_check_refuses_early_stopping_with_adalora(shelf, monkeypatch, capsys):
    changes = ["adapter.kind=adalora", "instruct.patience=2", "instruct.validate_every=5"]
    code, said = _said(changes, monkeypatch, capsys)
    assert code == 2 and "can't stop early while adalora settles its ranks" in said[0]


@pytest.mark.parametrize("change", ["adapter.quantize=nf4", "instruct.optimizer=adamw8bit"])
def test_check_says_that_bitsandbytes_is_missing(change, shelf, monkeypatch, capsys):
    assert _said([change], monkeypatch, capsys)[0] == 0
    monkeypatch.setattr(cards, "installed", lambda package: False)
    code, said = _said([change], monkeypatch, capsys)
    assert code == 2 and "needs the package bitsandbytes, which is not installed" in said[0], said


def test_check_reads_the_family_of_the_base(shelf, monkeypatch, capsys):
    (shelf / "checkpoints" / "little" / "config.json").write_text('{"model_type": "blip"}')
    code, said = _said([], monkeypatch, capsys)
    assert code == 2 and "base: model type blip is not supported; supported: gemma3, idefics3" in said[0], (
        said
    )


def test_the_report_tells_what_the_kind_reads():
    assert _adapter(_card("lora")) == "lora, rank 4, alpha 8.0, dropout 0.0"
    assert _adapter(_card("ia3", quantize="nf4")) == "ia3, quantize nf4"
    assert (
        _adapter(_card("llama_adapter", prompt_layers=2)) == "llama_adapter, prompt_tokens 5, prompt_layers 2"
    )


def test_check_does_not_import_what_it_asks_for(shelf, monkeypatch):
    replace_in(shelf / "recipes" / "small.yaml", "rank: 8", "rank: 8, quantize: nf4")
    loaded = set(sys.modules)
    from medkit.cards.load import load_recipe

    load_recipe("small")
    assert not {"bitsandbytes"} & (set(sys.modules) - loaded)
