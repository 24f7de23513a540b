"""`stt consumer`: a consumer as a process of its own."""

from __future__ import annotations

import typer

from internal.cli import output, processes

app = typer.Typer()
app.command(rich_help_panel=output.PROCESSES)(processes.consumer)
