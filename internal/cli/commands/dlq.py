"""`stt dlq`: list, show, replay and purge dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from internal.cli import output, runner
from internal.cli.parameters import AsJson, examples

if TYPE_CHECKING:
    from internal.bootstrap import Application

app = typer.Typer(
    help="List, show, replay and purge dead letters. Needs BROKER=rabbitmq.",
    no_args_is_help=True,
    rich_help_panel=output.OPERATING,
    epilog=examples(
        ("stt dlq show JOB", "why a job failed"),
        ("stt dlq replay all", "run every failed job again, once the cause is removed"),
    ),
)
COLUMNS = ("job", "chunk", "attempts", "code", "message", "first_failure", "last_failure")
JobOrAll = Annotated[str, typer.Argument(metavar="JOB", help="A job_id, or `all`.")]


@app.command("list", epilog=examples(("stt dlq list --json | jq -r .code | sort | uniq -c", "how often each error")))
def list_dead_letters(as_json: AsJson = False) -> None:
    """List all dead letters, oldest first."""

    async def work(application: Application) -> None:
        rows = [
            {**letter.headers, "job": letter.job_id or "(not decodable)"}
            for letter in await application.dead_letters.list_all()
        ]
        if as_json:
            for row in rows:
                output.json_line(row)
            return
        cells = [[row.get(name, row.get("reason", "")) for name in COLUMNS] for row in rows]
        output.table(COLUMNS, cells, "No dead letters.")

    runner.run("dlq", work, needs_broker=True)


@app.command(epilog=examples(("stt dlq show 4f0a…", "one job"), ("stt dlq show all --json", "every one, for scripts")))
def show(job: JobOrAll, as_json: AsJson = False) -> None:
    """Print all headers of a job's dead letter."""

    async def work(application: Application) -> None:
        from internal.services.dead_letters import ALL

        dead_letters = await application.dead_letters.list_all()
        matching = [dead_letter for dead_letter in dead_letters if job in (dead_letter.job_id, ALL)]
        _require(job, len(matching))
        if not matching:
            output.say("No dead letters.")
        for dead_letter in matching:
            if as_json:
                output.json_line({**dead_letter.headers, "job": dead_letter.job_id})
                continue
            for name, value in dead_letter.headers.items():
                output.result(f"{name}: {output.printable(str(value))}")
            output.result("")

    runner.run("dlq", work, needs_broker=True)


def _require(job: str, count: int) -> None:
    """Raise DeadLetterNotFoundError if a job that was named has no dead letter."""
    from core.errors_command import DeadLetterNotFoundError
    from internal.services.dead_letters import ALL

    if not count and job != ALL:
        raise DeadLetterNotFoundError


@app.command(epilog=examples(("stt dlq replay all", "once the cause is removed")))
def replay(job: JobOrAll) -> None:
    """Reopen a job to run its missing steps, and remove its dead letter."""

    async def work(application: Application) -> None:
        reopened, stale = await application.dead_letters.replay(job)
        _require(job, reopened + stale)
        text = "{reopened} reopened for what is missing, {stale} stale dead letters removed."
        output.result(output.in_language(text, reopened=reopened, stale=stale))

    runner.run("dlq", work, needs_broker=True)


@app.command(epilog=examples(("stt dlq purge 4f0a…", "one that is not worth another attempt")))
def purge(job: JobOrAll) -> None:
    """Remove a job's dead letter; the job stays FAILED."""

    async def work(application: Application) -> None:
        count = await application.dead_letters.purge(job)
        _require(job, count)
        output.result(output.in_language("{count} dead letters removed; their jobs stay FAILED.", count=count))

    runner.run("dlq", work, needs_broker=True)
