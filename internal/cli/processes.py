"""One function for each process, shared by `cmd/*/main.py` and the `stt` command.

Each function imports its service when it runs, so that `stt --help` stays fast.
"""

from __future__ import annotations


def api() -> None:
    """Run the HTTP service."""
    from internal.api_process import serve

    serve()


def consumer() -> None:
    """Run a consumer, which transcribes jobs."""
    from internal import bootstrap, process

    process.run("consumer", bootstrap.consumer)


def scheduler() -> None:
    """Run a scheduler.

    It publishes what is due, delivers webhooks, and removes what has expired.
    """
    from internal import bootstrap, process

    process.run("scheduler", bootstrap.scheduler)


def embedded(*, on_demand: bool = False) -> None:
    """Run the api, a consumer and a scheduler in one process tree.

    The default settings use SQLite, a local folder and an in-memory queue. on_demand: end once it is unused.
    """
    from functools import partial

    from internal import process
    from internal.embedded import Embedded

    process.run("embedded", partial(Embedded, on_demand=on_demand))
