"""The `stt` command. Each file of `internal/cli/commands/` is a command or a group of commands.

A command is imported when it is used, or when the list of all commands is printed. Its module imports typer alone, and
what it needs when it runs, so that `--help` stays fast.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeGuard

import typer
from typer.core import TyperGroup

from core.error_base import SttError
from core.errors import InternalError, SettingsError
from core.errors_command import UsageError
from internal.cli import output
from internal.cli.exits import ExitStatus, status_of
from internal.cli.parameters import Lang

if TYPE_CHECKING:
    from internal.client.errors import ClientError

FOLDER = Path(__file__).parent / "commands"
COMPLETION = ("install_completion", "show_completion")
TRACEBACK = "STT_TRACEBACK"
"""Environment variable that shows the traceback of an unexpected error."""


class Commands(Mapping[str, Any]):
    """The commands by name: that of the file, with hyphens for underscores. Values are loaded on first use."""

    def __init__(self, folder: Path = FOLDER, package: str = "internal.cli.commands") -> None:
        self._modules = {
            path.stem.replace("_", "-"): f"{package}.{path.stem}"
            for path in sorted(folder.glob("*.py"))
            if not path.stem.startswith("_")
        }
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            app: typer.Typer = importlib.import_module(self._modules[name]).app
            command: Any = typer.main.get_command(app)
            command.name = name
            # the options of shell completion belong to `stt` alone
            command.params = [option for option in command.params if option.name not in COMPLETION]
            panels = (getattr(command, "rich_help_panel", None), app.info.rich_help_panel)
            command.rich_help_panel = next((panel for panel in panels if isinstance(panel, str)), output.OPERATING)
            _join_lines(command)
            _accept_language(command)
            self._loaded[name] = command
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


def _join_lines(command: Any) -> None:
    """Join the lines of each paragraph of the help texts, which typer breaks anew."""
    command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", command.help or "")
    for nested in getattr(command, "commands", {}).values():
        _join_lines(nested)


def _accept_language(command: Any) -> None:
    """Let the command take --lang as `stt` itself does."""
    nested = getattr(command, "commands", {})
    for child in nested.values():
        _accept_language(child)
    if not nested:
        command.params.append(_language_option())


@functools.cache
def _language_option() -> Any:
    app = typer.Typer(add_completion=False)

    @app.command()
    def carrier(lang: Lang = None) -> None: ...

    command: Any = typer.main.get_command(app)
    option = command.params[0]
    option.hidden, option.expose_value, option.envvar = True, False, None
    return option


class Group(TyperGroup):
    """The group of all commands, in the order of their help panels."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = Commands()

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=lambda name: output.PANELS.index(self.commands[name].rich_help_panel))


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=(
        "Self-hosted, asynchronous speech to text.\n\n"
        "Results are printed on standard output, everything else on standard error. "
        "Exit status: 0 success, 1 something failed, 2 usage, 3 the service cannot be reached, 4 not allowed, "
        "130 interrupted."
    ),
)


def _print_version(value: bool) -> None:
    if value:
        from core.version import VERSION

        output.result(f"async-stt {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    lang: Lang = None,
) -> None:
    """Options of `stt` itself."""


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        app(prog_name="stt")
    except SettingsError as error:
        output.note(str(error))
        sys.exit(ExitStatus.USAGE)
    except Exception as error:
        if isinstance(error, SttError) or _is_client_error(error):
            output.error(error)
            status = status_of(error)
            if status is ExitStatus.NOT_ALLOWED:
                output.say("`stt` reads the key from STT_API_KEY.")
            sys.exit(status)
        if isinstance(error, UnicodeEncodeError) and (word := _undecodable_argument()):
            output.error(UsageError("{value} is not valid UTF-8.", value=ascii(word)))
            sys.exit(ExitStatus.USAGE)
        if os.environ.get(TRACEBACK):
            raise
        output.error(InternalError())
        output.say("{reason} ({variable}=1 shows where)", reason=f"{type(error).__name__}: {error}", variable=TRACEBACK)
        sys.exit(ExitStatus.FAILED)


def _undecodable_argument() -> str | None:
    """Return an argument with bytes that are not UTF-8, which only names of files may have."""
    return next((word for word in sys.argv[1:] if word != word.encode(errors="replace").decode()), None)


def _is_client_error(error: Exception) -> TypeGuard[ClientError]:
    # the client is loaded by the commands that use it
    module = sys.modules.get("internal.client.errors")
    return module is not None and isinstance(error, module.ClientError)
