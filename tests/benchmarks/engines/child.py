"""The child process of a measurement: it loads an engine and follows its parent's commands.

`go GROUP` transcribes the recordings of a group, `windows` measures encoding and decoding, `clip` times one short
recording, `memory` reports memory. Each answer is a line of JSON. Only the standard library and numpy are imported,
since children run in two environments.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
RATE = 16_000
Item = dict[str, Any]
"""A recording or window, as `recordings.Recording` in JSON."""


class Runner(Protocol):
    """A loaded engine."""

    def transcribe(self, items: list[Item]) -> list[str]:
        """Return the text of each item."""
        ...

    def windows(self, dense: list[Item], sparse: list[Item]) -> tuple[float, float] | None:
        """Return encode seconds per window and decode seconds per token, or None if they cannot be told apart."""
        ...

    def cpu_seconds(self) -> float:
        """Return the CPU seconds spent so far."""
        ...

    def process_ids(self) -> list[int]:
        """Return the processes whose memory counts."""
        ...


class OwnProcess:
    """The parts of a Runner for engines that run in this process."""

    def cpu_seconds(self) -> float:
        return time.process_time()

    def process_ids(self) -> list[int]:
        return [os.getpid()]


def main(load: Callable[[dict[str, Any]], Runner]) -> None:
    """Serve the parent's commands on stdin. The first argument is the task as JSON."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not disturb the answers
    task = json.loads(sys.argv[1])
    folder = Path(task["recordings"])
    content = json.loads((folder / "recordings.json").read_text())
    for item in itertools.chain(*content.values()):
        item["wav"] = str(folder / item["wav"])
    started = time.monotonic()
    runner = load(task)
    runner.transcribe(content["windows"][-1:])
    print(json.dumps({"load_seconds": time.monotonic() - started}), file=channel)
    for line in sys.stdin:
        print(json.dumps(_answer(runner, line.split(), content, task)), file=channel)


def _answer(runner: Runner, command: list[str], content: dict[str, list[Item]], task: dict[str, Any]) -> dict[str, Any]:
    match command:
        case ["go", group]:
            items = [item for item in content["recordings"] if item["group"] == group] * int(task.get("copies", 1))
            before, started = runner.cpu_seconds(), time.monotonic()
            texts = runner.transcribe(items)
            return {
                "cpu_seconds": runner.cpu_seconds() - before,
                "wall_seconds": time.monotonic() - started,
                "texts": [[item["text"], text] for item, text in zip(items, texts, strict=True)],
            }
        case ["windows"]:
            groups = [[item for item in content["windows"] if item["group"] == name] for name in ("dense", "sparse")]
            costs = runner.windows(groups[0], groups[1])
            return {"encode_seconds": costs[0], "decode_seconds": costs[1]} if costs else {}
        case ["clip"]:
            started = time.monotonic()
            runner.transcribe(content["clips"])
            return {"clip_seconds": time.monotonic() - started}
        case ["memory"]:
            return memory(runner.process_ids())
    raise ValueError(f"unknown command {command}")


def costs_of(runner: Runner, dense: list[Item], sparse: list[Item]) -> tuple[float, float]:
    """Return encode seconds per window and decode seconds per token: every window is encoded once, tokens differ."""
    cpu, tokens = [], []
    for items in (dense, sparse):
        before = runner.cpu_seconds()
        runner.transcribe(items)
        cpu.append((runner.cpu_seconds() - before) / len(items))
        tokens.append(sum(item["tokens"] for item in items) / len(items))
    decode = (cpu[0] - cpu[1]) / (tokens[0] - tokens[1])
    return cpu[1] - tokens[1] * decode, decode


def memory(process_ids: list[int]) -> dict[str, Any]:
    """Return the bytes of resident memory at its peak and now, and of proportional memory now."""
    fields = {"rss": ("smaps_rollup", "Rss"), "pss": ("smaps_rollup", "Pss"), "peak": ("status", "VmHWM")}
    return {name: sum(_field(pid, *place) for pid in process_ids) for name, place in fields.items()}


def _field(process_id: int, file: str, name: str) -> int:
    for line in Path(f"/proc/{process_id}/{file}").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{name} is not in {file}")


def samples_of(path: str) -> Samples:
    """Return the samples of a 16 kHz mono file, -1..1."""
    with wave.open(path) as file:
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return data.astype(np.float32) / np.float32(32768)
