"""The `stt` program: its help, its exit statuses, what it imports, its launcher."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.version import VERSION
from internal.cli.app import FOLDER, Commands
from tests.cli.program import in_terminal, piped
from tests.e2e.service import ROOT
from worker.engine_variants import installed

COMMANDS = sorted(Commands())
HEAVY = ("fastapi", "sqlalchemy", "httpx", "numpy", "aio_pika", "minio", "pydantic", "core.config")


def test_help_names_every_command(tmp_path: Path) -> None:
    shown = piped("--help", folder=tmp_path, status=0).output
    assert [name for name in COMMANDS if f"│ {name} " not in shown] == []
    assert "│ serve " in in_terminal("--help", folder=tmp_path, status=0).output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help(name: str, tmp_path: Path) -> None:
    assert f"Usage: stt {name}" in piped(name, "--help", folder=tmp_path, status=0).output


def leaves() -> Iterator[tuple[str, Any]]:
    """Yield name and command of each command without commands of its own."""
    for name, command in Commands().items():
        nested = getattr(command, "commands", {})
        yield from ((f"{name} {word}", child) for word, child in nested.items()) if nested else [(name, command)]


@pytest.mark.parametrize(("name", "command"), [pytest.param(*leaf, id=leaf[0]) for leaf in leaves()])
def test_the_help_of_a_command_is_a_manual_page(name: str, command: Any) -> None:
    """It says what the command does and what each parameter is for, and has examples that the command accepts."""
    assert command.help.endswith(".")
    assert [option.name for option in command.params if not option.help and not option.hidden] == []
    shown = re.findall(r"^(?!\[bold\])(.+?)  \[dim\](.+)\[/dim\]$", command.epilog or "", re.MULTILINE)
    calls = [call for line, _ in shown for call in re.findall(rf"\bstt {name}\b([^|>)]*)", line)]
    assert calls, "an example of the command itself"
    for call in calls:
        command.make_context(name, shlex.split(call))


def test_version(tmp_path: Path) -> None:
    assert piped("--version", folder=tmp_path, status=0).output == f"async-stt {VERSION}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["dlq", "show"], "Missing argument 'JOB'"),
        (["dlq", "nonsense"], "No such command 'nonsense'"),
        (["keys", "revoke"], "Missing argument 'ID'"),
        (["keys", "create", "--owner", "a/b"], "An owner is 1 to 64 of"),
        (["keys", "create", "--days", "soon"], "Invalid value for '--days'"),
        (["keys", "create", "--days", "0"], "more than 0"),
        (["keys", "create", "--colour", "red"], "No such option"),
    ],
)
def test_bad_input_exits_with_2_and_a_message(words: list[str], message: str, tmp_path: Path) -> None:
    run = piped(*words, folder=tmp_path, status=2)
    assert message in run.errors
    assert "Traceback" not in run.errors
    assert not run.output


def test_an_invalid_setting_exits_with_2(tmp_path: Path) -> None:
    run = piped("migrate", folder=tmp_path, status=2, API_PORT="high")
    assert "API_PORT" in run.errors
    assert "Traceback" not in run.errors


def test_dead_letters_in_memory_are_out_of_reach(tmp_path: Path) -> None:
    assert "QUEUE_INSIDE_SERVICE" in piped("dlq", "list", folder=tmp_path, status=2).errors
    assert "hàng đợi nằm trong dịch vụ" in in_terminal("dlq", "list", folder=tmp_path, LANG="vi_VN.UTF-8").output


def test_keys_in_a_pipe_and_in_a_terminal(tmp_path: Path) -> None:
    assert "SCHEMA_NEEDED" in piped("keys", "list", folder=tmp_path, status=3).errors
    piped("migrate", folder=tmp_path, status=0)
    empty = piped("keys", "list", folder=tmp_path, status=0)
    assert (empty.output, "No keys" in empty.errors) == ("", True)
    created = json.loads(piped("keys", "create", "--owner", "crawler", "--json", folder=tmp_path, status=0).output)
    key_id = created["key"].split("_")[1]
    header, row = piped("keys", "list", folder=tmp_path, status=0).output.splitlines()
    assert header.split("\t")[0] == "id"
    assert row.split("\t")[:2] == [key_id, "crawler"]
    assert key_id in in_terminal("keys", "list", folder=tmp_path, status=0).output
    assert "is revoked" in in_terminal("keys", "revoke", key_id, folder=tmp_path, status=0).output
    assert "KEY_NOT_FOUND" in piped("keys", "revoke", key_id, folder=tmp_path, status=1).errors


@pytest.mark.parametrize("traceback", [False, True])
def test_an_unexpected_error_shows_no_local_variables(tmp_path: Path, traceback: bool) -> None:
    code = (
        "import core.database\n"
        "def fail(url):\n    password = 'rosebud'\n    raise RuntimeError('unexpected')\n"
        "core.database.Database = fail\n"
        "import sys; sys.argv = ['stt', 'migrate']\n"
        "from internal.cli.app import main; main()\n"
    )
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), **({"STT_TRACEBACK": "1"} if traceback else {})}
    call = [sys.executable, "-c", code]
    done = subprocess.run(call, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RuntimeError: unexpected" in done.stderr
    assert ("Traceback" in done.stderr) == traceback
    assert "rosebud" not in done.stderr


def test_help_loads_no_service() -> None:
    code = (
        "import sys, contextlib\nsys.argv = ['stt', '--help']\nfrom internal.cli.app import main\n"
        f"with contextlib.suppress(SystemExit):\n    main()\nprint([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_command_is_one_file(tmp_path: Path) -> None:
    """A command is found by its file, and loads no other command."""
    assert {path.stem.replace("_", "-") for path in FOLDER.glob("[a-z]*.py")} == set(COMMANDS)
    code = (
        "import sys\nfrom internal.cli.app import Commands\nCommands()['keys']\n"
        "print([name for name in sys.modules if name.startswith('internal.cli.commands.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['internal.cli.commands.keys']"


def test_make_stt_writes_a_launcher(tmp_path: Path) -> None:
    """It runs from any folder, and modules there do not shadow those of the program."""
    environment = tmp_path / "an environment"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (environment / "bin" / "python").chmod(0o755)
    command = ["bash", str(ROOT / "deploy" / "make-launcher.sh"), str(environment)]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--help" in made.stdout
    (tmp_path / "core.py").write_text("raise SystemExit('the wrong module')")
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    call = [str(environment / "bin" / "stt"), "--version"]
    done = subprocess.run(call, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == f"async-stt {VERSION}\n", done.stderr


def test_the_shell_completes_commands_and_options(tmp_path: Path) -> None:
    def complete(line: str) -> set[str]:
        words = line.split(" ")
        variables = {"_STT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        return set(piped(folder=tmp_path, **variables).output.split())

    assert complete("stt jo") == {"jobs"}
    assert {"cancel", "list", "retry", "rm", "show", "watch"} == complete("stt jobs ")
    assert "--output-format" in complete("stt transcribe --out")


@pytest.mark.speech
def test_bench_prints_the_engines_of_this_machine(tmp_path: Path) -> None:
    run = piped("bench", "--json", folder=tmp_path, status=0, ENGINE="auto")
    rows = [json.loads(line) for line in run.output.splitlines()]
    assert {row["variant"] for row in rows} == {str(variant) for variant in installed()}
    assert [row["choice"] for row in rows].count("chosen") == 1
    assert all(row["words_wrong"] == 0 < row["audio_per_cpu_second"] for row in rows)
    assert "trying whisper_cpp_wheel" in run.errors
    missing = piped("bench", "none", folder=tmp_path)
    assert (missing.status, missing.output) == (1, "")
    assert "MODEL_MISSING" in missing.errors
