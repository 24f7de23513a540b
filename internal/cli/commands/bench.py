"""`stt bench`: the engines of this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from internal.cli import output
from internal.cli.parameters import AsJson, examples

app = typer.Typer()
COLUMNS = {
    "model": "model",
    "variant": "variant",
    "description": "version and instruction set",
    "audio_per_cpu_second": "audio s per CPU s",
    "clip_seconds": "10 s clip, s",
    "peak_mb": "peak memory, MB",
    "words_wrong": "words wrong",
    "choice": "choice",
}


@app.command(
    rich_help_panel=output.OPERATING,
    epilog=examples(
        ("stt bench", "every installed model"),
        ("stt bench large-v3-turbo-q5_0 --json", "one of them, a JSON line for each engine"),
    ),
)
def bench(
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Default: all installed.")] = None,
    as_json: AsJson = False,
) -> None:
    """Try every installed engine with the installed models, and print speed, memory and words wrong of each."""
    import asyncio
    from dataclasses import asdict

    from internal.process import settings_or_exit
    from worker import engine_table
    from worker.engine_variants import AUTO, model_formats
    from worker.models import ModelCatalogue

    settings = settings_or_exit("bench")
    catalogue = ModelCatalogue(settings.model_dirs, model_formats(AUTO))

    async def work() -> list[engine_table.Row]:
        rows: list[engine_table.Row] = []
        for name in models or catalogue.names():
            async for step in engine_table.measure(catalogue.path(name), settings.worker_concurrency):
                if isinstance(step, str):
                    output.say("{model}: trying {engine}", model=name, engine=step)
                else:
                    rows += step
        return rows

    rows = asyncio.run(work())
    if as_json:
        for row in rows:
            output.json_line(asdict(row))
        return
    cells = [[getattr(row, name) for name in COLUMNS] for row in rows]
    output.table(list(COLUMNS.values()), cells, "No models are installed.")
