"""Corrections: made in place, shown as such, exported, taken back; two people at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import SAMPLE, OpenTab
from tests.browser.tab import Tab
from tests.browser.test_access import check
from tests.browser.test_reader import read
from tests.e2e.service import Service

HOSTILE = "<script>alert(1)</script> said ‮ this"


@pytest.fixture
def fresh(demo: Service) -> Callable[[], str]:
    """A function that makes a new completed job."""

    def make() -> str:
        job_id = demo.upload(SAMPLE, "to correct.mp3", language="en", words="true")
        assert demo.wait(job_id)["status"] == "COMPLETED"
        return job_id

    return make


def segment(tab: Tab, index: int) -> Locator:
    return tab.page.locator(".segment").nth(index)


def start_editing(tab: Tab, index: int) -> Locator:
    row = segment(tab, index)
    row.hover()
    row.get_by_role("button", name="Correct").click()
    field = row.get_by_label("Corrected text")
    expect(field).to_be_focused()
    return field


def test_a_correction_is_kept_shown_and_exported(demo: Service, open_tab: OpenTab, fresh: Callable[[], str]) -> None:
    job_id = fresh()
    tab = read(open_tab, demo, job_id)
    machine = segment(tab, 1).locator(".said").inner_text()
    start_editing(tab, 1).fill(HOSTILE)
    check(tab)
    tab.press("Enter")
    expect(segment(tab, 1).locator(".corrected")).to_be_visible()
    expect(segment(tab, 1).get_by_role("button", name="Play from")).to_be_focused()
    tab.page.reload()
    expect(segment(tab, 1).locator(".said")).to_have_text(HOSTILE)
    check(tab)
    assert "<script>alert(1)</script> said" in demo.client.get(f"/api/v1/download/{job_id}?format=txt").text
    # the model's text is shown, and can be had back
    start_editing(tab, 1)
    expect(segment(tab, 1)).to_contain_text(f"The model wrote: {machine}")
    tab.button("Restore the model’s text").click()
    expect(segment(tab, 1).locator(".said")).to_have_text(machine)
    expect(segment(tab, 1).locator(".corrected")).to_have_count(0)


def test_escape_changes_nothing(demo: Service, open_tab: OpenTab, fresh: Callable[[], str]) -> None:
    tab = read(open_tab, demo, fresh())
    machine = segment(tab, 0).locator(".said").inner_text()
    segment(tab, 0).locator(".at").focus()
    tab.press("e")
    segment(tab, 0).get_by_label("Corrected text").fill("something else")
    tab.press("Escape")
    expect(segment(tab, 0).locator(".said")).to_have_text(machine)


def test_two_people_see_each_others_text(demo: Service, open_tab: OpenTab, fresh: Callable[[], str]) -> None:
    job_id = fresh()
    first, second = read(open_tab, demo, job_id), read(open_tab, demo, job_id)
    start_editing(first, 2).fill("said by the first")
    start_editing(second, 2).fill("said by the second")
    first.page.bring_to_front()
    first.page.get_by_role("button", name="Save").click()
    expect(segment(first, 2).locator(".said")).to_have_text("said by the first")
    expect(second.page.get_by_role("alert").filter(has_text="meanwhile")).to_contain_text("said by the first")
    check(second)
    second.button("Save mine instead").click()
    expect(segment(second, 2).locator(".said")).to_have_text("said by the second")
    # without a form open, a change of another person simply appears
    expect(segment(first, 2).locator(".said")).to_have_text("said by the second")


def test_a_save_that_fails_keeps_what_was_typed(demo: Service, open_tab: OpenTab, fresh: Callable[[], str]) -> None:
    tab = read(open_tab, demo, fresh())
    field = start_editing(tab, 0)
    field.fill("typed without a network")
    tab.page.route("**/segments/*", lambda route: route.abort(), times=1)
    tab.press("Enter")
    expect(segment(tab, 0).get_by_role("alert").first).to_contain_text("cannot be reached")
    expect(field).to_have_value("typed without a network")
    tab.press("Enter")
    expect(segment(tab, 0).locator(".said")).to_have_text("typed without a network")
