"""SubRip subtitles."""

from __future__ import annotations

from core.domain.result import Result
from worker.exporters.cues import Cue, clock, cues

FORMAT = "srt"
MEDIA_TYPE = "application/x-subrip"


def export(result: Result) -> bytes:
    return "".join(_block(number, cue) for number, cue in enumerate(cues(result), 1)).encode()


def _block(number: int, cue: Cue) -> str:
    text = cue.text.replace("-->", "→")
    return f"{number}\n{clock(cue.start, ',')} --> {clock(cue.end, ',')}\n{text}\n\n"
