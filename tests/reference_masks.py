"""What the label-mask fixtures hold, and the defects of the reference that explain where medkit differs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from medkit.models.conversations import chat_template, resolve
from medkit.models.original.tokens import load_tokens
from medkit.readers.formats import from_row
from medkit.training.encode import IGNORE, Encoded, TooLong, UnfitSample, encode

PATCHES = 16
SIDE = (56, 56)
IMAGE = -200
MED = ("[PAD]", "<im_patch>", "<im_start>", "<im_end>")  # in the order of their ids in LLaVA-Med v1.0


def reference(name: str) -> Path:
    """Gives the folder of a reference fixture; it need not be there."""
    root = Path(os.environ.get("MEDKIT_SHARED") or Path(__file__).resolve().parent.parent.parent / "shared")
    return root / "reference" / name


@dataclass
class Variant:
    """A template's file: its meta line, its rows and the processor that reads them in medkit."""

    path: Path
    meta: dict[str, Any] = field(init=False)
    rows: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        lines = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines() if line]
        self.meta, self.rows = lines[0]["meta"], lines[1:]

    @property
    def marked(self) -> bool:
        """Whether pictures stand between start and end tokens, expanded in the reference's own ids."""
        return "<im_start>" in str(self.meta.get("image", ""))

    @property
    def template(self) -> str:
        named = resolve(self.meta["conversation_template"].split()[0])
        return "v0_med" if self.marked and named == "v0" else named

    @cached_property
    def processor(self) -> Any:
        folder = self.path.parent.parent / "tokenizers" / self.meta["tokenizer"]
        marks = {"image": "<im_patch>", "start": "<im_start>", "end": "<im_end>"} if self.marked else {}
        image = marks.get("image", "<image>")
        old = tuple(int(part) for part in self.meta["versions"]["transformers"].split(".")[:2]) < (4, 34)
        config = {"mm_use_im_start_end": self.marked}
        tokenizer = load_tokens(folder, config, list(MED if self.marked else ())).tokenizer
        if self.marked and old:
            _strip_around_added(tokenizer)
        square = {"height": SIDE[0], "width": SIDE[0]}
        return LlavaProcessor(
            CLIPImageProcessorPil(size=square, crop_size=square),
            tokenizer,
            patch_size=14,
            vision_feature_select_strategy="default",
            chat_template=chat_template(self.template, **marks),
            image_token=image,
            num_additional_image_tokens=1,
        )

    def collapsed(self, ids: np.ndarray, other: np.ndarray) -> tuple[list[int], list[int]]:
        """Gives ids and labels with one -200 an image, as the reference writes them."""
        if self.marked:
            return ids.tolist(), other.tolist()
        image = ids == self.processor.image_token_id
        kept = ~image | (np.cumsum(image) % PATCHES == 1)
        return np.where(image, IMAGE, ids)[kept].tolist(), other[kept].tolist()

    def pieces(self, text: str) -> list[int]:
        """Tokenizes text that the reference tokenizes alone."""
        marker = self.processor.image_token
        return self.processor.tokenizer(text.replace(marker, marker * PATCHES) if self.marked else text)[
            "input_ids"
        ]


def _strip_around_added(tokenizer: Any) -> None:
    """Makes added tokens swallow the white space around them, as slow tokenizers did in the original training."""
    made = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in made["added_tokens"]:
        if token["content"] in MED:
            token["lstrip"] = token["rstrip"] = True
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(made))


def variants() -> list[Variant]:
    """Gives every template file of the fixture."""
    return [Variant(path) for path in sorted(reference("label_masks").glob("templates/*.jsonl"))]


def turns_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Gives a row's turns as the reference's own rewriting leaves them."""
    rewritten = row.get("after_preprocess_multimodal")
    if not isinstance(rewritten, list):
        return row["conversations"]
    values = [turn["value"] if isinstance(turn, dict) else turn for turn in rewritten]
    return [{**turn, "value": text} for turn, text in zip(row["conversations"], values, strict=True)]


def leads(variant: Variant, row: dict[str, Any]) -> bool:
    """Says whether the reference skips a row's first turn, an answer; the v0 templates skip nothing."""
    return row["conversations"][0]["from"] == "gpt" and variant.template not in ("v0", "v0_med")


