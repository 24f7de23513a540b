"""deploy/prometheus/: each alert has cases in which it fires and stays silent, run by promtool, and a runbook entry."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.documents.metrics import documented
from tests.documents.test_documents import anchors
from tests.unit.alert_cases import CASES, AlertCase

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
OPERATIONS = ROOT / "docs" / "operations.md"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
BY_NAME = {rule["alert"]: rule for rule in RULES}


def promtool(*arguments: str, cwd: Path = FOLDER) -> str:
    """Run promtool and return its output. Fails the test if it reports a problem."""
    if shutil.which("promtool") is None:
        message = "promtool is missing: deploy/install-test-tools.sh installs it"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    done = subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rule_test(case: AlertCase) -> dict[str, Any]:
    """Return the case in promtool's format."""
    firing = f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}})'
    expected = [{"labels": "{}", "value": 1}] if case.fires else []
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "promql_expr_test": [{"expr": firing, "eval_time": f"{case.minutes}m", "exp_samples": expected}],
    }


def test_alerts_fire_and_stay_silent(tmp_path: Path) -> None:
    tests = {"rule_files": [str(FOLDER / "alerts.yaml")], "tests": [rule_test(case) for case in CASES]}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    assert "SUCCESS" in promtool("test", "rules", "tests.yaml", cwd=tmp_path)


def test_the_files_are_valid() -> None:
    promtool("check", "rules", "alerts.yaml")
    promtool("check", "config", "prometheus.yaml")


def test_every_alert_has_cases_for_both() -> None:
    for name in BY_NAME:
        assert {case.fires for case in CASES if case.alert == name} == {True, False}, name
    assert {case.alert for case in CASES} == set(BY_NAME)


@pytest.mark.parametrize("name", BY_NAME)
def test_every_alert_has_a_summary_and_a_runbook_entry(name: str) -> None:
    notes = BY_NAME[name]["annotations"]
    assert notes["summary"]
    assert notes["runbook"] == f"docs/operations.md#{name.lower()}"
    assert name.lower() in anchors(OPERATIONS)
    assert BY_NAME[name]["labels"]["severity"] in ("info", "warning", "critical")


def metrics_in(expression: str) -> set[str]:
    """Return the metrics that a query names, for histograms without their suffix."""
    named = re.findall(r"\bstt_[a-z_]+\b", re.sub(r'"[^"]*"', '""', expression))
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in named}


@pytest.mark.parametrize("name", BY_NAME)
def test_every_metric_that_an_alert_names_is_exported(name: str) -> None:
    """`tests/integration/test_metrics.py` compares the same list with a scrape."""
    exported = {row.name for rows in documented().values() for row in rows}
    named = metrics_in(BY_NAME[name]["expr"])
    assert named
    assert named <= exported
