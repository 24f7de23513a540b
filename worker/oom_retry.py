"""Retry of a chunk that ran out of memory, using less of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from core.domain.spans import BYTES_PER_SAMPLE, SAMPLE_RATE
from core.domain.transcript import Segment
from worker.cut_points import quietest_sample
from worker.pool import Slot
from worker.transcriber import EngineOutput, Options


async def transcribe_with_less_memory(
    slot: Slot, model: Path, pcm: bytes, options: Options, deadline: float
) -> EngineOutput:
    """Transcribe in two halves, with one decoder, in a new process.

    Arguments and errors are those of `Slot.transcribe`. deadline: seconds for each half.
    """
    await slot.restart()
    samples = np.frombuffer(pcm, "<i2").astype(np.float32)
    cut = quietest_sample(samples, len(samples) * 2 // 5, len(samples) * 3 // 5)
    options = replace(options, decoders=1)
    first = await slot.transcribe(model, pcm[: cut * BYTES_PER_SAMPLE], options, deadline)
    second = await slot.transcribe(
        model, pcm[cut * BYTES_PER_SAMPLE :], replace(options, language=first.language), deadline
    )
    later = tuple(shifted(segment, cut / SAMPLE_RATE) for segment in second.segments)
    return EngineOutput(
        first.segments + later, first.language, first.encodes + second.encodes, first.cpu_seconds + second.cpu_seconds
    )


def shifted(segment: Segment, seconds: float) -> Segment:
    """Return the segment moved by `seconds`."""
    words = tuple(replace(word, start=word.start + seconds, end=word.end + seconds) for word in segment.words)
    return replace(segment, start=segment.start + seconds, end=segment.end + seconds, words=words)
