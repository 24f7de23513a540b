"""Metrics of every process, with names in Prometheus' conventions: base units, counters in `_total`.

Labels have fixed sets of values, or those of the settings and model files of this machine, because each value stays in
memory. `docs/metrics.md` lists the metrics of all processes, and a test compares it with a scrape of each. The API has
counters and histograms only, since its worker processes are scraped together.
"""

from __future__ import annotations

from prometheus_client import Counter, Histogram, disable_created_metrics

from core import metrics_values

metrics_values.use_shared()  # before the first metric is made
disable_created_metrics()  # type: ignore[no-untyped-call]  # a series for the start of each counter

CALL_SECONDS_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60)
RATIO_BUCKETS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.1, 1.33, 2, 4, 10)
LABEL_LENGTH = 100

JOBS_ENDED = Counter("stt_jobs_ended_total", "Jobs that have ended", ["status", "error_code", "model", "language"])
ROUNDS = Counter("stt_task_rounds_total", "Rounds of a periodic task", ["task", "outcome"])
REQUESTS = Counter("stt_http_requests_total", "HTTP requests", ["method", "route", "status"])
REQUEST_SECONDS = Histogram("stt_http_request_seconds", "Seconds until a request's response was sent", ["route"])
CALLS = Counter(
    "stt_dependency_calls_total",
    "Calls of the database (transactions), the storage and the broker",
    ["dependency", "operation", "outcome"],
)
CALL_SECONDS = Histogram(
    "stt_dependency_call_seconds", "Seconds of a call", ["dependency", "operation"], buckets=CALL_SECONDS_BUCKETS
)
ESTIMATE_ERROR = Histogram(
    "stt_estimate_error_ratio",
    "Time until a job's end divided by the first estimate of it, of jobs whose clients poll",
    buckets=RATIO_BUCKETS,
)
SPANS = Counter("stt_spans_total", "Spans of traces, sent or dropped", ["outcome"])


def label(value: str | None) -> str:
    """Return a value of a row as a label: empty for None, shortened."""
    return (value or "")[:LABEL_LENGTH]
