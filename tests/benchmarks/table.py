"""The rows that benchmarks return, and their Markdown table."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """A measured figure. compared: the figures it is compared with; target: the aim, as text."""

    name: str
    figure: str
    compared: str
    target: str


def machine() -> str:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    cores = len(os.sched_getaffinity(0))
    today = datetime.now(UTC).date().isoformat()
    return f"{today}, {cores} cores ({names[0] if names else platform.processor()}), Python {platform.python_version()}"


def markdown(rows: Iterable[Row]) -> str:
    lines = [f"Measured on {machine()}.", "", "| what | figure | beside | wanted |", "|---|---|---|---|"]
    lines += [f"| {row.name} | {row.figure} | {row.compared} | {row.target} |" for row in rows]
    return "\n".join(lines)
