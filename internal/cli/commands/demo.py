"""`stt demo`: the sample recordings, transcribed."""

from __future__ import annotations

import typer

from internal.cli import output
from internal.cli.parameters import examples

app = typer.Typer()


@app.command(
    rich_help_panel=output.TRANSCRIBING, epilog=examples(("stt demo", "two recordings, English and Vietnamese"))
)
def demo() -> None:
    """Start the embedded service, transcribe the sample recordings, print their text, and stop."""
    from internal.cli.demo import run

    raise typer.Exit(run())
