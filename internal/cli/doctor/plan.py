"""Capacity and retention: cores, memory, rows, bytes and messages that an amount of audio needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from internal.cli.doctor import plan_figures as figures

DAY_HOURS, HOUR_SECONDS, DAY_SECONDS = 24, 3600, 86_400
MEGABYTE, GIGABYTE = 1e6, 1e9


@dataclass(frozen=True, slots=True)
class Demand:
    """Demand on the service. busiest: share of a day's audio that arrives in its busiest hour.

    minutes: length of a recording; upload_mb: megabytes of an hour of audio as it is uploaded.
    """

    hours_per_day: float
    retention_days: float
    minutes: float = 10.0
    upload_mb: float = 58.0
    busiest: float = 0.1


@dataclass(frozen=True, slots=True)
class Cores:
    """Cores that a model needs: on average, and to keep up in the busiest hour. memory_mb: for each two slots."""

    model: str
    engine: str
    average: float
    busiest_hour: float
    memory_mb: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Resources that the demand needs. Bytes are those at the end of the retention; messages are a second's."""

    demand: Demand
    jobs_per_day: float
    chunks_per_day: float
    cores: tuple[Cores, ...]
    not_measured: tuple[str, ...]
    database_rows: int
    database_bytes: int
    upload_bytes: int
    result_bytes: int
    working_bytes: int
    messages_average: float
    messages_busiest_hour: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plan(demand: Demand) -> Plan:
    """Return what a demand needs, from the figures that were measured.

    Working audio is that of an hour's backlog in the busiest hour, since it is deleted when its job ends.
    """
    jobs = demand.hours_per_day * 60 / demand.minutes
    chunks_per_job = max(1.0, demand.minutes * 60 / figures.CHUNK_SECONDS)
    chunks = jobs * chunks_per_job
    messages = jobs * figures.MESSAGES_PER_JOB + chunks * figures.MESSAGES_PER_CHUNK
    days = demand.retention_days
    return Plan(
        demand=demand,
        jobs_per_day=jobs,
        chunks_per_day=chunks,
        cores=tuple(_cores(speed, demand) for speed in figures.SPEEDS),
        not_measured=figures.NOT_MEASURED,
        database_rows=round(days * (jobs * figures.ROWS_PER_JOB + chunks * figures.ROWS_PER_CHUNK)),
        database_bytes=round(days * (jobs * figures.BYTES_PER_JOB + chunks * figures.BYTES_PER_CHUNK)),
        upload_bytes=round(days * demand.hours_per_day * demand.upload_mb * MEGABYTE),
        result_bytes=round(days * (jobs * figures.RESULT_BYTES_PER_JOB + chunks * figures.RESULT_BYTES_PER_CHUNK)),
        working_bytes=round(
            demand.hours_per_day * demand.busiest * HOUR_SECONDS * figures.WORKING_BYTES_PER_SECOND,
        ),
        messages_average=messages / DAY_SECONDS,
        messages_busiest_hour=messages * demand.busiest / HOUR_SECONDS,
    )


def _cores(speed: figures.Speed, demand: Demand) -> Cores:
    return Cores(
        model=speed.model,
        engine=speed.engine,
        average=demand.hours_per_day / DAY_HOURS / speed.audio_per_core,
        busiest_hour=demand.hours_per_day * demand.busiest / speed.audio_per_core,
        memory_mb=speed.memory,
    )


def lines(result: Plan) -> list[str]:
    """Return the plan as text, a line for each part."""
    demand = result.demand
    size = GIGABYTE
    audio = (
        f"{'audio':<12}  {demand.hours_per_day:g} h a day in recordings of {demand.minutes:g} min: "
        f"{result.jobs_per_day:,.0f} jobs, {result.chunks_per_day:,.0f} chunks; kept for {demand.retention_days:g} days"
    )
    cores = [
        f"{'cores':<12}  {row.model:<6} {row.engine:<26} {row.average:8.2f} on average, "
        f"{row.busiest_hour:8.2f} in the busiest hour; {row.memory_mb:,} MB for two slots"
        for row in result.cores
    ]
    return [
        audio,
        *cores,
        f"{'':<12}  not measured: {', '.join(result.not_measured)}; `stt bench` measures a model on this machine",
        f"{'database':<12}  {result.database_rows:,} rows, {result.database_bytes / size:,.2f} GB with indexes",
        f"{'storage':<12}  {result.upload_bytes / size:,.2f} GB of uploads, {result.result_bytes / size:,.3f} GB of "
        f"results, {result.working_bytes / size:,.2f} GB of decoded audio for an hour's backlog",
        f"{'queues':<12}  {result.messages_average:,.2f} messages a second on average, "
        f"{result.messages_busiest_hour:,.2f} in the busiest hour",
    ]
