"""Retry of a chunk that ran out of memory, using less of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from core.domain.spans import BYTES_PER_SAMPLE, SAMPLE_RATE
from core.domain.transcript import Segment
from core.errors import SttError
from worker.cut_points import quietest_sample
from worker.engine_process import EngineProcess
from worker.transcriber import EngineOutput, Options


async def transcribe_with_less_memory(
    process: EngineProcess, model: Path, pcm: bytes, options: Options, deadline: float, threads: int
) -> EngineOutput:
    """Transcribe in two halves, with one decoder, in a new process. deadline: seconds for each half.

    Raises the errors of `EngineProcess.transcribe`, and the engine's for a call.
    """

    async def transcribe(pcm: bytes, options: Options) -> EngineOutput:
        [output] = await process.transcribe(model, [(pcm, options)], threads, deadline)
        if isinstance(output, SttError):
            raise output
        return output

    await process.restart()
    samples = np.frombuffer(pcm, "<i2").astype(np.float32)
    cut = quietest_sample(samples, len(samples) * 2 // 5, len(samples) * 3 // 5)
    options = replace(options, decoders=1)
    first = await transcribe(pcm[: cut * BYTES_PER_SAMPLE], options)
    second = await transcribe(pcm[cut * BYTES_PER_SAMPLE :], replace(options, language=first.language))
    later = tuple(shifted(segment, cut / SAMPLE_RATE) for segment in second.segments)
    return EngineOutput(
        first.segments + later, first.language, first.encodes + second.encodes, first.cpu_seconds + second.cpu_seconds
    )


def shifted(segment: Segment, seconds: float) -> Segment:
    """Return the segment moved by `seconds`."""
    words = tuple(replace(word, start=word.start + seconds, end=word.end + seconds) for word in segment.words)
    return replace(segment, start=segment.start + seconds, end=segment.end + seconds, words=words)
