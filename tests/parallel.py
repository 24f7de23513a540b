"""pytest hooks for parallel runs (`-n 6`): which tests share a worker, and in which order they start.

Workers keep what they have started, so tests with the same expensive fixtures stay together: those that stop private
servers, and those that use one service as a whole. All other tests run on any worker.
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
"""Kinds of servers; the fixture `{kind}_server` gives a private one, which the test may stop."""
SHARES = {"embedded": 2, "real": 2}
"""Number of workers that run each service for the tests that only use it."""
_keeper = pytest.StashKey[Keeper]()
_groups = pytest.StashKey[Path]()


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """A scheduler that assigns each group to one worker, in collection order.

    xdist's own `loadgroup` writes the group into the test id, which pytest 9.2 does not allow.
    """

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    @cached_property
    def groups(self) -> dict[str, str]:
        """The group of each grouped test, as collected by the workers."""
        groups: dict[str, str] = json.loads(self.config.stash[_groups].read_text())
        return groups

    def _split_scope(self, nodeid: str) -> str:
        return self.groups.get(nodeid, nodeid)


def pytest_configure(config: pytest.Config) -> None:
    """Create the shared servers' keeper in the controller of a parallel run."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        config.stash[_keeper] = Keeper()
        config.stash[_groups] = Path(tempfile.mkdtemp(prefix="stt-run-")) / "groups"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["servers"] = node.config.stash[_keeper].address
    node.workerinput["groups"] = str(node.config.stash[_groups])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling | None:
    """Schedule by group, unless the command line selects another distribution."""
    return GroupScheduling(config, log) if config.option.dist == "load" else None


def pytest_unconfigure(config: pytest.Config) -> None:
    if keeper := config.stash.get(_keeper, None):
        keeper.close()
        config.stash[_groups].unlink(missing_ok=True)
        config.stash[_groups].parent.rmdir()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker, run the longest tests first. Worker gw0 writes the groups to a file; all collect the same tests."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is None:
        return
    items.sort(key=lambda item: -time_limit(item))
    if worker["workerid"] == "gw0":
        groups = {item.nodeid: name for item in items if (name := group(item))}
        Path(worker["groups"]).write_text(json.dumps(groups))


def group(item: pytest.Item) -> str | None:
    """Return the group of tests that should share a worker with this one; None if any worker will do."""
    if marker := item.get_closest_marker("xdist_group"):
        return str(marker.args[0])
    names: list[str] = getattr(item, "fixturenames", [])
    stopped = [kind for kind in KINDS if f"{kind}_server" in names or parameter(item, "server") == kind]
    if stopped:
        return "stops " + "+".join(stopped)
    if "open_tab" in names:
        return "browser"
    if "harness" in names:
        return f"faults {item.path.stem}"
    for service, shares in SHARES.items():
        if f"{service}_service" in names or parameter(item, "service") == service:
            return f"{service} {zlib.crc32(item.path.name.encode()) % shares}"
    return None


def server_for(request: pytest.FixtureRequest, kind: str) -> str:
    """Return the fixture of the test's server: the worker's private one if the test requests it, else the shared."""
    own = f"{kind}_server"
    return own if own in request.fixturenames else f"shared_{kind}"


def parameter(item: pytest.Item, name: str) -> object:
    """Return the parameter of the test's fixture `name`."""
    call = getattr(item, "callspec", None)
    return call.params.get(name) if call else None


def time_limit(item: pytest.Item) -> float:
    """Return the test's timeout in seconds, an estimate of its duration. A group starts with its first test."""
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker and marker.args else 0.0
