"""Base images: the real ones, or stand-ins of Debian's packages where they cannot be pulled.

A stand-in has the name of the image, so that the project's Dockerfiles and compose file are used unmodified. It differs
in what Debian's packages differ: PostgreSQL 15 instead of 16, RabbitMQ 3.10 instead of 4, Prometheus 2.42 instead of 3,
Alertmanager 0.25, Caddy 2.6, and a `go` that installs the MinIO of deploy/install-test-tools.sh. `provide` returns
which ones a run used.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.containers.engine import CommandFailed, OwnEngine
from tests.servers import minio
from tests.servers.base import Unavailable

HERE = Path(__file__).resolve().parent
DEBIAN = "debian:bookworm-slim"
IMAGES = (
    DEBIAN,
    "golang:1.26-bookworm",
    "postgres:16-bookworm",
    "rabbitmq:4-management",
    "prom/prometheus:v3.5.0",
    "prom/alertmanager:v0.28.1",
    "caddy:2.10",
)
GRAFANA = "grafana/grafana:12.1.1"
"""The one image without a stand-in, since Debian has no Grafana."""
CACHE = Path.home() / ".cache" / "async-stt" / "containers"
PULL_SECONDS = 30.0
BUILD_SECONDS = 600.0
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
LABEL = "async-stt.stand-in"


def provide(engine: OwnEngine) -> dict[str, str]:
    """Make sure that the engine has the base images; return for each image `real` or `stand-in`.

    Raises Unavailable if neither can be had.
    """
    if can_pull(engine):
        return dict.fromkeys(IMAGES, "real")
    CACHE.mkdir(parents=True, exist_ok=True)
    saved = CACHE / f"{version()}.tar"
    if saved.exists():
        engine.docker("load", "--quiet", "--input", str(saved), seconds=BUILD_SECONDS)
    else:
        build(engine)
        for old in CACHE.glob("*.tar"):
            old.unlink()
        engine.docker("save", "--output", f"{saved}.new", *IMAGES, seconds=BUILD_SECONDS)
        Path(f"{saved}.new").rename(saved)
    return dict.fromkeys(IMAGES, "stand-in")


def can_pull(engine: OwnEngine) -> bool:
    if os.environ.get("TEST_CONTAINER_IMAGES") == "stand-ins":
        return False
    try:
        for image in IMAGES:
            engine.docker("pull", "--quiet", image, seconds=PULL_SECONDS if image == DEBIAN else BUILD_SECONDS)
    except CommandFailed:
        return False
    return True


def version() -> str:
    """Return a hash of what the stand-ins are made of."""
    program = minio.program_path()
    if program is None:
        raise Unavailable("no MinIO for the stand-in of its image: run deploy/install-test-tools.sh")
    made_of = hashlib.sha256(f"{program.stat().st_size} {program.stat().st_mtime_ns}".encode())
    for path in [*sorted((HERE / "stand_ins").iterdir()), Path(__file__), BUNDLE]:
        made_of.update(path.read_bytes() if path.exists() else b"")
    return made_of.hexdigest()[:16]


def build(engine: OwnEngine) -> None:
    """Build all stand-ins. Raises Unavailable, and CommandFailed if one cannot be built."""
    if not shutil.which("mmdebstrap"):
        raise Unavailable("no mmdebstrap: run deploy/install-container-tools.sh")
    with tempfile.TemporaryDirectory(prefix="stt-stand-ins-") as name:
        folder = Path(name)
        shutil.copytree(HERE / "stand_ins", folder, dirs_exist_ok=True)
        shutil.copy(minio.program_path() or "", folder / "minio")
        shutil.copy(HERE.parents[1] / "deploy" / "minio.Dockerfile", folder / "minio.Dockerfile")
        for program in (folder / "minio", *folder.glob("*.sh")):
            program.chmod(0o755)
        copy_machine_settings(folder)
        debian(folder / "debian.tar")
        for image in IMAGES:
            file = folder / f"{image.partition(':')[0].rpartition('/')[2]}.Dockerfile"
            words = ("--network", "host", "--label", f"{LABEL}=true", "--tag", image, "--file", str(file), name)
            engine.docker("build", "--quiet", *words, seconds=BUILD_SECONDS)


def debian(archive: Path) -> None:
    """Write the root of a minimal Debian, without documentation, like the slim image."""
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
    options += ["--aptopt=Acquire::Languages none", "--dpkgopt=force-unsafe-io"]
    done = subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=apt", *options, "bookworm", str(archive), *mirror()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode:
        raise CommandFailed(f"mmdebstrap: {done.stdout[-3000:]}")


def mirror() -> list[str]:
    """Return the first Debian mirror of the machine's apt sources; nothing if there is none, for the tool's default."""
    for path in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")):
        if path.is_file() and (found := re.search(r"https?://\S+/debian(?=/?\s)", path.read_text(errors="replace"))):
            return [found[0]]
    return []


def copy_machine_settings(folder: Path) -> None:
    """Copy the machine's certificates, pip settings and apt proxy, which the builds on this machine need."""
    (folder / "pip.conf").write_text("[global]\ncert = /etc/stand-in/certificates.crt\n")
    (folder / "certificates.crt").write_bytes(BUNDLE.read_bytes() if BUNDLE.exists() else b"")
    pip = Path("/etc/pip.conf")
    if pip.exists():
        text = re.sub(r"(?m)^cert\s*=.*$", "cert = /etc/stand-in/certificates.crt", pip.read_text())
        (folder / "pip.conf").write_text(text)
    lines = [
        line
        for path in Path("/etc/apt/apt.conf.d").glob("*")
        for line in path.read_text(errors="replace").splitlines()
        if re.match(r"\s*Acquire::\w+::(Proxy|CaInfo)", line, re.I)
    ]
    (folder / "apt.conf").write_text("\n".join(lines) + "\n")
