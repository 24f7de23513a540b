"""RabbitMQ from TEST_RABBITMQ_URL and TEST_RABBITMQ_MANAGEMENT_URL, else this machine's program, else a container."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import httpx
import psutil

from tests.servers.base import (
    Control,
    External,
    Server,
    Unavailable,
    free_port,
    get,
    launch,
    only_containers,
    wait_until,
)

IMAGE = "rabbitmq:4-management"
PLUGINS = "[rabbitmq_management,rabbitmq_shovel,rabbitmq_shovel_management]."
DEBIAN_PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class RabbitMQ(Control, Protocol):
    """A RabbitMQ server. url: AMQP with user and password; management: `http://user:pass@host:port` of its HTTP API."""

    url: str
    management: str


class ExternalRabbitMQ(External):
    def __init__(self, url: str, management: str) -> None:
        self.url, self.management = url, management


class LocalRabbitMQ(Server):
    name = "rabbitmq"

    def __init__(self, program: Path, folder: Path | None = None) -> None:
        super().__init__(folder)
        self.program = program
        self._mapper: subprocess.Popen[bytes] | None = None
        self.node = f"stt{uuid.uuid4().hex[:8]}@localhost"
        self.ports = [free_port() for _ in range(4)]
        amqp, web, self.dist, self.epmd = self.ports
        self.url = f"amqp://guest:guest@127.0.0.1:{amqp}/"
        self.management = f"http://guest:guest@127.0.0.1:{web}"
        (self.folder / "plugins").write_text(PLUGINS)
        (self.folder / "rabbit.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{amqp}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {web}\n"
            "disk_free_limit.absolute = 50MB\nlog.console = true\nlog.console.level = warning\n"
            "management.rates_mode = none\n"
        )

    def command(self) -> list[str]:
        return [str(self.program)]

    def environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/logs",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbit.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/none",
            "RABBITMQ_DIST_PORT": str(self.dist),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.epmd),
            # no busy waiting, and one thread of each kind: a start takes a fifth less CPU
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none +S 1:1 +SDio 1 +A 1",
            # without a shell in between, the parent-death signal reaches the server itself
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_START_ARGS": "-noinput",
        }

    def is_ready(self) -> bool:
        return get(f"{self.management}/api/health/checks/port-listener/{self.ports[0]}").status_code == 200

    def control(self, *words: str) -> None:
        """Run rabbitmqctl on this node."""
        call = [str(self.program.with_name("rabbitmqctl")), "-q", *words]
        subprocess.run(call, env=self.environment(), cwd=self.folder, check=True, capture_output=True, timeout=60)

    def start(self) -> None:
        """Start the port mapper first: one started by the node outlives it."""
        if self.process is None and (program := shutil.which("epmd")):
            call = [program, "-address", "127.0.0.1", "-port", str(self.epmd)]
            self._mapper = launch(call, env=self.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        super().start()

    def stop(self) -> None:
        super().stop()
        self._end_epmd()

    def remove(self) -> None:
        """Kill instead of stopping: no data is kept."""
        if self._own_folder:
            self.kill()
        super().remove()

    def kill(self) -> None:
        super().kill()
        self._end_epmd()

    def _end_epmd(self) -> None:
        """End the epmd on our port, whether we or the node started it."""
        for process in psutil.process_iter(["name"]):
            with contextlib.suppress(psutil.Error):
                if process.info["name"] == "epmd" and process.environ().get("ERL_EPMD_PORT") == str(self.epmd):
                    process.kill()
        if self._mapper is not None:
            self._mapper.wait()
            self._mapper = None


class ContainerRabbitMQ(External):
    def __init__(self) -> None:
        from testcontainers.core.container import DockerContainer

        container: Any = DockerContainer(IMAGE).with_exposed_ports(5672, 15672)
        container.start()
        host = container.get_container_host_ip()
        self._container = container
        self.url = f"amqp://guest:guest@{host}:{container.get_exposed_port(5672)}/"
        self.management = f"http://guest:guest@{host}:{container.get_exposed_port(15672)}"
        wait_until(lambda: get(f"{self.management}/api/overview").status_code == 200, "rabbitmq")

    def remove(self) -> None:
        self._container.stop()


def find() -> RabbitMQ:
    """Start and return a server from the first of the three sources available. Raise Unavailable."""
    url, management = os.environ.get("TEST_RABBITMQ_URL"), os.environ.get("TEST_RABBITMQ_MANAGEMENT_URL")
    if url and management:
        return ExternalRabbitMQ(url, management)
    found = shutil.which("rabbitmq-server")
    # Debian's wrapper script requires the user rabbitmq
    program = DEBIAN_PROGRAM if DEBIAN_PROGRAM.exists() else Path(found) if found else None
    if program and not only_containers():
        server = LocalRabbitMQ(program)
        server.start()
        return server
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        raise Unavailable("no RabbitMQ: set TEST_RABBITMQ_URL, or apt-get install rabbitmq-server, or start Docker")
    return ContainerRabbitMQ()


def by_address(server: RabbitMQ) -> ExternalRabbitMQ:
    """Return the same server, known only by its address."""
    return ExternalRabbitMQ(server.url, server.management)


def create_vhost(server: RabbitMQ) -> str:
    """Create a virtual host and return its AMQP URL."""
    url = server.url.rstrip("/") + f"/t{uuid.uuid4().hex[:16]}"
    restore_vhost(server, url)
    return url


def restore_vhost(server: RabbitMQ, url: str) -> None:
    """Create the virtual host of an AMQP URL, as an operator does on a server that has lost its data."""
    name, user = vhost_of(url), urlsplit(server.url).username or "guest"
    with httpx.Client(base_url=server.management, timeout=10, verify=False) as client:
        client.put(f"/api/vhosts/{name}").raise_for_status()
        rights = {"configure": ".*", "write": ".*", "read": ".*"}
        client.put(f"/api/permissions/{name}/{user}", json=rights).raise_for_status()


def delete_vhost(server: RabbitMQ, url: str) -> None:
    with contextlib.suppress(httpx.TransportError):
        httpx.delete(f"{server.management}/api/vhosts/{vhost_of(url)}", timeout=10, verify=False)


def vhost_of(url: str) -> str:
    return quote(urlsplit(url).path.lstrip("/"), safe="")
