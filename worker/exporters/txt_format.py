"""Plain text, with a new line after each long pause."""

from __future__ import annotations

from itertools import pairwise

from core.domain.result import Result

FORMAT = "txt"
MEDIA_TYPE = "text/plain; charset=utf-8"
PARAGRAPH_PAUSE = 2.0
"""Seconds of a pause after which a new line starts."""


def export(result: Result) -> bytes:
    if not result.segments:
        return b""
    text = result.segments[0].text
    for before, segment in pairwise(result.segments):
        text += ("\n" if segment.start - before.end > PARAGRAPH_PAUSE else " ") + segment.text
    return (text + "\n").encode()
