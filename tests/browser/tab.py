"""A tab of a browser with the page in it. Whatever a script or the security policy refuses fails the test."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from playwright.sync_api import ConsoleMessage, FilePayload, Locator, Page, expect

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
SECONDS = 30.0
"""Longest wait for what the service does in a moment, on a busy machine."""
REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation",
  (event) => console.error("POLICY", event.violatedDirective, event.blockedURI));
window.alert = () => console.error("POLICY", "a script of a name or a text ran");
"""
NETWORK_NOISE = re.compile("Failed to load resource")


@dataclass
class Tab:
    """page: Playwright's; url: of the service; problems: what must not happen, as it is seen."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(SECONDS * 1000)
        expect.set_options(timeout=SECONDS * 1000)
        self.page.add_init_script(REPORT_VIOLATIONS)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("console", self._note)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not NETWORK_NOISE.search(message.text):
            self.problems.append(message.text)

    def open(self, path: str = "/") -> Tab:
        self.page.goto(f"{self.url}{path}")
        return self

    def add(self, *recordings: Path | FilePayload) -> None:
        """Choose files: paths, or names with bytes."""
        chosen: Sequence[Any] = recordings
        self.page.locator("input[type=file][multiple]").set_input_files(chosen)

    def row(self, name: str) -> Locator:
        return self.page.locator(".job").filter(has_text=name)

    def expect_state(self, name: str, state: str) -> Locator:
        row = self.row(name)
        expect(row.first).to_have_attribute("data-state", state)
        return row.first

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name)

    def violations(self) -> list[str]:
        """Return what axe finds in the present state of the page."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(AXE)
        found = self.page.evaluate("(rules) => axe.run(document, rules)", RULES)["violations"]
        return [
            f"{item['id']}: {node['html'][:160]} {node['failureSummary']}" for item in found for node in item["nodes"]
        ]
