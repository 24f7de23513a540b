"""Hooks of pytest for parallel runs (`-n 6`): which tests share a worker, and in which order they start.

A worker keeps what it has started, so tests that need the same expensive things stay together: those that stop servers
of their own, and those that use one service as a whole. Everything else goes wherever there is room.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.servers.shared import Keeper

KINDS = ("postgres", "rabbitmq", "minio")
"""The fixtures `{kind}_server` give a test servers of its worker's own, which it may stop."""
SHARES = {"embedded": 2, "real": 2}
"""How many workers run each service for the tests that only use it."""
_keeper = pytest.StashKey[Keeper]()
_groups = pytest.StashKey[Path]()


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each group to one worker, in the order of collection.

    xdist's own `loadgroup` writes the group into the test's identifier, which pytest 9.2 no longer lets it.
    """

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    @cached_property
    def groups(self) -> dict[str, str]:
        """The tests that have a group, as the workers found them."""
        found: dict[str, str] = json.loads(self.config.stash[_groups].read_text())
        return found

    def _split_scope(self, nodeid: str) -> str:
        return self.groups.get(nodeid, nodeid)


def pytest_configure(config: pytest.Config) -> None:
    """The process that starts a parallel run owns the servers that its workers share."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        config.stash[_keeper] = Keeper()
        config.stash[_groups] = Path(tempfile.mkdtemp(prefix="stt-run-")) / "groups"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["servers"] = node.config.stash[_keeper].address
    node.workerinput["groups"] = str(node.config.stash[_groups])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling | None:
    """By group, unless the command line names another way."""
    return GroupScheduling(config, log) if config.option.dist == "load" else None


def pytest_unconfigure(config: pytest.Config) -> None:
    if keeper := config.stash.get(_keeper, None):
        keeper.close()
        config.stash[_groups].unlink(missing_ok=True)
        config.stash[_groups].parent.rmdir()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker: the longest tests first. The first worker writes down the groups; all collect the same tests."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is None:
        return
    items.sort(key=lambda item: -outage_retry(item))
    if worker["workerid"] == "gw0":
        found = {item.nodeid: name for item in items if (name := group(item))}
        Path(worker["groups"]).write_text(json.dumps(found))


def group(item: pytest.Item) -> str | None:
    """The tests that should share a worker with this one; None: any."""
    if marker := item.get_closest_marker("xdist_group"):
        return str(marker.args[0])
    names: list[str] = getattr(item, "fixturenames", [])
    stopped = [kind for kind in KINDS if f"{kind}_server" in names or parameter(item, "server") == kind]
    if stopped:
        return "stops " + "+".join(stopped)
    if "harness" in names:
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


def outage_retry(item: pytest.Item) -> float:
    """Seconds the test is allowed: a measure of how long it takes. Groups start in the order of their first test."""
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker and marker.args else 0.0
