"""Recordings on their way in: chosen, dropped, linked, recorded; broken uploads and reloads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import FilePayload, Route, expect

from tests.browser.conftest import OpenTab, Paced
from tests.e2e.service import Service

HOSTILE_NAME = "<img src=x onerror=alert(1)>&amp; ‮gnp.mp3"


def named(sample: Path, name: str) -> FilePayload:
    return {"name": name, "mimeType": "audio/mpeg", "buffer": sample.read_bytes()}


def test_several_files_become_text(demo: Service, open_tab: OpenTab, sample: Path) -> None:
    tab = open_tab(demo)
    tab.add(named(sample, "first.mp3"), named(sample, "second.mp3"))
    for name in ("first.mp3", "second.mp3"):
        tab.expect_state(name, "COMPLETED")
    expect(tab.row("first.mp3")).to_contain_text("English")
    expect(tab.page.get_by_role("status").filter(has_text="is done")).to_be_attached()


def test_a_name_is_never_markup(demo: Service, open_tab: OpenTab, sample: Path) -> None:
    tab = open_tab(demo)
    tab.add(named(sample, HOSTILE_NAME))
    tab.expect_state("<img src=x onerror", "COMPLETED")
    assert tab.page.locator("main img").count() == 0


def test_what_cannot_be_transcribed_is_not_sent(demo: Service, open_tab: OpenTab) -> None:
    tab = open_tab(demo)
    requests: list[str] = []
    tab.page.on("request", lambda request: requests.append(request.url))
    tab.add({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"hello"})
    tab.add({"name": "empty.mp3", "mimeType": "audio/mpeg", "buffer": b""})
    expect(tab.row("notes.txt")).to_contain_text("mp3, wav, m4a")
    expect(tab.row("empty.mp3")).to_contain_text("empty")
    assert not [url for url in requests if "upload" in url]
    tab.button("Remove from the list: notes.txt").click()
    expect(tab.row("notes.txt")).to_have_count(0)


def test_a_dropped_folder_gives_its_recordings(demo: Service, open_tab: OpenTab, sample: Path, tmp_path: Path) -> None:
    folder = tmp_path / "interviews"
    (folder / "monday").mkdir(parents=True)
    (folder / "monday" / "in a folder.mp3").write_bytes(sample.read_bytes())
    (folder / "readme.txt").write_text("not a recording")
    tab = open_tab(demo)
    tab.page.locator("input[webkitdirectory]").set_input_files(folder)
    tab.expect_state("in a folder.mp3", "COMPLETED")
    expect(tab.page.locator(".toast")).to_contain_text("1 file is not a recording")


def test_a_drop_anywhere_on_the_page(demo: Service, open_tab: OpenTab, sample: Path) -> None:
    tab = open_tab(demo)
    transfer = tab.page.evaluate_handle(
        """(bytes) => { const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], "dropped.mp3")); return transfer; }""",
        list(sample.read_bytes()),
    )
    tab.page.dispatch_event("main", "dragenter", {"dataTransfer": transfer})
    expect(tab.page.locator("body")).to_have_class(re.compile("dropping"))
    tab.page.dispatch_event("main", "drop", {"dataTransfer": transfer})
    expect(tab.page.locator("body")).not_to_have_class(re.compile("dropping"))
    tab.expect_state("dropped.mp3", "COMPLETED")


def test_a_link_is_fetched_by_the_service(demo: Service, open_tab: OpenTab) -> None:
    tab = open_tab(demo)
    tab.button("Link").click()
    expect(tab.page.get_by_label("Address of a recording")).to_be_focused()
    tab.page.keyboard.type("http://127.0.0.1:9/talk.mp3")
    tab.press("Enter")
    # an address of this machine is refused, when it is submitted or when it is fetched
    expect(tab.page.locator(".job .why").first).not_to_be_empty()


def test_a_recording_from_the_microphone(demo: Service, open_tab: OpenTab) -> None:
    tab = open_tab(demo)
    tab.button("Record").click()
    tab.button("Start recording").click()
    expect(tab.page.get_by_role("timer")).to_have_text("0:01")
    tab.button("Stop and transcribe").click()
    expect(tab.row("Recording 20").first).to_have_attribute("data-state", re.compile("COMPLETED|FAILED"))


def test_an_upload_that_breaks_is_sent_again_under_the_same_key(demo: Service, open_tab: OpenTab, sample: Path) -> None:
    tab = open_tab(demo)
    keys: list[str] = []

    def break_twice(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) < 3:
            route.abort("connectionreset")
        else:
            route.continue_()

    tab.page.route("**/api/v1/upload", break_twice)
    tab.add(named(sample, "broken.mp3"))
    tab.expect_state("broken.mp3", "COMPLETED")
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert len([job for job in jobs_of(demo) if job["original_filename"] == "broken.mp3"]) == 1


def test_offline_and_back(demo: Service, open_tab: OpenTab, sample: Path) -> None:
    tab = open_tab(demo)
    tab.page.context.set_offline(True)
    tab.add(named(sample, "offline.mp3"))
    expect(tab.page.locator(".connection")).to_be_visible()
    expect(tab.row("offline.mp3")).to_contain_text("The connection broke")
    tab.page.context.set_offline(False)
    tab.expect_state("offline.mp3", "COMPLETED")
    expect(tab.page.locator(".connection")).to_be_hidden()


def test_a_reload_in_the_middle_of_an_upload(demo: Service, open_tab: OpenTab, sample: Path, tmp_path: Path) -> None:
    recording = tmp_path / "cut off.mp3"
    recording.write_bytes(sample.read_bytes())
    tab = open_tab(demo)
    keys: list[str] = []
    tab.page.route("**/api/v1/upload", lambda route: keys.append(route.request.headers["idempotency-key"]))
    tab.add(recording)
    expect(tab.row("cut off.mp3")).to_have_attribute("data-state", "SENDING")
    tab.page.wait_for_function("() => sessionStorage.getItem('stt.uploads')?.includes('cut off')")
    tab.page.on("dialog", lambda dialog: dialog.accept())
    tab.page.reload()
    expect(tab.row("cut off.mp3")).to_contain_text("Choose this file again")
    tab.page.unroute("**/api/v1/upload")
    with tab.page.expect_request("**/api/v1/upload") as request:
        tab.add(recording)
    keys.append(request.value.headers["idempotency-key"])
    tab.expect_state("cut off.mp3", "COMPLETED")
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_options_are_remembered_and_sent(demo: Service, open_tab: OpenTab, sample: Path) -> None:
    tab = open_tab(demo)
    tab.page.get_by_text("Vietnamese", exact=True).click()
    tab.page.get_by_text("Model, vocabulary, priority").click()
    tab.page.get_by_label("Names and words to expect").fill("Nguyễn Thị Lan")
    tab.page.get_by_text("Low", exact=True).click()
    tab.page.reload()
    expect(tab.page.get_by_label("Names and words to expect")).to_have_value("Nguyễn Thị Lan")
    tab.add(named(sample, "options.mp3"))
    tab.expect_state("options.mp3", "COMPLETED")
    job = next(job for job in jobs_of(demo) if job["original_filename"] == "options.mp3")
    assert (job["language"], job["priority"]) == ("vi", "low")


def test_a_reload_finds_running_jobs(paced: Paced, open_tab: OpenTab, sample: Path) -> None:
    tab = open_tab(paced.service)
    tab.add(named(sample, "running.mp3"))
    tab.expect_state("running.mp3", "PROCESSING")
    tab.page.reload()
    tab.expect_state("running.mp3", "PROCESSING")
    paced.allow(10)
    tab.expect_state("running.mp3", "COMPLETED")


def jobs_of(service: Service) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = service.client.get("/api/v1/jobs").json()["jobs"]
    return jobs
