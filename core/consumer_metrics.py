"""Metrics of consumers: jobs, steps and the engine. See `core/metrics.py`."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

import core.metrics  # noqa: F401 - decides where values are kept

JOB_SECONDS_BUCKETS = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600)
RUN_SECONDS_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 900)
FACTOR_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 5)
SHARE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)

JOB_SECONDS = Histogram(
    "stt_job_seconds", "Seconds from the submit of a job to its result", ["model"], buckets=JOB_SECONDS_BUCKETS
)
JOB_AUDIO = Counter("stt_job_audio_seconds_total", "Seconds of audio of completed jobs", ["model", "language"])
JOB_FACTOR = Histogram(
    "stt_job_real_time_factor_ratio",
    "Seconds of work per second of audio of a completed job",
    ["model"],
    buckets=FACTOR_BUCKETS,
)
STEP_RUNS = Counter("stt_step_runs_total", "Runs of a step, each an attempt", ["step", "outcome"])
STEP_ERRORS = Counter("stt_step_errors_total", "Failed runs of a step", ["step", "error_code"])
STEP_SECONDS = Histogram("stt_step_seconds", "Seconds of a run of a step", ["step"], buckets=RUN_SECONDS_BUCKETS)

# -- engine
CHUNKS = Counter("stt_chunks_completed_total", "Chunks that were transcribed", ["model", "language"])
CHUNK_SECONDS = Histogram("stt_chunk_seconds", "Seconds of a chunk in its slot", ["model"], buckets=RUN_SECONDS_BUCKETS)
ENGINE_CPU = Counter("stt_engine_cpu_seconds_total", "CPU seconds of the engine", ["model"])
ENGINE_AUDIO = Counter("stt_engine_audio_seconds_total", "Seconds of audio that the engine transcribed", ["model"])
ENGINE_ENCODES = Counter("stt_engine_encodes_total", "Runs of the engine's encoder", ["model"])
WINDOW_FILL = Histogram(
    "stt_engine_window_fill_ratio",
    "Share of the encoder's 30 s windows that a chunk's audio fills",
    ["model"],
    buckets=SHARE_BUCKETS,
)
ENGINE_EXITS = Counter("stt_engine_exits_total", "Engine processes that ended and were replaced", ["reason"])
for _reason in ("crash", "killed", "timeout", "lost", "idle"):
    ENGINE_EXITS.labels(_reason)  # a counter that starts at 0 shows its first increase
SLOTS = Gauge("stt_engine_slots", "Places for a chunk in this consumer's engine processes", ["state"])
ENGINE_INFO = Gauge("stt_engine_info", "1 for the engine that this consumer uses for a model", ["model", "engine"])
SICK = Gauge("stt_consumer_sick", "1 while this consumer has stopped consuming because of faults of its machine")
