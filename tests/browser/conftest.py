"""Browsers and services for the tests of the page.

Playwright's loop runs as long as its browser: the fixtures end with this folder, before any asynchronous test.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.paced_engine import PACE
from tests.browser.tab import Tab
from tests.e2e import service as services
from tests.e2e.service import Service
from tests.speech import recording, synthesiser, write_wav

MODULE = "tests.browser.paced_engine"
SAMPLE = services.ROOT / "assets" / "samples" / "hello.en.mp3"
KEY = "stt_0123456789abcdef_abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
MICROPHONE = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
WINDOW = {"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", "reduced_motion": "reduce"}
OpenTab = Callable[..., Tab]


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        reason = "chromium is missing; `make test` installs it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=MICROPHONE)
        yield browser
        browser.close()


@pytest.fixture
def open_tab(chromium: Browser) -> Iterator[OpenTab]:
    """A function that opens a tab with a profile of its own: `open_tab(service, path, color_scheme="dark")`."""
    tabs: list[Tab] = []

    def open_one(service: Service, path: str = "/", **options: Any) -> Tab:
        settings: dict[str, Any] = {**WINDOW, **options}
        tabs.append(Tab(chromium.new_context(**settings).new_page(), service.url))
        return tabs[-1].open(path)

    yield open_one
    problems = [problem for tab in tabs for problem in tab.problems]
    for tab in tabs:
        tab.page.context.close()
    assert not problems, problems


@pytest.fixture(scope="package")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the demo model."""
    with services.embedded(tmp_path_factory.mktemp("demo")) as service:
        yield service


@dataclass
class Paced:
    """A service whose chunks are finished when the test says so."""

    service: Service
    pace: Path

    def allow(self, chunks: int = 1) -> None:
        with self.pace.open("ab") as file:
            file.write(b"." * chunks)

    def say(self, text: str) -> None:
        """Let the engine say this from now on."""
        self.pace.with_suffix(".text").write_text(text)


@pytest.fixture(scope="package")
def paced_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paced]:
    folder = tmp_path_factory.mktemp("paced")
    pace = folder / "pace"
    pace.touch()
    with services.embedded(folder, ENGINE=MODULE, WORKER_CONCURRENCY="1", **{PACE: str(pace)}) as service:
        yield Paced(service, pace)


@pytest.fixture
def paced(paced_service: Paced) -> Iterator[Paced]:
    """The paced service without earlier jobs, and with chunks counted anew."""
    yield paced_service
    paced_service.allow(1000)
    for job in paced_service.service.client.get("/api/v1/jobs").json()["jobs"]:
        paced_service.service.client.delete(f"/api/v1/jobs/{job['job_id']}")
    for suffix in (".taken", ".text"):
        paced_service.pace.with_suffix(suffix).unlink(missing_ok=True)
    paced_service.pace.write_bytes(b"")


@pytest.fixture(scope="package")
def long_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 80 s of speech, which becomes several chunks."""
    synthesiser()
    audio, _ = recording("en", 20, seed=7)
    return write_wav(tmp_path_factory.mktemp("speech") / "long.wav", audio)


@pytest.fixture(scope="package")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with services.embedded(tmp_path_factory.mktemp("locked"), API_KEY=KEY) as service:
        service.client.headers["X-API-Key"] = KEY
        yield service


@pytest.fixture(scope="package")
def done(demo: Service) -> str:
    """A completed job with words."""
    job_id = demo.upload(SAMPLE, "meeting.mp3", language="en", words="true")
    assert demo.wait(job_id)["status"] == "COMPLETED"
    return job_id
