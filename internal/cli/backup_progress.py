"""Progress of a backup or a restoration on standard error: a bar in a terminal, else a line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from internal.cli import output

if TYPE_CHECKING:
    from internal.backup.progress import Progress, Report

LINE_SECONDS = 10.0
TEXTS = {"objects": "objects", "rows": "rows", "upgrade": "upgrading the schema"}


@contextlib.contextmanager
def shown() -> Iterator[Report]:
    """Show the progress; yield the function that takes it."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[size]}"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        phases: dict[str, TaskID] = {}

        def report(state: Progress) -> None:
            if state.phase not in phases:
                phases[state.phase] = bars.add_task(output.in_language(TEXTS[state.phase]), total=state.total, size="")
            bars.update(phases[state.phase], completed=state.done, total=state.total, size=_size(state))

        yield report


class _Lines:
    """Prints a line for each phase, and then one every ten seconds."""

    def __init__(self) -> None:
        self._phase, self._at = "", 0.0

    def __call__(self, state: Progress) -> None:
        now = time.monotonic()
        if state.phase == self._phase and now - self._at < LINE_SECONDS:
            return
        self._phase, self._at = state.phase, now
        of = f"/{state.total}" if state.total is not None else ""
        output.note(f"{output.in_language(TEXTS[state.phase])}: {state.done}{of} {_size(state)}".rstrip())


def _size(state: Progress) -> str:
    return f"{state.size / 1e6:.1f} MB" if state.size else ""
