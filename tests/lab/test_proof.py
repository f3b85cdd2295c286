"""Training and measuring of the embedded model: data, base, memories, runs that are resumed."""

import copy
import itertools
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from torch import nn

from lab.compare.comparison import TRUTH, WITHOUT_ANCHOR
from lab.compare.results import Item, ItemFile, save_rows
from lab.proof import (
    base,
    code,
    continuing,
    export,
    measures,
    memory,
    muon,
    options,
    page,
    pool,
    teacher,
    whole,
)
from lab.proof.run import Run, RunConfig
from lab.proof.sampling import make_scheduler
from lab.world2 import clip
from streamingt2v.models import lowrank
from streamingt2v.models.unet3d import StreamingUNet3D


@pytest.fixture(scope="module")
def patches() -> code.PatchCode:
    return code.fit(pictures=60)


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return base.build_unet((32, 32, 32)).eval()


def test_the_code_keeps_a_picture_and_says_half_a_picture_of_its_mean(patches):
    frames = clip.render(clip.sample((1, 2)), clip.frame_times(1))[0]
    pixels = code.to_pixels(frames)
    again = patches.decode(patches.encode(pixels))
    assert 10 * torch.log10(4 / ((again - pixels) ** 2).mean()) > 26
    assert torch.allclose(patches.encode(again), patches.encode(pixels), atol=1e-3)


def test_without_what_looks_along_time_a_clip_is_so_many_pictures(unet):
    clips = torch.randn(2, 64, 3, 4, 4)
    words, t = torch.randn(2, 32, 128), torch.tensor([500, 200])
    moving = base.build_unet((32, 32, 32)).eval()
    moving.load_state_dict(unet.state_dict())
    base.begin_to_move(moving)
    still = base.build_unet((32, 32, 32)).eval()
    still.load_state_dict(unet.state_dict())
    base.stand_still(still)
    with torch.no_grad():
        whole = moving(clips, t, words).sample
        apart = torch.cat([still(clips[:, :, i : i + 1], t, words).sample for i in range(3)], 2)
        assert torch.allclose(whole, apart, atol=1e-4)
        assert not torch.allclose(unet(clips, t, words).sample, apart, atol=1e-4)


def test_single_images_among_clips_bypass_what_looks_along_time_only_then(unet):
    clips = torch.randn(1, 64, 3, 4, 4)
    words, t = torch.randn(1, 32, 128), torch.tensor([500])
    moving = unet(clips, t, words).sample
    with base.standing_still(unet):
        still = unet(clips, t, words).sample
    assert not torch.equal(still, moving)
    assert torch.equal(unet(clips, t, words).sample, moving)


def test_what_undoes_a_distilled_change_leads_back_to_the_teacher():
    torch.manual_seed(0)
    before = nn.Sequential(nn.Linear(40, 40), nn.LayerNorm(40))
    trained, after = copy.deepcopy(before), copy.deepcopy(before)
    lowrank.attach(trained, 2)
    for p in trained.parameters():
        if p.requires_grad:
            nn.init.normal_(p, std=0.1)
    learned = lowrank.changes(trained)
    lowrank.merge(after, learned)
    x = torch.randn(3, 40)
    assert not torch.allclose(after(x), before(x), atol=0.1)
    lowrank.merge(after, teacher.undoing(learned, before))
    assert torch.allclose(after(x), before(x), atol=1e-5)


@pytest.mark.parametrize("shape", [(24, 40), (16, 200), (200, 16)])
def test_muons_step_is_orthogonal(shape):
    values = torch.linalg.svdvals(muon.orthogonal(torch.randn(shape)))
    assert values.min() > 0.6 and values.max() < 1.3


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path):
    def train(steps: int) -> Run:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        run = Run(RunConfig(tmp_path, steps=steps, log_every=2), module)
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
        run.go(lambda: (module(x) - x[:, :2]).pow(2).mean(), lambda: run.count("looks", 1))
        return run

    first, second = train(3), train(8)
    assert first.step == 3 and second.step == 8 and second.counts == {"looks": 1}
    stored = torch.load(tmp_path / "checkpoint-0.pt", weights_only=True)
    assert torch.equal(stored["weights"]["0.weight"], second.own["0.weight"]) and stored["step"] == 8


def test_a_run_ends_after_its_minutes_and_its_rate_falls_to_nothing(tmp_path, monkeypatch):
    ticks = itertools.count(0, 0.01)  # seconds; a real clock would fail on a busy machine
    clock = SimpleNamespace(monotonic=lambda: next(ticks), process_time=time.process_time)
    monkeypatch.setattr("lab.proof.run.time", clock)
    module = nn.Linear(2, 1)
    run = Run(RunConfig(tmp_path, minutes=1 / 60, decay=0.5, warmup=1), module)
    run.go(lambda: module(torch.ones(1, 2)).pow(2).mean(), lambda: None)
    assert 1 <= run.spent < 1.1 and run.optimizer.param_groups[0]["lr"] < 0.1 * run.config.lr


