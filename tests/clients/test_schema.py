"""The running service checked against its OpenAPI schema: no 5xx, no undocumented answer, with and without a key.

This is the short run; `make fuzz` is the long one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import service as services
from tests.e2e.service import Service

pytestmark = pytest.mark.timeout(3600)
KEY = "stt_0123456789abcdef_" + "s" * 40
EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "8")


@pytest.fixture(scope="module")
def service_with_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with services.embedded(
        tmp_path_factory.mktemp("keyed"), API_KEY=KEY, RATE_LIMIT_PER_MINUTE="0", MAX_QUEUED_JOBS="0"
    ) as service:
        yield service


CONFIG = """
# which endings, hosts, languages and models are taken no schema can tell, so a valid form may still be refused
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "400", "401", "403", "404", "409", "413", "422", "429", "503"]
"""


def fuzz(service: Service, folder: Path, *words: str) -> None:
    (folder / "schemathesis.toml").write_text(CONFIG)
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{service.url}/openapi.json"),
        *("--checks", "all", "--max-examples", EXAMPLES, "--seed", "7", "--no-color"),
        *("--continue-on-failure", "--request-timeout", "60"),
        # an event stream stays open as long as its job
        *("--exclude-path-regex", "/events$", "--suppress-health-check", "all"),
        *words,
    ]
    completed = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert completed.returncode == 0, completed.stdout[-12_000:] + completed.stderr[-2000:]


def test_with_a_key(service_with_keys: Service, tmp_path: Path) -> None:
    phases = "examples,coverage,fuzzing,stateful"
    fuzz(service_with_keys, tmp_path, "--header", f"X-API-Key: {KEY}", "--phases", phases)


def test_without_a_key(embedded_service: Service, tmp_path: Path) -> None:
    """The schema is the same, so the phases that follow it value by value are left to the test with a key."""
    fuzz(embedded_service, tmp_path, "--exclude-checks", "ignored_auth", "--phases", "examples,fuzzing")
