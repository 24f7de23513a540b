"""One function per process; `cmd/*/main.py` and the `stt` command call the same ones.

Each imports what it needs only when it runs, so that no process loads another's libraries.
"""

from __future__ import annotations


def api() -> None:
    from internal.api_process import serve

    serve()


def consumer() -> None:
    from internal import process
    from internal.consumer.runtime import Consumer

    process.run("consumer", Consumer)


def scheduler() -> None:
    from internal import process
    from internal.scheduler.runtime import Scheduler

    process.run("scheduler", Scheduler)


def embedded() -> None:
    from internal import process
    from internal.embedded import Embedded

    process.run("embedded", Embedded)
