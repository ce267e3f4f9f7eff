"""Tokenizers of original LLaVA checkpoints, made to cut prompts with pictures exactly as training did.

The original code cuts the prompt at every picture and tokenizes the pieces one by one, so SentencePiece puts its
leading space before each piece. Tokenizers of transformers 5 add that space only at the start of the text (or
drop it where the piece begins with one); the same checkpoint would then read other tokens than it was trained
on. The difference is put into ``tokenizer.json`` itself, so every engine that loads the folder agrees.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

SPACE = "▁"  # how SentencePiece writes a space


def load_tokenizer(
    folder: str | Path,
    image: str = "<image>",
    added: tuple[str, ...] = (),
    pad: str | None = None,
    strips: bool = False,
) -> PreTrainedTokenizerFast:
    """Loads a tokenizer folder (``tokenizer.model`` or ``tokenizer.json``) with a picture token.

    Args:
        folder: Tokenizer folder; ``legacy`` in its ``tokenizer_config.json`` says how SentencePiece's leading
            space is handled after special tokens.
        image: The picture's token, added at the end of the vocabulary where it is missing.
        added: Tokens that the checkpoint added before the picture's own, in the order of their ids
            (LLaVA-Med v1.0: ``[PAD]``, ``<im_patch>``, ``<im_start>``, ``<im_end>``; then ``image`` is one of them).
        pad: The padding token; None takes the folder's own, else the unknown token.
        strips: Added tokens swallow the white space around them, as the slow tokenizers of transformers before
            4.34 did.

    Returns:
        A plain fast tokenizer, padding on the right, whose saved files load everywhere with the same result.
    """
    own: Any = AutoTokenizer.from_pretrained(str(folder))
    backend = own.backend_tokenizer
    legacy = getattr(own, "legacy", None)
    words = [token for token in (*added, image) if token not in own.get_vocab()]
    leading = (json.loads(backend.to_str())["pre_tokenizer"] or {}).get("prepend_scheme", "never")
    sentencepiece = legacy is not None and leading != "never"
    if sentencepiece and legacy:
        # every piece gets the leading space, also one that begins with a space
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
        )
        backend.pre_tokenizer = None  # type: ignore[assignment]
    elif sentencepiece:
        after = rf"(?<={re.escape(image)})(?!{re.escape(image)}|\z)"
        backend.normalizer = normalizers.Sequence([normalizers.Replace(Regex(after), SPACE)])
    marks = [
        AddedToken(
            word,
            special=True,
            # only a token found after normalizing leaves its trace to the rule above
            normalized=bool(sentencepiece and not legacy and word == image),
            lstrip=strips,
            rstrip=strips,
        )
        for word in dict.fromkeys(words)
    ]
    backend.add_special_tokens(marks)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=own.bos_token,
        eos_token=own.eos_token,
        unk_token=own.unk_token,
        pad_token=pad or own.pad_token or own.unk_token,
        model_max_length=own.model_max_length,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        extra_special_tokens={"image_token": image},
    )
