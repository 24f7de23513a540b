"""One recording: sound and text in step, search, unsure words, copies and downloads, hours of text."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import OpenTab, Paced
from tests.browser.tab import Tab
from tests.e2e.service import Service
from worker.exporters import formats

PLAYED = "() => document.querySelector('audio, video')?.currentTime ?? -1"
LONG = 3600
"""Segments of three hours."""


def read(open_tab: OpenTab, service: Service, job_id: str, place: str = "") -> Tab:
    tab = open_tab(service, f"/#/jobs/{job_id}{place}")
    expect(tab.page.locator(".segment").first).to_be_visible()
    return tab


def wait_for_time(tab: Tab, seconds: float) -> None:
    tab.page.wait_for_function(f"() => Math.abs(({PLAYED})() - {seconds}) < 1.5")


def test_text_and_sound_are_in_step(demo: Service, open_tab: OpenTab, done: str) -> None:
    tab = read(open_tab, demo, done)
    third = tab.page.locator(".segment").nth(2)
    start = demo.client.get(f"/api/v1/result/{done}").json()["segments"][2]["start"]
    wait_for_time(tab, 0)
    third.get_by_role("button", name="Play from").click()
    wait_for_time(tab, start)
    expect(third).to_have_attribute("aria-current", "true")
    expect(tab.page).to_have_url(re.compile(rf"#/jobs/{done}\?t={int(start)}$"))
    tab.press("j")
    expect(tab.page.locator(".segment").nth(3)).to_have_attribute("aria-current", "true")
    tab.press("k")
    expect(third).to_have_attribute("aria-current", "true")
    tab.page.locator("h1").click()
    tab.press(" ")
    expect(tab.button("Pause")).to_be_visible()
    tab.page.wait_for_function("() => CSS.highlights.has('heard')")
    tab.press(" ")
    expect(tab.button("Play").first).to_be_visible()


def test_an_address_opens_at_its_time(demo: Service, open_tab: OpenTab, done: str) -> None:
    tab = read(open_tab, demo, done, "?t=12")
    wait_for_time(tab, 12)
    expect(tab.page.locator(".segment[aria-current]")).to_be_in_viewport()


def test_keys_of_the_player(demo: Service, open_tab: OpenTab, done: str) -> None:
    tab = read(open_tab, demo, done, "?t=10")
    wait_for_time(tab, 10)
    tab.press("ArrowRight")
    wait_for_time(tab, 15)
    tab.press("ArrowLeft", "ArrowLeft")
    wait_for_time(tab, 5)
    tab.press(">")
    expect(tab.page.get_by_label("Speed")).to_have_value("1.25")
    tab.page.get_by_role("slider").focus()
    tab.press("End")
    wait_for_time(tab, 23)
    tab.press("?")
    expect(tab.page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    tab.press("Escape")


def test_a_lost_address_is_renewed_where_the_sound_was(demo: Service, open_tab: OpenTab, done: str) -> None:
    tab = open_tab(demo)
    tab.page.route("**/media?token=*", lambda route: route.abort(), times=1)
    tab.page.goto(f"{demo.url}/#/jobs/{done}?t=9")
    wait_for_time(tab, 9)


def test_the_strip_has_the_loudness(demo: Service, open_tab: OpenTab, done: str) -> None:
    tab = open_tab(demo)
    with tab.page.expect_response("**/peaks") as answer:
        tab.page.goto(f"{demo.url}/#/jobs/{done}")
    assert answer.value.status == 200
    strip = tab.page.get_by_role("slider")
    wait_for_time(tab, 0)
    box = strip.bounding_box()
    assert box is not None
    strip.click(position={"x": box["width"] / 2, "y": 10})
    wait_for_time(tab, 23.155 / 2)


def test_search(demo: Service, open_tab: OpenTab, done: str) -> None:
    tab = read(open_tab, demo, done)
    tab.press("/")
    tab.page.keyboard.type("THE")
    expect(tab.page.locator(".stepper").first).to_contain_text(re.compile(r"\d+ match"))
    tab.press("Enter", "Enter")
    expect(tab.page.locator(".stepper").first).to_contain_text("2 of")
    assert tab.page.evaluate("() => CSS.highlights.get('found').size") > 1
    assert str(tab.page.evaluate("() => [...CSS.highlights.get('found-now')][0].toString()")).lower() == "the"


def test_unsure_places_can_be_stepped_through(paced: Paced, open_tab: OpenTab, sample: Path) -> None:
    paced.allow(100)
    job_id = paced.service.upload(sample, language="en")
    paced.service.wait(job_id)
    tab = read(open_tab, paced.service, job_id)
    expect(tab.page.locator(".unsure-tools")).to_contain_text("1 unsure place")
    tab.press("u")
    expect(tab.page.locator(".unsure-tools")).to_contain_text("1 of 1")
    expect(tab.page.locator("#announcements")).to_contain_text("1 of 1: <img")


def test_copies_and_downloads(demo: Service, open_tab: OpenTab, done: str) -> None:
    tab = read(open_tab, demo, done)
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.button("Copy").click()
    tab.button("Text with times").click()
    copied = tab.page.evaluate("() => navigator.clipboard.readText()")
    assert copied.startswith("[0:00] The code is")
    tab.button("Download").click()
    for name in formats():
        choice = tab.page.locator(".sheet button").filter(has_text=re.compile(rf"\.{name}$"))
        with tab.page.expect_download() as download:
            choice.click()
        assert download.value.suggested_filename == f"meeting.{name}"
        content = Path(download.value.path()).read_bytes()
        assert content == demo.client.get(f"/api/v1/download/{done}?format={name}").content
        tab.button("Download").click()


def test_a_missing_recording(demo: Service, open_tab: OpenTab) -> None:
    tab = open_tab(demo, "/#/jobs/00000000-0000-0000-0000-000000000000")
    expect(tab.page.get_by_role("heading", name="This recording is not here")).to_be_visible()


def test_three_hours_stay_light(demo: Service, open_tab: OpenTab, sample: Path) -> None:
    job_id = demo.upload(sample, "three hours.mp3", language="en")
    demo.wait(job_id)
    stretch(demo, job_id)
    tab = read(open_tab, demo, job_id)
    assert tab.page.locator(".segment").count() < LONG / 10
    tab.press("/")
    tab.page.keyboard.type("number 3590")
    tab.press("Enter")
    row = tab.page.locator(".segment").filter(has_text="number 3590")
    expect(row).to_be_in_viewport()
    assert row.get_attribute("aria-posinset") == "3591"
    assert tab.page.locator(".segment").count() < LONG / 10
    tab.page.locator("h1").scroll_into_view_if_needed()
    expect(tab.page.locator(".segment").filter(has_text="number 0 ")).to_be_in_viewport()


def stretch(service: Service, job_id: str) -> None:
    """Give a completed job the text of three hours."""
    path = service.folder / "data" / "objects" / "results" / job_id / "transcription.json"
    result = json.loads(path.read_text())
    first = result["segments"][0]
    texts = [f"sentence number {index} " + "is said here " * (index % 9) for index in range(LONG)]
    result["segments"] = [
        {**first, "id": index, "start": index * 3.0, "end": index * 3.0 + 2.5, "text": text}
        for index, text in enumerate(texts)
    ]
    path.write_text(json.dumps(result))
