"""`stt scheduler`: a scheduler as a process of its own."""

from __future__ import annotations

import typer

from internal.cli import output, processes
from internal.cli.parameters import examples

app = typer.Typer()
EPILOG = examples(("stt scheduler", "with the settings of `stt api`; a second one is a spare"))
app.command(rich_help_panel=output.PROCESSES, epilog=EPILOG)(processes.scheduler)
