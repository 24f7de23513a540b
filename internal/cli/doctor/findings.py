"""Findings of the checks of `stt doctor`, and the run of one check with a time limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from core.error_base import SttError
from core.texts import VIETNAMESE, translate

if TYPE_CHECKING:
    from core.config import Settings

DEFAULT_SECONDS = 15.0


class Level(StrEnum):
    """Result of a check. A warning is something that works, but perhaps not as intended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


LEVELS = {Level.OK: "ổn", Level.WARNING: "cảnh báo", Level.FAILED: "lỗi"}
"""Vietnamese names of the levels."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of a check. text, remedy (what to do about it): templates of `core/texts.py`, with their values.

    A value may be an error, which then stands for its message.
    """

    level: Level
    text: str
    remedy: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    def in_language(self, language: str) -> tuple[str, str]:
        """Return text and remedy."""
        values = {
            name: value.message(language) if isinstance(value, SttError) else value
            for name, value in self.values.items()
        }
        return translate(self.text, language, **values), translate(self.remedy, language, **values)

    def label(self, language: str) -> str:
        """Return the name of the level."""
        return LEVELS[self.level] if language == VIETNAMESE else self.level.value


@dataclass(frozen=True, slots=True)
class Check:
    """A check. vi: its name in Vietnamese; seconds: its time limit."""

    name: str
    vi: str
    look: Callable[[Settings], Finding]
    seconds: float = DEFAULT_SECONDS

    def label(self, language: str) -> str:
        return self.vi if language == VIETNAMESE else self.name

    def run(self, settings: Settings) -> Finding:
        """Run the check in a thread of its own, which is left behind if it does not end in time."""
        found: list[Finding] = []

        def work() -> None:
            try:
                found.append(self.look(settings))
            except Exception as error:  # noqa: BLE001 - a check that breaks is a finding
                found.append(failed("the check broke: {reason}", "See the log of the service.", reason=_words(error)))

        thread = threading.Thread(target=work, name=self.name, daemon=True)
        thread.start()
        thread.join(self.seconds)
        if found:
            return found[0]
        return failed("no result within {seconds} s", "Check the load of the machine.", seconds=round(self.seconds))


def _words(error: Exception) -> object:
    return error if isinstance(error, SttError) else f"{type(error).__name__}: {error}"


def ok(text: str, **values: Any) -> Finding:
    return Finding(Level.OK, text, values=values)


def warning(text: str, remedy: str, **values: Any) -> Finding:
    return Finding(Level.WARNING, text, remedy, values)


def failed(text: str, remedy: str, **values: Any) -> Finding:
    return Finding(Level.FAILED, text, remedy, values)
