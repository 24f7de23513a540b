"""The whole pipeline's CPU seconds compared with the bare engine's on the same chunks.

The demo model in the shape of Whisper base is used, since the demo model's own calls are so short that the rest
dominates. BENCH_SHAPE names another shape, BENCH_ENGINE an engine.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import psutil
from sqlalchemy import func, select

from core.database import Database
from repositories.models import Metric
from tests.benchmarks.engines import models
from tests.benchmarks.table import Row
from tests.e2e.service import Service, embedded
from tests.speech import encode, recording, word_error_rate

SENTENCES = 170
"""About ten minutes."""


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        audio, reference = recording("en", SENTENCES, seed=77)
        path = encode(audio, folder / "ten-minutes.mp3")
        settings = model_settings()
        with embedded(folder, WORKER_CONCURRENCY="1", **settings) as service:
            warm = encode(recording("en", 2, seed=1)[0], folder / "warm.mp3")
            service.transcribe(warm, language="en")
            before = cpu_seconds(service)
            result = service.transcribe(path, language="en")
            spent = cpu_seconds(service) - before
            figures = asyncio.run(metrics(folder / "data" / "stt.db", result["job_id"]))
    model = f"{settings['DEFAULT_MODEL']}, ENGINE={settings['ENGINE']}"
    return rows(result, spent, figures, model, word_error_rate(reference, result["text"]))


def model_settings() -> dict[str, str]:
    """Return the settings of the engine and model that are measured."""
    engine = os.environ.get("BENCH_ENGINE", "openvino")
    path = models.ggml(os.environ.get("BENCH_SHAPE", "base"), "f16" if engine == "openvino" else "q4_k")
    return {"ENGINE": engine, "MODELS_DIR": str(path.parent), "DEFAULT_MODEL": path.stem.removeprefix("ggml-")}


def cpu_seconds(service: Service) -> float:
    """Return user and system time of the service's process tree, including exited children."""
    own = psutil.Process(service.processes["embedded"].pid)
    return sum(sum(process.cpu_times()[:4]) for process in [own, *own.children(recursive=True)])


async def metrics(path: Path, job_id: str) -> dict[str, float]:
    """Return the sum of each metric over the job's chunks, and their number as `chunks`."""
    database = Database(f"sqlite+aiosqlite:///{path}")
    async with database.read() as session:
        columns = (Metric.metric_name, func.sum(Metric.metric_value), func.count())
        statement = select(*columns).where(Metric.job_id == job_id).group_by(Metric.metric_name)
        totals = {row[0]: (row[1], row[2]) for row in (await session.execute(statement)).all()}
    await database.stop()
    return {name: value for name, (value, _) in totals.items()} | {"chunks": float(totals["chunk_encodes"][1])}


def rows(result: dict[str, object], spent: float, figures: dict[str, float], model: str, errors: float) -> list[Row]:
    engine = figures["chunk_cpu_seconds"]
    length = float(str(result["duration_seconds"]))
    chunks = figures["chunks"]
    fill = figures["chunk_audio_seconds"] / chunks
    return [
        Row(
            f"pipeline's CPU seconds ÷ bare engine's ({length:.0f} s of speech, {model})",
            f"{spent / engine:.3f}",
            f"{spent:.2f} s ÷ {engine:.2f} s; {errors:.1f} % words wrong",
            "≤ 1.05",
        ),
        Row(
            "encodes per chunk",
            f"{figures['chunk_encodes'] / figures['chunks']:.2f}",
            f"{figures['chunks']:.0f} chunks",
            "1.00",
        ),
        Row("audio per chunk, mean", f"{fill:.1f} s", "29 s at most", "full"),
    ]
