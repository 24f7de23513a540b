"""One engine and one deployment for all tests of containers, which run one after another."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers import earlier, stand_ins
from tests.containers.deployment import Deployment
from tests.containers.engine import CommandFailed, machines_engine, own_engine
from tests.servers.base import Unavailable


class BaseImages(UserWarning):
    """A report of the base images that the tests ran on, which pytest prints at the end of the run."""


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The service after `make up`. Tests leave it running with one consumer."""
    folder = tmp_path_factory.mktemp("containers") / "async-stt"
    try:
        yield from own_deployment(folder)
    except Unavailable as reason:
        try:
            yield from deployment_on_the_machine(folder)
        except Unavailable as other:
            pytest.skip(f"{reason}; {other}")


def own_deployment(folder: Path) -> Iterator[Deployment]:
    """Build with the machine's network, then run in one that has neither the machine's ports nor its firewall."""
    with own_engine() as engine:
        engine.start(host_network=True)
        images = stand_ins.provide(engine)
        report(images)
        deployment = Deployment(engine, folder, real_images="stand-in" not in images.values())
        deployment.build("host")
        deployment.earlier = earlier.build(engine, "host")
        engine.stop()
        engine.start(host_network=False)
        yield from running(deployment)


def deployment_on_the_machine(folder: Path) -> Iterator[Deployment]:
    with machines_engine() as engine:
        report(dict.fromkeys(stand_ins.IMAGES, "real"))
        yield from running(Deployment(engine, folder, real_images=True))


def running(deployment: Deployment) -> Iterator[Deployment]:
    try:
        try:
            deployment.make("up")
        except CommandFailed as error:
            pytest.fail(f"{error}\n{deployment.logs()}")
        yield deployment
    finally:
        deployment.remove()


def report(images: dict[str, str]) -> None:
    kinds = "; ".join(f"{image}: {kind}" for image, kind in images.items())
    warnings.warn(f"containers ran on these base images: {kinds}", BaseImages, stacklevel=2)
