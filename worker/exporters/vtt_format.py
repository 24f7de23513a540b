"""WebVTT subtitles."""

from __future__ import annotations

from core.domain.result import Result
from worker.exporters.cues import Cue, clock, cues

FORMAT = "vtt"
MEDIA_TYPE = "text/vtt; charset=utf-8"


def export(result: Result) -> bytes:
    return ("WEBVTT\n" + "".join(_block(cue) for cue in cues(result))).encode()


def _block(cue: Cue) -> str:
    text = cue.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"\n{clock(cue.start, '.')} --> {clock(cue.end, '.')}\n{text}\n"
