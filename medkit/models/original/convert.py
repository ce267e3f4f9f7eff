"""Imports a checkpoint in the original LLaVA layout as a plain Hugging Face model folder, tensor for tensor."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    GenerationConfig,
    LlavaConfig,
    LlavaNextConfig,
)

from ...errors import ModelError
from ...progress import bar
from ..contract import FILE_NAME, Contract, template_hash, write_contract
from ..conversations import answer_formats, chat_template, guess, resolve, stop_strings
from .detect import Layout, detect, read_json
from .lora import merge_lora
from .names import EMBEDDING, HEAD, NEWLINE, bare, in_memory, is_buffer, kind_of, to_classic
from .picture import Picture, make_processor, picture_policy
from .projector import Projector, read_projector
from .read import Weights, read_whole, write_weights
from .tokens import END, PATCH, START, Tokens, beginning_written, find_tokenizer, load_tokens
from .tower import Tower, find_folder, find_tower

TEXT_KEYS = {"rope_theta", "rope_scaling"}  # transformers 5 folds them into rope_parameters
NOT_TEXT = {"model_type", "architectures", "transformers_version", "dtype", "_name_or_path", "torch_dtype"}


@dataclass
class Parts:
    """Everything that an import puts together."""

    layout: Layout
    weights: Weights
    tower: Tower
    projector: Projector
    tokens: Tokens
    picture: Picture
    conversation: str
    base_config: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows of the embedding after the import: the original's, and the marker's where it has none."""
        return max(self.weights[EMBEDDING].shape[0], self.tokens.image_id + 1)


def import_original(
    folder: Path,
    out: Path,
    *,
    base: str | None = None,
    tower: str | None = None,
    conversation: str | None = None,
    fit: str | None = None,
) -> dict[str, Any]:
    """Writes a Hugging Face model folder that computes what the original checkpoint computes.

    Args:
        folder: Checkpoint in the original layout: whole, projector only, LoRA, or a delta.
        out: Model folder to write; replaced when it is one.
        base: Folder or hub id of the language model that a projector, a LoRA or a delta belongs to; what the
            folder's config names, else.
        tower: Folder or hub id of the vision tower, against what the original code would take.
        conversation: Name of the conversation template; guessed from the config, else.
        fit: ``pad``, ``crop`` or ``anyres``, against the config's ``image_aspect_ratio``.

    Returns:
        ``kind``, ``language``, ``model`` (class), ``tower`` (which was taken), ``projector``, ``fit``,
        ``conversation``, ``image_token``, ``rows``, ``dtype``, ``parameters``, ``bytes``, ``notes``.

    Raises:
        ModelError: The folder can't be imported exactly; nothing is written then.
    """
    _refuse_target(folder, out)
    parts = _gather(detect(folder), base, tower, conversation, fit)
    config = _config(parts)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        seen: dict[str, torch.Size] = {}
        types: Counter[torch.dtype] = Counter()
        size = write_weights(partial, _shown(_tensors(parts), seen, types, len(parts.weights)))
        _check_shapes(folder, config, seen)
        config.dtype = types.most_common(1)[0][0]
        summary = _summary(parts, config, types, size)
        _write_rest(partial, parts, config, summary)
        if out.exists():
            shutil.rmtree(out)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return summary


def _gather(
    layout: Layout, base: str | None, tower: str | None, conversation: str | None, fit: str | None
) -> Parts:
    notes: list[str] = []
    base_folder = _base_folder(layout, base)
    base_config = read_json(base_folder / "config.json") if base_folder else {}
    weights = _with_base(layout, base_folder)
    found = find_tower(layout, weights, tower)
    picture = picture_policy(layout, weights, found.image_processor, fit, notes)
    conversation = resolve(conversation or guess(layout.config))
    tokens = _tokens(layout, base_folder, weights)
    if layout.kind == "lora":
        merged = merge_lora(layout, weights)
        notes.append(f"{len(merged)} layers with LoRA were merged and are stored in float32")
    projector = read_projector(layout, weights)
    if projector.note:
        notes.append(projector.note)
    for name in [name for name in weights if kind_of(name) in ("vision", "projector")]:
        weights.take(name)
    if not picture.tiled and NEWLINE in weights:
        weights.take(NEWLINE)
        notes.append("image_newline was left out: pictures are not cut into tiles")
    if layout.config.get("model_type") == "llava_mistral" and picture.fit == "pad":
        notes.append("pictures are padded at the centre; LLaVA-Med v1.5 moves them by 0 or 1 px at random")
    if tokens.image_id >= weights[EMBEDDING].shape[0]:
        notes.append(f"one row was added for {tokens.image}, which the original has no token for")
    return Parts(layout, weights, found, projector, tokens, picture, conversation, base_config, notes)


