"""Measured figures of `stt doctor --plan`, with their sources. Replace them with those of your own machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Speed:
    """Speed of a model in an engine: seconds of audio per second of one core, the whole service included.

    memory: megabytes at the peak of a consumer with two slots, its engine processes included.
    """

    model: str
    engine: str
    audio_per_core: float
    memory: int


SPEEDS = (
    Speed("base", "openvino", 21.1, 1507),
    Speed("base", "whisper_cpp (make engine)", 24.5, 825),
    Speed("base", "whisper_cpp_wheel", 8.4, 567),
    Speed("small", "openvino", 9.2, 3474),
    Speed("small", "whisper_cpp (make engine)", 9.6, 1462),
)
"""Rows "service, …" of docs/performance.md: 2 cores of an AMD EPYC with AVX-512, 22 November 2026."""
NOT_MEASURED = ("medium", "large-v3", "large-v3-turbo")
"""Models without a figure; docs/performance.md says why."""

CHUNK_SECONDS = 37.9
"""Seconds of a recording for each chunk: 95 chunks an hour, benchmark `scaling`, 21 November 2026."""
MESSAGES_PER_JOB, MESSAGES_PER_CHUNK = 2, 1
"""Messages: Prepare and Finalise, and one for each chunk; the same benchmark."""

ROWS_PER_JOB, ROWS_PER_CHUNK = 5, 5
"""A row and four measurements for each; `python -m tests.benchmarks leftovers` and the benchmark `scaling`."""
BYTES_PER_JOB, BYTES_PER_CHUNK = 3_250, 2_540
"""Bytes in PostgreSQL 15 with indexes and unused space, for a sentence of ten words every four seconds: 5.8 kB for a
job of one chunk, 244.7 kB for one of 95; `leftovers`, 22 November 2026."""
RESULT_BYTES_PER_JOB, RESULT_BYTES_PER_CHUNK = 550, 2_480
"""Bytes of a result in both stored formats, without word times: 3.0 kB and 236.3 kB; `leftovers`."""
WORKING_BYTES_PER_SECOND = 32_000
"""Decoded audio while a job is open: 16 kHz, 16 bits, one channel."""
