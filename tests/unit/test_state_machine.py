"""The diagrams and tables of docs/state_machine.md are those of the code, and no other code writes a row's state."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from core.errors import WhisperCrashError
from repositories import transitions
from repositories.models import Chunk, Job
from repositories.state_machine import TRANSITIONS, State, Table, Transition

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "state_machine.md"
TABLES: dict[str, Table] = {"Jobs": Job, "Chunks": Chunk}
LABELS = {state.label: state for state in State}
FREE = {State.PENDING_HELD: State.PENDING, State.PROCESSING_HELD: State.PROCESSING}
HELD = {free: held for held, free in FREE.items()}
ARGUMENTS: dict[str, Any] = {
    "delay": 1.0,
    "error": WhisperCrashError(),
    "event_seq": 1,
    "finalise": True,
    "holder": "worker/token",
    "language": "en",
    "lease": 60.0,
    "lost": 0,
    "replay_token": "token",
    "ttl": 60.0,
    "worker": "worker",
}
IMPLIED = {"status", "holder", "updated_at"}
STATE_COLUMNS = {"status", "holder", "due_at", "deleted_at"}
Arrow = tuple[str, State, State]


def section(heading: str) -> str:
    (text,) = re.findall(rf"^## {heading}$(.*?)(?=^## |\Z)", PAGE.read_text(), flags=re.M | re.S)
    return str(text)


def arrows_in_code(table: Table) -> set[Arrow]:
    return {(one.name, source, target) for one in TRANSITIONS for source, target in one.arrows.get(table, {}).items()}


def drawn(heading: str) -> list[Arrow]:
    edges = re.findall(r"^ +(\S+) --> (\S+): (.+)$", section(heading), flags=re.M)
    return [(name, LABELS[source], LABELS[target]) for source, target, names in edges for name in names.split(", ")]


def rows(heading: str) -> list[list[str]]:
    lines = [line for line in section(heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def target(source: State, word: str) -> State:
    if word == "unchanged":
        return source
    if word in ("held", "free"):
        return (HELD if word == "held" else FREE).get(source, source)
    return LABELS[word]


def columns(one: Transition[Any], table: Table) -> set[str]:
    names = list(inspect.signature(one.writes).parameters)[1:]
    return set(one.values(table, **{name: ARGUMENTS[name] for name in names})) - IMPLIED


@pytest.mark.parametrize("heading", TABLES)
def test_the_diagram_has_every_arrow_of_the_code_and_no_other(heading: str) -> None:
    arrows = drawn(heading)
    assert len(arrows) == len(set(arrows))
    assert set(arrows) == arrows_in_code(TABLES[heading])


@pytest.mark.parametrize("heading", TABLES)
def test_the_table_has_every_arrow_of_the_code_and_no_other(heading: str) -> None:
    arrows = [
        (row[0], LABELS[source], target(LABELS[source], row[2]))
        for row in rows(heading)
        for source in row[1].split(", ")
    ]
    assert len(arrows) == len(set(arrows))
    assert set(arrows) == arrows_in_code(TABLES[heading])


@pytest.mark.parametrize("heading", TABLES)
def test_the_table_names_every_column_that_a_transition_writes(heading: str) -> None:
    table = TABLES[heading]
    named = {row[0]: set(re.findall(r"`(\w+)`", row[5])) for row in rows(heading)}
    assert named == {one.name: columns(one, table) for one in TRANSITIONS if table in one.arrows}


def test_names_are_unique_and_every_transition_says_what_it_is() -> None:
    names = [one.name for one in TRANSITIONS]
    assert len(names) == len(set(names))
    assert not [one.name for one in TRANSITIONS if not one.writes.__doc__]
    assert [one.name for one in vars(transitions).values() if isinstance(one, Transition)] == names


def test_all_transitions_but_two_touch_the_row() -> None:
    assert [one.name for one in TRANSITIONS if not one.touches] == ["renewed", "repaired"]


def test_a_status_and_a_holder_follow_from_the_arrows() -> None:
    for one in TRANSITIONS:
        for table, arrows in one.arrows.items():
            names = list(inspect.signature(one.writes).parameters)[1:]
            values = one.values(table, **{name: ARGUMENTS[name] for name in names})
            for source, reached in arrows.items():
                if reached in (State.DELETED, State.ABSENT):
                    continue
                held = source.held if "holder" not in values else values["holder"] is not None
                assert State.of(str(values.get("status", source.status)), held=held) is reached, (one.name, source)


def written(path: Path) -> list[tuple[int, str]]:
    """Return line and name of each state column that a `.values(...)` of a job or a chunk writes."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    values = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "values"]
    return [(call.lineno, word.arg) for call in values for word in call.keywords if word.arg in STATE_COLUMNS]


def test_only_transitions_write_the_state_of_a_row() -> None:
    paths = [path for name in ("internal", "repositories", "worker") for path in (ROOT / name).rglob("*.py")]
    others = {path.name: written(path) for path in paths if written(path)}
    assert set(others) == {"webhooks.py"}, "deliveries of webhooks have states of their own"


def test_statements_are_executed_in_one_place() -> None:
    paths = [path for name in ("internal", "repositories") for path in (ROOT / name).rglob("*.py")]
    assert [path.name for path in paths if "synchronize_session" in path.read_text()] == ["state_machine.py"]