def _base_folder(layout: Layout, base: str | None) -> Path | None:
    if layout.kind == "full":
        if base:
            raise ModelError(f"{layout.folder}: is a whole checkpoint; leave --base out")
        return None
    if base:
        found = find_folder(base, layout.folder, download=True)
        if found is None:
            raise ModelError(f"--base {base}: no such folder with a config.json, and no hub id that answers")
        return found
    if layout.kind == "delta":
        raise ModelError(
            f"{layout.folder}: holds differences from a base, not weights; give the base with --base FOLDER"
        )
    named = layout.adapter_config.get("base_model_name_or_path") or layout.config.get("_name_or_path") or ""
    found = find_folder(str(named), layout.folder)
    if found is None:
        what = "an adapter" if layout.kind == "lora" else "a projector"
        raise ModelError(
            f"{layout.folder}: is {what} of {named or 'an unnamed base'}, which is not here; give it with --base"
        )
    return found


def _with_base(layout: Layout, base: Path | None) -> Weights:
    """Gives the tensors of the base with the layout's own put over them (or added, for a delta)."""
    weights = Weights()
    if base is not None:
        whole = read_whole(base).renamed(bare)
        if not any(kind_of(name) == "language" for name in whole):
            raise ModelError(f"{base}: holds no language model; give the base that training started from")
        weights.update(whole)
    for name in layout.weights:
        source = layout.weights.source(name)
        if layout.kind == "delta" and name in weights:
            source = _sum(source, weights.source(name))
        elif name == EMBEDDING and name in weights:
            source = _grown(source, weights.source(name))
        weights.put(name, source, layout.weights.origin[name])
    for name in [name for name in weights if is_buffer(name)]:
        weights.take(name)
    if unknown := sorted(name for name in weights if not kind_of(name)):
        raise ModelError(f"{layout.folder}: holds {unknown[0]}, which medkit has no place for in a LLaVA")
    return weights


