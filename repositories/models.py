"""The tables. Migrations own the schema; a test compares it with these models."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from core.database import UtcDateTime
from core.domain.job import JobStatus
from core.domain.job_options import JobOptions

Json = JSON().with_variant(JSONB(), "postgresql")
JobId = Uuid(as_uuid=False)
_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


OPEN_ROWS = "status IN ('PENDING', 'PROCESSING') AND deleted_at IS NULL"
"""Condition of the indexes of unfinished jobs, which stay small however many jobs have ended."""
WAITING_ROWS = "status = 'PENDING' AND deleted_at IS NULL"
UNFINALISED_ROWS = "status = 'PROCESSING' AND due_at IS NOT NULL"


def _index(name: str, *columns: str, where: str) -> Index:
    return Index(name, *columns, postgresql_where=text(where), sqlite_where=text(where))


def _partial_index(table: str, column: str, also: str = "") -> Index:
    return _index(f"ix_{table}_{column}", column, where=f"{column} IS NOT NULL{also}")


class JobOptionsJson(TypeDecorator[JobOptions]):
    """Job options, stored as JSON without empty values."""

    impl = Json
    cache_ok = True

    def process_bind_param(self, value: JobOptions | None, dialect: Dialect) -> dict[str, Any] | None:
        return None if value is None else value.to_json()

    def process_result_value(self, value: Any, dialect: Dialect) -> JobOptions | None:
        return None if value is None else JobOptions.from_json(value)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=_CONVENTION)


class Claimable:
    """Columns of rows that can be claimed: jobs, chunks and webhook deliveries. `due_at`: see `transitions.py`."""

    failures: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    lost: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    holder: Mapped[str | None] = mapped_column(String(100))
    claim: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    publishes: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    event_seq: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    error_code: Mapped[str | None] = mapped_column(String(40))
    error_message: Mapped[str | None] = mapped_column(Text)
    first_failed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    worker_id: Mapped[str | None] = mapped_column(String(100))
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Job(Claimable, Base):
    __tablename__ = "jobs"

    job_id: Mapped[str] = mapped_column(JobId, primary_key=True)
    request_id: Mapped[str | None] = mapped_column(String(255))
    owner: Mapped[str] = mapped_column(String(100))
    status: Mapped[str] = mapped_column(String(16), default=JobStatus.PENDING)
    language: Mapped[str] = mapped_column(String(16))
    detected_language: Mapped[str | None] = mapped_column(String(16))
    model: Mapped[str | None] = mapped_column(String(100))
    asked_model: Mapped[str | None] = mapped_column(String(100))
    model_missing_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    priority: Mapped[str] = mapped_column(String(16))
    band: Mapped[int] = mapped_column(Integer, default=2, server_default="2")
    options: Mapped[JobOptions] = mapped_column(JobOptionsJson, default=JobOptions)
    original_filename: Mapped[str | None] = mapped_column(Text)
    media_url: Mapped[str | None] = mapped_column(Text)
    callback_url: Mapped[str | None] = mapped_column(Text)
    client_metadata: Mapped[dict[str, Any] | None] = mapped_column("metadata", Json)
    error_details: Mapped[dict[str, Any] | None] = mapped_column(Json)
    minio_audio_path: Mapped[str | None] = mapped_column(Text)
    minio_result_path: Mapped[str | None] = mapped_column(Text)
    working_audio_path: Mapped[str | None] = mapped_column(Text)
    working_audio_bytes: Mapped[int | None] = mapped_column(BigInteger)
    plan: Mapped[int | None] = mapped_column(Integer)
    file_size_mb: Mapped[float | None] = mapped_column(Float)
    audio_duration_seconds: Mapped[float | None] = mapped_column(Float)
    retry_count: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    chunks_total: Mapped[int | None] = mapped_column(Integer)
    chunks_completed: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    chunks_expected: Mapped[int | None] = mapped_column(Integer)
    transcription_text: Mapped[str | None] = mapped_column(Text, deferred=True, deferred_raiseload=True)
    confidence: Mapped[float | None] = mapped_column(Float)
    processing_seconds: Mapped[float | None] = mapped_column(Float)
    download_seconds: Mapped[float | None] = mapped_column(Float)
    decode_seconds: Mapped[float | None] = mapped_column(Float)
    replay_token: Mapped[str | None] = mapped_column(String(64))
    cancel_requested_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    queued_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    claimed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    progressed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    boosted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    put_off_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index(
            "uq_jobs_owner_request_id",
            "owner",
            "request_id",
            unique=True,
            postgresql_where=text("request_id IS NOT NULL"),
            sqlite_where=text("request_id IS NOT NULL"),
        ),
        # columns that the commit of a chunk writes are in no index, so that it updates none
        Index("ix_jobs_owner_created_at", "owner", "created_at", "job_id"),
        Index("ix_jobs_owner_status", "owner", "status", "created_at", "job_id"),
        _index("ix_jobs_open", "status", "created_at", where=OPEN_ROWS),
        _index("ix_jobs_waiting", "priority", "created_at", where=WAITING_ROWS),
        _index("ix_jobs_measured", "created_at", where="audio_duration_seconds > 0"),
        _index("ix_jobs_unfetched", "due_at", where="media_url IS NOT NULL AND minio_audio_path IS NULL"),
        _index("ix_jobs_unfinalised", "due_at", where=UNFINALISED_ROWS),
        _partial_index("jobs", "expires_at", " AND deleted_at IS NULL"),
        _partial_index("jobs", "boosted_at", f" AND {OPEN_ROWS}"),
        _partial_index("jobs", "put_off_at"),
        _partial_index("jobs", "model_missing_since"),
        _partial_index("jobs", "due_at"),
        _partial_index("jobs", "deleted_at"),
    )


class Chunk(Claimable, Base):
    __tablename__ = "chunks"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True)
    chunk_index: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    plan: Mapped[int] = mapped_column(Integer)
    spans: Mapped[list[list[int]]] = mapped_column(Json)
    crc32: Mapped[int | None] = mapped_column(BigInteger)
    audio_path: Mapped[str | None] = mapped_column(Text)
    audio_start: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    overlap: Mapped[float] = mapped_column(Float, default=0.0, server_default="0")
    start_time: Mapped[float] = mapped_column(Float)
    end_time: Mapped[float] = mapped_column(Float)
    engine: Mapped[str | None] = mapped_column(Text)
    transcription: Mapped[list[dict[str, Any]] | None] = mapped_column(Json, deferred=True, deferred_raiseload=True)
    status: Mapped[str] = mapped_column(String(16), default=JobStatus.PENDING)
    attempts: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    seconds: Mapped[float | None] = mapped_column(Float)
    claimed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    processed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (_partial_index("chunks", "due_at"),)


class SegmentCorrectionRow(Base):
    """The latest change of a segment by a person. `version`: numbers the changes of a job; `text`: None if removed."""

    __tablename__ = "corrections"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True)
    segment_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    version: Mapped[int] = mapped_column(Integer)
    text: Mapped[str | None] = mapped_column(Text)
    machine_text: Mapped[str] = mapped_column(Text)
    author: Mapped[str] = mapped_column(String(255))
    corrected_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Metric(Base):
    __tablename__ = "metrics"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.job_id", ondelete="CASCADE"))
    metric_name: Mapped[str] = mapped_column(String(64))
    metric_value: Mapped[float] = mapped_column(Float)
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index("ix_metrics_job_id", "job_id"),
        Index("ix_metrics_metric_name_recorded_at", "metric_name", "recorded_at"),
    )


class Worker(Base):
    """A process with its last heartbeat. `sick`: the reason for which it currently takes no work.

    `engines`: description of the engine in use, by model.
    """

    __tablename__ = "workers"

    worker_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int] = mapped_column(Integer)
    version: Mapped[str] = mapped_column(String(32))
    slots: Mapped[int] = mapped_column(Integer)
    models: Mapped[list[str]] = mapped_column(Json)
    sick: Mapped[str | None] = mapped_column(Text)
    engines: Mapped[dict[str, str] | None] = mapped_column(Json)
    checksums: Mapped[dict[str, list[str]] | None] = mapped_column(Json)
    model_states: Mapped[list[dict[str, Any]] | None] = mapped_column(Json)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    heartbeat_at: Mapped[datetime] = mapped_column(UtcDateTime)


class WantedModel(Base):
    """A model that consumers are to install, or, with `wanted` false, to remove. `reference`: see `model_store`."""

    __tablename__ = "wanted_models"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    reference: Mapped[str] = mapped_column(Text)
    wanted: Mapped[bool] = mapped_column(Boolean)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ParkedItem(Base):
    """An item of the scheduler's housekeeping that keeps failing. `until`: end of its pause."""

    __tablename__ = "parked_items"

    step: Mapped[str] = mapped_column(String(32), primary_key=True)
    item: Mapped[str] = mapped_column(Text, primary_key=True)
    failures: Mapped[int] = mapped_column(Integer)
    reason: Mapped[str] = mapped_column(Text)
    until: Mapped[datetime] = mapped_column(UtcDateTime)


