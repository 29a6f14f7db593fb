"""The page in a real browser, fed by the real server. Pictures are left in build-page/."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import chromium
import pytest
from made_up import MadeUpJob
from prometheus_client import CollectorRegistry
from running import RunningJob, until

from atoll.watching.board import Board
from atoll.watching.site import coordinator_site

pytestmark = [
    pytest.mark.processes,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        "PAGE_TESTS" not in os.environ, reason="the page in a real browser: make test-page"
    ),
    pytest.mark.skipif(
        not chromium.installed(),
        reason="NOT TESTED: the page needs `chromium`; on Debian: apt-get install chromium",
    ),
]

PICTURES = Path(__file__).parents[3] / "build-page"
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844, "phone": True}
LIVE = "document.querySelector('#link')?.className === 'live'"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Chromium]:
    PICTURES.mkdir(exist_ok=True)
    running = chromium.Chromium(tmp_path_factory.mktemp("chromium"))
    yield running
    running.close()


class Shown:
    """A made-up job behind the real server."""

    def __init__(self, islands: int, rounds: int) -> None:
        self.job = MadeUpJob(islands)
        self.serve(0)
        self.job.play(self.board, rounds)

    def serve(self, port: int) -> None:
        self.board = Board("reef-125m")
        self.server = coordinator_site(self.board, CollectorRegistry(), None)
        self.port = self.server.listen("127.0.0.1", port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def close(self) -> None:
        self.board.close()
        self.server.close()


@pytest.fixture
def few() -> Iterator[Shown]:
    shown = Shown(9, 140)
    yield shown
    shown.close()


@pytest.fixture
def many() -> Iterator[Shown]:
    shown = Shown(100, 140)
    yield shown
    shown.close()


def check_picture(png: bytes, width: int) -> None:
    """It is as wide as asked for, and not one colour."""
    assert struct.unpack(">I", png[16:20])[0] == width
    assert len(png) > 40_000


SMALLEST_TEXT = """(() => {
  const sizes = [];
  for (const e of document.querySelectorAll('body *')) {
    const told = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!told || !e.getClientRects().length || ['SCRIPT', 'title'].includes(e.tagName)) continue;
    const drawing = e.ownerSVGElement;
    const scale = drawing ?
      drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width : 1;
    sizes.push(parseFloat(getComputedStyle(e).fontSize) * scale);
  }
  return Math.min(...sizes);
})()"""


def fits(browser: chromium.Chromium) -> None:
    """Nothing sticks out sideways, nobody has to zoom, and the browser has nothing to say."""
    assert browser.ask("document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.ask(SMALLEST_TEXT) >= 11
    assert browser.complaints == []


def islands(number: int) -> str:
    """True when the page is live and shows so many."""
    return f"{LIVE} && document.querySelectorAll('#ring .node').length === {number}"


def test_a_job_on_a_desktop(browser: chromium.Chromium, few: Shown) -> None:
    browser.show(few.url, **DESKTOP)
    browser.until(islands(9))
    assert browser.ask("document.title").startswith("reef-125m: round 140, loss")
    colors = browser.ask(
        "new Set([...document.querySelectorAll('#ring .link')].map(e => e.style.stroke)).size"
    )
    assert colors >= 3
    assert browser.ask("document.querySelectorAll('#events li[data-kind=left]').length") >= 3
    assert browser.ask("document.querySelector('#loss path[d]').getTotalLength() > 400")
    check_picture(browser.picture(PICTURES / "desktop.png"), 1280)
    fits(browser)
    browser.dark(True)
    check_picture(browser.picture(PICTURES / "desktop-dark.png"), 1280)
    browser.dark(False)


def test_an_island_shows_its_links(browser: chromium.Chromium, few: Shown) -> None:
    browser.show(few.url, **DESKTOP)
    browser.until(islands(9))
    browser.ask(
        "document.querySelector('#ring .node[data-island=attic-8]')"
        ".dispatchEvent(new MouseEvent('click'))"
    )
    assert browser.ask("document.querySelector('#chosen').innerText").startswith("attic-8: slowest")


def test_a_job_on_a_phone(browser: chromium.Chromium, few: Shown) -> None:
    browser.show(few.url, width=390, height=844, phone=True)
    browser.until(islands(9))
    check_picture(browser.picture(PICTURES / "phone.png"), 780)
    fits(browser)


def test_a_hundred_islands(browser: chromium.Chromium, many: Shown) -> None:
    browser.show(many.url, **DESKTOP)
    browser.until(f"{LIVE} && document.querySelectorAll('#islands tr').length === 100")
    assert browser.ask("document.querySelectorAll('#ring .node').length") == 100
    drawn_ms = browser.ask(
        "(() => { const t = performance.now(); draw(); return performance.now() - t; })()"
    )
    check_picture(browser.picture(PICTURES / "hundred.png"), 1280)
    fits(browser)
    print(f"a hundred islands are drawn in {drawn_ms:.1f} ms")


def test_a_stream_that_is_cut_is_seen_and_comes_back(
    browser: chromium.Chromium, few: Shown
) -> None:
    browser.show(few.url, **DESKTOP)
    browser.until(LIVE)
    few.close()
    browser.until("document.querySelector('#link').innerText.startsWith('cut off')")
    assert browser.ask("document.body.classList.contains('stale')")
    browser.picture(PICTURES / "cut.png")
    few.serve(few.port)
    few.job.play(few.board, 1)
    browser.until(f"{LIVE} && document.title.includes('round 141,')")
    assert not browser.ask("document.body.classList.contains('stale')")
    browser.complaints.clear()  # that nobody answered meanwhile is one


def test_a_running_job(browser: chromium.Chromium, tmp_path: Path) -> None:
    """Real processes: a round, a kill, and what the page says of it."""
    job = RunningJob(tmp_path)
    try:
        for name in "abc":
            job.join(name)
        browser.show(job.url, **DESKTOP)
        browser.until(f"{islands(3)} && state.round > 2")
        browser.until("document.querySelectorAll('#ring .link').length > 0")
        job.kill("c")
        browser.until(
            "document.querySelector('#events li[data-kind=left]')?.innerText.includes('c left')"
        )
        browser.until(islands(2))
        until(lambda: len(job.views()) >= 2, "a second view")
        browser.picture(PICTURES / "running.png")
        fits(browser)
    finally:
        job.close()