def _sum(delta: Callable[[], torch.Tensor], base: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    def added() -> torch.Tensor:
        difference, whole = delta(), base()
        # embeddings of a delta have rows that the base has not
        total = difference.float().clone()  # what is read may lie in the file itself
        total[tuple(slice(length) for length in whole.shape)] += whole.float()
        return total.to(difference.dtype)

    return added


def _grown(own: Callable[[], torch.Tensor], base: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """Gives embeddings of which a projector file may hold the new rows only."""

    def joined() -> torch.Tensor:
        rows, whole = own(), base()
        if rows.shape[0] >= whole.shape[0]:
            return rows
        wide = torch.promote_types(rows.dtype, whole.dtype)
        return torch.cat([whole.to(wide), rows.to(wide)])

    return joined


def _tokens(layout: Layout, base: Path | None, weights: Weights) -> Tokens:
    folder = find_tokenizer([layout.folder, *([base] if base else [])])
    if folder is None:
        raise ModelError(
            f"{layout.folder}: there is no tokenizer (tokenizer.model or tokenizer.json); copy it into the folder"
        )
    config = layout.config
    new = [PATCH] if config.get("mm_use_im_patch_token") and layout.kind != "full" else []
    if config.get("mm_use_im_start_end") and layout.kind != "full":
        new += [START, END]
    tokens = load_tokens(folder, config, new)
    if EMBEDDING not in weights:
        raise ModelError(f"{layout.folder}: has no {EMBEDDING}; copy the whole checkpoint")
    rows = weights[EMBEDDING].shape[0]
    if tokens.own > rows and not new:
        raise ModelError(
            f"{folder}: the tokenizer has {tokens.own} tokens but the embeddings {rows} rows; "
            "use the tokenizer that was saved with the checkpoint"
        )
    if new:
        for name in (EMBEDDING, HEAD):
            if name in weights:
                weights.put(name, _with_mean_rows(weights.source(name), tokens.own), weights.origin[name])
    return tokens


def _with_mean_rows(source: Callable[[], torch.Tensor], rows: int) -> Callable[[], torch.Tensor]:
    """Gives a matrix with rows added that are the mean of all: as a head's, such a row never wins."""

    def grown() -> torch.Tensor:
        matrix = source()
        if matrix.shape[0] >= rows:
            return matrix
        mean = matrix.float().mean(dim=0, keepdim=True).to(matrix.dtype)
        return torch.cat([matrix, mean.expand(rows - matrix.shape[0], -1)])

    return grown


def _config(parts: Parts) -> Any:
    layout = parts.layout
    known = set(AutoConfig.for_model(layout.language).to_dict()) | TEXT_KEYS
    given = {**parts.base_config, **layout.config}
    text = {key: value for key, value in given.items() if key in known - NOT_TEXT}
    text["vocab_size"] = parts.rows
    config = layout.config
    select = config.get("mm_vision_select_feature", "patch")
    if select not in ("patch", "cls_patch"):
        raise ModelError(
            f"{layout.folder}: mm_vision_select_feature {select!r} is unknown; patch or cls_patch"
        )
    vision = parts.tower.config
    tokenizer = parts.tokens.tokenizer
    common: dict[str, Any] = {
        "vision_config": vision,
        "text_config": AutoConfig.for_model(layout.language, **text),
        "image_token_index": parts.tokens.image_id,
        "image_seq_length": (vision.image_size // vision.patch_size) ** 2,
        "projector_hidden_act": parts.projector.activation,
        "vision_feature_layer": int(config.get("mm_vision_select_layer", -2)),
        "vision_feature_select_strategy": "default" if select == "patch" else "full",
        "tie_word_embeddings": bool(text.get("tie_word_embeddings", False)),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if parts.picture.tiled:
        made: Any = LlavaNextConfig(**common, image_grid_pinpoints=parts.picture.pinpoints)
        made.architectures = ["LlavaNextForConditionalGeneration"]
    else:
        made = LlavaConfig(**common)
        made.architectures = ["LlavaForConditionalGeneration"]
    return made


def _tensors(parts: Parts) -> Iterator[tuple[str, torch.Tensor]]:
    """Gives every tensor under its classic name, as stored; one row more where the marker needs it."""
    for name in sorted(parts.weights):
        if name == HEAD and _tied(parts):
            continue
        tensor = parts.weights[name]
        if name in (EMBEDDING, HEAD):
            tensor = _with_mean_rows(lambda tensor=tensor: tensor, parts.rows)()
        yield to_classic(name), tensor
    yield from parts.projector.tensors.items()
    for name in parts.tower.weights:
        if not is_buffer(name):
            yield f"vision_tower.vision_model.{name}", parts.tower.weights[name]


def _tied(parts: Parts) -> bool:
    return bool({**parts.base_config, **parts.layout.config}.get("tie_word_embeddings", False))


def _shown(
    tensors: Iterator[tuple[str, torch.Tensor]],
    seen: dict[str, torch.Size],
    types: Counter[torch.dtype],
    count: int,
) -> Iterator[tuple[str, torch.Tensor]]:
    with bar("import", count) as progress:
        for name, tensor in tensors:
            seen[name] = tensor.shape
            types[tensor.dtype] += tensor.numel()
            progress.advance(1, name.rsplit(".", 2)[0])
            yield name, tensor


def _check_shapes(folder: Path, config: Any, seen: dict[str, torch.Size]) -> None:
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        wanted.pop(HEAD, None)
    found = {in_memory(name): shape for name, shape in seen.items()}
    if lost := sorted(set(wanted) - set(found)):
        raise ModelError(
            f"{folder}: the checkpoint lacks {len(lost)} weights, such as {lost[0]}; copy all of it"
        )
    if extra := sorted(set(found) - set(wanted)):
        raise ModelError(
            f"{folder}: {extra[0]} has no place in the model that config.json describes; mend it"
        )
    for name, shape in found.items():
        if shape != wanted[name]:
            raise ModelError(
                f"{folder}: {name} is {list(shape)} but config.json means {list(wanted[name])}; "
                "config.json and weights must come from one checkpoint"
            )


def _summary(parts: Parts, config: Any, types: Counter[torch.dtype], size: int) -> dict[str, Any]:
    return {
        "kind": parts.layout.kind,
        "language": parts.layout.language,
        "model": config.architectures[0],
        "tower": parts.tower.taken,
        "projector": parts.projector.name,
        "fit": "anyres" if parts.picture.tiled else parts.picture.fit,
        "conversation": parts.conversation,
        "image_token": parts.tokens.image,
        "rows": parts.rows,
        "dtype": str(config.dtype).removeprefix("torch."),
        "parameters": sum(types.values()),
        "bytes": size,
        "notes": parts.notes,
    }


def _write_rest(partial: Path, parts: Parts, config: Any, summary: dict[str, Any]) -> None:
    tokens, picture = parts.tokens, parts.picture
    config.save_pretrained(partial)
    template = beginning_written(
        chat_template(parts.conversation, tokens.image, tokens.start, tokens.end), tokens.tokenizer
    )
    processor = make_processor(picture, tokens, config, template)
    processor.save_pretrained(partial)
    ids: dict[str, Any] = {
        "bos_token_id": tokens.tokenizer.bos_token_id,
        "eos_token_id": tokens.tokenizer.eos_token_id,
        "pad_token_id": tokens.tokenizer.pad_token_id,
    }
    GenerationConfig(do_sample=False, **ids).save_pretrained(partial)
    contract = Contract(
        fit=picture.fit,
        mean_colour=picture.mean_colour,
        provenance={"imported": {key: summary[key] for key in summary if key != "bytes"}},
        conversation=parts.conversation,
        stop=stop_strings(parts.conversation),
        answer_formats=answer_formats(parts.conversation, parts.layout.config),
        tiles={"grid_pinpoints": config.image_grid_pinpoints, "newline": True} if picture.tiled else None,
        template_sha256=template_hash(processor),
    )
    write_contract(partial, contract)
    mask = os.umask(0)
    os.umask(mask)
    for path in partial.iterdir():
        path.chmod(0o666 & ~mask)  # safetensors writes 0600: a server under another user could not read it


def _refuse_target(folder: Path, out: Path) -> None:
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; give the folder of a checkpoint")
    if out.resolve() == folder.resolve() or folder.resolve().is_relative_to(out.resolve()):
        raise ModelError(f"--out {out}: is the checkpoint itself or above it; write to another folder")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / FILE_NAME).is_file())):
        raise ModelError(f"--out {out}: exists and is no model folder of medkit; name a new one")
