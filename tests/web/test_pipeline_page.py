"""The page with a model that is a diffusers pipeline: text, image, extension, a new prompt, stop."""

from __future__ import annotations

import pytest

import toy_bases
from serving import listening, picture
from streamingt2v.jobs.service import JobService
from streamingt2v.jobs.settings import Settings
from web.test_page import WAIT, ask, job_of, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Start a service of a toy of Wan."""
    model = toy_bases.model_folder("wan", tmp_path_factory.mktemp("wan") / "wan", (9, 5))
    with JobService(Settings(tmp_path_factory.mktemp("service"), (str(model),))) as jobs:
        jobs.wait_until_ready()
        yield jobs


@pytest.fixture(scope="module")
def address(service):
    from streamingt2v.web.app import create_demo

    with listening(create_demo(service)) as url:
        yield url


def test_text_image_extension_prompt_and_stop(page, service, tmp_path):
    ask(page, frames=13)
    wait_for(page, "completed")
    first = job_of(page, service)
    assert (first.frames_done, first.request.image) == (13, None)
    page.click("[data-do=extend]")
    page.fill("[data-for=extend] [name=prompt]", "A dog on the beach")
    page.fill("[data-for=extend] [name=frames]", "8")
    page.click("[data-for=extend] button")
    page.wait_for_url(lambda url: first.id not in url)
    wait_for(page, "completed")
    assert job_of(page, service).frames_done == 13 + 8

    file = tmp_path / "cat.png"
    file.write_bytes(picture())
    page.click("#advanced > summary")
    page.set_input_files("#image input", file)
    page.wait_for_selector("#image img", timeout=WAIT)
    ask(page, frames=2000)
    page.wait_for_selector("[data-do=change]:visible", timeout=WAIT)
    page.click("[data-do=change]")
    page.fill("[data-for=change] [name=prompt]", "A whale in the sea")
    page.press("[data-for=change] [name=prompt]", "Enter")
    job = job_of(page, service)
    page.wait_for_selector(".prompts li:has-text('A whale in the sea')", timeout=WAIT)
    page.click("[data-do=stop]")
    wait_for(page, "cancelled")
    stopped = service.get(job.id)
    assert stopped.request.image is not None and 0 < stopped.frames_done < 2000
