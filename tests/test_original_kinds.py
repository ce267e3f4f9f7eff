"""Kinds of original checkpoints, each built small here and compared with a forward pass written out here."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from original_kinds import (
    HIDDEN,
    SIDE,
    TOKENS,
    config_of,
    features,
    language,
    language_tensors,
    logits_of,
    projector,
    tower,
    tower_tensors,
    write_json,
    write_shards,
    write_tokenizer,
    write_tower,
)
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from medkit.cli import app
from medkit.errors import ModelError
from medkit.models.contract import prepare_image
from medkit.models.load import Loaded, load_model
from medkit.models.original.convert import import_original
from medkit.models.original.picture import read_pinpoints
from medkit.models.original.read import read_whole
from medkit.models.original.write import export_original

CLOSE = 1e-4
QUESTION = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "the image?"}]}]


def picture(width: int = 40, height: int = 30) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def ask(loaded: Loaded, image: Image.Image) -> tuple[Any, torch.Tensor]:
    """Gives the inputs of the question and the logits of every position."""
    text = loaded.processor.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False)
    shown = prepare_image(image, loaded.contract)
    inputs = loaded.processor(text=[text], images=[shown], return_tensors="pt")
    with torch.inference_mode():
        return inputs, loaded.model(**inputs).logits[0]


def check(loaded: Loaded, model: Any, vision: Any, layers: dict[str, torch.Tensor]) -> Any:
    """Compares the imported model with the written-out one on a question; gives the inputs."""
    inputs, logits = ask(loaded, picture())
    shown = features(vision, layers, inputs["pixel_values"])
    image = loaded.base_model.config.image_token_id
    wanted = logits_of(model, inputs["input_ids"][0].tolist(), image, shown.flatten(0, 1))
    rows = wanted.shape[1]
    assert float((logits[:, :rows] - wanted).abs().max()) <= CLOSE
    assert logits.argmax(-1).tolist() == wanted.argmax(-1).tolist()
    return inputs


def round_trip(folder: Path, tmp_path: Path) -> dict[str, Any]:
    """Exports and imports again: every tensor and every token id stays; gives the export's summary."""
    told = export_original(folder, tmp_path / "exported")
    named = json.loads((folder / "medkit.json").read_text())["conversation"]
    import_original(tmp_path / "exported", tmp_path / "again", conversation=named)
    one, two = (load_file(where / "model.safetensors") for where in (folder, tmp_path / "again"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert tensor.dtype == two[name].dtype and torch.equal(tensor, two[name]), name
    for name in ("tokenizer.json", "chat_template.jinja", "processor_config.json"):
        assert (folder / name).read_text() == (tmp_path / "again" / name).read_text(), name
    return told


@pytest.fixture
def mistral(tmp_path: Path) -> Path:
    """LLaVA-Med v1.5: Mistral, .bin shards, its own tower inside and another one beside it."""
    folder = tmp_path / "any-name"
    rows = write_tokenizer(folder, legacy=True)
    model = language("mistral", rows)
    tensors = language_tensors(model) | projector(2)
    tensors |= tower_tensors(tower(seed=7), "model.vision_tower.vision_tower.")
    write_shards(folder, tensors, pickled=True)
    write_json(folder / "config.json", config_of(model))
    write_tower(tmp_path / "clip-tower", tower(seed=8))
    return folder


def test_mistral_takes_the_tower_inside(mistral: Path, tmp_path: Path) -> None:
    told = import_original(mistral, tmp_path / "out")
    assert told["tower"].startswith("inside")
    assert told["conversation"] == "mistral_instruct" and told["fit"] == "pad"
    assert any("0 or 1 px" in note for note in told["notes"])
    loaded = load_model(tmp_path / "out", device="cpu")
    model = language("mistral", loaded.base_model.config.image_token_id)
    inputs = check(loaded, model, tower(seed=7), projector(2))
    text = loaded.processor.tokenizer.decode(inputs["input_ids"][0], skip_special_tokens=True)
    assert text == "[INST] \nthe image? [/INST]".replace("] \n", "]  \n")
    assert round_trip(tmp_path / "out", tmp_path)["model_type"] == "llava_mistral"


def test_a_tower_named_by_the_user_wins(mistral: Path, tmp_path: Path) -> None:
    told = import_original(mistral, tmp_path / "out", tower=str(tmp_path / "clip-tower"))
    assert "named by --tower" in told["tower"]
    loaded = load_model(tmp_path / "out", device="cpu")
    check(loaded, language("mistral", loaded.base_model.config.image_token_id), tower(seed=8), projector(2))


def test_a_tower_inside_needs_no_folder_when_its_heads_are_clips(mistral: Path, tmp_path: Path) -> None:
    (tmp_path / "clip-tower").rename(tmp_path / "elsewhere")
    import_original(mistral, tmp_path / "out")
    loaded = load_model(tmp_path / "out", device="cpu")
    check(loaded, language("mistral", loaded.base_model.config.image_token_id), tower(seed=7), projector(2))


@pytest.mark.parametrize("trained", [False, True])
def test_llama_takes_the_tower_beside_unless_it_was_trained(trained: bool, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    rows = write_tokenizer(folder, legacy=False)
    model = language("llama", rows)
    tensors = language_tensors(model) | projector(2)
    tensors |= tower_tensors(tower(seed=7), "model.vision_tower.vision_tower.")
    write_shards(folder, tensors, pickled=False)
    write_json(folder / "config.json", config_of(model, unfreeze_mm_vision_tower=trained))
    write_tower(folder / "clip-tower", tower(seed=8))
    told = import_original(folder, tmp_path / "out")
    assert told["tower"].startswith("inside" if trained else "beside")
    check(load_model(tmp_path / "out", device="cpu"), model, tower(seed=7 if trained else 8), projector(2))


@pytest.fixture
def med_v1(tmp_path: Path) -> Path:
    """LLaVA-Med v1.0: one linear projector, pictures between start and end tokens, BOS said to be </s>."""
    folder = tmp_path / "v1"
    added = {"[PAD]": 0, "<im_patch>": 1, "<im_start>": 2, "<im_end>": 3}
    rows = write_tokenizer(folder, True, added, bos_token="</s>", pad_token="[PAD]")
    model = language("llama", rows)
    save_file(language_tensors(model) | projector(1), str(folder / "model.safetensors"))
    config = config_of(model, model_type="llava", mm_use_im_start_end=True, mm_use_im_patch_token=True)
    del config["mm_projector_type"], config["image_aspect_ratio"]
    write_json(folder / "config.json", config)
    write_tower(tmp_path / "clip-tower", tower())
    return folder


def test_one_linear_projector_and_start_and_end_tokens(med_v1: Path, tmp_path: Path) -> None:
    told = import_original(med_v1, tmp_path / "out")
    assert (told["projector"], told["conversation"], told["fit"]) == ("linear", "v0_med", "crop")
    assert told["image_token"] == "<im_patch>"
    loaded = load_model(tmp_path / "out", device="cpu")
    tokenizer = loaded.processor.tokenizer
    assert told["rows"] == len(tokenizer)  # no row was added: the patch token is the marker
    model = language("llama", told["rows"])
    inputs = check(loaded, model, tower(), projector(1))
    ids = inputs["input_ids"][0].tolist()
    start, patch, end = tokenizer.convert_tokens_to_ids(["<im_start>", "<im_patch>", "<im_end>"])
    first = ids.index(start)
    assert ids[first : first + TOKENS + 2] == [start, *[patch] * TOKENS, end]
    assert ids[0] == tokenizer.convert_tokens_to_ids("<s>")
    exported = round_trip(tmp_path / "out", tmp_path)
    assert (exported["projector"], exported["image_aspect_ratio"]) == ("linear", "square")
    again = read_whole(tmp_path / "exported")
    for name, tensor in projector(1).items():
        assert torch.equal(again[name], tensor)


def test_a_trained_second_layer_is_multiplied_in_and_said(med_v1: Path, tmp_path: Path) -> None:
    import_original(med_v1, tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    tensors = load_file(path)
    torch.manual_seed(0)
    tensors["multi_modal_projector.linear_2.weight"] += torch.randn(HIDDEN, HIDDEN) * 0.1
    tensors["multi_modal_projector.linear_2.bias"] += 0.5
    save_file(tensors, str(path), metadata={"format": "pt"})
    told = export_original(tmp_path / "out", tmp_path / "exported")
    assert any("multiplied" in note for note in told["notes"])
    import_original(tmp_path / "exported", tmp_path / "again", conversation="v0_med")
    one, two = (ask(load_model(tmp_path / name, device="cpu"), picture())[1] for name in ("out", "again"))
    assert float((one - two).abs().max()) <= CLOSE


@pytest.fixture
def anyres(tmp_path: Path) -> Path:
    """LLaVA-NeXT: tiles of a grid, a learned newline after every row of them."""
    folder = tmp_path / "next"
    rows = write_tokenizer(folder, legacy=False)
    model = language("llama", rows)
    torch.manual_seed(5)
    tensors = language_tensors(model) | projector(2) | {"model.image_newline": torch.randn(HIDDEN)}
    save_file(tensors, str(folder / "model.safetensors"))
    grids = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE], [3 * SIDE, SIDE]]
    write_json(
        folder / "config.json",
        config_of(
            model,
            image_aspect_ratio="anyres",
            image_grid_pinpoints=str([tuple(grid) for grid in grids]),
            mm_patch_merge_type="spatial_unpad",
        ),
    )
    write_tower(tmp_path / "clip-tower", tower())
    return folder


@pytest.mark.parametrize(
    ("size", "grid"),
    # the last two are so thin that their tiles leave only newlines, or nothing
    [((80, 30), (3, 1)), ((20, 50), (1, 2)), ((57, 56), (2, 2)), ((1, 200), (1, 2)), ((300, 1), (1, 2))],
)
def test_tiles_with_a_newline(
    anyres: Path, tmp_path: Path, size: tuple[int, int], grid: tuple[int, int]
) -> None:
    told = import_original(anyres, tmp_path / "out")
    assert told["model"] == "LlavaNextForConditionalGeneration" and told["fit"] == "anyres"
    loaded = load_model(tmp_path / "out", device="cpu")
    inputs, logits = ask(loaded, picture(*size))
    wide, high = grid
    pixels = inputs["pixel_values"][0]
    assert pixels.shape[0] == 1 + wide * high
    shown = features(tower(), projector(2), pixels)
    side = SIDE // 14
    rows = [
        torch.cat([shown[1 + row * wide + column].view(side, side, HIDDEN) for column in range(wide)], 1)
        for row in range(high)
    ]
    whole = torch.cat(rows)  # [grid rows, grid columns, hidden]
    # what came from padding is cut off: an equal number of rows or columns at both ends
    scale = min(wide * side / size[0], high * side / size[1])
    if wide * side / size[0] < high * side / size[1]:
        cut = (whole.shape[0] - int(size[1] * scale)) // 2
        whole = whole[cut : whole.shape[0] - cut]
    else:
        cut = (whole.shape[1] - int(size[0] * scale)) // 2
        whole = whole[:, cut : whole.shape[1] - cut]
    newline = load_file(anyres / "model.safetensors")["model.image_newline"]
    ended = torch.cat([whole, newline.expand(whole.shape[0], 1, HIDDEN)], 1).flatten(0, 1)
    image = loaded.base_model.config.image_token_id
    model = language("llama", image)
    every = torch.cat([shown[0], ended])
    wanted = logits_of(model, inputs["input_ids"][0].tolist(), image, every)
    assert float((logits[:, : wanted.shape[1]] - wanted).abs().max()) <= CLOSE


def test_tiles_go_out_and_come_back(anyres: Path, tmp_path: Path) -> None:
    import_original(anyres, tmp_path / "out")
    assert round_trip(tmp_path / "out", tmp_path)["image_aspect_ratio"] == "anyres"
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert config["image_grid_pinpoints"][1] == [2 * SIDE, SIDE]  # width, height
    exported = read_whole(tmp_path / "exported")
    for name, tensor in load_file(anyres / "model.safetensors").items():
        assert torch.equal(exported[name], tensor), name


def test_a_tiled_checkpoint_can_be_imported_with_padding(anyres: Path, tmp_path: Path) -> None:
    told = import_original(anyres, tmp_path / "out", fit="pad")
    assert told["model"] == "LlavaForConditionalGeneration" and any("newline" in n for n in told["notes"])
    loaded = load_model(tmp_path / "out", device="cpu")
    check(loaded, language("llama", loaded.base_model.config.image_token_id), tower(), projector(2))


@pytest.mark.parametrize(
    ("value", "first", "last", "count"),
    [
        ([[336, 672], [672, 336]], (336, 672), (672, 336), 2),
        ("[(336, 672), (672, 336)]", (336, 672), (672, 336), 2),
        ("(1x1),...,(6x6)", (336, 336), (2016, 2016), 36),
        ("(1x1),(2x3)", (336, 336), (672, 1008), 6),
    ],
)
def test_grids_are_read_in_every_form(value: Any, first: Any, last: Any, count: int) -> None:
    found = read_pinpoints(value, 336)
    assert (found[0], found[-1], len(found)) == (first, last, count)


def plain_base(folder: Path, kind: str = "llama", legacy: bool = False) -> Any:
    """Writes a plain language model with its tokenizer; gives the model."""
    rows = write_tokenizer(folder, legacy)
    model = language(kind, rows)
    save_file(language_tensors(model), str(folder / "model.safetensors"))
    config = config_of(model, model_type=kind)
    write_json(
        folder / "config.json", {k: v for k, v in config.items() if not k.startswith(("mm_", "image_"))}
    )
    return model


def test_a_projector_alone_finds_its_base(tmp_path: Path) -> None:
    model = plain_base(tmp_path / "base-model")
    write_tower(tmp_path / "clip-tower", tower())
    folder = tmp_path / "stage-1"
    write_json(folder / "config.json", config_of(model, _name_or_path="base-model"))
    torch.save(projector(2), folder / "mm_projector.bin")
    told = import_original(folder, tmp_path / "out")
    assert told["kind"] == "projector"
    check(load_model(tmp_path / "out", device="cpu"), model, tower(), projector(2))
    (tmp_path / "base-model").rename(tmp_path / "moved")
    with pytest.raises(ModelError, match="--base"):
        import_original(folder, tmp_path / "other")
    import_original(folder, tmp_path / "other", base=str(tmp_path / "moved"))


def test_a_projector_with_new_start_and_end_tokens(tmp_path: Path) -> None:
    model = plain_base(tmp_path / "base-model", legacy=True)
    write_tower(tmp_path / "clip-tower", tower())
    folder = tmp_path / "stage-1"
    more = {"_name_or_path": "base-model", "mm_use_im_start_end": True, "mm_projector_type": "linear"}
    write_json(folder / "config.json", config_of(model, **more))
    new = torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(3))
    torch.save(projector(1) | {"model.embed_tokens.weight": new}, folder / "mm_projector.bin")
    told = import_original(folder, tmp_path / "out")
    rows = model.config.vocab_size
    assert told["rows"] == rows + 3  # start, end and the marker
    loaded = load_model(tmp_path / "out", device="cpu")
    embedding = loaded.model.get_input_embeddings().weight
    assert torch.equal(embedding[rows : rows + 2], new)
    ids = ask(loaded, picture())[0]["input_ids"][0].tolist()
    at = ids.index(rows)
    assert ids[at : at + TOKENS + 2] == [rows, *[rows + 2] * TOKENS, rows + 1]


def lora_folder(tmp_path: Path, model: Any, **settings: Any) -> dict[str, torch.Tensor]:
    """Writes a LoRA run as .bin files; gives its tensors."""
    folder = tmp_path / "adapter"
    names = [name for name in model.state_dict() if name.endswith(("q_proj.weight", "down_proj.weight"))]
    torch.manual_seed(4)
    low: dict[str, torch.Tensor] = {}
    for name in names:
        rows, columns = model.state_dict()[name].shape
        stem = "base_model.model." + name.removesuffix(".weight")
        low[f"{stem}.lora_A.weight"] = (torch.randn(4, columns) * 0.2).bfloat16()
        low[f"{stem}.lora_B.weight"] = (torch.randn(rows, 4) * 0.2).bfloat16()
    write_json(folder / "config.json", config_of(model, _name_or_path="base-model"))
    adapter = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "base_model_name_or_path": "base-model"}
    write_json(folder / "adapter_config.json", adapter | settings)
    torch.save(low, folder / "adapter_model.bin")
    rest = {f"base_model.model.{name}": tensor for name, tensor in projector(2).items()}
    torch.save(rest, folder / "non_lora_trainables.bin")
    return low


