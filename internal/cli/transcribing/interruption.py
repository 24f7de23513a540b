"""Ctrl-C during `stt transcribe`: the first one asks, or follows --on-interrupt; the second one quits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import TextIO

from internal.cli import output
from internal.cli.exits import ExitStatus

CANCEL, DETACH = "cancel", "detach"
QUESTION = "Interrupted. Cancel the jobs (c), leave them running (d), or go on (Enter)? Ctrl-C again quits: "


class Interruption:
    """Handler of SIGINT and SIGTERM. `chosen` becomes cancel or detach.

    pause, resume: called before and after the question; last_words: called before the second Ctrl-C ends the process.
    """

    def __init__(
        self,
        without_terminal: str,
        *,
        pause: Callable[[], None],
        resume: Callable[[], None],
        last_words: Callable[[], None],
    ) -> None:
        self._without_terminal = without_terminal
        self._pause, self._resume, self._last_words = pause, resume, last_words
        self._loop = asyncio.get_running_loop()
        self.chosen: asyncio.Future[str] = self._loop.create_future()
        self._terminal: TextIO | None = None
        self._loop.add_signal_handler(signal.SIGINT, self._interrupted)
        self._loop.add_signal_handler(signal.SIGTERM, self._choose, without_terminal)

    def close(self) -> None:
        """Restore the default signal handlers."""
        self._stop_asking()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(number)

    def _interrupted(self) -> None:
        if self._terminal is not None or self.chosen.done():
            self._stop_asking()
            self._pause()
            self._last_words()
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            os._exit(ExitStatus.INTERRUPTED)
        try:
            if not sys.stderr.isatty():
                raise OSError
            # not standard input, which may be the recording
            self._terminal = open("/dev/tty", encoding="utf-8", errors="replace")  # noqa: PTH123, SIM115
        except OSError:
            self._choose(self._without_terminal)
            return
        self._pause()
        sys.stderr.write(output.in_language(QUESTION))
        sys.stderr.flush()
        self._loop.add_reader(self._terminal.fileno(), self._answered)

    def _answered(self) -> None:
        assert self._terminal is not None
        answer = os.read(self._terminal.fileno(), 1024).decode(errors="replace").strip().lower()
        self._stop_asking()
        if answer[:1] in ("c", "d"):
            self._choose(CANCEL if answer[0] == "c" else DETACH)
        else:
            self._resume()

    def _stop_asking(self) -> None:
        if self._terminal is not None:
            self._loop.remove_reader(self._terminal.fileno())
            self._terminal.close()
            self._terminal = None

    def _choose(self, choice: str) -> None:
        if not self.chosen.done():
            self.chosen.set_result(choice)
        else:
            output.note("")
