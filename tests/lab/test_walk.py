"""The walk through the modules: calls that carry the prompt are counted, and nothing after the end."""

from pathlib import Path

import streamingt2v
from lab.benchmarks import walk
from streamingt2v import Request
from streamingt2v.config import ModelConfig
from streamingt2v.resolve import resolve

TINY = Path(streamingt2v.__file__).parent / "weights" / "tiny"


def test_returns_and_climbs_are_counted():
    made = walk.Walk(("", ""))
    made.stays = ["cli/video", "resolve", "texts", "resolve", "cli/video", "stages/extend"]
    assert (made.returns(), made.climbs()) == (2, 2)
    assert walk.table(made).startswith("4 modules, 6 stays, 2 returns, 2 climbs")


def test_a_request_is_followed_to_the_end_only():
    config = ModelConfig.load(TINY)
    made = walk.Walk(("resolve", "_grid"))
    with walk.walking(made):
        resolve(config, Request(walk.PROMPT, 16))
    assert made.arrived and made.stays[0] == "resolve" and made.stays[-1] == "resolve"
    assert "texts" in made.stays, "the prompt's text is checked on the way"


def test_other_calls_are_not_followed():
    made = walk.Walk(("resolve", "_grid"))
    with walk.walking(made):
        ModelConfig.load(TINY)
    assert not made.arrived and made.stays == []
