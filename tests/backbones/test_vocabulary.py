"""How a model with a closed vocabulary reads a prompt."""

import pytest

from streamingt2v.backbones.vocabulary import Vocabulary

WORDS = Vocabulary(
    frozenset("a an cat orange giraffe elephant the running on".split()),
    {"brown": "orange", "horse": "giraffe", "cow": "elephant", "ape": "cat"},
)


@pytest.mark.parametrize(
    ("prompt", "shown_as"),
    [
        ("A brown horse", "an orange giraffe"),
        ("an ape on a  cow", "a cat on an elephant"),
        ("A cat running, on a zzz", "a cat running, on a"),
        ("the horse", "the giraffe"),
    ],
)
def test_the_article_before_a_replaced_word_fits(prompt, shown_as):
    assert WORDS.translate(prompt) == shown_as


def test_other_articles_stay_as_they_are():
    assert WORDS.translate("a orange cat") == "a orange cat"
    assert WORDS.translate("an zzz elephant") == "an elephant"
    assert Vocabulary(frozenset(["a", "orange"]), {"brown": "orange"}).translate("a brown") == "a orange"
