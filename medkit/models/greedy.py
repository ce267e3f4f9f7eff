"""The one way in which medkit lets a checkpoint answer when answers are compared: greedily."""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig


def greedy_config(model: Any, tokenizer: Any, max_new_tokens: int) -> GenerationConfig:
    """Gives greedy decoding with every setting spelled out.

    Args:
        model: The transformers model; its own end tokens are kept.
        tokenizer: Its tokenizer, whose end token ends an answer, too.
        max_new_tokens: Longest answer in tokens, its end included.
    """
    own = getattr(model, "generation_config", None)
    ends = getattr(own, "eos_token_id", None)
    ends = list(ends) if isinstance(ends, list | tuple) else [] if ends is None else [ends]
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ends:
        ends.append(tokenizer.eos_token_id)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (ends or [0])[0]
    # Spelled out: transformers fills what is left open from the checkpoint's own sampling settings.
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        max_new_tokens=max_new_tokens,
        eos_token_id=ends or None,
        pad_token_id=pad,
        bos_token_id=tokenizer.bos_token_id,
        use_cache=True,
    )
