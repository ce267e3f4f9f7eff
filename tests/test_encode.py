"""Masks are exact: answers and the tokens that end them are supervised, nothing else, in every family."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from tiny_training import build_family

from medkit.sample import assistant_turn, user_turn
from medkit.training.encode import IGNORE, Limit, TooLong, UnfitSample, encode, encode_within, render_prompt

FAMILIES = ("llava", "llava_next", "idefics3")
TALK = [
    user_turn("is there a red circle?", images=1),
    assistant_turn("yes"),
    user_turn("how many squares are there?"),
    assistant_turn("3"),
    user_turn("what colour is it?"),
    assistant_turn("(not sure) blue, or\n\ngreen"),
]


@pytest.fixture(scope="module")
def _processors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    return {family: build_family(family, folder / family).processor for family in FAMILIES}


def _learnt(processor, encoded) -> str:
    return processor.tokenizer.decode(encoded.ids[encoded.labels != IGNORE])


def _prompt_ids(processor, messages, images=None) -> list[int]:
    """Gives the tokens that generation starts from, with the images in place."""
    text = render_prompt(processor, messages)
    special = not text.startswith(processor.tokenizer.bos_token)
    return processor(text=[text], images=images, add_special_tokens=special)["input_ids"][0]


def test_the_supervised_text_is_the_answers_with_their_ends(_processors):
    llava = encode(_processors["llava"], TALK, [(32, 32)], 512)
    assert _learnt(_processors["llava"], llava) == " yes</s> 3</s> (not sure) blue, or\n\ngreen</s>"
    for family in ("llava_next", "idefics3"):
        other = encode(_processors[family], TALK, [(32, 32)], 512)
        # the newline that this template adds after an end is never generated, so it is not learnt
        assert _learnt(_processors[family], other) == "yes</s>3</s>(not sure) blue, or\n\ngreen</s>"


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_are_the_ids_where_supervised(_processors, family):
    encoded = encode(_processors[family], TALK, [(32, 32)], 512)
    mask = encoded.labels != IGNORE
    assert (encoded.labels[mask] == encoded.ids[mask]).all()
    assert (encoded.labels[~mask] == -100).all()
    assert encoded.ids.dtype == encoded.labels.dtype == np.int32
    assert encoded.supervised == mask.sum()
    image = _processors[family].image_token_id
    assert not (encoded.labels == image).any()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(32, 32), (64, 32), (30, 64)])
def test_generation_starts_from_tokens_that_training_has_seen(_processors, family, size):
    from PIL import Image

    processor = _processors[family]
    encoded = encode(processor, TALK, [size], 512)
    for turn in (1, 3, 5):
        prompt = _prompt_ids(processor, TALK[:turn], [Image.new("RGB", size)])
        assert encoded.ids[: len(prompt)].tolist() == list(prompt)
        assert encoded.labels[len(prompt) - 1] == IGNORE
        assert encoded.labels[len(prompt)] == encoded.ids[len(prompt)]


@pytest.mark.parametrize(("family", "tokens"), [("llava", 16), ("idefics3", 4 * 5)])
def test_an_image_takes_its_patches_in_tokens(_processors, family, tokens):
    # a 32 px picture is 4 x 4 patches of 8 px; Idefics3 makes four tiles and a whole of 2 x 2 tokens each
    encoded = encode(_processors[family], TALK, [(32, 32)], 512)
    assert (encoded.ids == _processors[family].image_token_id).sum() == tokens


def test_two_images_are_both_expanded_and_the_mask_moves_along(_processors):
    processor = _processors["llava"]
    talk = [
        user_turn("is there a red circle?", images=2),
        assistant_turn("no"),
        user_turn("it?"),
        assistant_turn("2"),
    ]
    encoded = encode(processor, talk, [(32, 32), (32, 32)], 512)
    assert (encoded.ids == processor.image_token_id).sum() == 32
    assert _learnt(processor, encoded) == " no</s> 2</s>"


def test_a_system_turn_is_read_and_not_learnt(_processors):
    system = {"role": "system", "content": [{"type": "text", "text": "Answer briefly."}]}
    encoded = encode(_processors["llava"], [system, *TALK[:2]], [(32, 32)], 512)
    assert "Answer briefly." in _processors["llava"].tokenizer.decode(encoded.ids)
    assert _learnt(_processors["llava"], encoded) == " yes</s>"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_conversation_without_a_picture_is_encoded(_processors, family):
    encoded = encode(_processors[family], [user_turn("what colour is it?"), assistant_turn("red")], [], 512)
    assert _learnt(_processors[family], encoded).strip() == "red</s>"
    assert not (encoded.ids == _processors[family].image_token_id).any()


def test_there_is_one_first_token(_processors):
    encoded = encode(_processors["llava"], TALK, [(32, 32)], 512)
    assert (encoded.ids == _processors["llava"].tokenizer.bos_token_id).sum() == 1


@pytest.mark.parametrize(
    ("talk", "sizes", "limit", "reason"),
    [
        (TALK, [(32, 32)], 40, "tokens exceed max_tokens 40"),
        (TALK, [], 512, "1 image parts but 0 images"),
        (TALK[2:], [(32, 32)], 512, "0 image parts but 1 images"),
        (TALK[:1], [(32, 32)], 512, "no supervised token is left"),
        ([], [], 512, "no supervised token is left"),
        (TALK[1:], [], 512, "the conversation begins with an answer"),
        (
            [user_turn("see <image> here"), assistant_turn("no")],
            [],
            512,
            "the text holds the reserved token <image>",
        ),
        ([*TALK[:2], user_turn("it?"), assistant_turn(" ")], [(32, 32)], 512, "an answer is empty"),
        (
            [user_turn("it?"), {"role": "assistant", "content": [{"type": "image"}]}],
            [(32, 32)],
            512,
            "an answer holds a picture",
        ),
        (
            [{"role": "system", "content": [{"type": "text", "text": "x"}]}, TALK[1]],
            [],
            512,
            "the conversation begins with an answer",
        ),
        ([user_turn("it?"), assistant_turn("no</s>yes")], [], 512, "the text holds the reserved token </s>"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_its_reason(_processors, talk, sizes, limit, reason):
    with pytest.raises(UnfitSample, match=reason):
        encode(_processors["llava"], talk, sizes, limit)


def test_a_sample_of_exactly_the_longest_length_is_kept(_processors):
    length = len(encode(_processors["llava"], TALK, [(32, 32)], 512).ids)
    assert len(encode(_processors["llava"], TALK, [(32, 32)], length).ids) == length
    with pytest.raises(UnfitSample):
        encode(_processors["llava"], TALK, [(32, 32)], length - 1)


def _with_template(processor, template: str):
    other = copy.copy(processor)
    other.chat_template = template
    return other


def test_an_order_of_turns_that_the_template_refuses_makes_the_sample_unfit(_processors):
    strict = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(UnfitSample, match="the chat template refuses the turns: roles must alternate"):
        encode(_with_template(_processors["llava"], strict), TALK, [(32, 32)], 512)


def test_a_template_that_rewrites_earlier_turns_is_refused(_processors):
    rewriting = (
        "{{ messages | length }}{% for message in messages %}{{ message['content'][-1]['text'] }}{% endfor %}"
    )
    with pytest.raises(UnfitSample, match="rewrites earlier turns"):
        encode(_with_template(_processors["llava"], rewriting), TALK[2:], [], 512)


def test_a_header_that_shares_a_token_with_the_answer_is_refused(_processors):
    # "ASSISTANT: " before "yes": the tokenizer makes " yes" one token, which generation never meets
    spaced = (
        "{% for message in messages %}{% if message['role'] == 'user' %}"
        "USER: {{ message['content'][-1]['text'] }} "
        "{% else %}ASSISTANT: {{ message['content'][-1]['text'] }}</s>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
    )
    talk = [user_turn("is there a red circle?"), assistant_turn("yes")]
    with pytest.raises(UnfitSample, match="reaches into the header"):
        encode(_with_template(_processors["llava"], spaced), talk, [], 512)


def test_the_oldest_questions_are_left_out_until_the_conversation_fits(_processors):
    processor = _processors["llava"]
    system = {"role": "system", "content": [{"type": "text", "text": "Answer briefly."}]}
    talk = [system, *TALK]
    whole = encode(processor, talk, [(32, 32)], 512)
    fits, left_out = encode_within(processor, talk, [(32, 32)], Limit(len(whole.ids), drop_turns=True))
    assert left_out == 0
    assert fits.ids.tolist() == whole.ids.tolist()
    one_less, left_out = encode_within(
        processor, talk, [(32, 32)], Limit(len(whole.ids) - 1, drop_turns=True)
    )
    assert left_out == 1
    kept = [system, user_turn("how many squares are there?", images=1), *TALK[3:]]
    assert one_less.ids.tolist() == encode(processor, kept, [(32, 32)], 512).ids.tolist()
    assert (one_less.ids == processor.image_token_id).sum() == 16
    assert _learnt(processor, one_less) == " 3</s> (not sure) blue, or\n\ngreen</s>"
    last = [system, user_turn("what colour is it?", images=1), TALK[5]]
    least = len(encode(processor, last, [(32, 32)], 512).ids)
    assert encode_within(processor, talk, [(32, 32)], Limit(least, drop_turns=True))[1] == 2
    with pytest.raises(TooLong):
        encode_within(processor, talk, [(32, 32)], Limit(least - 1, drop_turns=True))
    with pytest.raises(TooLong):
        encode_within(processor, talk, [(32, 32)], Limit(len(whole.ids) - 1))


def test_pictures_of_left_out_questions_stay_in_order(_processors):
    processor = _processors["llava"]
    talk = [
        user_turn("it?", images=1),
        assistant_turn("red"),
        user_turn("and it?", images=1),
        assistant_turn("no"),
    ]
    length = len(encode(processor, talk, [(32, 32)] * 2, 512).ids)
    shorter, left_out = encode_within(processor, talk, [(32, 32)] * 2, Limit(length - 1, drop_turns=True))
    assert left_out == 1
    assert (shorter.ids == processor.image_token_id).sum() == 32
    assert _learnt(processor, shorter) == " no</s>"


def test_a_trailing_question_alone_is_never_what_is_left(_processors):
    talk = [*TALK[:2], user_turn("why?")]
    with pytest.raises(TooLong):
        encode_within(_processors["llava"], talk, [(32, 32)], Limit(20, drop_turns=True))


def test_pictures_whose_shape_the_processor_cannot_take_make_the_sample_unfit(_processors):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    cropping = copy.copy(_processors["llava"])
    cropping.image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    assert encode(cropping, TALK[:2], [(3200, 32)], 512).supervised == 2
    with pytest.raises(UnfitSample, match="a picture of 1x101 px is too narrow to be cropped"):
        encode(cropping, TALK[:2], [(1, 101)], 512)
    # AnyRes resizes by the grid, so a narrow picture costs nothing there
    assert encode(_processors["llava_next"], TALK[:2], [(1, 500)], 512).supervised == 2


def test_what_the_processor_refuses_makes_the_sample_unfit(_processors):
    broken = copy.copy(_processors["llava"])

    class Refusing(type(broken)):
        def __call__(self, *args, **kwargs):
            raise ValueError("height and width must be > 0")

    broken.__class__ = Refusing
    reason = r"the processor refuses the sample \(pictures: 9x9 px\): height and width must be > 0"
    with pytest.raises(UnfitSample, match=reason):
        encode(broken, TALK[:2], [(9, 9)], 512)
