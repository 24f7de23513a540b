"""The compose file: what each container may do, hold and see. Nothing here starts one; `test_compose_is_accepted`
asks Docker Compose itself to read the file where it is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.config import load_settings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
OURS = ("migrate", "api", "consumer", "scheduler")
SECRETS = ("POSTGRES_PASSWORD", "RABBITMQ_PASSWORD", "MINIO_SECRET_KEY", "SECRET_KEY", "API_KEY")
DATABASE, QUEUES, OBJECTS, SIGNING, KEY = SECRETS
NEEDED = {
    "migrate": {DATABASE},
    "api": {DATABASE, QUEUES, OBJECTS, SIGNING, KEY},
    "consumer": {DATABASE, QUEUES, OBJECTS},
    "scheduler": {DATABASE, QUEUES, OBJECTS, SIGNING},
    "postgres": {DATABASE},
    "rabbitmq": {QUEUES},
    "minio": {OBJECTS},
}
"""The least that each container works with: the consumer signs nothing, migrating needs the database alone."""
ENTRYPOINT = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
"""What the official images' entry points need to hand their volume to their user and become it."""


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return found


def dockerfile(name: str) -> str:
    return (DEPLOY / name).read_text()


@pytest.mark.parametrize("name", NEEDED)
def test_each_container_has_only_its_own_secrets(name: str) -> None:
    service = services()[name]
    assert "env_file" not in service
    text = json.dumps(service["environment"])
    assert {secret for secret in SECRETS if f"${{{secret}:?" in text} == NEEDED[name]


@pytest.mark.parametrize("name", NEEDED)
def test_each_container_is_hardened(name: str) -> None:
    service = services()[name]
    assert service["cap_drop"] == ["ALL"]
    assert set(service.get("cap_add", [])) == (ENTRYPOINT if name in ("postgres", "rabbitmq") else set())
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not service.get("privileged")
    assert "network_mode" not in service
    assert not [key for key in ("pid", "ipc", "devices", "userns_mode") if key in service]
    assert not [volume for volume in service.get("volumes", []) if "docker.sock" in volume]


@pytest.mark.parametrize("name", NEEDED)
def test_each_container_is_bounded(name: str) -> None:
    service = services()[name]
    assert re.fullmatch(r"(\$\{\w+:-)?\d+[mg]\}?", service["mem_limit"])
    assert 64 <= service["pids_limit"] <= 1024
    assert service["ulimits"]["nofile"] == {"soft": 65536, "hard": 65536}
    assert service["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}


WRITES = {
    "api": {"/tmp"},
    "migrate": {"/tmp"},
    "scheduler": {"/tmp"},
    "consumer": {"/tmp", "/scratch"},
    "postgres": {"/tmp", "/var/run/postgresql", "/var/lib/postgresql/data"},
    "rabbitmq": {"/tmp", "/var/log/rabbitmq", "/var/lib/rabbitmq"},
    "minio": {"/tmp", "/data"},
}


@pytest.mark.parametrize("name", NEEDED)
def test_below_a_read_only_root_there_is_room_for_what_is_written(name: str) -> None:
    service = services()[name]
    mounts = [mount.split(":") for mount in service.get("volumes", [])]
    writable = {parts[1] for parts in mounts if parts[-1] != "ro"} | {one.split(":")[0] for one in service["tmpfs"]}
    assert WRITES[name] <= writable


def test_recordings_are_decoded_on_a_disk_and_not_in_memory() -> None:
    """A recording and its decoded sound take 115 MB an hour."""
    consumer = services()["consumer"]
    folder = consumer["environment"]["TEMP_DIR"]
    assert any(volume.split(":")[1] == folder for volume in consumer["volumes"])
    assert not any(mount.split(":")[0] == folder for mount in consumer["tmpfs"])


def test_the_image_agrees_with_its_containers() -> None:
    """A fresh volume takes the owner of the image's folder, so that our user can write without any capability."""
    text = dockerfile("Dockerfile")
    made = re.search(r"mkdir -p ([^\\\n]+?) *\\\n", text)
    owned = re.search(r"chown stt:stt ([^\\\n]+)", text)
    assert made is not None
    assert owned is not None
    assert set(made[1].split()) == set(owned[1].split())
    volumes = {mount.split(":")[1] for mount in services()["consumer"]["volumes"]}
    assert volumes <= set(owned[1].split())
    assert re.search(r"^USER stt$", text, re.M)
    defaults = dict(re.findall(r"((?:DATA|MODELS|TEMP)_DIR)=(\S+)", text))
    assert defaults["TEMP_DIR"] == services()["consumer"]["environment"]["TEMP_DIR"]
    assert set(defaults.values()) <= set(owned[1].split())
    assert "PYTHONDONTWRITEBYTECODE=1" in text, "nothing can be written beside the code"
    assert re.search(r"^USER minio$", dockerfile("minio.Dockerfile"), re.M)


def test_every_volume_is_declared_and_used() -> None:
    declared = set(yaml.safe_load((DEPLOY / "compose.yaml").read_text())["volumes"])
    mounts = [mount.split(":")[0] for service in services().values() for mount in service.get("volumes", [])]
    assert {mount for mount in mounts if not mount.startswith(".")} == declared


def test_our_containers_stop_within_their_grace() -> None:
    for name in OURS:
        assert services()[name]["stop_grace_period"] == "40s"
        assert services()[name]["init"] is True


@pytest.mark.parametrize("name", OURS)
def test_the_settings_of_each_process_are_enough_for_it_to_start(name: str) -> None:
    """Least secrets, but no fewer: the settings of the process take its environment as it stands."""
    values = {key: f"{key.lower()}-{'x' * 40}" for key in (*SECRETS, "MINIO_ACCESS_KEY")}
    values["API_KEY"] = f"stt_{'0' * 16}_{'a' * 48}"
    environment = {
        key.lower(): re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: values[found[1]], str(value))
        for key, value in services()[name]["environment"].items()
    }
    settings = load_settings(_env_file=None, **environment)
    assert settings.database_url.startswith("postgresql+asyncpg://stt:")
    assert (settings.secret_key != "") == (SIGNING in NEEDED[name])


def test_compose_is_accepted() -> None:
    """Docker Compose reads the file as it stands; this needs its client alone, no engine."""
    if shutil.which("docker") is None:
        pytest.skip("no Docker client on this machine")
    given = {**os.environ, **dict.fromkeys((*SECRETS, "MINIO_ACCESS_KEY"), "x")}
    call = ["docker", "compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--format", "json"]
    done = subprocess.run(call, capture_output=True, text=True, env=given, timeout=60, check=False)
    if "unknown" in done.stderr or "is not a docker command" in done.stderr:
        pytest.skip("no Docker Compose on this machine")
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)["services"]
    assert set(read) == set(NEEDED)
    assert all(service["read_only"] and service["cap_drop"] == ["ALL"] for service in read.values())
