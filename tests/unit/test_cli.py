"""The `stt` command: its help, its exit codes, and what it imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.version import VERSION
from tests.e2e.service import ROOT

COMMANDS = ("serve", "api", "consumer", "scheduler", "migrate", "keys", "dlq")
HEAVY = ("fastapi", "sqlalchemy", "rich", "numpy", "aio_pika", "minio", "core.config")


def stt(*words: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-m", "internal.cli.main", *words]
    return subprocess.run(call, env=environment, cwd=folder, capture_output=True, text=True, check=False)


def test_help_names_every_command() -> None:
    done = stt("--help")
    assert done.returncode == 0
    assert [name for name in COMMANDS if f"\n  {name} " not in done.stdout] == []
    assert "..." not in done.stdout.replace("[ARGS]...", ""), "a command's help is cut off"


def test_version() -> None:
    assert stt("--version").stdout == f"async-stt {VERSION}\n"


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
def test_bad_input_exits_with_2_and_a_message(words: list[str], message: str) -> None:
    done = stt(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_dead_letters_in_memory_are_out_of_reach(tmp_path: Path) -> None:
    done = stt("dlq", "list", folder=tmp_path)
    assert done.returncode == 1
    assert "/retry" in done.stderr


def test_an_unexpected_error_shows_no_local_variables(tmp_path: Path) -> None:
    code = (
        "import core.database\n"
        "def fail(url):\n    password = 'rosebud'\n    raise RuntimeError('unexpected')\n"
        "core.database.Database = fail\n"
        "import sys; sys.argv = ['stt', 'migrate']\n"
        "from internal.cli.main import main; main()\n"
    )
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-c", code]
    done = subprocess.run(call, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RuntimeError: unexpected" in done.stderr
    assert "rosebud" not in done.stderr


def test_help_loads_no_service() -> None:
    code = (
        "import sys, contextlib\nsys.argv = ['stt', '--help']\nfrom internal.cli.main import main\n"
        f"with contextlib.suppress(SystemExit):\n    main()\nprint([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
