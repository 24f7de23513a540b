"""`stt consumer`: a consumer as a process of its own."""

from __future__ import annotations

import typer

from internal.cli import output, processes
from internal.cli.parameters import examples

app = typer.Typer()
EPILOG = examples(("WORKER_CONCURRENCY=2 stt consumer", "two engine processes, and the settings of `stt api`"))
app.command(rich_help_panel=output.PROCESSES, epilog=EPILOG)(processes.consumer)
