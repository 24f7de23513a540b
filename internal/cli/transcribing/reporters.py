"""Progress of `stt transcribe`: bars on a terminal, lines elsewhere, or JSON on standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from internal.cli import output
from internal.cli.transcribing.inputs import Input
from internal.client import Event, Submission

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

STEP = 25
"""Per cent of progress between two lines about a recording."""


class Reporter(Protocol):
    """Receiver of the events of recordings."""

    def uploading(self, entry: Input, sent: int, size: int | None) -> None: ...
    def submitted(self, entry: Input, submission: Submission) -> None: ...
    def received(self, entry: Input, event: Event) -> None: ...
    def choosing(self, trial: Mapping[str, Any] | None) -> None:
        """Report an engine trial, for which the jobs wait: an entry of `engine_trials` in /health; None: its end."""
        ...

    def ended(self, entry: Input, outcome: str, **details: Any) -> None:
        """Report the end of a recording. outcome: written, skipped, detached or failed; details: job_id, files, code,
        message."""
        ...

    def pause(self) -> None:
        """Leave the terminal to a question."""
        ...

    def resume(self) -> None: ...
    def close(self, counts: Mapping[str, int]) -> None:
        """Report the end of all recordings. counts: by outcome."""
        ...


def choose_reporter(*, as_json: bool, count: int) -> Reporter:
    """Return the reporter for this standard error. count: number of recordings."""
    if as_json:
        return JsonReporter()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return BarReporter(count)
    return LineReporter(count)


class JsonReporter:
    """One JSON object a line on standard output."""

    def uploading(self, entry: Input, sent: int, size: int | None) -> None:
        self._line(entry, "upload", sent=sent, size=size)

    def submitted(self, entry: Input, submission: Submission) -> None:
        self._line(entry, "submitted", job_id=submission.job_id, warning=submission.warning)

    def received(self, entry: Input, event: Event) -> None:
        self._line(entry, event.kind, **event.data)

    def choosing(self, trial: Mapping[str, Any] | None) -> None:
        if trial is not None:
            output.json_line({"event": "engine_trial", **trial})

    def ended(self, entry: Input, outcome: str, **details: Any) -> None:
        self._line(entry, outcome, **details)

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def close(self, counts: Mapping[str, int]) -> None:
        output.json_line({"event": "summary", **counts})

    def _line(self, entry: Input, event: str, **details: Any) -> None:
        # the name as it is; bytes that are not UTF-8 become lone surrogates, as in Python
        source = str(entry.path) if entry.path else entry.url or "-"
        output.json_line({"event": event, "file": source, **details})


class LineReporter:
    """Lines on standard error, for logs."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._next: dict[Input, float] = {}

    def uploading(self, entry: Input, sent: int, size: int | None) -> None: ...

    def submitted(self, entry: Input, submission: Submission) -> None:
        output.say("{file}: job {job}", file=entry.label, job=submission.job_id)
        if submission.warning:
            output.note(f"{entry.label}: {submission.warning}")

    def received(self, entry: Input, event: Event) -> None:
        progress = float(event.data.get("progress") or 0)
        if event.kind == "progress" and progress >= self._next.get(entry, STEP):
            self._next[entry] = progress + STEP
            output.note(f"{entry.label}: {progress:.0f} %{remaining(event)}")

    def choosing(self, trial: Mapping[str, Any] | None) -> None:
        if trial is not None:
            output.note(_choice(trial))

    def ended(self, entry: Input, outcome: str, **details: Any) -> None:
        self._next.pop(entry, None)
        output.note(f"{entry.label}: {describe(outcome, details)}")

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def close(self, counts: Mapping[str, int]) -> None:
        if self._count > 1:
            parts = [f"{number} {output.in_language(outcome)}" for outcome, number in counts.items() if number]
            output.note(", ".join(parts))


class BarReporter(LineReporter):
    """A bar for each recording in progress, and one for all if there are several."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._progress: Progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[stage]}", markup=False),
            console=Console(stderr=True, highlight=False),
            transient=True,
            redirect_stdout=False,
        )
        self._bars: dict[Input, TaskID] = {}
        self._progress.start()
        self._total = self._progress.add_task(
            output.in_language("all"), total=count, stage=self._files(0), visible=count > 1
        )

    def uploading(self, entry: Input, sent: int, size: int | None) -> None:
        self._progress.update(self._bar(entry), total=size, completed=sent, stage=output.in_language("upload"))

    def submitted(self, entry: Input, submission: Submission) -> None:
        self._progress.update(self._bar(entry), total=100, completed=0, stage=output.in_language("waiting"))
        if submission.warning:
            self._print(f"{entry.label}: {submission.warning}")

    def received(self, entry: Input, event: Event) -> None:
        data = event.data
        if event.kind == "progress" and data.get("chunks_total"):
            done, total = data.get("chunks_completed"), data["chunks_total"]
            stage = output.in_language("{done} of {total} chunks", done=done, total=total) + remaining(event)
            self._progress.update(self._bar(entry), completed=float(data.get("progress") or 0), stage=stage)

    def choosing(self, trial: Mapping[str, Any] | None) -> None:
        for bar in self._bars.values():
            self._progress.update(bar, stage=output.in_language("waiting") if trial is None else _choice(trial))

    def ended(self, entry: Input, outcome: str, **details: Any) -> None:
        if entry in self._bars:
            self._progress.remove_task(self._bars.pop(entry))
        self._progress.advance(self._total)
        done = int(self._progress.tasks[0].completed)
        self._progress.update(self._total, stage=self._files(done))
        self._print(f"{entry.label}: {describe(outcome, details)}")

    def _files(self, done: int) -> str:
        return output.in_language("{done} of {count} files", done=done, count=self._count)

    def pause(self) -> None:
        self._progress.stop()

    def resume(self) -> None:
        self._progress.start()

    def close(self, counts: Mapping[str, int]) -> None:
        self._progress.stop()
        super().close(counts)

    def _bar(self, entry: Input) -> TaskID:
        if entry not in self._bars:
            self._bars[entry] = self._progress.add_task(entry.label, total=None, stage="")
        return self._bars[entry]

    def _print(self, text: str) -> None:
        self._progress.console.print(text, markup=False, soft_wrap=True)


def _choice(trial: Mapping[str, Any]) -> str:
    text = "choosing the fastest engine for this machine, {number} of {count}"
    return output.in_language(text, number=trial.get("number"), count=trial.get("count"))


def describe(outcome: str, details: Mapping[str, Any]) -> str:
    """Return the end of a recording as a text."""
    if outcome == "failed":
        return f"{details['code']}: {output.printable(details['message'])}"
    files = ", ".join(output.printable(Path(file).name) for file in details.get("files", ()))
    if outcome == "written" and files:
        return files
    texts = {"written": "transcribed", "skipped": "done before, {files}", "detached": "job {job} continues"}
    return output.in_language(texts.get(outcome, outcome), files=files, job=details.get("job_id"))


def remaining(event: Event) -> str:
    """Return the estimated time that is left, or nothing if it is unknown."""
    seconds = event.data.get("estimated_time_seconds")
    if not isinstance(seconds, int | float) or seconds < 1:
        return ""
    minutes, seconds = divmod(int(seconds), 60)
    return ", " + output.in_language("{time} left", time=f"{minutes}:{seconds:02}")
