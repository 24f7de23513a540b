"""One function per process; `cmd/*/main.py` and the `stt` command call the same ones.

Each imports what it needs only when it runs, so that no process loads another's libraries.
"""

from __future__ import annotations


def api() -> None:
    from internal.api.server import serve

    serve()


def consumer() -> None:
    from internal import bootstrap, process

    process.run("consumer", bootstrap.consumer)


def scheduler() -> None:
    from internal import bootstrap, process

    process.run("scheduler", bootstrap.scheduler)


def embedded() -> None:
    from internal import process
    from internal.embedded import Embedded

    process.run("embedded", Embedded)
