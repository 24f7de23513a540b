"""Parameters that several commands have."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer

from internal.cli.output import LANGUAGE

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
Server = Annotated[
    str | None,
    typer.Option(
        envvar="STT_SERVER",
        metavar="URL",
        help="Address of a server, with the key in STT_API_KEY. (the service of DATA_DIR)",
    ),
]


class Language(StrEnum):
    """Languages of messages."""

    EN = "en"
    VI = "vi"


def _set_language(value: Language | None) -> None:
    if value is not None:
        os.environ[LANGUAGE] = value


Lang = Annotated[
    Language | None,
    typer.Option(
        "--lang",
        callback=_set_language,
        is_eager=True,
        envvar=LANGUAGE,
        help="Language of messages, also after the command's name. (that of LC_ALL or LANG)",
    ),
]


def examples(*lines: tuple[str, str]) -> str:
    """Return the end of a help text: commands, each with what it does."""
    return "\n\n".join(["[bold]Examples[/bold]", *(f"{command}  [dim]{does}[/dim]" for command, does in lines)])
