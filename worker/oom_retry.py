"""The retry after out of memory: a fresh process, one decoder, the chunk's sound as two halves one after the other."""

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
    """Arguments and errors as of `Slot.transcribe`; `deadline` (seconds) is for each half."""
    await slot.restart()
    samples = np.frombuffer(pcm, "<i2").astype(np.float32)
    cut = quietest_sample(samples, len(samples) * 2 // 5, len(samples) * 3 // 5)
    lean = replace(options, decoders=1)
    first = await slot.transcribe(model, pcm[: cut * BYTES_PER_SAMPLE], lean, deadline)
    second = await slot.transcribe(
        model, pcm[cut * BYTES_PER_SAMPLE :], replace(lean, language=first.language), deadline
    )
    moved = tuple(shifted(segment, cut / SAMPLE_RATE) for segment in second.segments)
    return EngineOutput(
        first.segments + moved, first.language, first.encodes + second.encodes, first.cpu_seconds + second.cpu_seconds
    )


def shifted(segment: Segment, seconds: float) -> Segment:
    """The same segment, `seconds` later."""
    words = tuple(replace(word, start=word.start + seconds, end=word.end + seconds) for word in segment.words)
    return replace(segment, start=segment.start + seconds, end=segment.end + seconds, words=words)
