"""A demo server with a toy model and a real worker, and a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from serving import listening

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the page is tested in a browser, through playwright"
)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--disable-gpu"]


@pytest.fixture(scope="session")
def address(service) -> Iterator[str]:
    from streamingt2v.web.app import create_demo

    with listening(create_demo(service)) as url:
        yield url


@pytest.fixture(scope="session")
def browser() -> Iterator[playwright.Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine; on Debian: apt install chromium")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address) -> Iterator[playwright.Page]:
    """Yield the opened page; script errors, policy violations and external requests fail the test."""
    wrong: list[str] = []
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None
    )
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith((address, "data:", "blob:")) else wrong.append(request.url)
        ),
    )
    page.goto(address)
    page.wait_for_selector("#gallery li")
    yield page
    page.close()
    assert not wrong
