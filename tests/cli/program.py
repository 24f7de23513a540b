"""The real `stt` program, run as a pipe and in a terminal (pty)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.service import ROOT

PROGRAM = (sys.executable, "-P", "-m", "internal.cli")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SECONDS = 120.0
"""Time limit of a run."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended."""

    status: int
    output: str
    errors: str


def environment(folder: Path, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a clean environment, whose home folder and DATA_DIR are in `folder`."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "DATA_DIR": str(folder / "data"),
        "TEMP_DIR": str(folder / "tmp"),
        "PYTHONPATH": str(ROOT),
        "ENGINE": "whisper_cpp_wheel",  # needs no trial
        "COLUMNS": "200",
        "TERM": "xterm",
        **(variables or {}),
    }


def piped(*words: str | bytes, folder: Path, data: Any = b"", status: Any = None, **variables: str) -> Run:
    """Run the program with pipes. data: its standard input; status: the expected exit status; folder: where it runs."""
    call = [*map(os.fsencode, PROGRAM), *map(os.fsencode, words)]
    variables = environment(folder, variables)
    done = subprocess.run(
        call, env=variables, cwd=folder, input=data, capture_output=True, timeout=SECONDS, check=False
    )
    run = Run(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    assert status is None or run.status == status, run
    return run


class Terminal:
    """The program in a terminal of 200 × 50 characters. `separate` connects standard output to a pipe instead."""

    def __init__(
        self, *words: str | bytes, folder: Path, variables: Mapping[str, str] | None = None, separate: bool = False
    ) -> None:
        self._screen, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        self._received = b""
        self._process = subprocess.Popen(
            [*map(os.fsencode, PROGRAM), *map(os.fsencode, words)],
            env=environment(folder, variables),
            cwd=folder,
            stdin=child,
            stdout=subprocess.PIPE if separate else child,
            stderr=child,
            start_new_session=True,
            preexec_fn=_control_terminal,
        )
        os.close(child)

    @property
    def shown(self) -> str:
        """Return what the terminal has received, without escape sequences."""
        return ESCAPE.sub("", self._received.decode(errors="replace"))

    def wait_for(self, text: str, after: int = 0) -> int:
        """Read until the terminal has shown the text, after that many characters; return those shown so far."""
        end = time.monotonic() + SECONDS
        while text not in self.shown[after:]:
            assert time.monotonic() < end, self.shown
            assert self._read(1.0), f"the program ended without showing {text!r}:\n{self.shown}"
        return len(self.shown)

    def press(self, keys: str) -> None:
        os.write(self._screen, keys.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.press("\x03")

    def end(self, status: int | None = None) -> Run:
        """Read until the program has ended. status: the expected exit status."""
        end = time.monotonic() + SECONDS
        while self._read(1.0):
            assert time.monotonic() < end, self.shown
        output = self._process.stdout.read().decode() if self._process.stdout else self.shown
        code = self._process.wait(SECONDS)
        os.close(self._screen)
        assert status is None or code == status, self.shown
        return Run(code, output, self.shown)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _read(self, seconds: float) -> bool:
        """Read what is there. False: the program has closed the terminal."""
        readable, _, _ = select.select([self._screen], [], [], seconds)
        if not readable:
            return True
        try:
            data = os.read(self._screen, 65_536)
        except OSError as error:
            if error.errno == errno.EIO:
                return False
            raise
        self._received += data
        return bool(data)


def _control_terminal() -> None:
    # ignored by background jobs of a shell, and inherited from them
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def in_terminal(*words: str | bytes, folder: Path, status: Any = None, **variables: str) -> Run:
    """Run the program in a terminal until it ends; `output` has all that was shown."""
    with Terminal(*words, folder=folder, variables=variables) as terminal:
        return terminal.end(status)