def test_the_whole_training_names_settings_that_its_parts_have(tmp_path):
    for toy in (False, True):
        for part in whole.parts(tmp_path, 30, 2, toy):
            source = Path(whole.__file__).with_name(f"{part.module}.py").read_text()
            named = [word.removeprefix("--") for word in part.words if word.startswith("--")]
            ways = ('"{}"', '"--{}"', "    {}=")  # names in a table, options, defaults of `options.parser`
            assert all(any(way.format(name) in source for way in ways) for name in named), (part, named)
    assert sum(share for name, share in whole.SHARES.items() if name not in whole.BESIDE) < 1


def test_the_whole_training_stops_at_its_deadline_and_marks_nothing_done(tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "_command", lambda part: ["sleep", "60"])
    crew = whole.Crew(tmp_path, time.monotonic() + 0.1, here=False)
    with pytest.raises(SystemExit) as stopped:
        crew.run(whole.Part("cam", "memory", []))
    assert stopped.value.code == whole.AGAIN and not list(crew.done.iterdir())
    monkeypatch.setattr(whole, "_command", lambda part: ["true"])
    crew.deadline += 60
    crew.run(whole.Part("cam", "memory", []))
    assert [path.name for path in crew.done.iterdir()] == ["cam"]


def test_a_run_that_is_told_to_end_saves_first(tmp_path):
    module = nn.Linear(2, 1)
    run = Run(RunConfig(tmp_path, steps=9), module)

    def loss() -> torch.Tensor:
        if run.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return module(torch.ones(1, 2)).pow(2).mean()

    with pytest.raises(SystemExit) as stopped:
        run.go(loss, lambda: None)
    assert stopped.value.code == 143
    assert torch.load(tmp_path / "checkpoint-0.pt", weights_only=True)["step"] == 3


def test_a_run_stops_at_a_gradient_that_is_none():
    module = nn.Linear(2, 1)
    run = Run(RunConfig(out=Path("nowhere"), steps=1), module)
    with pytest.raises(FloatingPointError):
        run._learn(module(torch.full((1, 2), torch.nan)).sum())


def test_the_loss_looks_at_the_thing_and_minds_flicker():
    scheduler, t = make_scheduler(), torch.tensor([500])
    latents, cover = torch.zeros(1, 4, 4, 2, 2), torch.zeros(1, 4, 2, 2)
    cover[..., 0, 0] = 1
    there, elsewhere, flicker = (latents.clone() for _ in range(3))
    there[..., 0, 0] = 1
    elsewhere[..., 1, 1] = 1
    flicker[:, :, ::2, 1, 1], flicker[:, :, 1::2, 1, 1] = 1, -1
    loss = [float(base.clean_loss(x, latents, t, cover, scheduler, 0.5)) for x in (there, elsewhere, flicker)]
    assert loss[0] > 3 * loss[1] and loss[2] > 1.5 * loss[1]


def test_a_pool_draws_some_anew_and_uses_the_rest_again(patches):
    some = pool.Pool(patches, 2, 8, 0.25, np.random.default_rng(0))
    first = some.batch(2)
    while len(some.examples) < 8:
        some.batch(2)
    assert len(first) == 2 and first[0].latents.shape == (64, 2, 8, 8)
    assert len(pool.Pool(patches, 1, 8, 1.0, np.random.default_rng(0)).batch(5)) == 5


def test_a_pool_that_is_drawn_ahead_fills_its_batches(patches):
    some = pool.Pool(patches, 1, 40, 0.25, np.random.default_rng(0), workers=1)
    try:
        assert [len(some.batch(20)) for _ in range(2)] == [20, 20]
    finally:
        some.workers.shutdown(cancel_futures=True)


def test_windows_of_hidden_things_show_nothing_of_them_and_the_anchor_does():
    rng = np.random.default_rng(3)
    for _ in range(6):
        spec, times, anchor = continuing._hidden(rng)
        _, mask = clip.render(spec, np.append(times, anchor))
        assert mask[: continuing.OVERLAP].sum((1, 2)).max() < 2 and mask[-1].sum() > 60
        assert anchor < times[0]


def test_a_frame_encoder_that_begins_as_the_code_sees_what_the_base_sees(patches):
    encoder = ControlNetConditioningEmbedding(32, block_out_channels=memory.FRAME_ENCODER)
    first = nn.Conv2d(64, 32, 3, padding=1)
    memory.see_clearly(encoder, patches.weight, patches.mean, first)
    pixels = code.to_pixels(clip.render(clip.sample(5), clip.frame_times(2))[0])
    with torch.no_grad():
        said = first(patches.encode(pixels))
        assert ((encoder(pixels) - said) ** 2).mean() < 0.01 * said.var()


