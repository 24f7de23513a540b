"""Installed size of each dependency, written to docs/performance.md: `python -m tests.benchmarks sizes`."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.table import Row
from tests.speech import ROOT
from worker import whisper_builds

PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- sizes: begin, written by python -m tests.benchmarks sizes -->", "<!-- sizes: end -->"
SMALL = 1.0
"""Megabytes below which packages are shown as one row."""
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==", re.MULTILINE)


def run() -> list[Row]:
    """Write the tables. They have no rows in the table of `make bench`."""
    write()
    return []


def write(page: Path = PAGE) -> str:
    """Write the tables between the markers of the page, and return them."""
    text = markdown()
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")
    return text


def markdown() -> str:
    """Return a table of the installed packages of the base, of the extra `openvino`, and of `make engine`."""
    base, extra = (pinned(ROOT / name) for name in ("requirements.lock", "requirements-openvino.lock"))
    lines = ["| Installed by | Package | MB |", "|---|---|---|"]
    lines += _rows("everything", _sizes(base))
    lines += _rows("`make openvino`, the image", _sizes(extra - base))
    builds = {
        f"build for {level.name}": _folder_size(whisper_builds.FOLDER / level.name) for level in whisper_builds.LEVELS
    }
    lines += _rows(
        "`make engine`, and the packages of `make openvino`", {name: size for name, size in builds.items() if size}
    )
    return "\n".join(lines)


def pinned(lock: Path) -> set[str]:
    """Return the names of the packages in a lock file."""
    return set(PIN.findall(lock.read_text()))


def _sizes(names: Iterable[str]) -> dict[str, float]:
    """Return the megabytes of the packages that are installed here, without compiled Python files."""
    sizes = {}
    for name in names:
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # for other platforms or versions of Python
            continue
        paths = [Path(str(file.locate())) for file in distribution.files or () if file.suffix != ".pyc"]
        sizes[f"{name} {distribution.version}"] = sum(path.stat().st_size for path in paths if path.is_file()) / 1e6
    return sizes


def _folder_size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _rows(group: str, sizes: dict[str, float]) -> list[str]:
    if not sizes:
        return [f"| {group} | not installed where this was measured | |"]
    large = {name: size for name, size in sizes.items() if size >= SMALL}
    rows = [f"| {group} | **together** | **{sum(sizes.values()):.0f}** |"]
    rows += [f"| | {name} | {large[name]:.1f} |" for name in sorted(large, key=lambda name: -large[name])]
    if small := len(sizes) - len(large):
        rows.append(f"| | {small} others | {sum(sizes.values()) - sum(large.values()):.1f} |")
    return rows