@pytest.mark.parametrize(("rank_stabilised", "scale"), [(False, 1.5), (True, 3.0)])
def test_lora_is_merged_in_float32(tmp_path: Path, rank_stabilised: bool, scale: float) -> None:
    model = plain_base(tmp_path / "base-model")
    write_tower(tmp_path / "clip-tower", tower())
    low = lora_folder(tmp_path, model, use_rslora=rank_stabilised)
    import_original(tmp_path / "adapter", tmp_path / "out")
    state = model.state_dict()
    with torch.no_grad():
        for name, down in low.items():
            if ".lora_A." in name:
                up = low[name.replace(".lora_A.", ".lora_B.")]
                target = name.removeprefix("base_model.model.").replace(".lora_A", "")
                state[target] += scale * (up.float() @ down.float())
    check(load_model(tmp_path / "out", device="cpu"), model, tower(), projector(2))


def test_lora_without_its_projector_is_refused(tmp_path: Path) -> None:
    model = plain_base(tmp_path / "base-model")
    write_tower(tmp_path / "clip-tower", tower())
    lora_folder(tmp_path, model)
    (tmp_path / "adapter" / "non_lora_trainables.bin").unlink()
    with pytest.raises(ModelError, match="non_lora_trainables"):
        import_original(tmp_path / "adapter", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_delta_needs_its_base(tmp_path: Path) -> None:
    model = plain_base(tmp_path / "base-model", legacy=True)
    write_tower(tmp_path / "clip-tower", tower())
    folder = tmp_path / "delta"
    rows = write_tokenizer(folder, True, {"[PAD]": 0})
    trained = language("llama", rows, seed=9)
    difference = language_tensors(trained)
    for name, tensor in language_tensors(model).items():
        difference[name][tuple(slice(n) for n in tensor.shape)] -= tensor
    save_file(difference | projector(2), str(folder / "model.safetensors"))
    write_json(folder / "config.json", config_of(trained))
    with pytest.raises(ModelError, match="differences"):
        import_original(folder, tmp_path / "out")
    told = import_original(folder, tmp_path / "out", base=str(tmp_path / "base-model"))
    assert told["kind"] == "delta"
    check(load_model(tmp_path / "out", device="cpu"), trained, tower(), projector(2))


class Hostile:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.write_text, (self.mark, "opened")


def full(folder: Path, **config: Any) -> Any:
    """Writes a whole Llama checkpoint with its tower in it; gives the language model."""
    rows = write_tokenizer(folder, legacy=False)
    model = language("llama", rows)
    save_file(language_tensors(model) | projector(2), str(folder / "model.safetensors"))
    write_json(folder / "config.json", config_of(model, **config))
    write_tower(folder / "clip-tower", tower())
    return model


def test_a_hostile_pickle_beside_the_weights_is_never_opened(tmp_path: Path) -> None:
    full(tmp_path / "checkpoint")
    mark = tmp_path / "opened"
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "mm_projector.bin"):
        (tmp_path / "checkpoint" / name).write_bytes(pickle.dumps(Hostile(mark), protocol=2))
    import_original(tmp_path / "checkpoint", tmp_path / "out")
    assert not mark.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "mm_projector.bin"])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_hostile_pickle_as_weights_is_refused(tmp_path: Path, name: str, zipped: bool) -> None:
    full(tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "model.safetensors").unlink()
    mark = tmp_path / "opened"
    path = tmp_path / "checkpoint" / name
    if zipped:
        torch.save({"model.norm.weight": Hostile(mark)}, path)
    else:
        path.write_bytes(pickle.dumps(Hostile(mark), protocol=2))
    with pytest.raises(ModelError, match=name):
        import_original(tmp_path / "checkpoint", tmp_path / "out")
    assert not mark.exists() and not (tmp_path / "out").exists()


