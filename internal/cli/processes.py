"""One function per process; `cmd/*/main.py` and the `stt` command call the same ones."""

from __future__ import annotations

from internal import process
from internal.consumer.runtime import Consumer
from internal.embedded import Embedded
from internal.scheduler.runtime import Scheduler


def api() -> None:
    from internal.api.server import serve

    serve()


def consumer() -> None:
    process.run("consumer", Consumer)


def scheduler() -> None:
    process.run("scheduler", Scheduler)


def embedded() -> None:
    process.run("embedded", Embedded)
