"""The screenshots of README.md. `make screenshots` takes them anew; the tests compare them with the page as it is."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import SAMPLE, OpenTab, Paced
from tests.browser.test_drop import named
from tests.e2e.service import ROOT, Service

SIZE = {"width": 1280, "height": 760}
GRID = 24
MAX_DIFFERENCE = 12.0
"""Mean difference of brightness, 0 to 255, of both pictures shrunk to GRID columns: fonts differ between machines."""
BRIGHTNESS = """async ([data, grid]) => {
  const picture = await createImageBitmap(await (await fetch(data)).blob());
  const canvas = new OffscreenCanvas(grid, grid);
  const brush = canvas.getContext("2d");
  brush.imageSmoothingQuality = "high";
  brush.drawImage(picture, 0, 0, grid, grid);
  const { data: pixels } = brush.getImageData(0, 0, grid, grid);
  return Array.from({ length: grid * grid }, (_, index) => pixels[index * 4 + 1]);
}"""


def keep(page: Page, name: str) -> None:
    """Take a screenshot. Write it to docs/ if SCREENSHOTS is set, else compare it with the one there."""
    path = ROOT / "docs" / name
    picture = page.screenshot(animations="disabled")
    if os.environ.get("SCREENSHOTS"):
        path.write_bytes(picture)
    blank = page.context.new_page()
    now, kept = (brightness(blank, data) for data in (picture, path.read_bytes()))
    difference = sum(abs(one - other) for one, other in zip(now, kept, strict=True)) / len(now)
    assert difference <= MAX_DIFFERENCE, f"docs/{name} does not show the page any more; run `make screenshots`"


def brightness(page: Page, picture: bytes) -> list[int]:
    address = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    values: list[int] = page.evaluate(BRIGHTNESS, [address, GRID])
    return values


@pytest.fixture
def speaking(paced: Paced) -> Paced:
    paced.say("Please open the old recording, and then we can look at the new contract together.")
    return paced


def test_the_list(speaking: Paced, open_tab: OpenTab, long_recording: Path) -> None:
    tab = open_tab(speaking.service, viewport=SIZE)
    speaking.allow(2)
    for name in ("Phỏng vấn chị Lan.mp3", "Team meeting, Monday.mp3"):
        tab.add(named(SAMPLE, name))
        tab.expect_state(name, "COMPLETED")
    tab.add({"name": "Voicemail.mp3", "mimeType": "audio/mpeg", "buffer": b"no audio" * 100})
    tab.expect_state("Voicemail.mp3", "FAILED")
    tab.add({"name": "Lecture 4.wav", "mimeType": "audio/wav", "buffer": long_recording.read_bytes()})
    expect(tab.row("Lecture 4.wav")).to_contain_text("0 of")
    speaking.allow(1)
    expect(tab.row("Lecture 4.wav").locator(".heard")).to_contain_text("Please open")
    keep(tab.page, "page-list.png")


def test_the_reader(demo: Service, done: str, open_tab: OpenTab) -> None:
    tab = open_tab(demo, f"/#/jobs/{done}?t=7", viewport=SIZE, color_scheme="dark")
    expect(tab.page.locator(".segment[aria-current]")).to_be_visible()
    tab.page.wait_for_function("() => document.querySelector('audio')?.readyState > 0")
    tab.page.locator("input[type=search]").fill("open")
    expect(tab.page.locator(".stepper").first).to_contain_text("match")
    tab.page.locator("h1").click()
    tab.page.mouse.move(0, 0)
    keep(tab.page, "page-reader.png")
