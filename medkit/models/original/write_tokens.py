"""Tokenizers of Hugging Face folders in the form that the original code reads, the image marker left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .sentencepiece_file import (
    BPE,
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    SentencePieceFile,
    write_sentencepiece,
)
from .tokens import IMAGE, SPECIAL


def write_tokenizer(tokenizer: Any, out: Path) -> bool:
    """Writes ``tokenizer.model`` (or ``tokenizer.json``) with its settings.

    Args:
        tokenizer: Fast tokenizer of the Hugging Face folder.
        out: Folder in the original layout.

    Returns:
        Whether the image marker, having the last id, was left out; elsewhere it stays, so that no id moves.
    """
    raw = json.loads(tokenizer.backend_tokenizer.to_str())
    ids = {**raw["model"]["vocab"], **{token["content"]: token["id"] for token in raw["added_tokens"]}}
    drop = ids.get(IMAGE) == max(ids.values()) and IMAGE not in raw["model"]["vocab"]
    if drop:
        del ids[IMAGE]
        raw["added_tokens"] = [token for token in raw["added_tokens"] if token["content"] != IMAGE]
    pieces = raw["model"]["vocab"]
    added = {text: number for text, number in ids.items() if text not in pieces}
    sentencepiece = raw["model"]["type"] == "BPE" and bool(raw["model"].get("byte_fallback"))
    settings = _settings(tokenizer, raw, added)
    if sentencepiece:
        write_sentencepiece(out / "tokenizer.model", _pieces(raw))
        settings |= {"tokenizer_class": "LlamaTokenizer", "legacy": _is_legacy(raw)}
    else:
        raw["post_processor"] = raw.get("post_processor")
        (out / "tokenizer.json").write_text(json.dumps(raw, ensure_ascii=False), encoding="utf-8")
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    _write(out / "tokenizer_config.json", settings)
    _write(out / "special_tokens_map.json", {name: settings[name] for name in SPECIAL if settings[name]})
    if added and sentencepiece:
        _write(out / "added_tokens.json", added)
    return drop


def _settings(tokenizer: Any, raw: dict[str, Any], added: dict[str, int]) -> dict[str, Any]:
    named = {token["content"]: token for token in raw["added_tokens"]}
    plain = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    return {
        **{name: getattr(tokenizer, name, None) for name in SPECIAL},
        "add_bos_token": _begins(raw, tokenizer.bos_token),
        "add_eos_token": False,
        "added_tokens_decoder": {
            str(token["id"]): {**plain, "content": text} for text, token in named.items()
        },
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(min(tokenizer.model_max_length, 10**9)),
        "padding_side": "right",
    }


def _pieces(raw: dict[str, Any]) -> SentencePieceFile:
    """Makes the pieces of a byte-pair model: what is merged earlier has the higher score."""
    rank: dict[str, int] = {}
    for place, pair in enumerate(raw["model"]["merges"]):
        left, right = pair if isinstance(pair, list) else pair.split(" ", 1)
        rank.setdefault(left + right, place)
    unknown = raw["model"].get("unk_token")
    special = {token["content"] for token in raw["added_tokens"]}
    pieces = []
    for text, _ in sorted(raw["model"]["vocab"].items(), key=lambda one: one[1]):
        if text == unknown:
            pieces.append((text, 0.0, UNKNOWN))
        elif text in special:
            pieces.append((text, 0.0, CONTROL))
        elif len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            pieces.append((text, 0.0, BYTE))
        else:
            pieces.append((text, -float(rank.get(text, len(rank))), NORMAL))
    steps = _steps(raw.get("normalizer"))
    prefix = any(step["type"] == "Prepend" for step in steps) or _scheme(raw) in ("first", "always")
    return SentencePieceFile(pieces, BPE, prefix, collapse=False)


def _is_legacy(raw: dict[str, Any]) -> bool:
    """Says whether text begins anew, with a space in front, after every special token."""
    patterns = [str(step.get("pattern")) for step in _steps(raw.get("normalizer"))]
    return _scheme(raw) != "first" and not any(
        rf"\A{SPACE}" in pattern.replace("\\\\", "\\") for pattern in patterns
    )


def _scheme(raw: dict[str, Any]) -> str:
    return str((raw.get("pre_tokenizer") or {}).get("prepend_scheme", "never"))


def _steps(normalizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if not normalizer:
        return []
    return normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]


def _begins(raw: dict[str, Any], token: str | None) -> bool:
    return bool(token) and json.dumps(token) in json.dumps(raw.get("post_processor"))


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
