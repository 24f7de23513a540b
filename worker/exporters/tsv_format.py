"""Tab-separated values: start and end in milliseconds, and the text, as written by Whisper."""

from __future__ import annotations

from core.domain.result import Result

FORMAT = "tsv"
MEDIA_TYPE = "text/tab-separated-values; charset=utf-8"


def export(result: Result) -> bytes:
    rows = ["start\tend\ttext"]
    rows += [f"{round(s.start * 1000)}\t{round(s.end * 1000)}\t{' '.join(s.text.split())}" for s in result.segments]
    return ("\n".join(rows) + "\n").encode()
