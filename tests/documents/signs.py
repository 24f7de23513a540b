"""The table of docs/operations.md that leads from a fault to its log lines, metrics and alerts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.e2e.service import ROOT

PAGE = ROOT / "docs" / "operations.md"
HEADING = "## Signs of faults"
PROCESS = re.compile(r"\b(api|consumer|scheduler) ((?:`[a-z_]+`(?:, )?)+)")
NAME = re.compile(r"`(\w+)`")


@dataclass(frozen=True, slots=True)
class Signs:
    """A row. actions: of log lines, by process."""

    fault: str
    actions: dict[str, tuple[str, ...]]
    metrics: tuple[str, ...]
    alerts: tuple[str, ...]
    remedy: str


def rows() -> list[Signs]:
    """Return the rows of the table. Raises ValueError if a row has another number of cells."""
    section = PAGE.read_text().partition(f"{HEADING}\n")[2].partition("\n## ")[0]
    found = []
    for line in [line for line in section.splitlines() if line.startswith("|")][2:]:
        fault, log, metric, alert, remedy = (cell.strip() for cell in line.strip("|").split("|"))
        actions = {process: tuple(NAME.findall(names)) for process, names in PROCESS.findall(log)}
        found.append(Signs(fault, actions, tuple(NAME.findall(metric)), tuple(NAME.findall(alert)), remedy))
    return found
