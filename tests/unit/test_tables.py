"""The tables of faults and of risks name only existing tests."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


@cache
def existing_tests() -> set[str]:
    return {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def rows(path: Path, first: str) -> list[list[str]]:
    """Return the cells of each table line whose first cell matches the pattern."""
    lines = (line.strip("|").split("|") for line in path.read_text().splitlines() if line.startswith("|"))
    return [cells for cells in lines if re.fullmatch(first, cells[0].strip())]


def check(table: list[list[str]]) -> None:
    for cells in table:
        names = re.findall(r"`(test_\w+)`", cells[-1])
        assert names, cells
        assert set(names) <= existing_tests(), set(names) - existing_tests()


def test_every_fault_names_an_existing_test() -> None:
    table = rows(TESTS / "faults" / "README.md", r"\d+")
    numbers = [int(cells[0]) for cells in table]
    assert numbers[:23] == list(range(1, 24))
    assert len(set(numbers)) == len(numbers)
    check(table)


def test_every_risk_names_an_existing_test() -> None:
    table = rows(TESTS.parent / "docs" / "security.md", r"API\d+")
    assert len(table) == 10
    check(table)
