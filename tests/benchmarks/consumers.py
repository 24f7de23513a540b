"""Speed-up of one long recording by a second consumer, each with one slot and one core, on real servers."""

from __future__ import annotations

import os
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from tests.benchmarks.overhead import real
from tests.benchmarks.pipeline import model_settings
from tests.benchmarks.table import Row
from tests.e2e.service import ROOT, Service
from tests.speech import encode, recording

SENTENCES = 340
"""About twenty minutes."""
ROUNDS = 2
"""Measurements with one and with two consumers, in turn; the best of each counts."""
LIMIT_SECONDS = 900.0


def run() -> list[Row]:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = encode(recording("en", SENTENCES, seed=78)[0], folder / "long.flac")
        warm = encode(recording("en", 2, seed=1)[0], folder / "warm.flac")
        settings = {"WORKER_CONCURRENCY": "1", **model_settings()}
        seconds: dict[int, list[float]] = {1: [], 2: []}
        with real(folder / "real", **settings) as (service, _):
            service.kill("consumer")
            for _ in range(ROUNDS):
                for count in seconds:
                    seconds[count].append(measure(service, cores[:count], path, warm))
    one, two = (min(seconds[count]) for count in (1, 2))
    return [
        Row(
            "2 consumers ÷ 1, one recording of twenty minutes, a core and a slot each",
            f"{one / two:.2f}",
            f"submit → COMPLETED in {one:.1f} and {two:.1f} s; servers and API on the same two cores",
            "≥ 1.9",
        )
    ]


def measure(service: Service, cores: list[int], path: Path, warm: Path) -> float:
    """Return the seconds from the submit to COMPLETED with one consumer on each of the cores."""
    names = [f"consumer-{core}" for core in cores]
    for name, core in zip(names, cores, strict=True):
        program = str(ROOT / "cmd" / "consumer" / "main.py")
        service.start(name, None, "taskset", "--cpu-list", str(core), sys.executable, program)
    try:
        service.wait_ready()
        for job_id in [service.upload(warm, language="en") for _ in range(4 * len(names))]:
            service.wait(job_id)
        state = service.wait(service.upload(path, language="en"), LIMIT_SECONDS)
        assert state["status"] == "COMPLETED", state
        first, last = (datetime.fromisoformat(state[key]) for key in ("created_at", "completed_at"))
        return (last - first).total_seconds()
    finally:
        for name in names:
            service.kill(name)
