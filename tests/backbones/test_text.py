"""Prompts in a closed vocabulary: known words stay, near ones are replaced and told, others are left out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lab.tiny import assemble, data, text
from lab.world import clip, vocabulary
from streamingt2v.backbones.text import TextEncoder, Vocabulary
from streamingt2v.config import find_model

TWELVE = assemble.build_vocabulary(data.noun_names(12))
ALL = assemble.build_vocabulary(data.noun_names(36))


@pytest.mark.parametrize(
    "prompt, translated, replaced",
    [
        ("A cat running on the street", "a cat running on the street", {}),
        (
            "A DOG walking on the highway",
            "a cat running on the road",
            {"dog": "cat", "walking": "running", "highway": "road"},
        ),
        (
            "cats jumpin in the xyzzy forest",
            "cat jumping in the forest",
            {"cats": "cat", "jumpin": "jumping", "xyzzy": None},
        ),
        ("a y cat", "a cat", {"y": None}),
        ("two puppies, resting", "cat, resting", {"two": None, "puppies": "cat"}),
    ],
)
def test_replacements(prompt, translated, replaced):
    assert TWELVE.replacements(prompt) == replaced
    assert TWELVE.translate(prompt) == translated


@example("a3a")  # a word that is left out does not join its neighbours
@given(st.text(max_size=60))
def test_a_translation_is_in_known_words_and_stays_as_it_is(prompt):
    once = TWELVE.translate(prompt)
    assert TWELVE.replacements(once) == {}
    assert TWELVE.translate(once) == once


def test_nouns_that_were_not_trained_lead_to_trained_ones():
    for name in data.noun_names(36)[12:]:
        assert TWELVE.nearest[name] in TWELVE.known


@pytest.mark.parametrize("held_out", ["kitty", "stallion", "bobbing", "speeding", "dusk"])
def test_a_word_that_no_training_caption_had_is_not_known(held_out):
    """Its token, if the tokenizer has one, is as it was before training: it says nothing."""
    assert list(ALL.replacements(f"a {held_out}")) == [held_out]
    assert Vocabulary.load(find_model("tiny") / "vocabulary.json").replacements(held_out) == ALL.replacements(
        held_out
    )


@given(st.integers(0, 2**62))
def test_captions_with_held_out_words_are_read_in_words_of_training(seed):
    spec = clip.sample(seed, held_out=True)
    words = set(ALL.translate(spec.caption).replace(",", " ").split())
    assert words <= set(vocabulary.words())
    assert words & set(vocabulary.noun(spec.noun).synonyms), "it is still the same thing"


def test_a_vocabulary_is_read_as_it_was_written(tmp_path):
    TWELVE.save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json") == TWELVE


def test_the_encoder_embeds_both_prompts_and_tells_what_is_too_long():
    tokenizer = text.build_tokenizer()
    clip = text.build_clip(text.TextConfig(width=32, text_layers=1, vision_layers=1, heads=2), tokenizer)
    encoder = TextEncoder(tokenizer, clip.text_model.eval(), TWELVE)
    cond = encoder("a dog on the street", "")
    assert cond.positive_BLD.shape == cond.negative_BLD.shape == (1, text.TEXT_LENGTH, 32)
    assert torch.equal(cond.positive_BLD, encoder("a cat on the street").positive_BLD)
    assert encoder.surplus_tokens("a cat on the street") == 0
    assert encoder.surplus_tokens("cat " * 30) == 30 + 2 - text.TEXT_LENGTH


def test_an_open_vocabulary_knows_no_unknown_words():
    assert TextEncoder(None, torch.nn.Linear(1, 1)).unknown_words("anything at all") == {}
