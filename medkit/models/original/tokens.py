"""Tokenizers of original checkpoints as fast tokenizers that give the very ids of the original code.

The original cuts a prompt at ``<image>`` and tokenises the pieces one by one, so that every piece begins as a
text does: with the space that SentencePiece puts in front. Here the whole prompt is tokenised at once and the
tokenizer's normaliser puts that space after an image marker.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ...errors import ModelError
from .sentencepiece_file import BPE, BYTE, CONTROL, SPACE, UNKNOWN, USER_DEFINED, read_sentencepiece

IMAGE, PATCH, START, END = "<image>", "<im_patch>", "<im_start>", "<im_end>"
FILES = ("tokenizer.model", "tokenizer.json", "vocab.json")
BEGINNINGS = ("A chat", "[INST] What", "### Human: What", "What")  # of the templates' texts
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True)
class Tokens:
    """A tokenizer with its image marker.

    Attributes:
        tokenizer: Fast tokenizer; the marker is one of its special tokens.
        image: The marker: ``<im_patch>`` where the checkpoint has it, else ``<image>``.
        image_id: Its id.
        own: Number of ids that the checkpoint's own tokenizer has: ids below are the original's.
        start: What stands before an image, or "".
        end: What stands after it, or "".
    """

    tokenizer: PreTrainedTokenizerFast
    image: str
    image_id: int
    own: int
    start: str
    end: str


def load_tokens(folder: Path, config: dict[str, Any], new: list[str] | None = None) -> Tokens:
    """Reads a checkpoint's tokenizer and adds the image marker if it has none.

    Args:
        folder: Where ``tokenizer.model``, ``tokenizer.json`` or ``vocab.json`` lies.
        config: The original ``config.json``; it says whether images stand between start and end tokens.
        new: Tokens that the checkpoint's training added and that the folder's tokenizer may lack.

    Raises:
        ModelError: There is no tokenizer, it is of an unknown kind, or it lacks the start and end tokens.
    """
    settings = _settings(folder)
    if (folder / "tokenizer.model").is_file():
        tokenizer = _from_sentencepiece(folder, settings, new or [])
    else:
        tokenizer = _from_fast(folder, settings, new or [])
    vocabulary = tokenizer.get_vocab()
    start, end = (START, END) if config.get("mm_use_im_start_end") else ("", "")
    if start and not {START, END} <= vocabulary.keys():
        raise ModelError(
            f"{folder}: config.json sets mm_use_im_start_end but the tokenizer lacks {START} and {END}; "
            "use the tokenizer that was saved with the checkpoint"
        )
    image = PATCH if PATCH in vocabulary else IMAGE
    own = max(value for name, value in vocabulary.items() if name != IMAGE) + 1
    return Tokens(tokenizer, image, vocabulary[image], own, start, end)


def find_tokenizer(folders: list[Path]) -> Path | None:
    """Gives the first folder that holds a tokenizer."""
    for folder in folders:
        if any((folder / name).is_file() for name in FILES):
            return folder
    return None


def beginning_written(template: str, tokenizer: PreTrainedTokenizerFast) -> str:
    """Gives a chat template that writes the first token itself, where the tokenizer would add it.

    Servers tokenise a rendered chat without adding tokens, so a first token that only the tokenizer adds would
    be lost there. A template that can't write it without other ids is left as it is.

    Args:
        template: Chat template that does not write the first token.
        tokenizer: The checkpoint's tokenizer.
    """
    first = str(tokenizer.bos_token or "")
    if not first or tokenizer("")["input_ids"][:1] != [tokenizer.bos_token_id]:
        return template
    for gap in ("", " "):  # the space is what some tokenizers put before a text's first word by themselves
        wanted = [tokenizer(text)["input_ids"] for text in BEGINNINGS]
        written = [
            tokenizer(first + gap + text, add_special_tokens=False)["input_ids"] for text in BEGINNINGS
        ]
        if written == wanted:
            return "{{ bos_token + '" + gap + "' }}" + template
    return template


def _from_sentencepiece(folder: Path, settings: dict[str, Any], new: list[str]) -> PreTrainedTokenizerFast:
    model = read_sentencepiece(folder / "tokenizer.model")
    if model.algorithm != BPE:
        raise ModelError(
            f"{folder}/tokenizer.model: only byte-pair models are read; save a tokenizer.json beside it "
            "and remove tokenizer.model"
        )
    vocabulary = {text: place for place, (text, _, _) in enumerate(model.pieces)}
    unknown = next((text for text, _, kind in model.pieces if kind == UNKNOWN), "<unk>")
    backend = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=model.merges(),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=any(kind == BYTE for _, _, kind in model.pieces),
        )
    )
    fixed = [text for text, _, kind in model.pieces if kind in (UNKNOWN, CONTROL, USER_DEFINED)]
    added = _added_tokens(folder, settings, vocabulary)
    last = max([*vocabulary.values(), *added.values()])
    for text in new:
        if text not in vocabulary and text not in added:
            last += 1
            added[text] = last
    specials = [*fixed, *(text for text, _ in sorted(added.items(), key=lambda one: one[1]))]
    _refuse_gaps(folder, vocabulary, added)
    markers = [IMAGE] if PATCH not in specials else []
    # absent means the behaviour of before the flag: every piece of text between special tokens begins anew
    legacy = settings.get("legacy") is not False
    backend.normalizer = _normaliser(model, legacy, [*specials, *markers])
    for text in [*specials, *markers]:
        backend.add_special_tokens([AddedToken(text, special=True, normalized=not legacy)])
    backend.decoder = decoders.Sequence(  # type: ignore[assignment]
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    names = _special_names(settings, backend, unknown)
    if settings.get("add_bos_token", True):
        _begin_with(backend, names["bos_token"])
    return _wrap(backend, names, settings, legacy)


def _normaliser(model: Any, legacy: bool, specials: list[str]) -> Any:
    steps: list[Any] = []
    if model.characters:
        steps.append(normalizers.Precompiled(model.characters))
    if model.collapse:
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    steps.append(normalizers.Replace(" ", SPACE))
    if not model.prefix:
        return normalizers.Sequence(steps)
    steps.append(normalizers.Prepend(SPACE))
    if legacy:
        return normalizers.Sequence(steps)
    # The special tokens are found after normalisation, so that one pass over the whole text sees them. A space
    # is due at its beginning and after an image, unless a special token follows.
    any_special = "|".join(re.escape(text) for text in specials)
    steps.append(normalizers.Replace(Regex(rf"\A{SPACE}(?={any_special})"), ""))
    if IMAGE in specials:
        after = rf"{re.escape(IMAGE)}(?!{any_special}|\z)"
        steps.append(normalizers.Replace(Regex(after), IMAGE + SPACE))
    return normalizers.Sequence(steps)


def _from_fast(folder: Path, settings: dict[str, Any], new: list[str]) -> PreTrainedTokenizerFast:
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"{folder}: its tokenizer can't be read: {str(error).splitlines()[0]}") from error
    markers = [] if PATCH in tokenizer.get_vocab() else [IMAGE]
    for text in [*new, *markers]:
        if backend.token_to_id(text) is None:
            backend.add_special_tokens([AddedToken(text, special=True, normalized=False)])
    names = {name: getattr(tokenizer, name, None) for name in SPECIAL}
    names["pad_token"] = names["pad_token"] or names["unk_token"] or names["eos_token"]
    return _wrap(backend, names, settings, settings.get("legacy") is not False)


def _wrap(backend: Tokenizer, names: dict[str, Any], settings: dict[str, Any], legacy: bool) -> Any:
    flags = {"special": True, "normalized": not legacy}
    present = {
        name: AddedToken(str(text), **flags) if backend.token_to_id(str(text)) is not None else None
        for name, text in names.items()
        if text
    }
    limit = settings.get("model_max_length")
    image = PATCH if backend.token_to_id(PATCH) is not None else IMAGE
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **{name: token for name, token in present.items() if token is not None},
        extra_special_tokens={"image_token": AddedToken(image, **flags)},
        padding_side="right",
        clean_up_tokenization_spaces=False,
        **({"model_max_length": int(limit)} if limit and limit < 1e9 else {}),
    )


def _special_names(settings: dict[str, Any], backend: Tokenizer, unknown: str) -> dict[str, str | None]:
    names = {name: _text(settings.get(name)) for name in SPECIAL}
    names["unk_token"] = names["unk_token"] or unknown
    names["eos_token"] = names["eos_token"] or "</s>"
    # LLaVA-Med v1.0 was saved with </s> as its beginning, but its evaluation emitted <s>
    twice = names["bos_token"] == names["eos_token"]
    if (twice or not names["bos_token"]) and backend.token_to_id("<s>") is not None:
        names["bos_token"] = "<s>"
    names["pad_token"] = names["pad_token"] or names["unk_token"]
    return names


def _begin_with(backend: Tokenizer, token: str | None) -> None:
    if not token or (number := backend.token_to_id(token)) is None:
        return
    backend.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{token}:0 $A:0", pair=f"{token}:0 $A:0 {token}:1 $B:1", special_tokens=[(token, number)]
    )


def _settings(folder: Path) -> dict[str, Any]:
    """Gives tokenizer_config.json, with special_tokens_map.json where it is silent."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            try:
                found |= {
                    key: value for key, value in json.loads(path.read_text()).items() if value is not None
                }
            except (ValueError, AttributeError) as error:
                raise ModelError(f"{path}: not readable JSON ({error}); copy it again") from error
    return found


def _added_tokens(folder: Path, settings: dict[str, Any], vocabulary: dict[str, int]) -> dict[str, int]:
    """Gives the tokens that were added to the SentencePiece model, with their ids."""
    added: dict[str, int] = {}
    path = folder / "added_tokens.json"
    if path.is_file():
        added |= {text: int(number) for text, number in json.loads(path.read_text()).items()}
    for number, token in settings.get("added_tokens_decoder", {}).items():
        added[_text(token) or ""] = int(number)
    return {text: number for text, number in added.items() if text and text not in vocabulary}


def _refuse_gaps(folder: Path, vocabulary: dict[str, int], added: dict[str, int]) -> None:
    wanted = list(range(len(vocabulary), len(vocabulary) + len(added)))
    if sorted(added.values()) != wanted:
        raise ModelError(
            f"{folder}: the added tokens have the ids {sorted(added.values())}, not {wanted} as they must "
            "after the pieces of tokenizer.model; mend added_tokens.json"
        )


def _text(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token
