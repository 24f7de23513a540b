"""Fenced code blocks of the Markdown documents."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.service import ROOT

DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
FENCE = re.compile(r"```(\w*)")
NOTE = re.compile(r"<!-- (.+) -->")
COMMANDS = {"sh", "bash", "console", "python", "http"}
"""Languages of blocks that have to be replayed, or say why not."""
OUTPUTS = {"json", "text"}
"""Languages of blocks that show the output of the block before."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. note: the comment directly above it, which says when it is replayed, or why it is not."""

    path: Path
    line: int
    language: str
    text: str
    note: str = ""

    @property
    def place(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    @property
    def reason(self) -> str | None:
        """Why the block is not replayed; None if it is."""
        kind, _, reason = self.note.partition(": ")
        return reason if kind == "not run" else None


def blocks(path: Path) -> Iterator[Block]:
    """The document's blocks in order."""
    lines = path.read_text().splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        if start is None and (match := FENCE.fullmatch(line)):
            start, language = number, match[1]
        elif start is not None and line == "```":
            note = NOTE.fullmatch(lines[start - 1]) if start else None
            yield Block(path, start + 1, language, "\n".join(lines[start + 1 : number]), note[1] if note else "")
            start = None
    if start is not None:
        raise ValueError(f"{path}: the block of line {start + 1} has no end")
