"""Preparation of a recording: its working audio, and the plan of its chunks, in instalments if it is long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from core.domain.spans import BYTES_PER_SAMPLE, SAMPLE_RATE, PlannedChunk, Span
from core.files import BLOCK_SIZE
from worker.audio import decode
from worker.chunking import AudioFeatures, ChunkLimits, plan_chunks
from worker.chunking.silence import SilenceDetector, exclude_quiet_speech, is_digital_silence
from worker.ffmpeg import deadline
from worker.peaks import Peaks, peaks

EVEN_LEVEL_STRATEGY = "fixed_size"
"""Strategy for audio of even level, in which silence and speech cannot be distinguished."""
FIRST_INSTALMENT = 300 * SAMPLE_RATE
"""Samples after which the first instalment is planned; each next one after twice as many as the one before.

So planning costs at most twice as much as that of the whole recording at its end.
"""
WORTHWHILE = 1.5
"""Length of the recording, relative to the samples decoded so far, from which an instalment is released."""


@dataclass(frozen=True, slots=True)
class Released:
    """Chunks of the recording that are released: their number, and the sample at which the last one ends."""

    chunks: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a recording. pcm: file of `samples` samples, from sample `first` of the recording on; chunks: of it."""

    pcm: Path
    first: int
    samples: int
    chunks: list[PlannedChunk]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared recording. samples: its length; rest: the part that is not released yet, mostly the whole recording.

    decode_seconds: elapsed time of decoding and planning, without releasing instalments; peaks: of all of it.
    """

    samples: int
    rest: Part
    decode_seconds: float
    peaks: Peaks

    @property
    def chunks(self) -> list[PlannedChunk]:
        """Chunks that are not released yet."""
        return self.rest.chunks

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.samples / SAMPLE_RATE


Release = Callable[[Part, float | None], Awaitable[None]]
"""Stores and publishes the chunks of an instalment. Also receives the length that the file states, in seconds."""


@dataclass(frozen=True, slots=True)
class Planning:
    """Parameters of a plan, as the settings of these names."""

    limits: ChunkLimits
    strategy: str
    threshold_dbfs: float


async def prepare(
    source: Path,
    pcm: Path,
    limits: ChunkLimits,
    *,
    strategy: str,
    threshold_dbfs: float,
    min_silence: float,
    max_duration: float,
    released: Released = Released(),
    release: Release | None = None,
) -> Prepared:
    """Decode `source` to `pcm` and plan its chunks. Durations in seconds.

    release: called for each instalment of a long recording; without it there are none. released: chunks that an earlier
    run released, which are not planned again. Raises the errors of `decode`, `plan_chunks` and `release`.
    """
    started = time.monotonic()
    detector = SilenceDetector(round(min_silence * 1000))
    planning = Planning(limits, strategy, threshold_dbfs)
    instalments = _Instalments(pcm, detector, planning, max_duration, released, release)
    limit = deadline((await asyncio.to_thread(source.stat)).st_size)
    samples = await decode(
        source,
        pcm,
        max_duration=max_duration,
        deadline=limit,
        on_pcm=detector.feed,
        on_written=instalments.release_next,
    )
    chunks = await asyncio.to_thread(plan_rest, detector, planning, instalments.released)
    rest = Part(instalments.pcm, instalments.first, samples - instalments.first, chunks)
    loudness = await asyncio.to_thread(lambda: peaks(detector.energies()))
    return Prepared(samples, rest, time.monotonic() - started - instalments.seconds, loudness)


class _Instalments:
    """Instalments of a recording that is being decoded.

    pcm: file with the samples that may still be needed; first: its first sample; seconds: time spent releasing.
    """

    def __init__(
        self,
        pcm: Path,
        detector: SilenceDetector,
        planning: Planning,
        max_duration: float,
        released: Released,
        release: Release | None,
    ) -> None:
        self.pcm, self.first, self.released, self.seconds = pcm, 0, released, 0.0
        self._detector, self._planning, self._max_duration, self._release = detector, planning, max_duration, release
        self._next = max(FIRST_INSTALMENT, 2 * released.end)

    async def release_next(self, samples: int, stated: float | None) -> Path | None:
        """Release the next instalment if enough samples are decoded; return the file in which they continue."""
        if samples < self._next or self._release is None or not self._is_worthwhile(samples, stated):
            return None
        self._next = 2 * samples
        chunks = await asyncio.to_thread(plan_instalment, self._detector, self._planning, self.released)
        if not chunks:
            return None
        started = time.monotonic()
        await self._release(Part(self.pcm, self.first, samples - self.first, chunks), stated)
        self.seconds += time.monotonic() - started
        self.released = Released(self.released.chunks + len(chunks), chunks[-1].spans[-1].last)
        self.pcm = await asyncio.to_thread(self._copy_unreleased)
        self.first = self.released.end
        return self.pcm

    def _is_worthwhile(self, samples: int, stated: float | None) -> bool:
        """Return False if the recording is nearly decoded, or will be refused for its length."""
        return stated is None or samples / SAMPLE_RATE * WORTHWHILE <= stated <= self._max_duration

    def _copy_unreleased(self) -> Path:
        """Copy the samples after the released ones to a new file: storages may keep the present one as it is."""
        target = self.pcm.with_name(f"from-{self.released.end}.pcm")
        with self.pcm.open("rb") as source, target.open("wb") as copy:
            source.seek((self.released.end - self.first) * BYTES_PER_SAMPLE)
            while data := source.read(BLOCK_SIZE):
                copy.write(data)
        return target


def plan(detector: SilenceDetector, limits: ChunkLimits, strategy: str, threshold_dbfs: float) -> list[PlannedChunk]:
    """Plan the chunks: none for digital silence, fixed windows for audio of even level below the threshold."""
    return plan_rest(detector, Planning(limits, strategy, threshold_dbfs), Released())


def plan_rest(detector: SilenceDetector, planning: Planning, released: Released) -> list[PlannedChunk]:
    """Plan the chunks after the released ones. Silence after them is never of even level: they are speech."""
    audio = _features(detector, planning.threshold_dbfs)
    if audio is None:
        return []
    even = not released.chunks and _is_even(audio)
    return _plan_after(audio, replace(planning, strategy=EVEN_LEVEL_STRATEGY) if even else planning, released)


def plan_instalment(detector: SilenceDetector, planning: Planning, released: Released) -> list[PlannedChunk]:
    """Return the chunks after the released ones whose cuts do not depend on later audio; none if that is not sure.

    The last one ends a chunk's length before the present end, where no piece of speech can reach back to it, and shares
    no samples with the next one. So the chunks after it are those of a recording that starts there.
    """
    audio = _features(detector, planning.threshold_dbfs)
    if audio is None or _is_even(audio):
        return []
    chunks = _plan_after(audio, planning, released)
    final = [
        index
        for index, (chunk, following) in enumerate(pairwise(chunks), 1)
        if chunk.spans[-1].last <= audio.samples - planning.limits.longest and not following.overlap
    ]
    return chunks[: final[-1]] if final else []


def _features(detector: SilenceDetector, threshold_dbfs: float) -> AudioFeatures | None:
    """Return the features of the audio so far; None for digital silence."""
    energies = detector.energies()
    if is_digital_silence(energies):
        return None
    silences = exclude_quiet_speech(detector.finish(threshold_dbfs), energies, detector.min_silence_ms)
    return AudioFeatures(detector.samples, tuple(silences), energies)


def _is_even(audio: AudioFeatures) -> bool:
    return audio.silences == (Span(0, audio.samples),)


def _plan_after(audio: AudioFeatures, planning: Planning, released: Released) -> list[PlannedChunk]:
    rest = audio.after(released.end) if released.end else audio
    if released.end and not rest.samples:
        return []
    chunks = plan_chunks(planning.strategy, rest, planning.limits, released.chunks)
    return [
        replace(chunk, spans=tuple(Span(span.first + released.end, span.last + released.end) for span in chunk.spans))
        for chunk in chunks
    ]
