"""Privileges, secrets and limits of each container in the compose file. tests/containers starts them.

`test_docker_compose_accepts_the_file` has Docker Compose read the file if it is installed.
"""

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
SECRETS = ("POSTGRES_PASSWORD", "RABBITMQ_PASSWORD", "MINIO_SECRET_KEY", "SECRET_KEY", "API_KEY", "GRAFANA_PASSWORD")
DATABASE, QUEUES, OBJECTS, SIGNING, KEY, DASHBOARDS = SECRETS
NEEDED = {
    "migrate": {DATABASE},
    "api": {DATABASE, QUEUES, OBJECTS, SIGNING, KEY},
    "consumer": {DATABASE, QUEUES, OBJECTS},
    "scheduler": {DATABASE, QUEUES, OBJECTS, SIGNING},
    "postgres": {DATABASE},
    "rabbitmq": {QUEUES},
    "minio": {OBJECTS},
    "prometheus": set(),
    "alertmanager": set(),
    "grafana": {DASHBOARDS},
    "proxy": set(),
}
"""The secrets that each container needs: the consumer signs nothing, migrations need only the database."""
ENTRYPOINT = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
"""The capabilities that the official images' entry points need to chown their volume and drop root."""
ADDED = {"postgres": ENTRYPOINT, "rabbitmq": ENTRYPOINT, "proxy": {"NET_BIND_SERVICE"}}
PROFILES = {"prometheus": "monitoring", "alertmanager": "monitoring", "grafana": "monitoring", "proxy": "tls"}


