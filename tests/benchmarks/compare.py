"""`make bench-compare BASE=<revision>`: benchmarks run alternately on this tree and on a revision, and their ratios.

The revision is checked out to a temporary worktree with an environment of its own, from its own lock file. Figures are
read from the table that `python -m tests.benchmarks` prints, so any revision that has the benchmark can be compared.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.speech import ROOT

Figures = dict[str, list[float]]
"""The figures of each row, one per round."""
ROW = re.compile(r"^\| (?P<name>[^|]+?) \| (?P<figure>-?[\d.]+)[^|]*\|", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("base", help="a revision, such as HEAD~1")
    parser.add_argument("benchmarks", nargs="+", help="names that `python -m tests.benchmarks` accepts")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with worktree(arguments.base) as (folder, python):
        trees = {arguments.base: (folder, python), "this tree": (ROOT, Path(sys.executable))}
        figures: dict[str, Figures] = {name: {} for name in trees}
        for number in range(arguments.rounds):
            for name, (place, interpreter) in trees.items():
                print(f"… round {number + 1}: {name}", file=sys.stderr, flush=True)
                add(figures[name], measure(place, interpreter, arguments.benchmarks))
    print(table(arguments.base, *figures.values()))


@contextlib.contextmanager
def worktree(revision: str) -> Iterator[tuple[Path, Path]]:
    """Check out the revision and install its packages; yield its folder and its interpreter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "base"
        subprocess.run(["git", "worktree", "add", "--detach", str(folder), revision], cwd=ROOT, check=True)
        try:
            yield folder, install(folder)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(folder)], cwd=ROOT, check=True)


def install(folder: Path) -> Path:
    """Make the environment of the tree in `folder` and return its interpreter."""
    python = folder / ".venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "venv", str(folder / ".venv")], check=True)
    subprocess.run([*pip, "--require-hashes", "-r", "requirements-dev.lock"], cwd=folder, check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--editable", "."], cwd=folder, check=True)
    return python


def measure(folder: Path, python: Path, benchmarks: list[str]) -> dict[str, float]:
    """Run the benchmarks of the tree and return the figure of each row."""
    call = [str(python), "-m", "tests.benchmarks", *benchmarks]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return figures_of(
        subprocess.run(call, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE).stdout.decode()
    )


def figures_of(text: str) -> dict[str, float]:
    """Return the first number of each row of a table, by the row's name."""
    return {found["name"]: float(found["figure"]) for found in ROW.finditer(text)}


def add(total: Figures, figures: dict[str, float]) -> None:
    for name, figure in figures.items():
        total.setdefault(name, []).append(figure)


def table(base: str, before: Figures, after: Figures) -> str:
    """Return a Markdown table of the medians of the rows that both trees have, with their range and ratio."""
    lines = [f"| what | {base} | this tree | ratio |", "|---|---|---|---|"]
    for name in [name for name in after if name in before]:
        old, new = statistics.median(before[name]), statistics.median(after[name])
        ratio = f"{new / old:.3f}" if old else "–"
        lines.append(f"| {name} | {_range(before[name])} | {_range(after[name])} | {ratio} |")
    return "\n".join(lines)


def _range(figures: list[float]) -> str:
    return f"{statistics.median(figures):g} ({min(figures):g} to {max(figures):g})"


if __name__ == "__main__":
    main()
