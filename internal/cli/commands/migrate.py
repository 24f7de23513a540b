"""`stt migrate`: the schema of the database."""

from __future__ import annotations

import typer

from internal.cli import output
from internal.cli.parameters import examples

app = typer.Typer()


@app.command(
    rich_help_panel=output.OPERATING,
    epilog=examples(("DATABASE_URL=postgresql://stt@db/stt stt migrate", "before the processes are started")),
)
def migrate() -> None:
    """Create or upgrade the schema of DATABASE_URL."""
    import asyncio

    from core.database import Database
    from internal.process import settings_or_exit
    from migrations.run import upgrade

    settings = settings_or_exit("migrate")

    async def run() -> None:
        database = Database(settings.database_url)
        await upgrade(database)
        await database.stop()

    asyncio.run(run())
    output.result(output.in_language("The database has the newest schema."))
