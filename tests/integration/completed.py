"""A completed job with a given transcript, stored without running an engine."""

from __future__ import annotations

from sqlalchemy import update

from core.database import after
from core.domain import keys
from core.domain.job import JobStatus
from core.domain.result import Result, ResultModel, ResultSegment, Timings
from core.domain.transcript import Word
from internal.bootstrap import Application
from repositories.models import Job
from worker.exporters import formats


def segment(number: int, text: str, start: float) -> ResultSegment:
    """Return a segment whose words last half a second each."""
    words = tuple(
        Word(word, start + index / 2, start + (index + 1) / 2, 0.9) for index, word in enumerate(text.split())
    )
    return ResultSegment(number, 0, start, start + len(words) / 2, text, 0.9, words)


def result_of(job_id: str, *texts: str) -> Result:
    """Return a result with one segment every ten seconds."""
    segments = tuple(segment(number, text, 10.0 * number) for number, text in enumerate(texts))
    text = " ".join(texts)
    return Result(
        job_id=job_id,
        timestamp="2026-11-21T10:00:00+00:00",
        status="COMPLETED",
        language="en",
        detected_language="en",
        model=ResultModel("demo-q5_0", "0" * 64, "whisper.cpp", {}),
        duration_seconds=10.0 * len(texts),
        text=text,
        word_count=len(text.split()),
        character_count=len(text),
        confidence=0.9,
        segments=segments,
        chunks=(),
        timings=Timings(0.0, 0.0, 0.0, 0.0, 0.0),
    )


async def complete(app: Application, job_id: str, *texts: str) -> None:
    """Store a result of these segments and mark the job COMPLETED."""
    data = formats()["json"].export(result_of(job_id, *texts))
    await app.storage.put_bytes(keys.result_key(job_id), data)
    values = {
        "status": JobStatus.COMPLETED,
        "due_at": None,
        "completed_at": after(),
        "minio_result_path": keys.result_key(job_id),
        "audio_duration_seconds": 10.0 * len(texts),
    }
    async with app.database.write() as session:
        await session.execute(update(Job).where(Job.job_id == job_id).values(values))
