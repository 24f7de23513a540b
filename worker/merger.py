"""Put the chunks' segments together: nothing twice where chunks overlap, nothing lost.

Where a cut fell in silence nothing is compared. Where two chunks share sound, a word belongs to the chunk on whose side
of the overlap's middle it lies (`simple`); `smart` lets matching text overrule times that disagree; `none` only joins.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rapidfuzz import fuzz

from core.config import MergeMethod
from core.domain.transcript import ChunkTranscript, Segment, Word

SIMILAR = 80.0
"""Per cent of likeness from which two words count as the same."""
REACH = 1.5
"""Seconds that the engine's times may be off at a cut."""
MIN_RUN = 2
"""Words that have to match in a row before text overrules times."""
_PUNCTUATION = re.compile(r"[^\w]+")


@dataclass(frozen=True, slots=True)
class MergedSegment:
    chunk: int
    segment: Segment


@dataclass(slots=True)
class _Piece:
    """One word with its time, and the segment it came from: what an overlap is decided on."""

    word: Word
    source: int


def merge(chunks: Sequence[ChunkTranscript], method: MergeMethod) -> list[MergedSegment]:
    """Segments of the whole recording in order; times in seconds, never running backwards."""
    kept: list[list[Segment]] = []
    for index, chunk in enumerate(chunks):
        segments = list(chunk.segments)
        if index and chunk.overlap > 0 and method is not MergeMethod.NONE:
            kept[-1], segments = _resolve(kept[-1], segments, chunk, method)
        kept.append(segments)
    merged = [
        MergedSegment(chunk.index, segment) for chunk, group in zip(chunks, kept, strict=True) for segment in group
    ]
    return _forwards(merged)


def _resolve(
    before: list[Segment], after: list[Segment], chunk: ChunkTranscript, method: MergeMethod
) -> tuple[list[Segment], list[Segment]]:
    """Decide the words of the overlap between two chunks."""
    start, end = chunk.start, chunk.start + chunk.overlap
    left, right = _pieces(before), _pieces(after)
    split = _by_text(left, right, start, end) if method is MergeMethod.SMART else None
    keep_left, drop_right = split or _by_time(left, right, (start + end) / 2)
    return _rebuilt(before, left[:keep_left]), _rebuilt(after, right[drop_right:])


def _by_time(left: list[_Piece], right: list[_Piece], middle: float) -> tuple[int, int]:
    """How many words of the left to keep, and of the right to drop: each belongs to its side of `middle`."""
    keep = sum(1 for piece in left if _centre(piece.word) < middle)
    drop = sum(1 for piece in right if _centre(piece.word) < middle)
    return keep, drop


def _by_text(left: list[_Piece], right: list[_Piece], start: float, end: float) -> tuple[int, int] | None:
    """The longest run of matching words that both chunks heard in the overlap; the cut goes through its middle."""
    first_left = next((i for i, piece in enumerate(left) if piece.word.end > start - REACH), len(left))
    last_right = next((i for i, piece in enumerate(right) if piece.word.start > end + REACH), len(right))
    best = (0, 0, 0)
    for i in range(first_left, len(left)):
        for j in range(last_right):
            length = _run(left, right[:last_right], i, j)
            if length > best[0]:
                best = (length, i, j)
    length, i, j = best
    if length < MIN_RUN:
        return None
    half = (length + 1) // 2
    return i + half, j + half


def _run(left: list[_Piece], right: list[_Piece], i: int, j: int) -> int:
    """How many words match in a row from left[i] and right[j] on, at times that agree."""
    length = 0
    while i + length < len(left) and j + length < len(right):
        one, other = left[i + length].word, right[j + length].word
        if abs(_centre(one) - _centre(other)) > REACH or not same_word(one.word, other.word):
            break
        length += 1
    return length


def same_word(one: str, other: str) -> bool:
    """Alike but for case, punctuation and a letter heard differently."""
    first, second = (plain(word) for word in (one, other))
    return first == second or fuzz.ratio(first, second) >= SIMILAR


def plain(word: str) -> str:
    return _PUNCTUATION.sub("", unicodedata.normalize("NFC", word).casefold())


def _centre(word: Word) -> float:
    return (word.start + word.end) / 2


def _pieces(segments: Sequence[Segment]) -> list[_Piece]:
    return [_Piece(word, index) for index, segment in enumerate(segments) for word in words_of(segment)]


def words_of(segment: Segment) -> list[Word]:
    """The segment's words; where the engine gave none, its text's words spread evenly by their letters."""
    if segment.words:
        return list(segment.words)
    texts = segment.text.split()
    letters = sum(len(text) for text in texts) or 1
    words, at = [], segment.start
    for text in texts:
        end = at + (segment.end - segment.start) * len(text) / letters
        words.append(Word(text, at, end, segment.confidence))
        at = end
    return words


def _rebuilt(segments: Sequence[Segment], pieces: Sequence[_Piece]) -> list[Segment]:
    """The segments with only these words left; one that kept all of them stays as it is."""
    result: list[Segment] = []
    for index, segment in enumerate(segments):
        words = [piece.word for piece in pieces if piece.source == index]
        if len(words) == len(words_of(segment)):
            result.append(segment)
        elif words:
            text = " ".join(word.word for word in words)
            mine = tuple(words) if segment.words else ()
            result.append(replace(segment, start=words[0].start, end=words[-1].end, text=text, words=mine))
    return result


def _forwards(merged: Sequence[MergedSegment]) -> list[MergedSegment]:
    """No segment starts before the one before it has started, none ends before it starts."""
    result: list[MergedSegment] = []
    latest = 0.0
    for item in merged:
        start = max(item.segment.start, latest)
        segment = replace(item.segment, start=start, end=max(item.segment.end, start))
        latest = start
        result.append(MergedSegment(item.chunk, segment))
    return result
