"""`StreamMemory`: what a long video remembers, and its bound."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingt2v.stages.memory import StreamMemory


def frames(count: int, first: int = 0) -> torch.Tensor:
    """Frames that tell their index."""
    return ((torch.arange(first, first + count, dtype=torch.float32) / 500) - 1)[:, None, None, None].expand(
        -1, 3, 2, 2
    )


@settings(max_examples=40, deadline=None)
@given(start=st.integers(1, 20), overlap=st.integers(1, 9), chunks=st.lists(st.integers(1, 12), max_size=6))
def test_window_is_the_last_frames(start, overlap, chunks):
    """However the video is cut into chunks; a start shorter than the overlap repeats its first frame in
    front."""
    memory = StreamMemory.start(frames(start), overlap)
    done = start
    for count in chunks:
        memory = memory.advance(frames(count, done))
        done += count
    whole = torch.cat([frames(1).expand(overlap, -1, -1, -1), frames(done)])
    assert memory.position == done
    assert torch.equal(memory.window_TCHW, whole[-overlap:])
    assert torch.equal(memory.anchor_CHW, frames(1)[0])


def test_state_round_trip_is_lossless(tmp_path):
    memory = StreamMemory.start(torch.rand(9, 3, 4, 6) * 2 - 1, 4, anchor_index=2).advance(
        torch.rand(5, 3, 4, 6) * 2 - 1
    )
    torch.save(memory.state_dict(), tmp_path / "state")
    again = StreamMemory.from_state(torch.load(tmp_path / "state", weights_only=True))
    assert again.position == 14 and torch.equal(again.anchor_CHW, memory.anchor_CHW)
    assert torch.equal(again.window_TCHW, memory.window_TCHW)


def test_holds_its_frames_alone():
    """Neither a change of the caller's tensors nor their storage stays with it."""
    given_frames = torch.zeros(100, 3, 2, 2)
    memory = StreamMemory.start(given_frames, 4).advance(given_frames)
    given_frames += 1
    assert not memory.window_TCHW.any() and not memory.anchor_CHW.any()
    assert memory.window_TCHW.untyped_storage().nbytes() == 4 * 3 * 2 * 2 * 4


@pytest.mark.parametrize(
    "bad, message",
    [
        (lambda: StreamMemory.start(frames(0), 4), "T >= 1"),
        (lambda: StreamMemory.start(frames(4), 0), "overlap=0"),
        (lambda: StreamMemory.start(frames(4), 2, anchor_index=4), "anchor_index=4"),
        (lambda: StreamMemory.start(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), 2), "uint8"),
        (lambda: StreamMemory.start(frames(4) * 3, 2), r"\[-1, 1\]"),
        (lambda: StreamMemory.start(frames(4) * torch.nan, 2), r"\[-1, 1\]"),
        (lambda: StreamMemory.start(frames(4), 2).advance(torch.zeros(1, 3, 4, 4)), "do not fit"),
        (lambda: StreamMemory(torch.zeros(3, 2, 2), torch.zeros(2, 3, 4, 4), 2), "do not match"),
        (lambda: StreamMemory(torch.zeros(3, 2, 2), torch.zeros(2, 3, 2, 2), 0), "position=0"),
    ],
)
def test_preconditions(bad, message):
    with pytest.raises(ValueError, match=message):
        bad()
