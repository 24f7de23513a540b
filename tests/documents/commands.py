"""Generate the reference of docs/cli.md from the program itself: `make docs`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from internal.cli.app import Commands
from tests.e2e.service import ROOT

PAGE = ROOT / "docs" / "cli.md"
MARK = "<!-- Generated from here by `make docs` from internal/cli/commands/. -->\n"


def reference() -> str:
    """Return the reference of all commands."""
    commands = Commands()
    return "\n".join(line for name in sorted(commands) for line in _command(f"stt {name}", commands[name]))


def _command(name: str, command: Any) -> Iterator[str]:
    if command.hidden:
        return
    arguments = [_metavar(option) for option in command.params if option.param_type_name == "argument"]
    nested = getattr(command, "commands", {})
    yield f"### {' '.join([name, *arguments])}\n"
    yield f"{command.help}\n"
    rows = [_row(option) for option in command.params if not getattr(option, "hidden", False)]
    if rows:
        yield "| Parameter | Meaning |\n|---|---|"
        yield from rows
        yield ""
    if command.epilog:
        shown = re.findall(r"^(?!\[bold\])(.+?)  \[dim\](.+)\[/dim\]$", command.epilog, re.MULTILINE)
        yield "".join(f"- `{line}`: {does}\n" for line, does in shown)
    for word, child in nested.items():
        yield from _command(f"{name} {word}", child)


def _metavar(option: Any) -> str:
    return str(option.metavar or option.name.upper())


def _row(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if option.param_type_name == "argument":
        names = f"`{_metavar(option)}`"
    meaning = option.help or ""
    if isinstance(option.default, str | int | float) and not isinstance(option.default, bool):
        meaning += f" Default: `{getattr(option.default, 'value', option.default)}`."
    if option.envvar:
        meaning += f" Environment: `{option.envvar}`."
    return f"| {names.replace('|', chr(92) + '|')} | {meaning.replace('|', chr(92) + '|')} |"


def page() -> str:
    """Return the page: what was written by hand, then the reference."""
    by_hand, _, _ = PAGE.read_text().partition(MARK)
    return f"{by_hand}{MARK}\n{reference()}"


if __name__ == "__main__":
    PAGE.write_text(page())
