"""Parts, freezing, adapters, the contract, and folders that plain transformers and peft load."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from peft import PeftModel
from PIL import Image
from tiny_training import FULL, LORA, RATES, build, build_family, picture
from transformers import AutoModelForImageTextToText, AutoProcessor

from medkit.errors import ModelError
from medkit.models.adapters import make_trainable
from medkit.models.contract import Contract, prepare_image, read_contract, write_contract
from medkit.models.load import load_model, pick_precision, save_model
from medkit.models.parts import FAMILIES, linear_names, parameters_by_part, part_of

NAMES = {
    "model.vision_tower.encoder.layers.0.mlp.fc1.weight": ("llava", "vision"),
    "model.multi_modal_projector.linear_1.weight": ("llava", "projector"),
    "model.language_model.layers.0.self_attn.q_proj.weight": ("llava", "language"),
    "lm_head.weight": ("llava", "language"),
    "base_model.model.model.multi_modal_projector.modules_to_save.default.linear_1.weight": (
        "llava",
        "projector",
    ),
    "base_model.model.model.vision_tower.encoder.layers.0.mlp.fc1.lora_A.default.weight": ("llava", "vision"),
    "model.image_newline": ("llava_next", "projector"),
    "model.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight": ("llava_onevision", "vision"),
    "model.multi_modal_projector.mm_input_projection_weight": ("gemma3", "projector"),
    "model.vision_tower.encoder.layer.0.attention.q_proj.weight": ("internvl", "vision"),
    "model.visual.blocks.0.attn.qkv.weight": ("qwen2_5_vl", "vision"),
    "model.visual.merger.mlp.0.weight": ("qwen2_5_vl", "projector"),
    "model.visual.deepstack_merger_list.1.norm.weight": ("qwen3_vl", "projector"),
    "model.language_model.embed_tokens.weight": ("qwen3_vl", "language"),
    "model.vision_model.embeddings.patch_embedding.weight": ("idefics3", "vision"),
    "model.connector.modality_projection.proj.weight": ("smolvlm", "projector"),
    "model.text_model.layers.0.mlp.up_proj.weight": ("smolvlm", "language"),
}


@pytest.fixture
def loaded(tmp_path):
    return build(tmp_path / "model")


def _logits(model, processor) -> torch.Tensor:
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "it?"}]}],
        add_generation_prompt=True,
    )
    inputs = processor(text=[text], images=[picture()], return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        return model.eval()(**inputs).logits


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_its_part(name):
    family, part = NAMES[name]
    assert part_of(name, family) == part


def test_an_unknown_family_is_refused_with_those_that_are_known():
    with pytest.raises(ModelError, match=r"model type 'blip' is not supported; supported: gemma3, idefics3"):
        part_of("lm_head.weight", "blip")
    assert len(FAMILIES) == 9


@pytest.mark.parametrize("family", ["llava", "llava_next", "idefics3"])
def test_the_parts_of_a_real_model_are_all_there(family, tmp_path):
    model = build_family(family, tmp_path / family).model
    groups = parameters_by_part(model, family)
    counts = {part: sum(parameter.numel() for _, parameter in members) for part, members in groups.items()}
    assert all(count > 500 for count in counts.values()), counts
    assert sum(counts.values()) == sum(parameter.numel() for parameter in model.parameters())


def test_a_rate_of_zero_freezes_a_part(loaded):
    groups = make_trainable(loaded, {"vision": 0.0, "projector": 1e-3, "language": 0.0}, FULL)
    assert list(groups) == ["projector"]
    learnt = {name for name, parameter in loaded.model.named_parameters() if parameter.requires_grad}
    assert learnt == {
        f"model.multi_modal_projector.linear_{number}.{kind}"
        for number in (1, 2)
        for kind in ("weight", "bias")
    }


def test_full_training_reaches_all_that_a_gradient_reaches(loaded):
    groups = make_trainable(loaded, RATES, FULL)
    assert list(groups) == ["vision", "projector", "language"]
    inputs = loaded.processor(text=["<image> it?"], images=[picture()], return_tensors="pt")
    loaded.model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert not [name for name, p in loaded.model.named_parameters() if p.requires_grad and p.grad is None]
    frozen = {name for name, parameter in loaded.model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"model.vision_tower.post_layernorm.weight", "model.vision_tower.post_layernorm.bias"}


def test_a_vision_block_above_the_features_is_frozen(tmp_path):
    other = build_family("llava_next", tmp_path)  # features of hidden state -2 of three blocks
    make_trainable(other, RATES, FULL)
    trained = {
        name.split(".")[4]
        for name, p in other.model.named_parameters()
        if "layers" in name and "vision" in name and p.requires_grad
    }
    assert trained == {"0", "1"}


def test_nothing_to_train_is_an_error(loaded):
    with pytest.raises(ModelError, match="every part is frozen"):
        make_trainable(loaded, {"vision": 0.0, "projector": 0.0, "language": 0.0}, FULL)


def test_lora_trains_the_projector_whole_and_leaves_the_rest(loaded):
    groups = make_trainable(loaded, {"vision": 0.0, "projector": 1e-3, "language": 1e-3}, LORA)
    learnt = {name for name, parameter in loaded.model.named_parameters() if parameter.requires_grad}
    assert len([name for name in learnt if "lora_" in name]) == 2 * 2 * 7
    assert {name for name in learnt if "lora_" not in name} == {
        f"base_model.model.model.multi_modal_projector.modules_to_save.default.linear_{number}.{kind}"
        for number in (1, 2)
        for kind in ("weight", "bias")
    }
    assert sum(p.numel() for p in groups["projector"]) == 2 * (32 * 32 + 32)


@pytest.mark.parametrize("family", ["llava_next", "idefics3"])
def test_lora_fits_other_families(family, tmp_path):
    other = build_family(family, tmp_path)
    groups = make_trainable(other, RATES, LORA)
    assert set(groups) == {"vision", "projector", "language"}
    whole = [name for name, p in other.model.named_parameters() if p.requires_grad and "lora_" not in name]
    assert whole and all(".modules_to_save." in name for name in whole)


def test_adapter_targets_are_named_by_their_last_name(loaded):
    names = linear_names(loaded.model, "llava", "language", ["q_proj"])
    assert names == [f"model.language_model.layers.{number}.self_attn.q_proj" for number in (0, 1)]
    with pytest.raises(
        ModelError, match=r"no linear layer of the language part matches the targets \['query'\]"
    ):
        linear_names(loaded.model, "llava", "language", ["query"])


def _changed_adapter(loaded, folder):
    """Saves a LoRA adapter with weights that matter and gives the logits it should have."""
    make_trainable(loaded, {"vision": 0.0, "projector": 1e-3, "language": 1e-3}, LORA)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    save_model(loaded, folder, loaded.contract)
    return _logits(loaded.model, loaded.processor)


def test_an_adapter_folder_loads_with_plain_peft(tmp_path, monkeypatch):
    build(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    loaded = load_model("base", "cpu")
    before = _logits(loaded.model, loaded.processor)
    wanted = _changed_adapter(loaded, tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    monkeypatch.chdir("/")  # the base is found from anywhere
    named = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    plain = PeftModel.from_pretrained(
        AutoModelForImageTextToText.from_pretrained(named), str(tmp_path / "adapter")
    )
    assert torch.equal(_logits(plain, AutoProcessor.from_pretrained(tmp_path / "adapter")), wanted)
    again = load_model(tmp_path / "adapter", "cpu")
    assert again.model_type == "llava"
    assert torch.equal(_logits(again.model, again.processor), wanted)
    assert (wanted - before).abs().max() > 0.1


def test_an_adapter_is_trained_on_and_not_stacked(tmp_path):
    build(tmp_path / "base")
    wanted = _changed_adapter(load_model(tmp_path / "base", "cpu"), tmp_path / "adapter")
    again = load_model(tmp_path / "adapter", "cpu")
    groups = make_trainable(again, {"vision": 0.0, "projector": 1e-3, "language": 1e-3}, LORA)
    assert sum(p.numel() for p in groups["projector"]) == 2 * (32 * 32 + 32)
    assert (
        len([name for name, p in again.model.named_parameters() if p.requires_grad and "lora_" in name]) == 28
    )
    assert torch.equal(_logits(again.model, again.processor), wanted)
    with pytest.raises(ModelError, match="adapter has rank 4, the recipe wants 8"):
        make_trainable(again, RATES, {**LORA, "rank": 8})


def test_full_training_from_an_adapter_merges_it_first(tmp_path):
    build(tmp_path / "base")
    wanted = _changed_adapter(load_model(tmp_path / "base", "cpu"), tmp_path / "adapter")
    again = load_model(tmp_path / "adapter", "cpu")
    make_trainable(again, RATES, FULL)
    save_model(again, tmp_path / "merged", again.contract)
    whole = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(_logits(whole, again.processor), wanted, rtol=1e-4, atol=1e-5)


def test_an_adapter_whose_base_is_gone_says_so(tmp_path):
    build(tmp_path / "base")
    _changed_adapter(load_model(tmp_path / "base", "cpu"), tmp_path / "adapter")
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(ModelError, match=r"its base checkpoint .*base is gone; mend base_model_name_or_path"):
        load_model(tmp_path / "adapter", "cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, None])
def test_a_saved_folder_loads_with_plain_transformers(loaded, tmp_path, dtype):
    save_model(loaded, tmp_path / "saved", loaded.contract, dtype)
    model, told = AutoModelForImageTextToText.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    assert model.dtype == (dtype or torch.float32)
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    for (name, one), other in zip(loaded.model.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(one.to(dtype or torch.float32), other), name
    assert loaded.model.dtype == torch.float32
    assert AutoProcessor.from_pretrained(tmp_path / "saved").chat_template == loaded.processor.chat_template
    assert sorted(path.suffix for path in (tmp_path / "saved").iterdir() if path.stat().st_size > 50_000) == [
        ".safetensors"
    ]


def test_saving_replaces_a_folder_and_leaves_no_half(loaded, tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "old.txt").write_text("old")
    (tmp_path / "saved.partial").mkdir()
    save_model(loaded, tmp_path / "saved", loaded.contract)
    assert not (tmp_path / "saved" / "old.txt").exists()
    assert not (tmp_path / "saved.partial").exists()


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json or adapter_config\.json here"):
        load_model(tmp_path, "cpu")


def test_a_damaged_checkpoint_is_refused_in_one_sentence(loaded, tmp_path):
    path = tmp_path / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match="the checkpoint can't be loaded") as told:
        load_model(tmp_path / "model", "cpu")
    assert "\n" not in str(told.value)


def test_a_checkpoint_that_lacks_weights_is_refused(loaded, tmp_path):
    from safetensors.torch import load_file, save_file

    path = tmp_path / "model" / "model.safetensors"
    state = {name: tensor for name, tensor in load_file(path).items() if "projector" not in name}
    save_file(state, path, {"format": "pt"})
    with pytest.raises(
        ModelError, match=r"lacks 4 weights, such as model.multi_modal_projector.linear_1.bias"
    ):
        load_model(tmp_path / "model", "cpu")


def test_a_checkpoint_without_a_template_is_refused(loaded, tmp_path):
    (tmp_path / "model" / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="has no chat template"):
        load_model(tmp_path / "model", "cpu")


def test_a_device_that_is_not_there_is_refused(loaded, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    with pytest.raises(ModelError, match="device is cuda but torch sees no GPU"):
        load_model(tmp_path / "model", "cuda")
    assert pick_precision("fp32", torch.device("cpu")) == "fp32"
    assert pick_precision("auto", torch.device("cpu")) in ("bf16", "fp32")


def test_pad_centres_the_picture_on_the_mean_colour():
    padded = prepare_image(Image.new("RGB", (4, 2), (255, 0, 0)), Contract("pad", (1, 2, 3)))
    rows = [[padded.getpixel((x, y)) for x in range(4)] for y in range(4)]
    assert rows == [[(1, 2, 3)] * 4, [(255, 0, 0)] * 4, [(255, 0, 0)] * 4, [(1, 2, 3)] * 4]


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_crop_and_stretch_are_left_to_the_processor(fit):
    image = picture((10, 6))
    assert prepare_image(image, Contract(fit)) is image


def test_the_contract_survives_its_folder(loaded, tmp_path):
    contract = Contract("pad", (9, 8, 7), {"stage:align": {"samples_seen": 3}})
    write_contract(tmp_path, contract)
    assert read_contract(tmp_path, loaded.processor) == contract
    assert json.loads((tmp_path / "medkit.json").read_text())["version"] == 3


def test_a_folder_without_a_contract_gets_what_its_processor_implies(loaded, tmp_path):
    assert read_contract(tmp_path, loaded.processor) == Contract("stretch", (128, 128, 128))
    loaded.processor.image_processor.do_center_crop = True
    assert read_contract(tmp_path, loaded.processor).fit == "crop"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a readable contract"),
        ("[]", "not a readable contract"),
        ('{"version": 1}', "not a readable contract"),
        ('{"version": "one", "fit": "pad", "mean_colour": [1, 2, 3]}', "not a readable contract"),
        ('{"version": 4, "layout": "later"}', "version 4 is newer than medkit knows"),
        (
            '{"version": 1, "fit": "squeeze", "mean_colour": [1, 2, 3]}',
            "'squeeze' is unknown; use one of pad, crop",
        ),
        (
            '{"version": 1, "fit": "crop", "mean_colour": [1, 2, 3]}',
            "fit is crop but the processor stretches pictures",
        ),
    ],
)
def test_a_contract_that_cannot_be_kept_is_refused(loaded, tmp_path, text, message):
    (tmp_path / "medkit.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        read_contract(tmp_path, loaded.processor)
