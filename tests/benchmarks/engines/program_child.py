"""whisper.cpp's own programs: `whisper-server`, kept running, and `whisper-cli`, started for each language's files."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.benchmarks.engines.child import Item, costs_of, main

GREEDY = ("--beam-size", "1", "--best-of", "1", "--no-fallback", "--max-context", "0")
START_SECONDS = 120


def call(task: dict[str, Any]) -> list[str]:
    return [task["program"], "--model", task["model"], "--threads", str(task["threads"]), *GREEDY]


class ServerRunner:
    def __init__(self, task: dict[str, Any]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._process = subprocess.Popen(
            [*call(task), "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=1800)
        end = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(httpx.TransportError):
                if self._client.get("/").status_code == 200:
                    return
            if self._process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"whisper-server did not start: status {self._process.poll()}")
            time.sleep(0.1)

    def transcribe(self, items: list[Item]) -> list[str]:
        return [self._text(item) for item in items]

    def _text(self, item: Item) -> str:
        fields = {"language": item["language"], "response_format": "text", "temperature": "0.0"}
        with Path(item["wav"]).open("rb") as file:
            return self._client.post("/inference", files={"file": file}, data=fields).raise_for_status().text

    def windows(self, dense: list[Item], sparse: list[Item]) -> tuple[float, float]:
        return costs_of(self, dense[:2], sparse[:2])

    def cpu_seconds(self) -> float:
        return float(sum(psutil.Process(self._process.pid).cpu_times()[:2]))

    def process_ids(self) -> list[int]:
        return [self._process.pid]


class CliRunner:
    """Every run loads the model, as the program does."""

    def __init__(self, task: dict[str, Any]) -> None:
        self._call = call(task)
        self._timings = ""

    def transcribe(self, items: list[Item]) -> list[str]:
        texts: dict[int, str] = {}
        with tempfile.TemporaryDirectory() as folder:
            for language in sorted({item["language"] for item in items}):
                chosen = [index for index, item in enumerate(items) if item["language"] == language]
                arguments = [*self._call, "--language", language, "--output-txt"]
                for index in chosen:
                    link = Path(folder) / f"{index}.wav"
                    link.symlink_to(items[index]["wav"])
                    arguments += ["--file", str(link)]
                done = subprocess.run(arguments, check=True, capture_output=True, text=True, errors="replace")
                self._timings = done.stderr
                texts |= {index: (Path(folder) / f"{index}.wav.txt").read_text() for index in chosen}
        return [texts[index] for index in range(len(items))]

    def windows(self, dense: list[Item], sparse: list[Item]) -> tuple[float, float] | None:
        """Return the program's own timings, elapsed seconds on one thread."""
        self.transcribe(dense[:2])
        found = re.findall(r"(encode|decode|batchd) time = +([\d.]+) ms / +(\d+) runs", self._timings)
        totals = {name: (float(milliseconds) / 1000, int(runs)) for name, milliseconds, runs in found}
        encode, decode = totals["encode"], totals["decode"]
        return encode[0] / encode[1], decode[0] / decode[1]

    def cpu_seconds(self) -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def process_ids(self) -> list[int]:
        """Return none: no program runs between two calls."""
        return []


def load(task: dict[str, Any]) -> ServerRunner | CliRunner:
    return ServerRunner(task) if Path(task["program"]).name == "whisper-server" else CliRunner(task)


if __name__ == "__main__":
    main(load)
