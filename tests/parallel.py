"""Hooks of pytest for parallel runs (`-n 6`): which tests share a worker, and in which order they start.

A worker keeps what it has started, so tests that need the same expensive things stay together: those that stop servers
of their own, and those that use one service as a whole. Everything else goes wherever there is room.
"""

from __future__ import annotations

import zlib
from typing import Any

import pytest

from tests.servers.shared import Keeper

KINDS = ("postgres", "rabbitmq", "minio")
"""The fixtures `{kind}_server` give a test servers of its worker's own, which it may stop."""
SHARES = {"embedded": 2, "real": 2}
"""How many workers run each service for the tests that only use it."""
_keeper = pytest.StashKey[Keeper]()


def pytest_configure(config: pytest.Config) -> None:
    """Distribute by group unless asked otherwise, and own the servers that the workers share."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        return
    if config.option.dist == "load":
        config.option.dist = "loadgroup"
        config.option.loadscopereorder = False
    config.stash[_keeper] = Keeper()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["servers"] = node.config.stash[_keeper].address


def pytest_unconfigure(config: pytest.Config) -> None:
    if keeper := config.stash.get(_keeper, None):
        keeper.close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker only: name each test's group, and start the longest first."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        if not item.get_closest_marker("xdist_group") and (name := group(item)):
            item.add_marker(pytest.mark.xdist_group(name))
    items.sort(key=lambda item: -patience(item))


def group(item: pytest.Item) -> str | None:
    """The tests that should share a worker with this one; None: any."""
    names: list[str] = getattr(item, "fixturenames", [])
    stopped = [kind for kind in KINDS if f"{kind}_server" in names or parameter(item, "server") == kind]
    if stopped:
        return "stops " + "+".join(stopped)
    if "here" in names:
        return f"faults {item.path.stem}"
    for service, shares in SHARES.items():
        if f"{service}_service" in names or parameter(item, "service") == service:
            return f"{service} {zlib.crc32(item.path.name.encode()) % shares}"
    return None


def server_for(request: pytest.FixtureRequest, kind: str) -> str:
    """The fixture of the server a test works on: its worker's own where it asks for that, else the shared one."""
    own = f"{kind}_server"
    return own if own in request.fixturenames else f"shared_{kind}"


def parameter(item: pytest.Item, name: str) -> object:
    """What the test's fixture `name` is parametrised with."""
    call = getattr(item, "callspec", None)
    return call.params.get(name) if call else None


def patience(item: pytest.Item) -> float:
    """Seconds the test is allowed: a measure of how long it takes. Groups start in the order of their first test."""
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker and marker.args else 0.0
