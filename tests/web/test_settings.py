"""Settings in files that strangers made: restored, or refused in words."""

from __future__ import annotations

import json

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingt2v.errors import RequestError
from streamingt2v.video.writer import read_metadata
from streamingt2v.web.settings import settings_of_file

NAMES = (
    "prompt num_frames frames seed negative_prompt schedule preset num_inference_steps steps guidance_scale "
    "fps form strength model image video refine base"
).split()
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(st.characters(), max_size=5),
    st.sampled_from(["\ud800", "full", "joint", 0, 8]),
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3))
def test_whatever_a_file_holds_it_is_answered(values):
    try:
        found = settings_of_file({"prompt": "A cat", "seed": 1, "num_frames": 8} | values, {})
    except RequestError as error:
        assert error.argument
        return
    json.dumps(found, allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "comment", ["[" * 100_000, '{"a":' * 50_000, "9" * 5000, '{"a": 1, "a": 2}', "[]", "{"]
)
def test_a_comment_that_is_no_metadata_is_none(tmp_path, comment):
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        out.metadata["comment"] = comment
        stream = out.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        out.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        out.mux(stream.encode(None))
    assert read_metadata(tmp_path / "a.mp4") == {}
