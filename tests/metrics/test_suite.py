"""One pass for all metrics, seams by metadata, refusals."""

import math
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from constructed import constant_flow, moving, result_of, texture
from lab.tiny import assemble
from lab.tiny import text as clip_towers
from lab.world import clip
from streamingt2v.config import ModelConfig
from streamingt2v.errors import MediaError, RequestError, RunError
from streamingt2v.metrics import seams, suite
from streamingt2v.metrics.eyes import TEXT_PROJECTION, Eyes, eyes_of_clip, eyes_of_model
from streamingt2v.metrics.flow import Flow
from streamingt2v.metrics.likeness import Anchor, TextAlignment
from streamingt2v.metrics.metric import Tools, ends, mean, measure, ratio
from streamingt2v.metrics.suite import Setting, what_is_missing
from streamingt2v.resolve import ChunkGrid
from streamingt2v.video.writer import write_video


def by_brightness(frame: np.ndarray) -> np.ndarray:
    """Embed a frame: from (1, 0) to (0, 1) with the brightness."""
    angle = math.pi / 2 * frame.mean() / 255
    return np.array([math.cos(angle), math.sin(angle)])


EYES = Eyes(
    "brightness",
    by_brightness,
    lambda prompt: by_brightness(np.full((1, 1), 255 if prompt == "bright" else 0)),
)
PIXELS_ONLY = ("drift", "colour", "flicker", "sharpness", "repetition")


def grays(*levels: int) -> np.ndarray:
    return np.stack([np.full((32, 32, 3), level, np.uint8) for level in levels])


def test_likeness_to_the_first_frame():
    result = result_of(Anchor(), grays(0, 0, 85, 255), Tools(eyes=EYES))
    np.testing.assert_allclose(result.curves["anchor"], [1, 1, math.cos(math.pi / 6), 0], atol=1e-12)
    assert result.values["anchor"] == pytest.approx((1 + math.cos(math.pi / 6)) / 3) and result.values[
        "anchor_end"
    ] == pytest.approx(0)


def test_likeness_to_the_prompt():
    result = result_of(TextAlignment(EYES, "bright", every=2), grays(255, 0, 0, 0), Tools(eyes=EYES))
    assert result.values["text_alignment"] == pytest.approx(0.5)
    with pytest.raises(RequestError, match=r"has no text encoder for it; give a CLIP by --clip"):
        TextAlignment(Eyes("blind to text", by_brightness), "bright")


def test_the_model_s_own_eyes_know_a_clip_again():
    specs = [
        clip.sample((82, i), noun=noun, scene=scene)
        for i, (noun, scene) in enumerate((("cat", "snow"), ("whale", "underwater")))
    ]
    first, other = (clip.render(spec, clip.frame_times(4))[0] for spec in specs)
    likeness = result_of(Anchor(), np.concatenate([first, other]), Tools(eyes=eyes_of_model())).curves[
        "anchor"
    ]
    assert likeness[1:4].min() > 0.9 > likeness[4:].max()


def test_a_whole_clip_by_its_folder_sees_and_reads(tmp_path):
    tokenizer = clip_towers.build_tokenizer()
    model = clip_towers.build_clip(
        clip_towers.TextConfig(width=16, text_layers=1, vision_layers=1, heads=2, image_size=32), tokenizer
    )
    model.save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    eyes = eyes_of_clip(tmp_path / "clip")
    frame, prompt = texture(), "A cat running on the street"
    out = model.eval()(
        input_ids=clip_towers.tokenize(tokenizer, [prompt]),
        pixel_values=clip_towers.clip_normalise(clip_pixels(frame)),
    )
    np.testing.assert_allclose(eyes.read(prompt), out.text_embeds[0].detach(), atol=1e-5)
    assert float(eyes.see(frame) @ out.image_embeds[0].detach().numpy()) > 0.99
    with pytest.raises(RequestError, match="there is no CLIP"):
        eyes_of_clip(tmp_path)


def test_a_model_with_the_projection_of_its_text_reads_in_the_words_it_knows(tmp_path):
    tokenizer = clip_towers.build_tokenizer()
    config = clip_towers.TextConfig(width=16, text_layers=1, vision_layers=1, heads=2, image_size=32)
    model = clip_towers.build_clip(config, tokenizer).eval()
    clip_towers.export_towers(model, tokenizer, tmp_path)
    assemble.build_vocabulary(("cat",)).save(tmp_path / "vocabulary.json")
    ModelConfig("towers", 32, 32, 8).save(tmp_path)
    eyes, prompt = eyes_of_model(tmp_path), "a cat in the snow"
    ids = clip_towers.tokenize(tokenizer, [prompt])
    expected = torch.nn.functional.normalize(
        model.text_projection(model.text_model(ids).pooler_output), dim=-1
    )[0]
    np.testing.assert_allclose(eyes.read(prompt), expected.detach(), atol=1e-5)
    np.testing.assert_array_equal(eyes.read("a KITTY in the snow"), eyes.read(prompt))
    assert what_is_missing("text", Setting(Tools(eyes=eyes), prompt=prompt)) is None
    (tmp_path / TEXT_PROJECTION).unlink()
    blind = eyes_of_model(tmp_path)
    assert blind.read is None and "--clip" in (
        what_is_missing("text", Setting(Tools(eyes=blind), prompt=prompt)) or ""
    )


