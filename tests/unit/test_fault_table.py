"""The table of faults names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def test_every_line_names_a_test_that_exists() -> None:
    lines = [line for line in (TESTS / "faults" / "README.md").read_text().splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(line.split("|")[1]) for line in lines] == list(range(1, 24))
    there = {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for line in lines:
        named = re.findall(r"`(test_\w+)`", line.split("|")[4])
        assert named, line
        assert set(named) <= there, set(named) - there
