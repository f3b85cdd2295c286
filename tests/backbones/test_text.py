"""Prompts in a closed vocabulary: known words stay, near ones are replaced and told, others are left out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lab.proof.export import build_vocabulary
from lab.world import clip, vocabulary
from streamingt2v.backbones.text import TextEncoder, Vocabulary
from toy_clip import TEXT_LENGTH, build_clip, build_tokenizer

WORDS = build_vocabulary()


@pytest.mark.parametrize(
    "prompt, translated, replaced",
    [
        ("A cat running on the street", "a cat running on the street", {}),
        (
            "A WOLF walking on the highway",
            "a dog running on the road",
            {"wolf": "dog", "walking": "running", "highway": "road"},
        ),
        (
            "cats jumpin in the xyzzy forest",
            "cat jumping in the forest",
            {"cats": "cat", "jumpin": "jumping", "xyzzy": None},
        ),
        ("a y cat", "a cat", {"y": None}),
        ("two puppies, resting", "puppy, resting", {"two": None, "puppies": "puppy"}),
    ],
)
def test_replacements(prompt, translated, replaced):
    assert WORDS.replacements(prompt) == replaced
    assert WORDS.translate(prompt) == translated


@example("a3a")  # a word that is left out does not join its neighbours
@given(st.text(max_size=60))
def test_a_translation_is_in_known_words_and_stays_as_it_is(prompt):
    once = WORDS.translate(prompt)
    assert WORDS.replacements(once) == {}
    assert WORDS.translate(once) == once


@pytest.mark.parametrize("name", ["horse", "whale", "owl", "bicycle", "airplane"])
def test_things_that_are_not_in_the_world_lead_to_those_that_are(name):
    assert WORDS.translate(f"a {name}").split()[1] in {n.said[0] for n in vocabulary.NOUNS}


@pytest.mark.parametrize("held_out", ["kitty", "hare", "bobbing", "speeding", "dusk"])
def test_a_word_that_no_training_caption_had_is_not_known(held_out):
    """Its token, if the tokenizer has one, is as it was before training: it says nothing."""
    assert list(WORDS.replacements(f"a {held_out}")) == [held_out]


@given(st.integers(0, 2**62))
def test_captions_with_held_out_words_are_read_in_words_of_training(seed):
    spec = clip.sample(seed, held_out=True)
    words = set(WORDS.translate(spec.caption).replace(",", " ").split())
    assert words <= set(vocabulary.words())
    noun = next(n for n in vocabulary.NOUNS if n.name == spec.noun)
    assert words & set(noun.said), "it is still the same thing"


def test_a_vocabulary_is_read_as_it_was_written(tmp_path):
    WORDS.save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json") == WORDS


def test_the_encoder_embeds_both_prompts_and_tells_what_is_too_long():
    tokenizer = build_tokenizer()
    encoder = TextEncoder(tokenizer, build_clip(tokenizer, 32).text_model.eval(), WORDS)
    cond = encoder("a wolf on the street", "")
    assert cond.positive_BLD.shape == cond.negative_BLD.shape == (1, TEXT_LENGTH, 32)
    assert torch.equal(cond.positive_BLD, encoder("a dog on the street").positive_BLD)
    assert encoder.surplus_tokens("a cat on the street") == 0
    assert encoder.surplus_tokens("cat " * 40) == 40 + 2 - TEXT_LENGTH


def test_an_open_vocabulary_knows_no_unknown_words():
    assert TextEncoder(None, torch.nn.Linear(1, 1)).unknown_words("anything at all") == {}
