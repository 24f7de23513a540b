"""Output of the command line: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.error_base import SttError
from core.texts import ENGLISH, VIETNAMESE, format_template
from core.texts_cli import CLI_TEXTS

if TYPE_CHECKING:
    from internal.client.errors import ClientError

LANGUAGE = "STT_LANG"
"""Environment variable that --lang sets, so that processes which a command starts have the same language."""
PANELS = TRANSCRIBING, OPERATING, PROCESSES = ("Transcribing", "Operating", "Processes")
"""Panels of `stt --help`, in this order."""


def language() -> str:
    """Return the language of messages: that of --lang or STT_LANG, else Vietnamese if the locale is, else English."""
    names = (os.environ.get(name) for name in (LANGUAGE, "LC_ALL", "LC_MESSAGES", "LANG"))
    locale = next((name for name in names if name), "")
    return VIETNAMESE if locale.lower().startswith("vi") else ENGLISH


def printable(text: str) -> str:
    """Return the text on one line, with control characters and undecodable bytes of file names escaped."""
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode()


def result(text: str, *, styled: bool = False) -> None:
    """Print a result. On a terminal, control characters other than line ends are escaped, unless it is `styled`.

    If the reader has gone, this and all that follows is discarded: what the command does otherwise still counts.
    """
    if sys.stdout.isatty() and not styled:
        text = "\n".join(printable(line) for line in text.split("\n"))
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(f"{text}\n".encode(errors="replace"))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def json_line(value: Any) -> None:
    """Print a value as one line of JSON."""
    result(json.dumps(value, default=str))


def note(text: str) -> None:
    """Print a message on standard error."""
    lines = "\n".join(printable(line) for line in text.split("\n"))
    sys.stderr.write(f"{lines}\n")
    sys.stderr.flush()


def say(text: str, /, **values: Any) -> None:
    """Print a message on standard error; see `in_language`."""
    note(in_language(text, **values))


def in_language(text: str, /, **values: Any) -> str:
    """Return a message of `core/texts_cli.py` or `core/texts.py` in the language of the locale."""
    if language() == VIETNAMESE and text in CLI_TEXTS:
        return CLI_TEXTS[text].format(**values)
    return format_template(text, language(), values) or format_template(text, ENGLISH, values) or text


def text_of(reason: SttError | ClientError) -> str:
    """Return an error's message in the language of the locale."""
    return reason.message(language()) if isinstance(reason, SttError) else reason.message


def error(reason: SttError | ClientError) -> None:
    """Print an error with its code."""
    note(f"{reason.code}: {text_of(reason)}")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """Print rows: as a table on a terminal, else as lines with tabs and the columns' names first.

    empty: the message, on standard error, if there are no rows; see `in_language`.
    """
    cells = [[printable("" if cell is None else str(cell)) for cell in row] for row in rows]
    if not cells:
        say(empty)
    elif not sys.stdout.isatty():
        result("\n".join("\t".join(row) for row in [list(columns), *cells]))
    else:
        from rich.console import Console
        from rich.table import Column, Table
        from rich.text import Text

        first, *others = columns
        grid = Table(Column(first, no_wrap=True), *others)
        for row in cells:
            grid.add_row(*(Text(cell) for cell in row))
        Console(highlight=False).print(grid)
