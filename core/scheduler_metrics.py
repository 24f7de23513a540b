"""Metrics of schedulers: recovery, housekeeping, webhooks, and figures about the whole service. See `core/metrics.py`.

Figures about the whole service are sampled by `internal/scheduler/sampler.py`; each scheduler exports the same ones.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge

import core.metrics  # noqa: F401 - decides where values are kept

LOST_RUNS = Counter("stt_lost_runs_total", "Runs whose lease lapsed because their consumer was lost")

WEBHOOKS = Counter("stt_webhook_attempts_total", "Attempts to deliver a webhook", ["outcome"])
for _outcome in ("delivered", "retried", "given_up"):
    WEBHOOKS.labels(_outcome)  # a counter that starts at 0 shows its first increase
HOUSEKEEPING = Counter("stt_housekeeping_steps_total", "Runs of a step of housekeeping", ["step", "outcome"])
HOUSEKEEPING_SUCCESS = Gauge(
    "stt_housekeeping_last_success_timestamp_seconds", "Time of the last success of a step of housekeeping", ["step"]
)

# -- the whole service
JOBS = Gauge("stt_jobs", "Unfinished jobs", ["status"])
CHUNKS_LEFT = Gauge("stt_chunks_left", "Chunks of unfinished jobs that are not transcribed yet")
BACKLOG = Gauge("stt_backlog_audio_seconds", "Seconds of audio of unfinished jobs left to transcribe")
QUEUE_ROWS = Gauge(
    "stt_queue_rows", "Rows of a queue's step: waiting, running or put off", ["queue", "priority", "state"]
)
QUEUE_OLDEST = Gauge(
    "stt_queue_oldest_seconds",
    "Seconds since the last progress of the job that has waited longest in a queue",
    ["queue", "priority"],
)
QUEUE_MESSAGES = Gauge("stt_queue_messages", "Messages that wait in a queue of the broker", ["queue"])
QUEUE_CONSUMERS = Gauge("stt_queue_consumers", "Subscriptions to a queue of the broker", ["queue"])
WORKERS = Gauge("stt_workers", "Live consumers by health", ["state"])
WORKER_SLOTS = Gauge("stt_worker_slots", "Slots of all healthy consumers")
WEBHOOKS_WAITING = Gauge("stt_webhooks_waiting", "Webhooks to deliver, retries included")
PARKED = Gauge("stt_parked_items", "Items of housekeeping that keep failing and are left alone", ["step"])
DEPENDENCY_UP = Gauge("stt_dependency_up", "1 if a dependency responds to the scheduler", ["dependency"])
SAMPLED = Gauge("stt_sample_timestamp_seconds", "Time of the last complete sample of figures")
