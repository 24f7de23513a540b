"""`stt migrate`: the schema of the database."""

from __future__ import annotations

from typing import Annotated

import typer

from internal.cli import output
from internal.cli.parameters import examples

app = typer.Typer()


@app.command(
    rich_help_panel=output.OPERATING,
    epilog=examples(("DATABASE_URL=postgresql://stt@db/stt stt migrate", "before the processes are started")),
)
def migrate(
    down_to: Annotated[
        str | None,
        typer.Option(metavar="REVISION", help="Undo later migrations instead, for an earlier version of the program."),
    ] = None,
) -> None:
    """Create or upgrade the schema of DATABASE_URL.

    --down-to drops the tables and columns that later revisions added, with their content, and keeps all other rows.
    """
    import asyncio

    from core.database import Database
    from internal.process import settings_or_exit
    from migrations.revisions import known_revisions
    from migrations.run import downgrade, upgrade

    if down_to is not None and down_to not in known_revisions():
        raise typer.BadParameter(f"Known revisions: {', '.join(reversed(known_revisions()))}.")

    settings = settings_or_exit("migrate")

    async def run() -> None:
        database = Database(settings.database_url)
        await (upgrade(database) if down_to is None else downgrade(database, down_to))
        await database.stop()

    asyncio.run(run())
    if down_to is None:
        output.result(output.in_language("The database has the newest schema."))
    else:
        output.result(output.in_language("The database has schema {revision}.", revision=down_to))
