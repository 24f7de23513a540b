"""An upgrade from the image of an earlier revision to this one, with jobs in flight."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.containers.deployment import Deployment
from tests.containers.test_walk import WORDS
from tests.containers.test_walk import pytestmark as pytestmark

JOBS = 6
IMAGE, NEW = "async-stt:local", "async-stt:new"


def image_id(deployment: Deployment, name: str) -> str:
    return deployment.engine.docker("image", "inspect", "-f", "{{.Id}}", name).strip()


def image(deployment: Deployment) -> str:
    """Return the id of the image that the consumer runs."""
    (consumer,) = deployment.containers("consumer")
    return str(consumer["Image"])


def test_jobs_in_flight_survive_an_upgrade(deployment: Deployment, sample: Path) -> None:
    if deployment.earlier is None:
        pytest.skip("no image of an earlier revision: no history, or the machine's engine")
    deployment.remove()
    new = image_id(deployment, IMAGE)
    deployment.engine.docker("tag", IMAGE, NEW)
    deployment.engine.docker("tag", deployment.earlier, IMAGE)
    try:
        deployment.compose("up", "--detach", "--wait", "--no-build")
        assert image(deployment) != new
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
    assert image(deployment) == new
