"""`stt serve`: the embedded service in the foreground."""

from __future__ import annotations

import typer

from internal.cli import output, processes

app = typer.Typer()
app.command(rich_help_panel=output.OPERATING)(processes.embedded)
