"""`stt dlq`: list, show, replay and purge dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from internal.cli import runner

if TYPE_CHECKING:
    from internal.bootstrap import Application

app = typer.Typer(help="List, show, replay and purge dead letters. Needs BROKER=rabbitmq.", no_args_is_help=True)
COLUMNS = ("job", "chunk", "attempts", "code", "message", "first_failure", "last_failure")
JobOrAll = Annotated[str, typer.Argument(metavar="JOB", help="A job_id, or `all`.")]


@app.command("list")
def list_dead_letters() -> None:
    """List all dead letters, oldest first."""

    async def work(application: Application) -> None:
        from rich.console import Console
        from rich.table import Table

        dead_letters = await application.dead_letters.list_all()
        table = Table(*COLUMNS)
        for dead_letter in dead_letters:
            cells = {**dead_letter.headers, "job": dead_letter.job_id or "(not decodable)"}
            table.add_row(*(str(cells.get(name, dead_letter.headers.get("reason", ""))) for name in COLUMNS))
        Console(highlight=False).print(table if dead_letters else "No dead letters.")

    runner.run("dlq", work, needs_broker=True)


@app.command()
def show(job: JobOrAll) -> None:
    """Print all headers of a job's dead letter."""

    async def work(application: Application) -> None:
        from internal.services.dead_letters import ALL

        dead_letters = await application.dead_letters.list_all()
        matching = [dead_letter for dead_letter in dead_letters if job in (dead_letter.job_id, ALL)]
        if not matching:
            raise SystemExit(f"No dead letter of job {job}.")
        for dead_letter in matching:
            for name, value in dead_letter.headers.items():
                typer.echo(f"{name}: {value}")
            typer.echo()

    runner.run("dlq", work, needs_broker=True)


@app.command()
def replay(job: JobOrAll) -> None:
    """Reopen a job to run its missing steps, and remove its dead letter."""

    async def work(application: Application) -> None:
        reopened, stale = await application.dead_letters.replay(job)
        typer.echo(f"{reopened} reopened for what is missing, {stale} stale dead letters removed.")

    runner.run("dlq", work, needs_broker=True)


@app.command()
def purge(job: JobOrAll) -> None:
    """Remove a job's dead letter; the job stays FAILED."""

    async def work(application: Application) -> None:
        count = await application.dead_letters.purge(job)
        typer.echo(f"{count} dead letters removed; their jobs stay FAILED.")

    runner.run("dlq", work, needs_broker=True)