def messages_of(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reads turns with medkit's own reader."""
    images = [f"{number}.png" for number in range(sum(turn["value"].count("<image>") for turn in turns))]
    return from_row({"id": "row", "image": images, "conversations": turns}, "llava").messages


def encoded(variant: Variant, messages: list[dict[str, Any]], limit: int = 10**6) -> Encoded:
    """Encodes messages as a stage would."""
    count = sum(part["type"] == "image" for message in messages for part in message["content"])
    return encode(variant.processor, messages, [SIDE] * count, limit)


def ids_of(variant: Variant, messages: list[dict[str, Any]]) -> list[int]:
    """Tokenizes messages that encode may refuse, pictures collapsed as in the reference."""
    marker = variant.processor.image_token
    text = variant.processor.apply_chat_template(messages, tokenize=False).replace(marker, marker * PATCHES)
    ids = np.asarray(variant.processor.tokenizer(text)["input_ids"])
    return variant.collapsed(ids, ids)[0]


def explain(variant: Variant, row: dict[str, Any]) -> str:
    """Says how medkit's ids and labels relate to a row's: "equal", or the name of a checked defect.

    Raises:
        AssertionError: They differ and no defect accounts for it.
    """
    turns = turns_of(row)
    if row.get("error"):
        try:
            encoded(variant, messages_of(turns))
        except UnfitSample:
            return "equal"  # neither takes the conversation
        roles = [turn["from"] for turn in turns]
        if roles != ["human", "gpt"] * (len(roles) // 2) + ["human"] * (len(roles) % 2):
            return "refuses_unpaired_turns"
        raise AssertionError("the reference raises and medkit takes it")
    led = leads(variant, row)
    messages = messages_of(turns[led:])
    limit = variant.meta["model_max_length"]
    ids = ids_of(variant, messages)
    cut = len(row["input_ids"]) == limit < len(ids)
    assert ids[: limit if cut else None] == row["input_ids"], "other ids"
    if led:
        return "leading_answer_dropped"
    try:
        got = encoded(variant, messages)
    except UnfitSample as reason:
        return _refused(str(reason), row)
    ids, labels = variant.collapsed(got.ids, got.labels)
    labels = labels[: limit if cut else None]
    for name in _named(variant, row, labels):
        if name != "truncates_answers":
            return name
        try:
            encoded(variant, messages, limit)
        except TooLong:
            return name
    raise AssertionError("other labels")


def _named(variant: Variant, row: dict[str, Any], labels: list[int]) -> Iterator[str]:
    """Gives the account of a row whose ids are equal, at most one."""
    cut = len(row["input_ids"]) == variant.meta["model_max_length"] and len(labels) == len(row["input_ids"])
    own = messages_of(row["conversations"])
    lost = sum(turn["value"].count("<image>") for turn in turns_of(row)) < sum(
        part["type"] == "image" for message in own for part in message["content"]
    )
    if labels == row["labels"]:
        yield "truncates_answers" if cut else "two_images_keeps_one" if lost else "equal"
    elif variant.template in ("v0", "v0_med") and row["labels"] == _sliding(variant, row):
        yield "v0_mask_slides"
    elif variant.template == "qwen_1_5" and row["labels"] == _specials(variant, row, labels):
        yield "qwen_trains_specials"
    elif variant.template == "chatml_direct" and row["labels"] == _without_ends(variant, row):
        yield "chatml_direct_never_adds_up"
    elif all(label == IGNORE for label in row["labels"]) and "mismatch" in str(row.get("reference_prints")):
        yield from _masked_whole(variant, row)


def _masked_whole(variant: Variant, row: dict[str, Any]) -> Iterator[str]:
    """Says why the reference's sum of rounds missed the length, so that it masked the sample."""
    text = "".join(turn["value"] for turn in row["conversations"])
    separators = {
        "v1": ["ASSISTANT: ", "</s>"],
        "llava_llama_2": ["[/INST] ", "</s>"],
        "mistral_instruct": ["[/INST] ", "</s>"],
        "mpt": ["<|im_end|>"],
    }
    if row["conversations"][-1]["from"] == "human":
        yield "trailing_question_masks_all"
    elif any(word in text for word in separators.get(variant.template, [])):
        yield "separator_in_text_masks_all"


def _refused(reason: str, row: dict[str, Any]) -> str:
    text = "".join(turn["value"] for turn in row["conversations"])
    if reason == "the conversation begins with an answer":
        assert row["conversations"][0]["from"] == "gpt"
        return "leading_answer_dropped"
    if reason == "an answer is empty":
        assert any(turn["from"] == "gpt" and not turn["value"].strip() for turn in row["conversations"])
        return "empty_answer"
    if reason.startswith("the text holds the reserved token "):
        assert reason.removeprefix("the text holds the reserved token ") in text
        return "reserved_token_in_text"
    raise AssertionError(f"medkit refuses: {reason}")


def _sliding(variant: Variant, row: dict[str, Any]) -> list[int]:
    """Gives the reference's v0 labels: every turn is tokenized alone, so each counts a first token of its own.

    Two tokens of a human turn stay trained, and so does everything of an answer's turn.
    """
    limit = variant.meta["model_max_length"]
    whole = variant.marked or not row["has_image"]  # then every piece is cut at the limit
    marker = f"<im_start>{variant.processor.image_token}<im_end>" if variant.marked else "<image>"
    spoken = [("", variant.meta["system"] + "\n\n")]
    for turn in turns_of(row):
        role = "Human" if turn["from"] == "human" else "Assistant"
        spoken.append((turn["from"], f"### {role}: {turn['value'].replace('<image>', marker)}\n"))
    labels, at = np.array(row["input_ids"]), 0
    for speaker, text in spoken:
        length = len(variant.pieces(text))
        length = min(length, limit) if whole else length
        if speaker != "gpt":
            labels[at + 2 * (speaker == "human") : at + length] = IGNORE
        at += length
    return labels.tolist()


def _without_ends(variant: Variant, row: dict[str, Any]) -> list[int]:
    """Gives the reference's labels where it counts a header one short and a round without its end mark.

    The sum of rounds then misses the length; below the longest length that masks everything.
    """
    end, header = "<|im_end|>", "<|im_start|>assistant\n"
    pieces = row["prompt"].split(end)
    rounds = [end.join(pieces[:3]), *(end.join(pieces[at : at + 2]) for at in range(3, len(pieces), 2))]
    later = int(variant.meta["tokenizer_legacy"] is False)
    labels, at = np.array(row["input_ids"]), 0
    for number, text in enumerate(rounds):
        parts = text.split(end + header)
        if len(parts) != 2:
            break
        more = later * (number > 0)
        asked = len(variant.pieces(parts[0] + end + header)) - 1 + more
        labels[at : at + asked] = IGNORE
        at += len(variant.pieces(text)) + more
    labels[at:] = IGNORE
    if at < variant.meta["model_max_length"] and at != len(labels):
        labels[:] = IGNORE
    return labels.tolist()


def _specials(variant: Variant, row: dict[str, Any], labels: list[int]) -> list[int]:
    """Gives medkit's labels with all turn marks, line breaks and the answers' headers trained too."""
    tokenizer = variant.processor.tokenizer
    marks = {tokenizer.convert_tokens_to_ids(text) for text in ("<|im_start|>", "<|im_end|>")}
    (newline,) = tokenizer("\n")["input_ids"]
    header = tokenizer("<|im_start|>assistant\n")["input_ids"]
    ids = row["input_ids"]
    trained = [
        label != IGNORE or token in {*marks, newline} for label, token in zip(labels, ids, strict=True)
    ]
    for at in range(len(ids) - len(header) + 1):
        if ids[at : at + len(header)] == header:
            trained[at : at + len(header)] = [True] * len(header)
    return [token if keep else IGNORE for token, keep in zip(ids, trained, strict=True)]
