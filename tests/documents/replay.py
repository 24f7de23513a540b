"""Replay a document's blocks against the embedded service, and compare what they print with what the document shows."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.clients.external_server import ExternalServer, Received
from tests.documents.blocks import COMMANDS, OUTPUTS, Block
from tests.e2e.service import ROOT, Service
from tests.servers.base import free_port, wait_until

PRELUDE = """
set -aeuo pipefail
trap 'env -0 > "$STATE"' EXIT
curl() { command curl --silent --show-error --max-time 60 "$@"; }
sleep() { command sleep 0.2; }
stt() { if [ -x "$VENV/bin/stt" ]; then "$VENV/bin/stt" "$@"; else "$PYTHON" -m internal.cli "$@"; fi; }
make() {
    case "$1" in
        run) serve ;;
        stt|migrate) command make VENV="$VENV" "$@" ;;
        *) command make --dry-run "$@" ;;
    esac >/dev/null
}
serve() {
    command make VENV="$VENV" run 2> "$HOME/run.log" &
    until command curl --silent --fail "http://127.0.0.1:$API_PORT/live"; do
        kill -0 $! 2> "$STATE" || { cat "$HOME/run.log" >&2; return 1; }
        command sleep 0.2
    done
    kill $!
    wait $! || true
}
"""
"""`make run` ends once the service answers; elsewhere.py has the other targets. The next block has the variables."""
DEMO = "the demo's output"
"""The note of a block that `make demo` prints, which has a test of its own."""
NEWCOMER = "the newcomer's commands"
"""The note of a block that `test_newcomer.py` runs in a fresh clone."""
CAPTURED = ("job_id", "upload_url", "next_cursor")
"""Fields of a JSON answer that later blocks of the document use as shell variables."""
EXACT = ("code", "error_code", "message", "error", "type", "title")
"""Fields whose values are compared, not only their types."""


@dataclass
class Session:
    """State shared by the blocks of a document: shell variables, Python names, a home folder for `stt`."""

    service: Service
    external_server: ExternalServer
    folder: Path
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})
    output: str | None = None

    def __post_init__(self) -> None:
        # the reader's own recording
        shutil.copy(ROOT / "assets" / "samples" / "hello.en.mp3", self.folder / "my.mp3")
        self.variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "STATE": str(self.folder / "state"),
            "PYTHON": sys.executable,
            "ENGINE": "whisper_cpp_wheel",  # needs no trial
            "COLUMNS": "200",
            "VENV": str(copied_environment(self.folder / "venv")),
            "API_PORT": str(free_port()),
        }

    def replay(self, block: Block) -> None:
        """Run a block of commands, or compare the output of the block before with one that shows it."""
        if block.reason is not None or block.note in (DEMO, NEWCOMER) or block.language not in OUTPUTS | COMMANDS:
            self.output = None
        elif block.note == "webhook":
            compare_webhook(block.text, self._webhook())
        elif block.language in OUTPUTS:
            if self.output is not None:
                COMPARE[block.language](block.text, self.output)
            self.output = None
        else:
            self._wait(block.note)
            self.output = self._python(block) if block.language == "python" else self._shell(block)
            self._remember(self.output)

    def _wait(self, note: str) -> None:
        if note == "after the job has ended":
            self.service.wait(self.variables["job_id"])
        elif note == "after the webhook has arrived":
            job_id, log = self.variables["job_id"], self.service.folder / "embedded.log"

            def delivered() -> bool:
                return any("webhook_delivered" in line and job_id in line for line in log.read_text().splitlines())

            wait_until(delivered, "the webhook is delivered", 30)

    def _located(self, text: str) -> str:
        """The text with the addresses of this run."""
        text = text.replace("http://127.0.0.1:8000", self.service.url)
        text = text.replace("https://slow.example.org", self.external_server.url("/drip"))
        return text.replace("https://media.example.org", self.external_server.url(""))

    def _shell(self, block: Block) -> str:
        script = PRELUDE + self._located(block.text)
        call = ["bash", "-c", script]
        done = subprocess.run(call, env=self.variables, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{block.place}: status {done.returncode}\n{done.stdout}{done.stderr}"
        state = Path(self.variables["STATE"]).read_text().split("\0")
        self.variables = dict(line.split("=", 1) for line in state if "=" in line)
        return done.stdout

    def _python(self, block: Block) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(self._located(block.text), block.place, "exec"), self.names)
        return printed.getvalue()

    def _remember(self, output: str) -> None:
        with contextlib.suppress(ValueError):
            answer = json.loads(output)
            if isinstance(answer, dict):
                self.variables |= {name: answer[name] for name in CAPTURED if isinstance(answer.get(name), str)}

    def _webhook(self) -> Received:
        job_id = self.variables["job_id"].encode()
        found: list[Received] = []

        def arrived() -> bool:
            found[:] = [one for one in self.external_server.received if job_id in one.body]
            return bool(found)

        wait_until(arrived, "the webhook arrives", 60)
        return found[0]


def copied_environment(folder: Path) -> Path:
    """Make a virtual environment with the packages of this one, to which the Makefile installs nothing more."""
    own = Path(sys.prefix)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "lib").symlink_to(own / "lib")
    if (own / "pyvenv.cfg").exists():
        shutil.copy(own / "pyvenv.cfg", folder)
    for stamp in (".run", ".dev"):
        (folder / stamp).touch()
    return folder


def compare_json(expected: str, printed: str) -> None:
    try:
        answer = json.loads(printed)
    except ValueError:
        raise AssertionError(f"not JSON: {printed}") from None
    compare_value(json.loads(expected), answer)


def compare_value(expected: Any, answer: Any, place: str = "answer") -> None:
    """The same keys and types at every level; a key `…` stands for any further ones, a list's first entry for all."""
    if isinstance(expected, dict):
        assert isinstance(answer, dict), f"{place}: {answer!r}"
        shown = set(expected) - {"…"}
        missing, more = shown - set(answer), set() if "…" in expected else set(answer) - shown
        assert not missing, f"{place}: not in the answer: {missing}\n{answer}"
        assert not more, f"{place}: not in the document: {more}\n{answer}"
        for name in shown:
            compare_value(expected[name], answer[name], f"{place}.{name}")
            if name in EXACT:
                assert answer[name] == expected[name], f"{place}.{name}"
    elif isinstance(expected, list):
        assert isinstance(answer, list), f"{place}: {answer!r}"
        assert bool(answer) == bool(expected), f"{place}: {answer!r}"
        for one in answer:
            compare_value(expected[0], one, f"{place}[]")
    elif expected is not None and answer is not None:
        kinds = (int, float) if isinstance(expected, float) else type(expected)
        assert isinstance(answer, kinds), f"{place}: {answer!r} for {expected!r}"


def compare_text(expected: str, printed: str) -> None:
    """The same text, where `…` stands for any."""
    pattern = ".*".join(map(re.escape, expected.strip().split("…")))
    assert re.fullmatch(pattern, printed.replace("\r\n", "\n").strip(), re.DOTALL), printed


def compare_webhook(expected: str, received: Received) -> None:
    """The same request line, header names and body."""
    head, body = expected.split("\n\n", 1)
    first, *lines = head.splitlines()
    assert first.split()[:2] == ["POST", received.path]
    missing = {line.split(":")[0].lower() for line in lines} - set(received.headers)
    assert not missing, f"headers that did not come: {missing}"
    compare_json(body, received.body.decode())


COMPARE: Mapping[str, Callable[[str, str], None]] = {"json": compare_json, "text": compare_text}
