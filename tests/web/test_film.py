"""The page's event stream and settings, without a browser."""

from __future__ import annotations

import json

import httpx2
import pytest

from streamingt2v import Request
from streamingt2v.client import Client
from streamingt2v.config import find_model
from streamingt2v.web import words
from streamingt2v.web.settings import settings_of_file


def films(address: str, id: str, most: int = 10_000) -> list[dict]:
    """Return the `film` events of a job until it ends, or the first `most`."""
    told = []
    with httpx2.stream("GET", f"{address}/page/videos/{id}/events", timeout=120) as answer:
        name = ""
        for line in answer.iter_lines():
            name = line.removeprefix("event: ") if line.startswith("event: ") else name
            if line.startswith("data: ") and name == "film":
                told.append(json.loads(line.removeprefix("data: ")))
            if name == "done" or len(told) >= most:
                break
    return told


def test_segments_are_told_once_and_prompts_when_they_are_taken_up(service, address):
    job = service.submit(Request("A cat", 60))
    service.change_prompt(job.id, "A dog")
    told = films(address, job.id)
    segments = [segment for film in told for segment in film["segments"]]
    assert [s["start"] for s in segments] == [
        sum(s["frames"] for s in segments[:i]) for i in range(len(segments))
    ]
    assert sum(s["frames"] for s in segments) == 60 == told[-1]["video"]["frames_done"]
    for film in told:  # announced frames can be played
        assert film["video"]["frames_done"] <= sum(
            s["frames"] for f in told[: told.index(film) + 1] for s in f["segments"]
        )
    pending = [film["pending"] for film in told]
    assert pending[-1] is None and told[-1]["prompts"][-1][1] == "A dog"
    again = films(address, job.id)
    assert (
        len(again) == 1
        and again[0]["segments"][0]["name"] == "seg_00000.m4s"
        and len(again[0]["segments"]) == len(segments)
    )


def test_a_job_that_waits_knows_its_place(service, address):
    first, *others = [service.submit(Request(f"A cat {n}", 400)) for n in range(3)]
    ahead = [films(address, job.id, 1)[0]["ahead"] for job in others]
    for job in (first, *others):
        service.delete(job.id)
    assert ahead in ([0, 1], [1, 2])


def test_a_remix_keeps_what_is_not_changed(service, address):
    with Client(address) as client:
        made = client.wait(client.create("A cat", num_frames=24, seed=3, schedule=[[8, "A dog"]])["id"])
        again = client.remix(made["id"], seed=4, preset="full")
    job = service.wait(again["id"])
    assert (job.request.seed, job.request.preset, job.request.schedule) == (4, "full", ((8, "A dog"),))


def test_the_settings_of_a_file_come_back_whole(service):
    job = service.submit(Request("A cat", 12, preset="full", strength=0.4, form="joint", fps=4))
    from streamingt2v.video.writer import read_metadata

    path = service.video(service.wait(job.id).id)
    found = settings_of_file(read_metadata(path), service.configs)
    assert {name: found[name] for name in ("fps", "strength", "form", "preset", "num_frames")} == {
        "fps": 4, "strength": 0.4, "form": "joint", "preset": "full", "num_frames": 12
    }  # fmt: skip
    assert found["remarks"] == []
    other = settings_of_file(
        {"prompt": "A cat", "seed": 1, "frames": 8, "refine": "x.mp4", "model": "elsewhere"}, service.configs
    )
    assert other["num_frames"] == 8 and len(other["remarks"]) == 2
    assert settings_of_file({"comment": "x"}, service.configs) is None


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("A cat on the street", None),
        ("A CAT, on the street!", None),
        ("A lion on the moon", {"left_out": []}),
        ("blorp", {"shown_as": "", "left_out": ["blorp"]}),
    ],
)
def test_one_word_on_how_a_prompt_is_read(prompt, said):
    found = words.read_as("tiny", prompt)
    assert found is None if said is None else said.items() <= found.items()


def test_the_words_that_are_offered_are_known():
    offered = words.known_words("tiny")
    assert len(offered) > 50 and words.read_as("tiny", " ".join(offered)) is None
    assert (find_model("tiny") / "vocabulary.json").is_file()
