"""Chromium on the Prefect UI, as a person has it before him: pages, tabs, buttons, and a picture of each."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Locator, Page, Request, Response, sync_playwright

from tests.flows.conftest import ROOT

PICTURES = ROOT / "test-output"
PATIENCE = 60_000  # milliseconds; pages of a busy machine come late
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


@dataclass
class Screen:
    """One tab. What it asked for elsewhere, and what was refused, is kept to be looked at."""

    page: Page
    foreign: list[str] = field(default_factory=list)
    """Addresses outside this machine that a page asked for."""
    refused: list[str] = field(default_factory=list)
    """Answers of 400 and more, and errors that a page wrote to its console."""

    def open(self, url: str) -> None:
        """Go to `url` and wait until the page has asked for all that it wants."""
        self.page.goto(url)
        self.page.wait_for_load_state("networkidle")

    def sees(self, text: str) -> Locator:
        """Wait until `text` stands on the page, as the whole of an element's words."""
        found = self.page.get_by_text(text, exact=True).locator("visible=true").first
        found.wait_for()
        return found

    def press(self, name: str) -> None:
        """Press the button called `name`; where a dialogue has one of the same name, that one."""
        self.page.get_by_role("button", name=name, exact=True).last.click()

    def tab(self, name: str) -> None:
        self.page.locator(".p-tabs, [class*=tabs]").get_by_text(name, exact=True).first.click()

    def picture(self, name: str) -> Path:
        """Keep the page as test-output/NAME.png."""
        self.page.wait_for_timeout(700)  # until what slides and fades has come to rest
        path = PICTURES / f"{name}.png"
        self.page.screenshot(path=path, full_page=True)
        return path


@contextmanager
def screen(*, offline_but: int | None = None) -> Iterator[Screen]:
    """A browser with a fresh profile; with `offline_but` it reaches that port of this machine and nothing else."""
    program = shutil.which("chromium")
    assert program, "no chromium here: `make test-faults` installs it, and so does `apt-get install chromium`"
    PICTURES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            context = browser.new_context(viewport={"width": 1400, "height": 1000}, timezone_id="UTC")
            context.set_default_timeout(PATIENCE)
            shown = Screen(context.new_page())
            shown.page.on("request", lambda request: _note_foreign(shown, request))
            shown.page.on("response", lambda response: _note_refused(shown, response))
            shown.page.on("pageerror", lambda error: shown.refused.append(str(error)))
            if offline_but is not None:
                context.route(
                    lambda url: urlsplit(url).netloc != f"127.0.0.1:{offline_but}", lambda route: route.abort()
                )
            yield shown
        finally:
            browser.close()


def _note_foreign(shown: Screen, request: Request) -> None:
    place = urlsplit(request.url)
    if place.scheme in ("http", "https", "ws", "wss") and place.hostname != "127.0.0.1":
        shown.foreign.append(request.url)


def _note_refused(shown: Screen, response: Response) -> None:
    # Prefect's own pages ask for icons that are not there.
    if response.status >= 400 and "/ico/" not in response.url:
        shown.refused.append(f"{response.status} {response.url}")
