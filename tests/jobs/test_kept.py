"""Lossless frames of previews, for stage 3."""

from __future__ import annotations

import numpy as np
import pytest

from streamingt2v import Request
from streamingt2v.errors import RequestError
from streamingt2v.jobs.files import NotReady
from streamingt2v.jobs.kept import KeptFrames
from streamingt2v.types import Chunk
from streamingt2v.video.lossless import write_lossless
from streamingt2v.video.reader import probe_video, read_video


def noise(count: int, height: int = 34, width: int = 50) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (33, 51), (2, 1000)])
def test_what_is_read_is_what_was_written(tmp_path, height, width):
    frames = noise(5, height, width)
    assert write_lossless(tmp_path / "x.mkv", iter(frames), 8) == 5
    assert np.array_equal(np.stack(list(read_video(tmp_path / "x.mkv"))), frames)
    assert probe_video(tmp_path / "x.mkv").fps == 8


def test_nothing_to_write_is_said_and_leaves_nothing(tmp_path):
    with pytest.raises(RequestError):
        write_lossless(tmp_path / "x.mkv", iter(()), 8)
    assert list(tmp_path.iterdir()) == []


def test_frames_are_kept_chunk_by_chunk_until_one_is_missing(tmp_path):
    frames, kept = noise(20), KeptFrames(tmp_path / "frames")
    assert kept.count == 0 and list(kept.frames()) == []
    for index, (start, stop) in enumerate([(0, 8), (8, 12), (12, 20)]):
        kept.keep(Chunk(index, start, frames[start:stop], stop == 20, None), 8)
    assert kept.count == 20 and np.array_equal(np.stack(list(kept.frames())), frames)
    kept.keep(Chunk(4, 24, frames[:4], False, None), 8)  # 20 to 23 were lost
    assert kept.count == 0 and not (tmp_path / "frames").exists()


def test_a_disk_that_is_full_costs_only_the_choice(tmp_path):
    (tmp_path / "frames").write_text("in the way")
    kept = KeptFrames(tmp_path / "frames")
    kept.keep(Chunk(0, 0, noise(3), False, None), 8)
    assert kept.count == 0


def test_a_preview_is_refined_from_its_own_frames(service):
    job = service.wait(service.submit(Request("A cat running on the street", 20, seed=7)).id)
    assert service.can_refine(job)
    refined = service.wait(service.refine(job.id).id)
    assert (refined.kind, refined.source, refined.status, refined.frames_done) == (
        "refinement",
        job.id,
        "completed",
        20,
    )
    assert (refined.fps, refined.request.seed, refined.request.preset) == (job.fps, 7, "full")
    given = np.stack(list(read_video(refined.request.refine)))
    assert np.array_equal(given, np.stack(list(service.files.kept(job.id).frames())))
    shown = np.stack(list(read_video(service.video(job.id)))).astype(int)
    assert np.abs(shown - given).mean() < np.abs(shown[1:] - given[:-1]).mean() / 2, (
        "they are the frames of the video"
    )
    with pytest.raises(RequestError, match="refined already"):
        service.refine(refined.id)
    longer = service.wait(service.extend(job.id, "A dog", 8).id)
    again = service.wait(service.refine(longer.id).id)
    assert again.frames_done == 28, "the frames that were extended are refined as well"


def test_each_part_is_refined_with_its_own_prompt(service):
    changed = service.wait(service.submit(Request("A cat", 24, schedule=((8, "A dog"),))).id)
    assert service.can_refine(changed)
    refined = service.wait(service.refine(changed.id).id)
    assert refined.request.schedule == ((8, "A dog"),) and refined.frames_done == 24
    longer = service.wait(service.extend(changed.id, "A dog", 24, schedule=((8, "A bird"),)).id)
    assert service.refine(longer.id).request.schedule == ((32, "A bird"),), "frames of the whole file"


def test_what_cannot_be_refined_is_refused(service):
    lost = service.wait(service.submit(Request("A cat", 12)).id)
    next((service.files.of(lost.id) / "frames").iterdir()).unlink()
    with pytest.raises(NotReady):
        service.refine(lost.id)
