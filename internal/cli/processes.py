"""One function per process, shared by `cmd/*/main.py` and the `stt` command.

Each imports its service when it runs, so that no process loads another's libraries.
"""

from __future__ import annotations


def api() -> None:
    """Run the HTTP service."""
    from internal.api.server import serve

    serve()


def consumer() -> None:
    """Run a consumer, which transcribes jobs."""
    from internal import process
    from internal.consumer.runtime import Consumer

    process.run("consumer", Consumer)


def scheduler() -> None:
    """Run a scheduler.

    It publishes what is due, delivers webhooks, and removes what has expired.
    """
    from internal import process
    from internal.scheduler.runtime import Scheduler

    process.run("scheduler", Scheduler)


def embedded() -> None:
    """Run everything in one process tree.

    With the default settings on SQLite, a local folder and an in-memory queue.
    """
    from internal import process
    from internal.embedded import Embedded

    process.run("embedded", Embedded)
