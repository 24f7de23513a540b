"""The page for everybody: axe in every state, themes and languages, the keyboard alone, texts and weight."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.benchmarks.page import MAX_BYTES, weights
from tests.browser.conftest import OpenTab, Paced
from tests.browser.tab import Tab
from tests.browser.test_drop import named
from tests.e2e.service import ROOT, Service

FOLDER = ROOT / "assets" / "page"
LOOKS = [("light", "en-GB", 1280), ("dark", "vi-VN", 1280), ("light", "vi-VN", 360), ("dark", "en-GB", 360)]


@pytest.fixture(params=LOOKS, ids=["-".join(map(str, look)) for look in LOOKS])
def open_look(request: pytest.FixtureRequest, open_tab: OpenTab) -> OpenTab:
    scheme, locale, width = request.param

    def open_one(service: Service, path: str = "/") -> Tab:
        return open_tab(service, path, color_scheme=scheme, locale=locale, viewport={"width": width, "height": 800})

    return open_one


def check(tab: Tab) -> None:
    assert tab.violations() == []
    wide = tab.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, f"the page is {wide} pixels wider than the window"


def test_the_list_in_every_state(paced: Paced, open_look: OpenTab, sample: Path) -> None:
    tab = open_look(paced.service)
    expect(tab.page.locator(".empty")).to_be_visible()
    check(tab)
    tab.page.locator("summary").click()
    tab.page.locator(".ways button").nth(2).click()
    check(tab)
    tab.page.locator(".ways button").nth(3).click()
    tab.add(named(sample, "a rather long name of a recording without any sense.mp3"))
    tab.add({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"hello"})
    tab.add({"name": "broken.mp3", "mimeType": "audio/mpeg", "buffer": b"no audio" * 99})
    tab.expect_state("rather long", "PROCESSING")
    tab.expect_state("broken.mp3", "FAILED")
    check(tab)
    paced.allow(100)
    tab.expect_state("rather long", "COMPLETED")
    tab.row("rather long").locator(".acts button").click()
    expect(tab.page.locator(".toast")).to_be_visible()
    check(tab)
    tab.page.context.set_offline(True)
    expect(tab.page.locator(".connection")).to_be_visible()
    check(tab)


def test_a_recording_in_every_state(demo: Service, done: str, open_look: OpenTab) -> None:
    tab = open_look(demo, f"/#/jobs/{done}?t=5")
    expect(tab.page.locator(".segment[aria-current]")).to_be_visible()
    tab.page.locator("input[type=search]").fill("the")
    check(tab)
    tab.page.locator(".menu button").last.click()
    check(tab)
    tab.press("Escape", "?")
    expect(tab.page.locator("dialog")).to_be_visible()
    check(tab)
    tab.page.goto(f"{demo.url}/#/jobs/nothing")
    expect(tab.page.get_by_role("alert")).to_be_visible()
    check(tab)


def test_a_person_without_a_pointer(demo: Service, open_tab: OpenTab, sample: Path) -> None:
    tab = open_tab(demo)
    tab.page.on("filechooser", lambda _: None)  # from the first listener on, Playwright takes the dialog over
    expect(tab.page.locator(".job, .empty").first).to_be_visible()
    tab.press("Tab")
    expect(tab.page.get_by_role("link", name="Skip to content")).to_be_focused()
    walk(tab, lambda: tab.button("Choose files"))
    with tab.page.expect_file_chooser() as chooser:
        tab.press("Enter")
    chooser.value.set_files([named(sample, "by keyboard.mp3")])
    tab.expect_state("by keyboard.mp3", "COMPLETED")
    walk(tab, lambda: tab.row("by keyboard.mp3").get_by_role("link"))
    tab.press("Enter")
    expect(tab.page.get_by_role("heading", level=1)).to_be_focused()
    expect(tab.page.get_by_role("heading", level=1)).to_have_text("by keyboard.mp3")
    walk(tab, lambda: tab.page.locator(".segment .at").first)
    tab.press("ArrowDown", "ArrowDown", "Enter")
    expect(tab.page.locator(".segment").nth(2)).to_have_attribute("aria-current", "true")
    tab.press("Escape")
    tab.page.go_back()
    expect(tab.page.get_by_role("heading", name="Recordings", exact=True)).to_be_visible()


def walk(tab: Tab, target: Callable[[], Locator]) -> None:
    """Press Tab until the target has the focus."""
    for _ in range(60):
        tab.press("Tab")
        if target().evaluate("(node) => node === document.activeElement"):
            return
    raise AssertionError("Tab does not lead there")


def test_the_language_and_the_theme_can_be_switched(demo: Service, open_tab: OpenTab) -> None:
    tab = open_tab(demo)
    tab.button("Tiếng Việt").click()
    expect(tab.page.locator("html")).to_have_attribute("lang", "vi")
    expect(tab.page.get_by_role("heading", name="Thả bản ghi vào đây")).to_be_visible()
    tab.page.get_by_role("button", name="Màu: theo hệ thống").click()
    tab.page.get_by_role("button", name="Màu: sáng").click()
    expect(tab.page.locator("html")).to_have_attribute("data-theme", "dark")
    tab.page.reload()
    expect(tab.page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(tab.page.get_by_role("button", name="English")).to_be_visible()


@pytest.mark.parametrize("width", [360, 768, 1280, 3840])
def test_no_width_scrolls_sideways(demo: Service, open_tab: OpenTab, width: int) -> None:
    tab = open_tab(demo, viewport={"width": width, "height": 900})
    expect(tab.page.locator(".job, .empty").first).to_be_visible()
    assert tab.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_both_tables_have_the_same_texts_and_the_code_uses_them() -> None:
    tables = {
        name: set(re.findall(r'(?:^|[ ,{])"([\w.]+)": "', (FOLDER / f"{name}.js").read_text())) for name in ("en", "vi")
    }
    singular = {key for key in tables["en"] if key.endswith(".one")}
    assert tables["en"] - singular == tables["vi"]
    code = "\n".join(path.read_text() for path in FOLDER.glob("*.js") if path.stem not in tables)
    constructed = re.findall(r"`([\w.]+)\.\$\{", code)
    constructed += ["priority"]  # a group of choices gets its name as an argument
    written = {key for key in tables["vi"] if f'"{key.removesuffix(".other")}"' in code}
    unused = {key for key in tables["vi"] - written if not key.startswith(tuple(f"{stem}." for stem in constructed))}
    assert unused == set()


def test_weight() -> None:
    """A visit loads at most this: every view, in one language."""
    one_language, both = weights()
    assert one_language <= MAX_BYTES, both


def test_no_script_or_style_is_inline() -> None:
    html = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*\ssrc=)", html)
    assert "//" not in html.replace("<!doctype", "")


def test_every_file_is_short_and_in_git() -> None:
    for path in FOLDER.glob("*.*s*"):
        assert len(path.read_text().splitlines()) < 400, path
    listing = subprocess.check_output(["git", "ls-files", "assets/page"], cwd=ROOT, text=True)
    assert {path.name for path in FOLDER.iterdir()} == {Path(line).name for line in listing.splitlines()}
