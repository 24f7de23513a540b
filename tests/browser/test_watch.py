"""The list: live progress, filters, pages, cancel, retry, delete and undo, a second tab, keys."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import KEY, OpenTab, Paced
from tests.browser.test_drop import named
from tests.e2e.service import Service
from tests.speech import silence, write_wav


def test_the_text_appears_while_it_is_transcribed(paced: Paced, open_tab: OpenTab, long_recording: Path) -> None:
    tab = open_tab(paced.service)
    tab.add(long_recording)
    row = tab.expect_state("long.wav", "PROCESSING")
    expect(row).to_contain_text(re.compile("0 of [2-9] parts done"))
    paced.allow()
    expect(row).to_contain_text(re.compile("1 of [2-9] parts done"))
    expect(row.locator(".heard")).to_contain_text("<img src=x")
    row.get_by_role("link").click()
    expect(tab.page.locator(".segment")).to_have_count(1)
    expect(tab.page.locator(".said").first).to_contain_text("<img src=x onerror=alert(1)>")
    paced.allow()
    expect(tab.page.locator(".segment")).to_have_count(2)
    paced.allow(50)
    expect(tab.page.get_by_role("button", name="Download")).to_be_visible()
    assert tab.page.locator("main img").count() == 0


def test_cancel_and_retry(paced: Paced, open_tab: OpenTab, sample: Path) -> None:
    tab = open_tab(paced.service)
    tab.add(named(sample, "stopped.mp3"))
    tab.expect_state("stopped.mp3", "PROCESSING")
    tab.button("Cancel: stopped.mp3").click()
    tab.expect_state("stopped.mp3", "CANCELLED")
    expect(tab.button("Try again: stopped.mp3")).to_be_focused()
    tab.press("Enter")
    tab.expect_state("stopped.mp3", "PROCESSING")
    paced.allow(100)
    tab.expect_state("stopped.mp3", "COMPLETED")


def test_a_failed_job_says_why(demo: Service, open_tab: OpenTab) -> None:
    tab = open_tab(demo)
    tab.add({"name": "no audio.mp3", "mimeType": "audio/mpeg", "buffer": b"this is no audio" * 100})
    row = tab.expect_state("no audio.mp3", "FAILED")
    expect(row.locator(".why")).to_contain_text(re.compile("audio", re.IGNORECASE))
    expect(tab.button("Try again: no audio.mp3")).to_be_visible()
    row.get_by_role("link").click()
    expect(tab.page.get_by_role("alert")).to_contain_text("Failed")


def test_delete_can_be_undone(demo: Service, open_tab: OpenTab, sample: Path) -> None:
    tab = open_tab(demo)
    tab.add(named(sample, "regret.mp3"))
    tab.expect_state("regret.mp3", "COMPLETED")
    tab.button("Delete: regret.mp3").click()
    expect(tab.row("regret.mp3")).to_have_count(0)
    tab.button("Undo").click()
    tab.expect_state("regret.mp3", "COMPLETED")
    tab.button("Delete: regret.mp3").click()
    tab.page.locator(".toast").get_by_role("button", name="Close").click()
    tab.page.reload()
    expect(tab.page.locator(".job, .empty").first).to_be_visible()
    expect(tab.row("regret.mp3")).to_have_count(0)


def test_a_second_tab_sees_what_the_first_does(paced: Paced, open_tab: OpenTab, sample: Path) -> None:
    first = open_tab(paced.service)
    second = open_tab(paced.service)
    first.add(named(sample, "shared.mp3"))
    second.expect_state("shared.mp3", "PROCESSING")
    second.button("Cancel: shared.mp3").click()
    first.expect_state("shared.mp3", "CANCELLED")


def test_filters_by_state_and_name(demo: Service, open_tab: OpenTab, sample: Path) -> None:
    tab = open_tab(demo)
    tab.add(named(sample, "Phỏng vấn.mp3"), named(sample, "lecture.mp3"))
    tab.expect_state("Phỏng vấn.mp3", "COMPLETED")
    tab.expect_state("lecture.mp3", "COMPLETED")
    tab.page.get_by_label("Filter by name").fill("phỏng")
    expect(tab.row("lecture.mp3")).to_have_count(0)
    expect(tab.row("Phỏng vấn.mp3")).to_have_count(1)
    tab.button("Cancelled").click()
    expect(tab.page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    tab.page.get_by_label("Filter by name").fill("")
    tab.button("Done").click()
    expect(tab.row("lecture.mp3").first).to_be_visible()


def test_further_pages_are_read_on_the_way_down(demo: Service, open_tab: OpenTab, tmp_path: Path) -> None:
    short = write_wav(tmp_path / "short.wav", silence(0.3))
    for number in range(60):
        demo.upload(short, f"many {number}.wav", language="en")
    tab = open_tab(demo)
    expect(tab.row("many 59.wav").first).to_be_visible()
    expect(tab.page.locator(".job")).to_have_count(50)
    tab.page.mouse.wheel(0, 20_000)
    expect(tab.row("many 0.wav").first).to_be_attached()


def test_a_key_is_asked_for_and_kept_for_the_tab(locked: Service, open_tab: OpenTab, sample: Path) -> None:
    tab = open_tab(locked)
    field = tab.page.get_by_label("Key", exact=True)
    expect(field).to_be_focused()
    field.fill("stt_0123456789abcdef_wrong-wrong-wrong-wrong-wrong-wrong-wrong-w")
    tab.press("Enter")
    expect(tab.page.get_by_role("alert")).to_contain_text("not valid")
    tab.page.get_by_label("Key", exact=True).fill(KEY)
    tab.press("Enter")
    expect(tab.page.get_by_role("heading", name="No recordings yet")).to_be_visible()
    tab.add(named(sample, "with a key.mp3"))
    tab.expect_state("with a key.mp3", "COMPLETED")
    addresses: list[str] = []
    tab.page.on("request", lambda request: addresses.append(request.url))
    tab.page.reload()
    tab.expect_state("with a key.mp3", "COMPLETED").get_by_role("link").click()
    expect(tab.page.locator(".segment").first).to_be_visible()
    assert not [address for address in [*addresses, tab.page.url] if "stt_" in address]
    other = tab.page.context.new_page()
    other.goto(locked.url)
    expect(other.get_by_role("dialog")).to_be_visible()
