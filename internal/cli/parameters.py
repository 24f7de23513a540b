"""Parameters that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
Server = Annotated[
    str | None,
    typer.Option(
        envvar="STT_SERVER",
        metavar="URL",
        help="Address of a server, with the key in STT_API_KEY. (the service of DATA_DIR)",
    ),
]


def examples(*lines: tuple[str, str]) -> str:
    """Return the end of a help text: commands, each with what it does."""
    return "\n\n".join(["[bold]Examples[/bold]", *(f"{command}  [dim]{does}[/dim]" for command, does in lines)])
