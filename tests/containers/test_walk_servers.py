"""The servers of the other tests in containers, as on a machine without their programs (tests/servers)."""

from __future__ import annotations

import sys

import pytest

from tests.containers.deployment import Deployment
from tests.containers.engine import ROOT, OwnEngine
from tests.containers.test_walk import pytestmark as pytestmark

TESTS = (
    "tests/contract/test_broker.py::test_unacknowledged_messages_are_redelivered",
    "tests/contract/test_storage_copy.py",
    "tests/contract/test_migrations.py",
)


def test_the_suite_starts_its_servers_in_containers(deployment: Deployment) -> None:
    """In the network of the engine, where testcontainers finds the published ports."""
    engine = deployment.engine
    if not isinstance(engine, OwnEngine):
        pytest.skip("the machine's engine has the images of the machine only")
    variables = {"TEST_SERVERS": "containers", "TESTCONTAINERS_RYUK_DISABLED": "true"}
    command = engine.inside(sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *TESTS)
    said = engine.run(*command, seconds=300, cwd=ROOT, **variables)
    assert "passed" in said
    assert "skipped" not in said
