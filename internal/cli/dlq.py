"""`stt dlq list | show JOB | replay JOB | purge JOB`; JOB may be `all`."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable

from rich.console import Console
from rich.table import Table

from core.config import BrokerKind
from core.errors import InfrastructureError
from internal import bootstrap
from internal.bootstrap import Application
from internal.process import settings_or_exit
from internal.services.dead_letters import ALL

console = Console(highlight=False)
COLUMNS = ("job", "chunk", "attempts", "code", "message", "first_failure", "last_failure")


async def show_all(parts: Application, _job: str) -> None:
    letters = await parts.services.dead_letters.list_all()
    table = Table(*COLUMNS)
    for letter in letters:
        facts = {**letter.headers, "job": letter.job_id or "(not decodable)"}
        table.add_row(*(str(facts.get(name, letter.headers.get("reason", ""))) for name in COLUMNS))
    console.print(table if letters else "No dead letters.")


async def show(parts: Application, job: str) -> None:
    found = [letter for letter in await parts.services.dead_letters.list_all() if job in (letter.job_id, ALL)]
    for letter in found:
        for name, value in letter.headers.items():
            console.print(f"{name}: {value}", soft_wrap=True)
        console.print()
    if not found:
        raise SystemExit(f"No dead letter of job {job}.")


async def replay(parts: Application, job: str) -> None:
    reopened, stale = await parts.services.dead_letters.replay(job)
    console.print(f"{reopened} reopened for what is missing, {stale} stale letters removed.")


async def purge(parts: Application, job: str) -> None:
    console.print(f"{await parts.services.dead_letters.purge(job)} dead letters removed; their jobs stay FAILED.")


COMMANDS: dict[str, Callable[[Application, str], Awaitable[None]]] = {
    "list": show_all,
    "show": show,
    "replay": replay,
    "purge": purge,
}


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "look at dead letters, replay them, throw them away"
    parser = commands.add_parser("dlq", help=text, description=text)
    parser.add_argument("what", choices=COMMANDS)
    parser.add_argument("job", nargs="?", default=None, help="a job_id, or `all`; `list` needs none")
    parser.set_defaults(run=run)


def run(words: argparse.Namespace) -> None:
    if words.what != "list" and words.job is None:
        raise SystemExit(f"stt dlq {words.what} needs a job_id, or `all`.")
    settings = settings_or_exit("dlq")
    if settings.broker is BrokerKind.MEMORY:
        raise SystemExit(
            "With BROKER=memory the queue lives inside the service: POST /api/v1/jobs/{job_id}/retry there."
        )
    try:
        asyncio.run(_with_parts(bootstrap.build(settings), COMMANDS[words.what], words.job or ALL))
    except InfrastructureError as error:
        raise SystemExit(f"{error.code}: {error}") from None


async def _with_parts(parts: Application, command: Callable[[Application, str], Awaitable[None]], job: str) -> None:
    try:
        await parts.broker.start()
        await command(parts, job)
    finally:
        await parts.stop()
