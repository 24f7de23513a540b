"""`stt serve`: the embedded service in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer

from internal.cli import output
from internal.cli.parameters import examples

app = typer.Typer()


@app.command(
    rich_help_panel=output.OPERATING,
    epilog=examples(
        ("stt serve", "on http://127.0.0.1:8000; /docs describes the API"),
        ("stt serve --host 0.0.0.0 --port 9000", "for other machines, which need a key: stt keys create"),
    ),
)
def serve(
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address to listen on. (API_HOST, 127.0.0.1)")
    ] = None,
    port: Annotated[
        int | None, typer.Option(metavar="N", min=0, max=65535, help="Port; 0 for a free one. (API_PORT, 8000)")
    ] = None,
    on_demand: Annotated[bool, typer.Option("--on-demand", hidden=True)] = False,
) -> None:
    """Run the service in the foreground: api, consumer and scheduler in one process tree."""
    import os

    from internal.cli.processes import embedded

    for name, value in (("API_HOST", host), ("API_PORT", port)):
        if value is not None:
            os.environ[name] = str(value)
    embedded(on_demand=on_demand)
