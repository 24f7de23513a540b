"""The operators' view: health, figures, queues, consumers, dead letters, models, keys."""

from __future__ import annotations

from playwright.sync_api import FilePayload, expect

from tests.browser.conftest import OpenTab
from tests.browser.test_access import LOOKS, check
from tests.e2e.service import Service

DAMAGED: FilePayload = {"name": "damaged.mp3", "mimeType": "audio/mpeg", "buffer": b"this is no audio" * 100}


def test_every_part_has_its_figures(demo: Service, open_tab: OpenTab) -> None:
    for scheme, locale, width in LOOKS:
        tab = open_tab(demo, color_scheme=scheme, locale=locale, viewport={"width": width, "height": 900})
        tab.page.locator("[data-section=operate]").click()
        expect(tab.page.locator(".part .bone")).to_have_count(0)
        expect(tab.page.locator(".part .notice.bad")).to_have_count(0)
        expect(tab.page.locator(".part-queues")).to_contain_text("stt_chunks")
        expect(tab.page.locator(".part-models")).to_contain_text("demo-q5_0")
        expect(tab.page.locator(".chart svg")).to_have_count(3)
        check(tab)


def test_dead_letters_are_replayed_and_purged(demo: Service, open_tab: OpenTab) -> None:
    tab = open_tab(demo)
    tab.add(DAMAGED)
    tab.expect_state("damaged.mp3", "FAILED")
    tab.page.locator("[data-section=operate]").click()
    letters = tab.page.locator(".part-dead tbody tr")
    expect(letters.first).to_be_visible()
    tab.button("Run all again").click()
    expect(tab.page.locator(".toast").first).to_contain_text("again")
    # it fails again, and is purged for good
    expect(letters.first).to_be_visible()
    tab.button("Remove all").click()
    expect(tab.page.get_by_role("dialog")).to_be_visible()
    check(tab)
    tab.page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(tab.page.locator(".part-dead")).to_contain_text("No dead letters")


def test_only_operators_have_the_view(locked: Service, open_tab: OpenTab) -> None:
    answer = locked.client.get("/api/v1/admin/keys").json()["keys"]
    assert answer and "secret" not in str(answer)
    tab = open_tab(locked)
    expect(tab.page.get_by_label("Key", exact=True)).to_be_focused()
    expect(tab.page.get_by_role("link", name="Operate")).to_have_count(0)
    tab.page.keyboard.type(str(locked.client.headers["X-API-Key"]))
    tab.press("Enter")
    tab.page.get_by_role("link", name="Operate").click()
    expect(tab.page.locator(".part-keys")).to_contain_text("API_KEY")
