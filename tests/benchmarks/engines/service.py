"""The whole service on the recordings of the engine benchmark, embedded, with as many slots as cores."""

from __future__ import annotations

import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks.engines import child, models
from tests.benchmarks.engines.measure import GroupFigures, Measurement
from tests.benchmarks.engines.recordings import CLIP, Recording
from tests.benchmarks.pipeline import cpu_seconds
from tests.e2e.service import Service, embedded
from tests.speech import plain, word_error_rate

JOB_SECONDS = 1800
ERROR_LENGTH = 200
"""Characters of an error that are kept."""


def row_name(engine: str, quantisation: str) -> str:
    return f"service, {engine}, {quantisation}"


def measure(
    shape: str, engine: str, quantisation: str, slots: int, recordings: list[Recording], inputs: Path
) -> Measurement:
    """Submit every recording of a group `slots` times at once, and wait for the last one."""
    result = Measurement(shape, row_name(engine, quantisation), slots)
    model = models.ggml(shape, quantisation)
    settings = {"ENGINE": engine, "WORKER_CONCURRENCY": str(slots), "MODELS_DIR": str(model.parent)}
    settings["DEFAULT_MODEL"] = model.stem.removeprefix("ggml-")
    try:
        with tempfile.TemporaryDirectory() as name, embedded(Path(name), **settings) as service:
            _measure(service, result, recordings, inputs)
    except (AssertionError, OSError, RuntimeError, TimeoutError, httpx.HTTPError) as error:
        result.error = str(error).split("\n")[0][:ERROR_LENGTH]
    return result


def _measure(service: Service, result: Measurement, recordings: list[Recording], inputs: Path) -> None:
    started = time.monotonic()
    _run(service, recordings[:1] * 2 * result.slots, inputs)
    result.load_seconds = time.monotonic() - started
    for group in dict.fromkeys(item.group for item in recordings):
        chosen = [item for item in recordings if item.group == group] * result.slots
        result.groups[group] = _figures(service, chosen, inputs)
    result.clip_seconds = min(_clip_seconds(service, inputs) for _ in range(3))
    memory = child.memory(service_processes(service))
    result.peak_bytes, result.pss_bytes = memory["peak"], memory["pss"]


def service_processes(service: Service) -> list[int]:
    """Return the ids of the service's processes, its engine processes included."""
    return [service.processes["embedded"].pid, *(process.pid for process in service.children())]


def _figures(service: Service, recordings: list[Recording], inputs: Path) -> GroupFigures:
    before, started = cpu_seconds(service), time.monotonic()
    texts = _run(service, recordings, inputs)
    wall, cpu = time.monotonic() - started, cpu_seconds(service) - before
    words = [len(plain(item.text).split()) for item in recordings]
    wrong = sum(
        word_error_rate(item.text, text) * count / 100
        for item, text, count in zip(recordings, texts, words, strict=True)
    )
    return GroupFigures(sum(item.seconds for item in recordings), cpu, wall, sum(words), wrong)


def _clip_seconds(service: Service, inputs: Path) -> float:
    """Return the seconds from the submit to COMPLETED, by the service's own times."""
    state = service.wait(service.upload(inputs / f"{CLIP}-vi.wav", language="vi"))
    first, last = (datetime.fromisoformat(state[name]) for name in ("created_at", "completed_at"))
    return (last - first).total_seconds()


def _run(service: Service, recordings: list[Recording], inputs: Path) -> list[str]:
    job_ids = [service.upload(inputs / item.wav, language=item.language) for item in recordings]
    return [_text(service, job_id) for job_id in job_ids]


def _text(service: Service, job_id: str) -> str:
    state = service.wait(job_id, JOB_SECONDS)
    assert state["status"] == "COMPLETED", f"{state}\n{service.logs()}"
    result: dict[str, Any] = service.client.get(f"/api/v1/result/{job_id}").json()
    return str(result["text"])
