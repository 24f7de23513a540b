"""Latency and plan of every statement of the consumers and the scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import event

from core.config import load_settings
from core.database import Database
from internal import bootstrap
from internal.bootstrap import Application
from tests.benchmarks.scale.routes import Latency
from tests.benchmarks.scale.stores import Stores, note
from tests.clients.external_server import run_external_server
from tests.contract.plans import Plans, recorded_plans
from tests.contract.traffic import Client, use_a_consumer, use_the_scheduler
from tests.speech import recording, write_wav

UPLOADS, ROUNDS = 50, 30


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with its latency at the process that sends it. scans: accesses of its plan to tables."""

    process: str
    latency: Latency
    scans: str


def measure(stores: Stores, folder: Path) -> tuple[list[Statement], dict[str, set[str]]]:
    """Return the statements, slowest first, and the reasons for which plans grow with the tables."""
    return asyncio.run(_measure(stores, folder))


async def _measure(stores: Stores, folder: Path) -> tuple[list[Statement], dict[str, set[str]]]:
    folder.mkdir()
    clip = write_wav(folder / "clip.wav", recording("en", 1, seed=3, pause=0.2)[0])
    with run_external_server() as external:
        hosts = {"media_url_allowed_hosts": external.host, "webhook_allowed_hosts": external.host}
        front, app = await _started(stores, folder, hosts), await _started(stores, folder, hosts)
        client = Client(front)
        consumer = bootstrap.consumer(app)
        await consumer.start()
        with recorded_plans(app.database) as consumer_plans:
            await use_a_consumer(client, clip, external)
        note("statements of a consumer")
        with timed(app.database) as of_consumer:
            for _ in range(UPLOADS):
                answer = await client.call("POST", "/api/v1/upload", files={"file": (clip.name, clip.read_bytes())})
                await client.ended(answer.json()["job_id"])
        await consumer.stop()
    with recorded_plans(app.database) as scheduler_plans:
        await use_the_scheduler(app)
    note("statements of the scheduler")
    with timed(app.database) as of_scheduler:
        await use_the_scheduler(app, ROUNDS)
    for each in (front, app):
        await each.stop()
    found = [
        *_statements("consumer", of_consumer, consumer_plans),
        *_statements("scheduler", of_scheduler, scheduler_plans),
    ]
    found.sort(key=lambda statement: -statement.latency.percentile(0.99))
    return found, consumer_plans.problems | scheduler_plans.problems


async def _started(stores: Stores, folder: Path, hosts: dict[str, str]) -> Application:
    settings = {name.lower(): value for name, value in stores.settings.items() if name != "PYTHONPATH"}
    folders = {"data_dir": folder / "data", "temp_dir": folder / "tmp"}
    app = bootstrap.build(load_settings(_env_file=None, **settings, **folders, **hosts, worker_concurrency=1))
    await app.storage.start()
    await app.broker.start()
    return app


@contextlib.contextmanager
def timed(database: Database) -> Iterator[dict[str, list[float]]]:
    """Collect the seconds of each statement."""
    seconds: dict[str, list[float]] = {}

    def before(_c: Any, _cursor: Any, _statement: str, _p: Any, context: Any, _many: bool) -> None:
        context.started = time.perf_counter()

    def after(_c: Any, _cursor: Any, statement: str, _p: Any, context: Any, _many: bool) -> None:
        seconds.setdefault(statement, []).append(time.perf_counter() - context.started)

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", before)
    event.listen(engine, "after_cursor_execute", after)
    try:
        yield seconds
    finally:
        event.remove(engine, "before_cursor_execute", before)
        event.remove(engine, "after_cursor_execute", after)


def _statements(process: str, seconds: dict[str, list[float]], plans: Plans) -> Iterator[Statement]:
    for statement, values in seconds.items():
        plan = plans.statements.get(statement)
        scans = "not explained" if plan is None else ", ".join(dict.fromkeys(_scans(plan))) or "no table"
        yield Statement(process, Latency(short(statement), tuple(sorted(values))), scans)


def _scans(node: dict[str, Any]) -> Iterator[str]:
    for child in node.get("Plans", ()):
        yield from _scans(child)
    if "Scan" in node["Node Type"] and (name := node.get("Index Name") or node.get("Relation Name")):
        kind = "" if "Index Name" in node else "whole table "
        yield f"{kind}{name} ({node['Actual Rows'] * node['Actual Loops']:.0f})"


def short(statement: str) -> str:
    """Return a statement in one line of at most 110 characters, without its lists of columns."""
    text = re.sub(r"\s+", " ", statement)
    text = re.sub(r"(SELECT|RETURNING) (?!count|1\b|FROM)[^()]*?(?= FROM |$)", r"\1 …", text)
    text = re.sub(r"(INSERT INTO \w+) .*", r"\1", text)
    text = re.sub(r"\$\d+(::[A-Z ]+(\(\d+\))?( WITH TIME ZONE)?)?", "?", text)
    return text if len(text) <= 110 else f"{text[:109]}…"