def clip_pixels(frame: np.ndarray):
    from streamingt2v.metrics.flow import resized, to_nchw

    return to_nchw(resized(frame, 32, 32)) / 127.5 - 1


def test_one_pass_and_one_flow_for_all_and_no_frame_is_kept():
    calls, alive = [], []

    def frames():
        for frame in moving(30):
            own = frame.copy()
            alive.append(weakref.ref(own))
            assert sum(ref() is not None for ref in alive) <= 3
            yield own
            del own

    def estimate(before, after):
        calls.append(1)
        return np.zeros((2, *before.shape[:2]), np.float32)

    tools = Tools(Flow("counting", estimate), EYES)
    setting = suite.Setting(tools, seams.Grid(16, 8), "bright")
    names = [name for name in suite.METRICS if name != "cuts"]
    result = measure(frames(), suite.make_metrics(names, setting), tools)
    assert len(calls) == 29
    assert {value.name for name in names for value in suite.METRICS[name].values} == set(result.values)
    assert {len(curve) for curve in result.curves.values()} == {30}


@given(st.integers(2, 20), st.data(), st.integers(1, 90), st.booleans())
def test_borders_are_where_the_pipeline_begins_chunks(chunk, data, frames, image):
    overlap = data.draw(st.integers(1, chunk - 1))
    grid = ChunkGrid(1 if image else chunk, chunk - overlap, int(image))
    starts = {grid.start(frame) for frame in range(frames)} - {0}
    assert grid.count(frames) == len(starts) + (not image)
    assert set(seams.Grid(chunk, overlap, first=1 if image else None).borders(frames)) == starts


def test_a_file_says_where_its_chunks_begin(tmp_path):
    def grid(**said):
        write_video(tmp_path / "v.mp4", moving(30), 8, said)
        return seams.grid_of(tmp_path / "v.mp4")

    made = {"chunk": 16, "overlap": 8, "image": None, "video": None, "num_frames": 30}
    assert list(grid(**made).borders(30)) == [16, 24]
    assert list(grid(**made | {"image": "x.png"}).borders(30)) == [1, 9, 17, 25]
    assert list(grid(**made | {"video": "x.mp4", "num_frames": 18}).borders(30)) == [12, 20, 28]
    assert grid(**made | {"video": "x.mp4", "num_frames": None}) is None
    assert (
        grid(prompt="a cat", schedule=[[8, "a dog"]]) is None and seams.prompt_of(tmp_path / "v.mp4") is None
    )
    assert grid(prompt="not ours") is None and seams.prompt_of(tmp_path / "v.mp4") == "not ours"


@pytest.mark.parametrize(
    ("chunk", "overlap", "named"), [(1, 0, "chunk"), (8, 8, "overlap"), (8, -1, "overlap")]
)
def test_impossible_grids_are_refused(chunk, overlap, named):
    with pytest.raises(RequestError, match=named):
        seams.Grid(chunk, overlap)


def test_a_video_is_measured_by_name(tmp_path):
    write_video(tmp_path / "v.mp4", moving(30), 8)
    report = suite.evaluate(tmp_path / "v.mp4", ("sharpness", "seam"), Tools(), grid=seams.Grid(16, 8))
    assert (
        report.frames == 30
        and report.borders == (16, 24)
        and set(report.result.values) == {"sharpness", "seam"}
    )
    assert report.result.values["seam"] == pytest.approx(1, abs=0.1)
    with pytest.raises(RequestError, match=r"metrics='seam': needs to know where chunks begin.*--chunk"):
        suite.evaluate(tmp_path / "v.mp4", ("seam",), Tools())
    with pytest.raises(RequestError, match=r"metrics='beauty': no such metric; there are mawe, "):
        suite.evaluate(tmp_path / "v.mp4", ("beauty",))


def test_without_names_what_cannot_be_taken_is_told(tmp_path, monkeypatch):
    write_video(tmp_path / "v.mp4", moving(10), 8, {"prompt": "bright"})
    monkeypatch.setattr(suite, "find_spec", lambda name: None)
    report = suite.evaluate(tmp_path / "v.mp4")
    assert set(report.left_out) == {"mawe", "warp", "flow", "stagnation", "seam", "cuts"}
    assert "pip install 'streamingt2v[eval]'" in report.left_out["mawe"]
    assert report.measured_with == {"eyes": "tiny"}


def test_a_run_folder_stands_for_its_video(tmp_path):
    (tmp_path / "request.json").write_text("{}")
    with pytest.raises(RunError, match=r"request\.json: cannot be read"):
        seams.video_of(tmp_path)
    assert seams.video_of(tmp_path / "v.mp4") == tmp_path / "v.mp4"


def test_numbers_of_curves():
    assert [list(part) for part in ends([math.nan, *range(20)])] == [[0, 1, 2], [17, 18, 19]]
    assert mean([1, math.nan, 3]) == 2 and math.isnan(mean([]))
    assert ratio(1, 0) == math.inf and math.isnan(ratio(0, 0)) and ratio(1, 2) == 0.5


def test_flow_names_what_it_was_measured_with():
    assert suite.measured_with(Tools(constant_flow(1, 0), EYES)) == {"flow": "constant", "eyes": "brightness"}


def test_media_errors_pass_through(tmp_path):
    with pytest.raises(MediaError, match="no such file"):
        suite.evaluate(tmp_path / "none.mp4", PIXELS_ONLY)