class Idempotency(Base):
    __tablename__ = "idempotency"

    owner: Mapped[str] = mapped_column(String(100), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_hash: Mapped[str] = mapped_column(String(64))
    answer: Mapped[dict[str, Any]] = mapped_column(Json)
    job_id: Mapped[str] = mapped_column(JobId)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (Index("ix_idempotency_expires_at", "expires_at"),)


class UploadIntent(Base):
    """A note that an object is about to be written. `owner` and `submit_options`: only of an upload link."""

    __tablename__ = "upload_intents"

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    job_id: Mapped[str] = mapped_column(JobId)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    owner: Mapped[str | None] = mapped_column(String(100))
    submit_options: Mapped[dict[str, Any] | None] = mapped_column(Json)

    __table_args__ = (
        Index("ix_upload_intents_expires_at", "expires_at"),
        Index("ix_upload_intents_job_id", "job_id"),
        _partial_index("upload_intents", "owner"),
    )


class RateLimit(Base):
    """One window of one counter. `expires_at`: its end."""

    __tablename__ = "rate_limits"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    hits: Mapped[int] = mapped_column(Integer)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (Index("ix_rate_limits_expires_at", "expires_at"),)


class ApiKey(Base):
    __tablename__ = "api_keys"

    key_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    owner: Mapped[str] = mapped_column(String(100))
    name: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (UniqueConstraint("secret_hash"),)


class WebhookDelivery(Claimable, Base):
    __tablename__ = "webhook_deliveries"

    webhook_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.job_id", ondelete="CASCADE"))
    url: Mapped[str] = mapped_column(Text)
    host: Mapped[str] = mapped_column(String(255))
    owner: Mapped[str] = mapped_column(String(100), default="", server_default="")
    event_type: Mapped[str] = mapped_column(String(64))
    payload: Mapped[dict[str, Any]] = mapped_column(Json)
    status: Mapped[str] = mapped_column(String(16), default=JobStatus.PENDING)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    delivered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    asked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index("ix_webhook_deliveries_job_id", "job_id"),
        _partial_index("webhook_deliveries", "due_at"),
        _partial_index("webhook_deliveries", "holder"),
    )