def test_mergers_that_start_alike_have_no_effect_and_find_the_same_frame(unet):
    net = StreamingUNet3D.from_base(unet, 16, 32, 8)
    memory.start_alike(net)
    merger = net.cross_attention_merger_down_blocks[0]
    skip = torch.randn(5, 32, 2, 2)
    assert torch.equal(merger(skip, skip[:3], 1), skip)
    part = merger.temporal_transformer
    nn.init.eye_(part.proj_out.weight)
    with torch.no_grad():
        change = merger(3 * skip, 3 * skip[:3], 1) - 3 * skip
    likest = torch.cdist(change.flatten(1), 3 * skip[:3].flatten(1)).argmin(1)
    assert likest[:3].tolist() == [0, 1, 2]


def test_scroll_speed_and_seams_are_right_on_true_clips():
    pytest.importorskip("cv2")
    found = measures.check(clips=4, frames=20)
    assert found["speed within 25 %"] == 1 and found["one direction"] == 1
    assert found["pixels a frame where nothing goes by"] < 0.2 and 0.8 < found["seam"] < 1.3


def test_a_border_that_jumps_is_a_seam():
    frames = np.zeros((24, 8, 8, 3), np.uint8) + np.arange(24, dtype=np.uint8)[:, None, None, None]
    frames[16:] += 9
    assert measures.seams(frames, [16]) == pytest.approx(10)


def test_spans_out_of_sight():
    assert measures.hidden_spans(np.array([5.0] * 3 + [0] * 10 + [5] * 2 + [0] * 4)) == [(3, 13)]


def test_scenery_that_comes_back_is_told_from_other_arrangements():
    spec = clip.sample((90, 1), noun="cat", motion="jump", scene="street", time="day")
    video, *others = (clip.render(replace(spec, arrangement=i), clip.frame_times(4))[0] for i in (5, 6, 7, 8))
    later = clip.render(replace(spec, arrangement=5), clip.frame_times(4, 9.0))[0]
    elsewhere = clip.render(replace(spec, arrangement=6), clip.frame_times(4, 9.0))[0]
    assert measures.comes_back(video, later, others)
    assert not measures.comes_back(video, elsewhere, others)


def test_words_outside_of_the_world_lead_inside():
    words = export.build_vocabulary()
    assert not words.known & words.nearest.keys() and set(words.nearest.values()) <= words.known
    assert words.translate("A tiger walking in the city at dusk") == "a cat running in the street at sunset"
    assert words.replacements("A cat with stripes on the street") == {}


def results(folder: Path, better: float) -> Path:
    """Measurements of two prompts; those with APM are better by so much."""
    file = ItemFile(folder, {"model": "toy"})
    numbers = {
        "first": {"noun": 1.0, "scene": 1.0, "motion": 1.0, "sharpness": 0.7},
        "scroll": {"speed": 1.0, "one_way": 1.0},
        "seams": {"seam": 1.0},
        "hidden": {"came_back": 1.0, "looks_kept": 0.9},
        "back": {"arrangement_kept": 0.9},
        "long": {"noun_end": 1.0, "scene_end": 1.0, "anchor_end": 0.9, "colour_end": 0.5},
    }
    for part, values in numbers.items():
        for method in (TRUTH, page.SHIPPED, WITHOUT_ANCHOR, page.NOTHING):
            less = better * (method in (WITHOUT_ANCHOR, page.NOTHING))
            worse = {"seam": 1.0 + 3 * (method == page.NOTHING), "colour_end": 0.5 + less}
            for prompt in range(2):
                key = (part, method, prompt, 0)
                made = {name: worse.get(name, value - less) for name, value in values.items()}
                file.add(Item(*key, "A cat", 4, made, {}, {}, {}, 1.0))
                save_rows(np.zeros((4, 8, 3), np.uint8), page.image_of(folder, "rows", key))
                save_rows(np.zeros((8, 4 * 8, 3), np.uint8), page.image_of(folder, "films", key))
    page.save_truth(folder, {"noun": 1.0, "scene": 1.0, "motion": 1.0})
    return folder


@pytest.mark.parametrize("better", [0.5, 0.0])
def test_the_page_of_results_begins_with_images_and_says_what_fails(tmp_path, better):
    pytest.importorskip("matplotlib")
    place = tmp_path / "docs" / "results.md"
    page.main([str(results(tmp_path / "results", better)), str(place)])
    text = place.read_text()
    assert len(text.splitlines()) <= page.MOST_LINES and text.index("![") < text.index("## ")
    shown = ["results-first.webp", "results-long.webp", "results-slices.png"]
    assert all((place.parent / "images" / name).stat().st_size < 2e6 and name in text for name in shown)
    assert ("Does not hold: as shipped is surely better than CAM alone" in text) == (better == 0)
    assert ("CAM 1.00, nothing 4.00 | holds" in text) and ("and in 20 points more" in text)


def test_a_default_says_the_type_of_an_option():
    made = options.parser(text=None, batch=4, lr=1.0, channels=(1, 2))
    words = "here --text cat --batch 3 --lr 2 --channels 5,6".split()
    assert vars(made.parse_args(words)) == {
        "out": Path("here"), "text": "cat", "batch": 3, "lr": 2.0, "channels": (5, 6)
    }  # fmt: skip
    assert vars(made.parse_args(["here"]))["text"] is None
