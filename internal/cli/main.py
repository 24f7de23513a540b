"""The `stt` command."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable

from core.database import Database
from core.version import VERSION
from internal.cli import dlq, keys, processes
from internal.process import settings_or_exit
from migrations.run import upgrade


def migrate() -> None:
    """Bring the database named by DATABASE_URL to the newest schema."""
    settings = settings_or_exit("migrate")

    async def work() -> None:
        database = Database(settings.database_url)
        await upgrade(database)
        await database.stop()

    asyncio.run(work())
    print("The database has the newest schema.")


COMMANDS: dict[str, tuple[Callable[[], None], str]] = {
    "serve": (processes.embedded, "everything in one process tree, on SQLite and a local directory by default"),
    "api": (processes.api, "the HTTP service"),
    "consumer": (processes.consumer, "takes jobs from the queues and transcribes them"),
    "scheduler": (processes.scheduler, "publishes what is due, collects what expired"),
    "migrate": (migrate, "bring the database to the newest schema"),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="stt", description="Self-hosted, asynchronous speech to text.")
    parser.add_argument("--version", action="version", version=f"async-stt {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (function, text) in COMMANDS.items():
        # called with the words of the command line, of which these have none
        commands.add_parser(name, help=text, description=text).set_defaults(run=lambda _, function=function: function())
    dlq.add_to(commands)
    keys.add_to(commands)
    words = parser.parse_args()
    words.run(words)


if __name__ == "__main__":
    main()
