"""Progress of a pull on standard error: a bar in a terminal, else a line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from internal.cli import output

if TYPE_CHECKING:
    from worker.model_store.progress import Progress, Report

LINE_SECONDS = 10.0


@contextlib.contextmanager
def shown(name: str) -> Iterator[Report]:
    """Show the progress of a pull; yield the function that takes it."""
    if sys.stderr.isatty():
        with _bar(name) as report:
            yield report
    else:
        yield _Lines(name)


@contextlib.contextmanager
def _bar(name: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=None)

        def report(state: object) -> None:
            done, total, text = _parts(state)
            progress.update(task, completed=done, total=total, description=f"{name} {text}".strip())

        yield report


def _parts(state: object) -> tuple[int, int | None, str]:
    """Return bytes done, bytes in total, and the text beside the name."""
    from worker.model_store.progress import CHECKING, WAITING, Progress

    assert isinstance(state, Progress)
    texts = {WAITING: "(waiting for another pull: {owner})", CHECKING: "(checking)"}
    text = output.in_language(texts.get(state.phase, ""), owner=output.printable(state.detail))
    return state.done, state.total, text


class _Lines:
    """Prints the first state of each phase, and then one line every ten seconds."""

    def __init__(self, name: str) -> None:
        self._name, self._phase, self._at = name, "", 0.0

    def __call__(self, state: Progress) -> None:
        now = time.monotonic()
        if state.phase == self._phase and now - self._at < LINE_SECONDS:
            return
        self._phase, self._at = state.phase, now
        done, total, text = _parts(state)
        size = f"{done / 1e6:.0f} / {total / 1e6:.0f} MB" if total else f"{done / 1e6:.0f} MB"
        rate = f", {state.rate / 1e6:.1f} MB/s" if state.rate else ""
        left = ", " + output.in_language("{seconds} s left", seconds=round(state.remaining)) if state.remaining else ""
        output.note(f"{self._name}: {text or size + rate + left}")
