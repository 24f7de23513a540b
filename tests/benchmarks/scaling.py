"""Cost of the service by length of the audio and by number of jobs, with an engine that does no work.

`python -m tests.benchmarks scaling` takes some minutes and draws docs/scaling.svg. SCALING_JOBS=10000 adds that number
of jobs, which takes half an hour on two cores.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg

from tests.benchmarks.table import Row
from tests.e2e.service import ROOT
from tests.speech import encode, recording

LENGTHS = (10, 60, 600, 3600, 3 * 3600, 6 * 3600)
"""Seconds of audio of one job."""
COUNTS = (1, 100, int(os.environ.get("SCALING_JOBS", "1000")))
"""Numbers of jobs of a ten-second clip."""
CHART = ROOT / "docs" / "scaling.svg"


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a run. size: seconds of audio, or jobs; cpu: seconds; memory: peak in MB; audio: seconds."""

    size: float
    cpu: float
    memory: float
    messages: float
    rows: float
    audio: float


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ten_minutes = encode(recording("en", 170, seed=77)[0][: 600 * 16_000], folder / "ten-minutes.mp3")
        lengths = [measure(folder, cut(ten_minutes, folder, seconds), 1, seconds) for seconds in LENGTHS]
        clip = cut(ten_minutes, folder, 10)
        counts = [measure(folder, clip, count, count) for count in COUNTS]
    CHART.write_text(chart(lengths, counts))
    return [
        *(row(f"one job of {length_name(cost.size)}", cost) for cost in lengths),
        *(row(f"{cost.size:,.0f} job(s) of 10 s", cost) for cost in counts),
    ]


def cut(ten_minutes: Path, folder: Path, seconds: int) -> Path:
    """Return an mp3 file of `seconds`, made of repetitions of the recording without decoding it."""
    target = folder / f"{seconds}.mp3"
    if not target.exists():
        call = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-stream_loop", "-1", "-i", str(ten_minutes)]
        subprocess.run([*call, "-t", str(seconds), "-c", "copy", str(target)], check=True)
    return target


def measure(folder: Path, file: Path, count: int, size: float) -> Cost:
    with tempfile.TemporaryDirectory(dir=folder) as data:
        call = [sys.executable, "-m", "tests.benchmarks.scaling_run", data, str(file), str(count)]
        printed = subprocess.run(call, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return Cost(size=size, **json.loads(printed.splitlines()[-1]))


def row(name: str, cost: Cost) -> Row:
    hours = cost.audio / 3600
    return Row(
        name,
        f"{cost.cpu / hours:.1f} CPU s, {cost.rows / hours:.0f} rows, {cost.messages / hours:.0f} messages an hour",
        f"{cost.cpu:.2f} CPU s; peak memory {cost.memory:.0f} MB",
        "linear",
    )


def length_name(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.0f} h"


def chart(lengths: Sequence[Cost], counts: Sequence[Cost]) -> str:
    """Return an SVG image with two plots, both axes logarithmic: in a linear one the points lie on a diagonal."""
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" width="760" height="330" font-family="sans-serif" font-size="12">',
            '<rect width="760" height="330" fill="white"/>',
            *plot(lengths, 60, "CPU seconds outside the engine, by length of one recording", length_name),
            *plot(counts, 440, "and by number of jobs of 10 s", lambda size: f"{size:,.0f}"),
            "</svg>\n",
        ]
    )


def plot(costs: Sequence[Cost], left: int, title: str, name: Callable[[float], str]) -> list[str]:
    """Return the elements of one plot of 280 × 230 pixels, with a dashed line of linear cost through the last point."""
    top, width, height = 40, 280, 230
    x_first, x_last = math.log10(costs[0].size), math.log10(costs[-1].size)
    values = [cost.cpu for cost in costs]
    y_first, y_last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def at(size: float, cpu: float) -> tuple[float, float]:
        x = left + width * (math.log10(size) - x_first) / (x_last - x_first)
        return x, top + height * (y_last - math.log10(cpu)) / (y_last - y_first)

    elements = [f'<text x="{left}" y="20">{title}</text>']
    for power in range(y_first, y_last + 1):
        _, y = at(costs[0].size, 10**power)
        elements.append(f'<path d="M{left} {y:.0f}h{width}" stroke="#ddd"/>')
        elements.append(f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{10**power:g}</text>')
    last = costs[-1]
    start = max(10.0**y_first / last.cpu * last.size, costs[0].size)
    (x1, y1), (x2, y2) = at(start, last.cpu * start / last.size), at(last.size, last.cpu)
    elements.append(f'<path d="M{x1:.0f} {y1:.0f}L{x2:.0f} {y2:.0f}" stroke="#999" stroke-dasharray="4 4"/>')
    points = [at(cost.size, cost.cpu) for cost in costs]
    line = " ".join(f"{x:.0f},{y:.0f}" for x, y in points)
    elements.append(f'<polyline points="{line}" fill="none" stroke="#1f6feb" stroke-width="2"/>')
    for (x, y), cost in zip(points, costs, strict=True):
        elements.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="4" fill="#1f6feb"/>')
        elements.append(f'<text x="{x:.0f}" y="{top + height + 20}" text-anchor="middle">{name(cost.size)}</text>')
    return elements
