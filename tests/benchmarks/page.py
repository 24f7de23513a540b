"""Weight and first paint of the web page: `python -m tests.benchmarks page`."""

from __future__ import annotations

import gzip
import shutil
import statistics
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.benchmarks.table import Row
from tests.e2e import service as services
from tests.e2e.service import ROOT

FOLDER = ROOT / "assets" / "page"
LANGUAGES = ("en.js", "vi.js")
MAX_BYTES = 60_000
TIMES = 5
FIRST_PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"


def weights() -> tuple[int, int]:
    """Return the bytes of all files as they are sent, compressed: with one language, the larger, and with both."""
    sizes = {path.name: len(gzip.compress(path.read_bytes(), 9)) for path in FOLDER.iterdir()}
    return sum(sizes.values()) - min(sizes[name] for name in LANGUAGES), sum(sizes.values())


def run() -> list[Row]:
    """Return the weight, and the first paint where Chromium is installed."""
    one, both = weights()
    aim = f"≤ {MAX_BYTES // 1000} kB"
    rows = [Row("web page, all views, compressed", f"{one / 1000:.1f} kB", f"both languages {both / 1000:.1f} kB", aim)]
    program = shutil.which("chromium")
    if program is None:
        return rows
    with (
        tempfile.TemporaryDirectory() as folder,
        services.embedded(Path(folder)) as service,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=program)
        times = sorted(first_paint(browser, service.url) for _ in range(TIMES))
        browser.close()
    median = f"{statistics.median(times):.0f} ms"
    return [*rows, Row("web page, first contentful paint, empty cache", median, f"worst {times[-1]:.0f} ms", "")]


def first_paint(browser: Browser, url: str) -> float:
    """Return the milliseconds from the navigation to the first content, in a profile of its own."""
    page = browser.new_page()
    page.goto(url)
    page.wait_for_selector(".drop")
    page.wait_for_function(FIRST_PAINT)
    milliseconds = float(page.evaluate(FIRST_PAINT))
    page.close()
    return milliseconds
