"""The `stt` command. Commands import what they need when they run, so that `--help` stays fast."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from internal.cli import dlq, keys, processes

app = typer.Typer(
    help="Self-hosted, asynchronous speech to text.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("serve")(processes.embedded)
app.command()(processes.api)
app.command()(processes.consumer)
app.command()(processes.scheduler)
app.add_typer(keys.app, name="keys")
app.add_typer(dlq.app, name="dlq")


def _print_version(value: bool) -> None:
    if value:
        from core.version import VERSION

        typer.echo(f"async-stt {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Self-hosted, asynchronous speech to text."""


@app.command()
def migrate() -> None:
    """Create or upgrade the schema of DATABASE_URL."""
    from core.database import Database
    from internal.process import settings_or_exit
    from migrations.run import upgrade

    settings = settings_or_exit("migrate")

    async def run() -> None:
        database = Database(settings.database_url)
        await upgrade(database)
        await database.stop()

    asyncio.run(run())
    typer.echo("The database has the newest schema.")


def main() -> None:
    app(prog_name="stt")


if __name__ == "__main__":
    main()
