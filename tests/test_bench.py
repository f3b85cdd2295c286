"""`bench` and what it measures by: the same videos, whichever way they are made."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from lab.benchmarks.speed import published
from streamingt2v.cli import app
from streamingt2v.errors import RequestError
from streamingt2v.metrics import speed
from toy import write_toy_model


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> speed.Setting:
    return speed.Setting(str(write_toy_model(tmp_path_factory.mktemp("bench") / "toy")), steps=2)


def test_the_published_procedure_makes_the_same_frames(setting):
    both = speed.compare(setting, published(setting), 24, 1)
    assert both.difference is not None and both.difference < 1e-4
    assert both.ratio > 0 and both.ratio_sustained > 0


def test_another_number_of_steps_is_not_the_same_work(setting):
    assert speed.compare(setting, replace(setting, steps=1), 24, 1).difference is None
    assert speed.compare(setting, published(setting, "published-ddim"), 24, 1).difference is None


def test_shares_are_those_of_all_the_time(setting):
    found = speed.repeated(setting, 24, 1)
    assert (
        sum(found.shares.values()) == pytest.approx(1)
        and found.shares["UNet"] > 0
        and found.shares["CAM"] > 0
    )
    assert all(share >= 0 for share in found.shares.values())
    assert 0 < found.first_frame_seconds < found.seconds and found.sustained > 0


def test_watching_leaves_the_networks_as_they_were(setting):
    pipe = setting.pipeline()
    before = {name: dict(vars(part)) for name, part in pipe.components.backbone.parts().items()}
    speed.warm(pipe, setting, 24, watched=True)
    assert {name: dict(vars(part)) for name, part in pipe.components.backbone.parts().items()} == before


def test_the_command_says_it_all(setting):
    words = f"bench --model {setting.model} --frames 24 --steps 1 --repeats 1 --lengths 16 --compare steps=2"
    done = CliRunner().invoke(app, [*words.split(), "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["cold"][0]["frames"] == 16 and said["cold"][0]["peak_rss_mb"] > 50
    assert said["warm"]["sustained"] > 0 and said["comparison"]["ratio"] > 0 and said["other"]["steps"] == 2


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("--frames 16", "frames"),
        ("--lengths a", "lengths"),
        ("--compare speed=2", "compare"),
        ("--compare engine=mine", "compare"),
    ],
)
def test_what_cannot_be_measured_is_told_at_once(setting, more, named):
    done = CliRunner().invoke(app, f"bench --model {setting.model} {more}".split())
    assert isinstance(done.exception, RequestError) and done.exception.argument == named
