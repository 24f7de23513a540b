"""MinIO from TEST_MINIO_URL, else the program built on this machine, else a container."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from tests.servers.base import Control, External, Server, Unavailable, free_port, get, only_containers, wait_until

IMAGE = os.environ.get("TEST_MINIO_IMAGE", "async-stt-minio:local")
"""Image built by `make up` from deploy/minio.Dockerfile; the community's public image no longer exists."""
ACCESS, SECRET = "stt-test", "stt-test-secret"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A test's bucket, not created yet. endpoint: host:port."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str


class Minio(Control, Protocol):
    endpoint: str
    access_key: str
    secret_key: str


class ExternalMinio(External):
    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.endpoint = f"{address.hostname}:{address.port or 9000}"
        self.access_key, self.secret_key = address.username or "", address.password or ""


class LocalMinio(Server):
    name = "minio"

    def __init__(self, program: Path, folder: Path | None = None) -> None:
        super().__init__(folder)
        self.program = program
        self.endpoint = f"127.0.0.1:{free_port()}"
        self.console = f"127.0.0.1:{free_port()}"
        self.access_key, self.secret_key = ACCESS, SECRET

    def command(self) -> list[str]:
        addresses = ("--address", self.endpoint, "--console-address", self.console)
        return [str(self.program), "server", str(self.folder / "data"), *addresses]

    def environment(self) -> dict[str, str]:
        credentials = {"MINIO_ROOT_USER": ACCESS, "MINIO_ROOT_PASSWORD": SECRET, "HOME": str(self.folder)}
        return {**os.environ, **credentials, "MINIO_UPDATE": "off", "MINIO_CALLHOME_ENABLE": "off"}

    def is_ready(self) -> bool:
        return get(f"http://{self.endpoint}/minio/health/ready").status_code == 200


class ContainerMinio(External):
    def __init__(self) -> None:
        from testcontainers.core.container import DockerContainer

        container: Any = DockerContainer(IMAGE).with_exposed_ports(9000)
        container.with_env("MINIO_ROOT_USER", ACCESS).with_env("MINIO_ROOT_PASSWORD", SECRET).start()
        self._container = container
        self.endpoint = f"{container.get_container_host_ip()}:{container.get_exposed_port(9000)}"
        self.access_key, self.secret_key = ACCESS, SECRET
        wait_until(lambda: get(f"http://{self.endpoint}/minio/health/ready").status_code == 200, "minio")

    def remove(self) -> None:
        self._container.stop()


def find() -> Minio:
    """Start and return a server from the first of the three sources available. Raise Unavailable."""
    if url := os.environ.get("TEST_MINIO_URL"):
        return ExternalMinio(url)
    if not only_containers() and (program := program_path()):
        server = LocalMinio(program)
        server.start()
        return server
    inspect = ["docker", "image", "inspect", IMAGE]
    if not shutil.which("docker") or subprocess.run(inspect, capture_output=True, check=False).returncode:
        raise Unavailable("no MinIO: set TEST_MINIO_URL, or run `make test` with Go and a network, or `make up` once")
    return ContainerMinio()


def by_address(server: Minio) -> ExternalMinio:
    """Return the same server, known only by its address."""
    return ExternalMinio(f"http://{server.access_key}:{server.secret_key}@{server.endpoint}")


def program_path() -> Path | None:
    built = Path.home() / ".cache" / "async-stt" / "bin" / "minio"
    if built.exists():
        return built
    path = shutil.which("minio")
    return Path(path) if path else None
