"""An upgrade from the image of an earlier revision to this one, with jobs in flight."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.containers.deployment import Deployment
from tests.containers.test_walk import WORDS
from tests.containers.test_walk import pytestmark as pytestmark

JOBS = 6
IMAGE, NEW = "async-stt:local", "async-stt:new"


def test_jobs_in_flight_survive_an_upgrade(deployment: Deployment, sample: Path) -> None:
    if deployment.earlier is None:
        pytest.skip("no image of an earlier revision: no history, or the machine's engine")
    deployment.remove()
    deployment.engine.docker("tag", IMAGE, NEW)
    deployment.engine.docker("tag", deployment.earlier, IMAGE)
    try:
        deployment.compose("up", "--detach", "--wait", "--no-build")
        done = deployment.upload(sample)
        text = deployment.text(done)
        jobs = [deployment.upload(sample) for _ in range(JOBS)]
    finally:
        deployment.engine.docker("tag", NEW, IMAGE)
    # `make up` finds the image in the cache of builds
    deployment.make("up")
    deployment.wait_for(1)
    assert all(WORDS in deployment.text(job) for job in jobs)
    assert deployment.text(done) == text
    (consumer,) = deployment.containers("consumer")
    assert consumer["Image"] == deployment.engine.docker("image", "inspect", "-f", "{{.Id}}", NEW).strip()
