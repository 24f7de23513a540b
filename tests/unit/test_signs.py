"""docs/operations.md, signs of faults: each log line, metric and alert that the table names exists."""

from __future__ import annotations

import pytest

from tests.documents.metrics import documented
from tests.documents.signs import Signs, rows
from tests.e2e.service import ROOT
from tests.unit.test_alerts import BY_NAME

CODE = "".join(path.read_text() for name in ("core", "internal", "worker") for path in (ROOT / name).rglob("*.py"))
METRICS = {row.name for section in documented().values() for row in section}


@pytest.mark.parametrize("signs", rows(), ids=lambda signs: signs.fault)
def test_what_the_table_names_exists(signs: Signs) -> None:
    actions = {action for names in signs.actions.values() for action in names}
    assert not {action for action in actions if f'action="{action}"' not in CODE}
    assert set(signs.metrics) <= METRICS
    assert set(signs.alerts) <= set(BY_NAME)
    assert signs.remedy
    assert actions or signs.alerts
