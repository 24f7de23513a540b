"""`stt api`: the HTTP service as a process of its own."""

from __future__ import annotations

import typer

from internal.cli import output, processes
from internal.cli.parameters import examples

app = typer.Typer()
EPILOG = examples(
    ("BROKER=rabbitmq DATABASE_URL=postgresql://stt@db/stt stt api", "docs/operations.md has all settings")
)
app.command(rich_help_panel=output.PROCESSES, epilog=EPILOG)(processes.api)