def test_an_index_can_not_name_a_file_that_is_no_weight_file(tmp_path: Path) -> None:
    full(tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "training_args.bin"}}
    write_json(tmp_path / "checkpoint" / "pytorch_model.bin.index.json", index)
    (tmp_path / "checkpoint" / "training_args.bin").write_bytes(pickle.dumps(Hostile(tmp_path / "opened")))
    with pytest.raises(ModelError, match="no weight file"):
        import_original(tmp_path / "checkpoint", tmp_path / "out")
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"mm_projector_type": "mlp3x_gelu"}, "mlp3x_gelu"),
        ({"mm_projector_type": "resampler"}, "resampler"),
        ({"mm_projector_type": "linear"}, "mend mm_projector_type"),
        ({"mm_vision_tower": "nowhere"}, "--tower"),
        ({"hidden_size": 48}, "config.json"),
        ({"image_aspect_ratio": "anyres"}, "spatial_unpad"),
        ({"image_aspect_ratio": "anyres_max_9"}, "anyres_max_9"),
        ({"model_type": "llava_mpt"}, "llava_mpt"),
        ({"mm_use_im_start_end": True}, "<im_start>"),
        ({"text_config": {}, "vision_config": {}}, "Hugging Face"),
    ],
)
def test_what_has_no_exact_form_is_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    full(tmp_path / "checkpoint", **config)
    with pytest.raises(ModelError, match=message) as caught:
        import_original(tmp_path / "checkpoint", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_with_more_tokens_than_rows_is_refused(tmp_path: Path) -> None:
    full(tmp_path / "checkpoint")
    write_tokenizer(tmp_path / "checkpoint", False, {"<extra>": 0})
    with pytest.raises(ModelError, match="rows"):
        import_original(tmp_path / "checkpoint", tmp_path / "out")


def test_other_folders_are_not_overwritten(tmp_path: Path) -> None:
    full(tmp_path / "checkpoint")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("all of it")
    for out in (tmp_path / "precious", tmp_path / "checkpoint", tmp_path):
        with pytest.raises(ModelError, match="--out"):
            import_original(tmp_path / "checkpoint", out)
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "all of it"


def test_types_stay_as_stored(tmp_path: Path) -> None:
    model = full(tmp_path / "checkpoint")
    half = {name: tensor.bfloat16() for name, tensor in language_tensors(model).items()}
    save_file(half | projector(2), str(tmp_path / "checkpoint" / "model.safetensors"))
    told = import_original(tmp_path / "checkpoint", tmp_path / "out")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert stored["language_model.model.norm.weight"].dtype == torch.bfloat16
    assert stored["multi_modal_projector.linear_1.weight"].dtype == torch.float32
    assert told["dtype"] == "float32"  # the small test model is mostly tower
    row = stored["language_model.lm_head.weight"][-1]
    assert torch.equal(row, half["lm_head.weight"].float().mean(dim=0).bfloat16())


def test_tied_heads_stay_tied(tmp_path: Path) -> None:
    model = full(tmp_path / "checkpoint", tie_word_embeddings=True)
    tensors = load_file(tmp_path / "checkpoint" / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, str(tmp_path / "checkpoint" / "model.safetensors"))
    import_original(tmp_path / "checkpoint", tmp_path / "out")
    model.lm_head.weight = model.model.embed_tokens.weight
    check(load_model(tmp_path / "out", device="cpu"), model, tower(), projector(2))
    round_trip(tmp_path / "out", tmp_path)
    assert "lm_head.weight" not in read_whole(tmp_path / "exported")


def test_the_original_reads_the_exported_tokenizer(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    full(tmp_path / "checkpoint")
    import_original(tmp_path / "checkpoint", tmp_path / "out")
    export_original(tmp_path / "out", tmp_path / "exported")
    ours = load_model(tmp_path / "out", device="cpu").processor.tokenizer
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "exported" / "tokenizer.model"))
    for text in ("the image in an US.", "Größe 3 µm?\nUSER: [INST]"):
        assert ours(text, add_special_tokens=False)["input_ids"] == theirs.encode(text)
    assert theirs.bos_id() == 1 and theirs.eos_id() == 2


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    full(tmp_path / "checkpoint")
    done = CliRunner().invoke(app, ["import", str(tmp_path / "checkpoint"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "beside the checkpoint" in " ".join(done.output.split())
    assert (tmp_path / "out" / "chat_template.jinja").is_file()
