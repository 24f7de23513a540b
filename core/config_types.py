"""Values of settings that are enumerations, and earlier names of settings."""

from __future__ import annotations

from enum import StrEnum

OLD_NAMES = {
    "worker_concurrency": "max_concurrent_jobs",
    "download_timeout_seconds": "download_timeout",
    "upload_link_ttl_seconds": "upload_link_ttl",
    "max_audio_duration_seconds": "max_audio_duration",
    "chunk_duration_seconds": "chunk_duration",
    "min_chunk_duration_seconds": "min_chunk_duration",
    "chunk_overlap_seconds": "chunk_overlap",
    "min_silence_duration_seconds": "min_silence_duration",
    "max_pause_seconds": "max_pause",
    "retry_delay_seconds": "retry_delay",
    "retry_max_delay_seconds": "retry_max_delay",
    "chunk_timeout_seconds": "chunk_timeout",
    "job_timeout_seconds": "job_timeout",
    "model_wait_seconds": "model_wait",
    "dead_letter_ttl_seconds": "dead_letter_ttl",
    "failure_ttl_seconds": "failure_ttl",
    "result_ttl_seconds": "result_ttl",
}
"""Earlier names of settings, which are still read."""


class BrokerKind(StrEnum):
    MEMORY = "memory"
    RABBITMQ = "rabbitmq"


class StorageKind(StrEnum):
    LOCAL = "local"
    MINIO = "minio"


class QueueType(StrEnum):
    CLASSIC = "classic"
    QUORUM = "quorum"


class LogFormat(StrEnum):
    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"
