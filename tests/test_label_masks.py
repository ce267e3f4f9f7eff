"""Ids and labels are those of the original LLaVA code, or the difference is a named defect of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from reference_masks import encoded, explain, ids_of, leads, messages_of, reference, turns_of, variants

from medkit.readers.llava_json import images_first
from medkit.sample import text_of
from medkit.training.encode import IGNORE, UnfitSample

VARIANTS = variants()
ENDS = {
    "plain": "\n",
    "v0": "\n###",
    "v0_med": "\n###",
    "v1": "</s>",
    "llava_llama_2": " </s>",
    "mistral_instruct": " </s>",
}
DOCS = Path(__file__).resolve().parents[1] / "docs" / "label-masks.md"

each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.path.stem)
if not VARIANTS:
    pytestmark = pytest.mark.skip(f"no template files in {reference('label_masks')}; set MEDKIT_SHARED")


@each_variant
def test_prompts_are_those_of_the_original_code(variant):
    rendered = 0
    for row in variant.rows:
        if row.get("prompt") is None:
            continue
        turns = turns_of(row)
        messages = messages_of(turns[leads(variant, row) :])
        text = variant.processor.apply_chat_template(messages, tokenize=False)
        marker = variant.processor.image_token
        assert text.replace(marker, marker * (16 if variant.marked else 1)) == row["prompt"], row["id"]
        rendered += 1
    assert rendered


@each_variant
def test_ids_and_labels_are_equal_or_a_named_defect_explains_why_not(variant):
    unexplained = {}
    for row in variant.rows:
        try:
            explain(variant, row)
        except AssertionError as difference:
            unexplained[row["id"]] = str(difference)
    assert unexplained == {}


@each_variant
def test_what_is_learnt_is_the_answers_and_what_ends_them(variant):
    end = ENDS.get(variant.template, "<|im_end|>")
    learnt = 0
    for row in variant.rows:
        messages = messages_of(turns_of(row))
        try:
            one = encoded(variant, messages)
        except UnfitSample:
            continue
        mask = np.concatenate([[False], one.labels != IGNORE, [False]])
        edges = np.flatnonzero(mask[1:] != mask[:-1]).reshape(-1, 2)
        runs = [variant.processor.tokenizer.decode(one.ids[first:last]) for first, last in edges]
        answers = [text_of(message) + end for message in messages if message["role"] == "assistant"]
        assert [run.lstrip() for run in runs] == [answer.lstrip() for answer in answers], row["id"]
        learnt += 1
    assert learnt


@each_variant
def test_the_reader_rewrites_turns_as_the_reference_does(variant):
    for row in variant.rows:
        own = messages_of(row["conversations"])
        pictures = sum(part["type"] == "image" for message in own for part in message["content"])
        if not isinstance(row.get("after_preprocess_multimodal"), list) or pictures != 1:
            continue
        read = [images_first(message) for message in own]
        assert ids_of(variant, read) == ids_of(variant, messages_of(turns_of(row))), row["id"]


def test_the_page_tells_every_defect_that_was_met():
    met = Counter(explain(variant, row) for variant in VARIANTS for row in variant.rows)
    told = [line.split("`")[1] for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    assert set(met) - {"equal"} <= set(told)
    assert met["equal"] > 0
