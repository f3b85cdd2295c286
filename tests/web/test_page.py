"""The page in a real browser: jobs, playback of unfinished videos, files and messages."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from serving import picture
from streamingt2v import Request
from streamingt2v.video.reader import count_frames
from streamingt2v.video.writer import write_video

PROMPT = "A cat running on the street"
WAIT = 60_000  # milliseconds


def until(page, condition: str) -> None:
    """Wait until a JavaScript expression is true; the page's policy forbids Playwright's own wait."""
    end = time.monotonic() + WAIT / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(30)


def ask(page, button: str = "#preview", prompt: str = PROMPT, frames: int | str = "") -> None:
    page.fill("#prompt", prompt)
    page.fill("#frames", str(frames))
    page.click(button)


def wait_for(page, status: str) -> None:
    page.wait_for_selector(f".stage[data-status={status}]", timeout=WAIT)


def job_of(page, service):
    return service.get(page.url.partition("video=")[2])


def is_hidden(page, name: str) -> bool:
    return page.locator(f"[data-do={name}]").is_hidden()


def test_it_plays_before_the_job_is_finished_and_a_reload_finds_it_again(page, service):
    ask(page, frames=400)
    until(page, "document.querySelector('.stage video').currentTime > 0.4")
    assert page.locator(".stage").get_attribute("data-status") == "in_progress"
    at = page.evaluate("document.querySelector('.stage video').currentTime")
    until(page, f"document.querySelector('.stage video').currentTime > {at} + 0.3")
    job = job_of(page, service)
    assert (job.request.prompt, job.request.preset, job.frames_total) == (PROMPT, "preview", 400)
    page.reload()
    page.wait_for_selector(".stage[data-frames]", timeout=WAIT)
    assert job_of(page, service).id == job.id
    until(page, f"document.querySelector('#prompt').value === '{PROMPT}'")
    page.click("[data-do=stop]")
    wait_for(page, "cancelled")
    assert service.get(job.id).frames_done < 400
    assert is_hidden(page, "stop") and not is_hidden(page, "download")
    page.wait_for_selector(".closer .strip img", timeout=WAIT)  # a stopped video is measured too


def test_the_full_video_from_a_picture_and_its_extension(page, service, tmp_path):
    file = tmp_path / "cat.png"
    file.write_bytes(picture())
    page.click("#advanced > summary")
    page.set_input_files("#image input", file)
    page.wait_for_selector("#image img", timeout=WAIT)
    ask(page, "#full", frames=24)
    wait_for(page, "completed")
    job = job_of(page, service)
    assert job.request.preset == "full" and job.request.image is not None and job.frames_done == 24
    page.reload()
    page.wait_for_selector("#image img", timeout=WAIT)  # the image is restored
    page.click("[data-do=extend]")
    page.fill("[data-for=extend] [name=prompt]", "A dog on the beach")
    page.fill("[data-for=extend] [name=frames]", "8")
    page.click("[data-for=extend] button")
    until(page, f"!location.href.includes('{job.id}')")
    wait_for(page, "completed")
    longer = job_of(page, service)
    assert (longer.kind, longer.source, longer.request.prompt) == ("extension", job.id, "A dog on the beach")
    assert count_frames(service.video(longer.id)) == 32
    with page.expect_download() as download:
        page.click("[data-do=download]")
    assert Path(download.value.path()).read_bytes() == service.video(longer.id).read_bytes()


def test_a_video_gives_its_settings_back(page, service):
    job = service.wait(service.submit(Request(PROMPT, 16, seed=77, num_inference_steps=3)).id)
    page.click("#own > summary")
    page.set_input_files("#settings input", service.video(job.id))
    page.wait_for_selector("#notice .calm:has-text('Restored the settings')", timeout=WAIT)
    assert [page.input_value(f"#{name}") for name in ("prompt", "seed", "steps")] == [PROMPT, "77", "3"]


@pytest.mark.parametrize(
    ("prompt", "frames", "said"), [("", "24", "Prompt"), (PROMPT, "0", "Length"), (PROMPT, "many", "Length")]
)
def test_what_cannot_be_made_is_said_kindly_and_nothing_is_started(page, service, prompt, frames, said):
    before = len(service.list(100)[0])
    ask(page, prompt=prompt, frames=frames)
    page.wait_for_selector("#notice .wrong", timeout=WAIT)
    assert said in page.inner_text("#notice")
    assert len(service.list(100)[0]) == before and "video=" not in page.url


def test_an_example_fills_the_form(page):
    page.click("#gallery [data-name=horse]")
    until(page, "document.querySelector('#prompt').value.startsWith('A horse')")
    assert page.input_value("#schedule") == "24: A horse running under the night sky"


def test_an_example_takes_a_file_out_and_gives_it_back(page, tmp_path):
    (tmp_path / "cat.png").write_bytes(picture())
    page.click("#advanced > summary")
    page.set_input_files("#image input", tmp_path / "cat.png")
    page.wait_for_selector("#image img", timeout=WAIT)
    page.click("#gallery [data-name=cat]")
    page.wait_for_selector("#notice .calm")
    assert page.locator("#image img").is_hidden()
    page.click("#notice button")
    page.wait_for_selector("#image img", timeout=WAIT)


@pytest.mark.parametrize("place", ["#image input", "#video input", "#settings input"])
def test_a_file_that_is_none_is_refused_at_once(page, tmp_path, place):
    (tmp_path / "cat.png").write_bytes(picture()[:50])
    page.click("#advanced > summary" if "image" in place else "#own > summary")
    page.set_input_files(place, tmp_path / "cat.png")
    page.wait_for_selector("#notice .wrong", timeout=WAIT)
    assert page.locator("#image img").is_hidden()


def test_what_comes_out_of_an_own_clip_is_said_before_the_start(page, tmp_path):
    write_video(tmp_path / "clip.mp4", [np.zeros((48, 96, 3), np.uint8)] * 20, 25)
    page.click("#own > summary")
    page.set_input_files("#video input", tmp_path / "clip.mp4")
    page.wait_for_selector("#video button", timeout=WAIT)
    hint = page.inner_text("#video .hint")
    assert (
        "20 frames of 96 × 48, 25 per second" in hint
        and "middle 50 %" in hint
        and "the model makes motion for" in hint
    )


def test_a_changed_prompt_leaves_a_trace_and_waiting_is_announced(page, service):
    ask(page, frames=400)
    page.wait_for_selector(".stage[data-frames]", timeout=WAIT)
    page.click("[data-do=change]")
    page.fill("[data-for=change] [name=prompt]", "A dog on the beach")
    page.press("[data-for=change] [name=prompt]", "Enter")
    page.wait_for_selector(".prompts li:not(.pending):has-text('A dog on the beach')", timeout=WAIT)
    assert page.inner_text(".asked") == "A dog on the beach"
    frame = int(page.inner_text(".prompts li:last-child b").removeprefix("From frame "))
    assert 0 < frame < 400
    until(page, "document.querySelector('video').buffered.length > 0")
    bar = "document.querySelector('.bar input')"
    to_the_end = f"((bar) => {{ bar.value = 1e6; bar.dispatchEvent(new Event('input')); }})({bar})"
    until(page, f"({to_the_end}, !document.querySelector('.wait').hidden)")
    assert page.inner_text(".wait").startswith("Waiting for frame")
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("[data-do=delete]")
    until(page, "!location.href.includes('video=')")


def arrivals(seed: int) -> list[tuple[float, int]]:
    """Return (seconds, frames done) of a video of 80 frames whose chunks arrive irregularly."""
    random = np.random.default_rng(seed)
    done, at, told = 0, random.uniform(1, 60), []
    while done < 80:
        done = min(80, done + int(random.choice([4, 8, 12, 16])))
        told.append((at, done))
        at += random.uniform(1, 60)
    return told


MEASURED = [(52, 12), (92, 24), (139, 36), (180, 48), (227, 60), (270, 64), (303, 80)]  # a full video
SIMULATION = """async (films) => {
  const { Pace } = await import("/page/static/pace.js");
  return films.map((arrivals) => {
    let clock = 0, done = 0;
    const pace = new Pace(() => null, () => clock), said = [];
    const job = () => ({ status: done < 80 ? "in_progress" : "completed", num_frames: 80, frames_done: done,
                         frames_per_second: done && clock ? done / clock : null });
    for (; done < 80; clock += 0.5) {
      const due = arrivals.filter(([at, frames]) => at <= clock && frames > done);
      const fresh = due.map(([at, frames]) => ({ frames: frames - done, age: clock - at, new: true }));
      done = due.at(-1)?.[1] ?? done;
      pace.update(job(), fresh.slice(0, 1));
      const left = pace.left();
      if (left) said.push([clock, left.seconds, left.late]);
    }
    return said;
  });
}"""


def test_the_time_left_never_rises(page):
    films = [MEASURED, *(arrivals(seed) for seed in range(20))]
    for film, said in zip(films, page.evaluate(SIMULATION, films), strict=True):
        seconds = [left for _, left, _ in said]
        assert seconds == sorted(seconds, reverse=True) and seconds[0] > 0, film
    end = MEASURED[-1][0]
    measured = page.evaluate(SIMULATION, [MEASURED])[0]
    later = [(at, left) for at, left, late in measured if at > 100 and not late]
    assert all(abs(end - at - left) < 0.4 * (end - 100) for at, left in later), "and it is near the truth"


def test_notes_are_shown(page, service):
    ask(page, prompt=" ".join([PROMPT] * 20), frames=8)
    page.wait_for_selector('.notes:has-text("too long")', timeout=WAIT)
    assert job_of(page, service).notes[0] in page.inner_text(".notes")


def test_fields_without_effect_are_hidden(page, address):
    settings = page.request.get(f"{address}/page/settings.json").json()
    settings["models"][0]["takes"] = {"preview": ["schedule"], "full": ["schedule", "negative_prompt"]}
    page.route("**/page/settings.json", lambda route: route.fulfill(json=settings))
    page.reload()
    page.wait_for_selector("#gallery li")
    page.click("#advanced > summary")
    assert page.locator("#guidance").is_hidden() and page.locator("#schedule").is_visible()
    assert "full video only" in page.inner_text(".field:has(#negative)")
    assert "full video only" not in page.inner_text(".field:has(#schedule)")


def test_refusals_of_the_server_are_shown_as_it_says_them(page):
    error = {"message": "4096 MiB of uploads are stored already; try again later", "code": "queue_full"}
    page.route("**/v1/videos", lambda route: route.fulfill(status=429, json={"error": error}))
    ask(page)
    page.wait_for_selector("#notice .wrong", timeout=WAIT)
    assert page.inner_text("#notice") == "4096 MiB of uploads are stored already; try again later."


def test_axe_finds_nothing_serious(page, service):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    job = service.wait(service.submit(Request(PROMPT, 48, schedule=((24, "A dog"),))).id)

    def check(where: str) -> None:
        found = [v for v in axe.run(page).response["violations"] if v["impact"] in ("serious", "critical")]
        assert not found, (where, [(v["id"], [node["html"] for node in v["nodes"]]) for v in found])

    for width, height in ((1280, 900), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.goto(page.url.partition("?")[0])
            page.click("#advanced > summary")
            page.click("#own > summary")
            ask(page, prompt="", frames=0)
            page.wait_for_selector("#notice .wrong")
            check(f"form, {width}, {scheme}")
            page.goto(f"{page.url.partition('?')[0]}?video={job.id}")
            page.wait_for_selector(".closer .strip img", timeout=WAIT)
            page.click("[data-do=extend]")
            check(f"finished video, {width}, {scheme}")
    running = service.submit(Request(PROMPT, 400, preset="full"))
    page.goto(f"{page.url.partition('?')[0]}?video={running.id}")
    page.wait_for_selector(".stage[data-frames]", timeout=WAIT)
    page.click("[data-do=change]")
    check("video in progress")
    assert page.inner_text(".stages").split("\n") == ["First chunk", "Extend", "Refine"]
    service.delete(running.id)


def test_back_and_refining_and_a_link_on_a_phone(page, service):
    job = service.wait(service.submit(Request(PROMPT, 16, seed=5)).id)
    page.goto(f"{page.url.partition('?')[0]}?video={job.id}")
    page.click("[data-do=refine]")
    until(page, f"location.href.includes('video=') && !location.href.includes('{job.id}')")
    wait_for(page, "completed")
    refined = job_of(page, service)
    assert (refined.kind, refined.source, refined.request.preset) == ("refinement", job.id, "full")
    assert "Seed 5" in page.inner_text(".about") and is_hidden(page, "refine")
    page.go_back()
    until(page, f"location.href.includes('{job.id}')")
    page.wait_for_selector("[data-do=refine]", timeout=WAIT)
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    form, screen = page.evaluate(
        "[...document.querySelectorAll('.screen, #prompt')].map((part) => part.getBoundingClientRect().top)"
    )
    assert screen < 300 < form, "whoever comes by a link sees the video first"


def test_enter_submits(page, service):
    page.fill("#prompt", PROMPT)
    page.press("#prompt", "Enter")
    until(page, "location.href.includes('video=')")
    assert job_of(page, service).request.prompt == PROMPT
