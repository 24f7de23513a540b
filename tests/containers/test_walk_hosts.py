"""Several hosts: the overlay that publishes the stores, and consumers of another project that use them."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

from tests.containers.deployment import Deployment
from tests.containers.engine import CommandFailed
from tests.containers.test_walk import WORDS
from tests.containers.test_walk import pytestmark as pytestmark

OVERLAY = ("several-hosts/stores.yaml",)
UNUSED = ("SECRET_KEY", "API_KEY", "GRAFANA_PASSWORD")
"""Secrets that the hosts of consumers do not have; Compose requires a value."""


def address(deployment: Deployment) -> str:
    """Return the address under which containers of any network reach this host."""
    (network,) = json.loads(deployment.engine.docker("network", "inspect", "bridge"))
    subnet = ipaddress.ip_network(network["IPAM"]["Config"][0]["Subnet"])
    return str(next(subnet.hosts()))


def test_a_consumer_of_another_host_transcribes(deployment: Deployment, sample: Path) -> None:
    host = address(deployment)
    secrets = {name: deployment.secret(name) for name in ("POSTGRES_PASSWORD", "RABBITMQ_PASSWORD", "MINIO_SECRET_KEY")}
    variables = {**secrets, **dict.fromkeys(UNUSED, "unused"), "MINIO_ACCESS_KEY": "stt", "STORES_ADDRESS": host}

    def other(*words: str) -> str:
        call = ("docker", "compose", "-p", "second-host", "-f", "deploy/several-hosts/consumers.yaml", *words)
        return deployment.engine.run(*call, seconds=180, cwd=deployment.folder, **variables)

    deployment.compose("up", "--detach", "--wait", files=OVERLAY, PRIVATE_ADDRESS=host)
    try:
        deployment.compose("stop", "consumer")
        other("up", "--detach", "--wait", "consumer")
        deployment.wait_for(1)
        assert WORDS in deployment.text(deployment.upload(sample))
    except (CommandFailed, AssertionError, TimeoutError) as error:
        raise AssertionError(f"{error}\n{other('logs', '--no-color', '--tail', '40')}") from error
    finally:
        other("down", "--volumes")
        deployment.compose("up", "--detach", "--wait")
        deployment.wait_for(1)
