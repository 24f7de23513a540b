"""Findings of the checks of `stt doctor`, and the run of one check with a time limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.config import Settings

DEFAULT_SECONDS = 15.0


class Level(StrEnum):
    """Result of a check. A warning is something that works, but perhaps not as intended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of a check. remedy: what to do about it."""

    level: Level
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """A check. seconds: its time limit."""

    name: str
    look: Callable[[Settings], Finding]
    seconds: float = DEFAULT_SECONDS

    def run(self, settings: Settings) -> Finding:
        """Run the check in a thread of its own, which is left behind if it does not end in time."""
        found: list[Finding] = []

        def work() -> None:
            try:
                found.append(self.look(settings))
            except Exception as error:  # noqa: BLE001 - a check that breaks is a finding
                found.append(failed(f"{type(error).__name__}: {error}", "See the log of the service."))

        thread = threading.Thread(target=work, name=self.name, daemon=True)
        thread.start()
        thread.join(self.seconds)
        return found[0] if found else failed(f"no result within {self.seconds:.0f} s", "Check the load of the machine.")


def ok(text: str) -> Finding:
    return Finding(Level.OK, text)


def warning(text: str, remedy: str) -> Finding:
    return Finding(Level.WARNING, text, remedy)


def failed(text: str, remedy: str) -> Finding:
    return Finding(Level.FAILED, text, remedy)
