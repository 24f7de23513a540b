"""Corrections of segments by people, kept beside the machine's text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from difflib import SequenceMatcher

from core.domain.result import Result, ResultSegment, SegmentCorrection
from core.domain.transcript import Word

MAX_TEXT = 2000
"""Characters of a corrected segment. A segment lasts at most 30 s, in which nobody says as many."""
_FORBIDDEN = ("Cc", "Cs", "Cn", "Co")


@dataclass(frozen=True, slots=True)
class Correction:
    """The latest change of one segment. version: greater than that of every earlier change of the job.

    text: None if the correction was removed; machine_text: the text that was corrected.
    """

    segment_id: int
    version: int
    text: str | None
    machine_text: str
    author: str
    corrected_at: datetime

    @property
    def corrected_at_text(self) -> str:
        """The time in ISO 8601, as in the other responses of the API."""
        return self.corrected_at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def cleaned_text(text: str) -> str:
    """Return the text in NFC with single spaces. Raises ValueError for control characters and incomplete Unicode."""
    spaced = " ".join(text.split())
    if any(unicodedata.category(character) in _FORBIDDEN for character in spaced):
        raise ValueError("a control character")
    return unicodedata.normalize("NFC", spaced)


def corrected_segments(
    segments: Iterable[ResultSegment], corrections: Iterable[Correction]
) -> tuple[ResultSegment, ...]:
    """Return the segments with the corrections made to them.

    A correction of a text that is no longer the machine's is left out: it belongs to another transcript.
    """
    by_id = {correction.segment_id: correction for correction in corrections}
    return tuple(corrected(segment, by_id.get(segment.id)) for segment in segments)


def corrected(segment: ResultSegment, correction: Correction | None) -> ResultSegment:
    """Return the segment with its correction; the times of words that were not changed stay."""
    if correction is None or correction.machine_text != segment.text:
        return segment
    if correction.text is None:
        return replace(segment, version=correction.version)
    return replace(
        segment,
        text=correction.text,
        words=timed_words(segment, correction.text),
        version=correction.version,
        correction=SegmentCorrection(segment.text, correction.author, correction.corrected_at_text),
    )


def corrected_result(result: Result, corrections: Iterable[Correction]) -> Result:
    """Return the result with corrected segments and the texts and counts that follow from them."""
    segments = corrected_segments(result.segments, corrections)
    text = joined(segments)
    return replace(result, segments=segments, text=text, word_count=len(text.split()), character_count=len(text))


def joined(segments: Iterable[ResultSegment]) -> str:
    return " ".join(segment.text for segment in segments if segment.text)


def timed_words(segment: ResultSegment, text: str) -> tuple[Word, ...]:
    """Return the words of a corrected text: with the machine's times if it has the same word, else in between.

    New words share the time between their neighbours by their lengths. Without word times there are none.
    """
    if not segment.words:
        return ()
    new, old = text.split(), segment.words
    matcher = SequenceMatcher(None, [_plain(word.word) for word in old], [_plain(word) for word in new], autojunk=False)
    words: list[Word] = []
    for tag, first, last, start, end in matcher.get_opcodes():
        if tag == "equal":
            words += [replace(word, word=own) for word, own in zip(old[first:last], new[start:end], strict=True)]
        elif tag != "delete":
            begin = old[first].start if first < last else words[-1].end if words else segment.start
            until = old[last - 1].end if first < last else old[first].start if first < len(old) else segment.end
            words += _spread(new[start:end], begin, max(begin, until))
    return tuple(words)


def _plain(word: str) -> str:
    return "".join(character for character in word.casefold() if character.isalnum()) or word


def _spread(texts: list[str], begin: float, end: float) -> list[Word]:
    letters = sum(map(len, texts))
    words, start = [], begin
    for text in texts:
        until = start + (end - begin) * len(text) / letters
        words.append(Word(text, round(start, 3), round(until, 3), 1.0))
        start = until
    return words