def services() -> dict[str, dict[str, Any]]:
    containers: dict[str, dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return containers


def dockerfile(name: str) -> str:
    return (DEPLOY / name).read_text()


@pytest.mark.parametrize("name", NEEDED)
def test_each_container_has_only_its_own_secrets(name: str) -> None:
    service = services()[name]
    assert "env_file" not in service
    text = json.dumps(service.get("environment", {}))
    assert {secret for secret in SECRETS if f"${{{secret}:?" in text} == NEEDED[name]


@pytest.mark.parametrize("name", NEEDED)
def test_each_container_is_hardened(name: str) -> None:
    service = services()[name]
    assert service["cap_drop"] == ["ALL"]
    assert set(service.get("cap_add", [])) == ADDED.get(name, set())
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not service.get("privileged")
    assert "network_mode" not in service
    assert not [key for key in ("pid", "ipc", "devices", "userns_mode") if key in service]
    assert not [volume for volume in service.get("volumes", []) if "docker.sock" in volume]


@pytest.mark.parametrize("name", NEEDED)
def test_each_container_has_resource_limits(name: str) -> None:
    service = services()[name]
    assert re.fullmatch(r"(\$\{\w+:-)?\d+[mg]\}?", service["mem_limit"])
    assert 64 <= service["pids_limit"] <= 1024
    assert service["ulimits"]["nofile"] == {"soft": 16384, "hard": 16384}
    assert service["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}


WRITES = {
    "api": {"/tmp"},
    "migrate": {"/tmp"},
    "scheduler": {"/tmp"},
    "consumer": {"/tmp", "/scratch", "/models"},
    "postgres": {"/tmp", "/var/run/postgresql", "/var/lib/postgresql/data"},
    "rabbitmq": {"/tmp", "/var/log/rabbitmq", "/var/lib/rabbitmq"},
    "minio": {"/tmp", "/data"},
    "prometheus": {"/prometheus"},
    "alertmanager": {"/alertmanager"},
    "grafana": {"/tmp", "/var/lib/grafana"},
    "proxy": {"/data", "/config"},
}


@pytest.mark.parametrize("name", NEEDED)
def test_read_only_containers_have_writable_mounts(name: str) -> None:
    service = services()[name]
    mounts = [mount.split(":") for mount in service.get("volumes", [])]
    writable = {parts[1] for parts in mounts if parts[-1] != "ro"} | {
        mount.split(":")[0] for mount in service.get("tmpfs", [])
    }
    assert WRITES[name] <= writable


def test_recordings_are_decoded_on_disk() -> None:
    """A recording and its decoded audio take 115 MB an hour."""
    consumer = services()["consumer"]
    folder = consumer["environment"]["TEMP_DIR"]
    assert any(volume.split(":")[1] == folder for volume in consumer["volumes"])
    assert not any(mount.split(":")[0] == folder for mount in consumer["tmpfs"])


def test_image_and_containers_use_the_same_user_and_folders() -> None:
    """A new volume takes the owner of the image's folder, so our user can write without any capability."""
    text = dockerfile("Dockerfile")
    folders = re.search(r"mkdir -p ([^\\\n]+?) *\\\n", text)
    owned = re.search(r"chown stt:stt ([^\\\n]+)", text)
    assert folders is not None
    assert owned is not None
    assert set(folders[1].split()) == set(owned[1].split())
    volumes = {mount.split(":")[1] for mount in services()["consumer"]["volumes"]}
    assert volumes <= set(owned[1].split())
    assert re.search(r"^USER stt$", text, re.M)
    defaults = dict(re.findall(r"((?:DATA|MODELS|TEMP)_DIR)=(\S+)", text))
    assert defaults["TEMP_DIR"] == services()["consumer"]["environment"]["TEMP_DIR"]
    assert set(defaults.values()) <= set(owned[1].split())
    assert "PYTHONDONTWRITEBYTECODE=1" in text, "no bytecode may be written beside the code"
    assert re.search(r"^USER minio$", dockerfile("minio.Dockerfile"), re.M)


def test_the_image_is_built_once() -> None:
    """Each service with a `build` is built anew, and one without it must not be pulled."""
    ours = {name: services()[name] for name in OURS}
    assert {service["image"] for service in ours.values()} == {"async-stt:local"}
    assert [name for name, service in ours.items() if "build" in service] == ["migrate"]
    assert all(service["pull_policy"] == "never" for name, service in ours.items() if name != "migrate")


def test_other_services_have_a_name_for_the_api() -> None:
    assert services()["api"]["networks"]["default"]["aliases"] == ["stt-service"]


def test_consumers_yield_to_everything_else() -> None:
    shares = {name: service["cpu_shares"] for name, service in services().items()}
    assert shares.pop("consumer") < min(shares.values())


def test_the_example_of_several_consumers_sets_what_the_file_reads() -> None:
    lines = (DEPLOY / "three-consumers.env").read_text().splitlines()
    names = {line.partition("=")[0] for line in lines if line and not line.startswith("#")}
    consumer = json.dumps(services()["consumer"])
    assert names == {"CONSUMERS", "CONSUMER_SLOTS", "CONSUMER_CPUS", "CONSUMER_MEMORY"}
    assert all(f"${{{name}:-" in consumer for name in names)


def test_services_of_a_profile_are_not_started_without_it() -> None:
    profiles = {name: service["profiles"] for name, service in services().items() if "profiles" in service}
    assert profiles == {name: [profile] for name, profile in PROFILES.items()}


def test_every_container_of_others_has_a_health_check() -> None:
    others = {name: service for name, service in services().items() if name not in OURS}
    assert all(service["healthcheck"]["test"] for service in others.values())


def test_every_volume_is_declared_and_used() -> None:
    declared = set(yaml.safe_load((DEPLOY / "compose.yaml").read_text())["volumes"])
    mounts = [mount.split(":")[0] for service in services().values() for mount in service.get("volumes", [])]
    assert {mount for mount in mounts if not mount.startswith(".")} == declared


def test_the_stop_grace_period_covers_the_drain() -> None:
    for name in OURS:
        assert services()[name]["stop_grace_period"] == "40s"
        assert services()[name]["init"] is True


@pytest.mark.parametrize("name", OURS)
def test_each_container_has_the_settings_its_process_needs(name: str) -> None:
    """Each process's settings load from its container's environment alone."""
    values = {key: f"{key.lower()}-{'x' * 40}" for key in (*SECRETS, "MINIO_ACCESS_KEY")}
    values["API_KEY"] = f"stt_{'0' * 16}_{'a' * 48}"
    environment = {
        key.lower(): re.sub(r"\$\{(\w+):[?-]([^}]*)\}", lambda match: values.get(match[1], match[2]), str(value))
        for key, value in services()[name]["environment"].items()
    }
    settings = load_settings(_env_file=None, **{key: value for key, value in environment.items() if value})
    assert settings.database_url.startswith("postgresql+asyncpg://stt:")
    assert (settings.secret_key != "") == (SIGNING in NEEDED[name])


def test_docker_compose_accepts_the_file() -> None:
    """Docker Compose reads the file; this needs only its client, no engine."""
    if shutil.which("docker") is None:
        pytest.skip("no Docker client on this machine")
    environment = {**os.environ, **dict.fromkeys((*SECRETS, "MINIO_ACCESS_KEY"), "x")}
    call = ["docker", "compose", "-f", str(DEPLOY / "compose.yaml"), "--profile", "*", "config", "--format", "json"]
    completed = subprocess.run(call, capture_output=True, text=True, env=environment, timeout=60, check=False)
    if "unknown" in completed.stderr or "is not a docker command" in completed.stderr:
        pytest.skip("no Docker Compose on this machine")
    assert completed.returncode == 0, completed.stderr
    read = json.loads(completed.stdout)["services"]
    assert set(read) == set(NEEDED)
    assert all(service["read_only"] and service["cap_drop"] == ["ALL"] for service in read.values())
