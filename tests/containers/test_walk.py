"""The compose file, unmodified, as its user sees it, from `make up` to `make down`."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from core.version import VERSION
from tests.containers.deployment import Deployment
from tests.containers.engine import CommandFailed
from tests.servers.base import wait_until

# one process runs them all; the first test builds the images
pytestmark = [
    pytest.mark.servers,
    pytest.mark.speech,
    pytest.mark.xdist_group("containers"),
    pytest.mark.timeout(1500),
]
OURS = ("api", "consumer", "scheduler")
STORES = ("postgres", "rabbitmq", "minio")
WORDS = "Where is the new contract?"
BROKER_SECONDS = 120.0


def test_make_up_waits_until_every_container_is_healthy(deployment: Deployment) -> None:
    for service in (*OURS, *STORES):
        (container,) = deployment.containers(service)
        assert container["State"]["Health"]["Status"] == "healthy", service
        assert container["RestartCount"] == 0, service
    (migration,) = deployment.containers("migrate")
    assert (migration["State"]["Status"], migration["State"]["ExitCode"]) == ("exited", 0)
    assert len({deployment.containers(service)[0]["Image"] for service in (*OURS, "migrate")}) == 1


def test_a_first_start_leaves_no_error_in_any_log(deployment: Deployment) -> None:
    logs = deployment.compose("logs", "--no-color", "postgres", *OURS)
    bad = [line for line in logs.splitlines() if "ERROR:" in line or '"level":"error"' in line.replace(" ", "")]
    assert bad == []


@pytest.mark.parametrize("service", OURS)
def test_our_containers_run_without_privileges(deployment: Deployment, service: str) -> None:
    def inside(script: str) -> str:
        return deployment.compose("exec", "-T", service, "sh", "-c", script)

    assert inside("id -u").strip() == "10001"
    assert "CapEff:\t0000000000000000" in inside("cat /proc/self/status")
    for path in ("/app/x", "/opt/stt/x"):
        with pytest.raises(CommandFailed, match=r"Read-only|cannot touch"):
            inside(f"touch {path}")
    assert inside("which gcc cc make pip pip3 ffmpeg || true").strip() == ""
    assert inside("python -c 'import pip' 2>&1 || true").strip().endswith("No module named 'pip'")


def test_a_caller_needs_the_generated_key(deployment: Deployment, sample: Path) -> None:
    with deployment.engine.client(8000) as anyone:
        assert anyone.get("/live").status_code == 200
        assert anyone.get("/api/v1/jobs").status_code == 401
    assert WORDS in deployment.text(deployment.upload(sample))


def test_the_image_has_the_openvino_engine(deployment: Deployment) -> None:
    script = "import openvino, worker.engine.openvino; print(openvino.Core().available_devices)"
    assert "CPU" in deployment.compose("exec", "-T", "consumer", "python", "-c", script)


def test_a_recording_is_sent_to_minio_through_an_upload_link(deployment: Deployment, sample: Path) -> None:
    with deployment.api() as client:
        link = client.post("/api/v1/uploads", json={"filename": sample.name, "language": "en"}).json()
        url = httpx.URL(link["upload_url"])
        assert url.port == 9000
        with deployment.engine.client(9000) as storage:
            assert storage.put(url, content=sample.read_bytes()).status_code == 200
        assert client.post(f"/api/v1/jobs/{link['job_id']}/start").status_code == 202
    assert WORDS in deployment.text(link["job_id"])


def test_the_pages_of_rabbitmq_and_minio_open_with_the_generated_passwords(deployment: Deployment) -> None:
    with deployment.engine.client(15672) as page:
        assert "RabbitMQ" in page.get("/").text
        answer = page.get("/api/queues", auth=("stt", deployment.secret("RABBITMQ_PASSWORD")))
        assert "stt_chunks" in {queue["name"] for queue in answer.json()}
        assert page.get("/api/queues", auth=("guest", "guest")).status_code == 401
    with deployment.engine.client(9001) as console:
        assert "MinIO" in console.get("/", headers={"User-Agent": "Mozilla/5.0"}).text
        words = {"accessKey": "stt", "secretKey": deployment.secret("MINIO_SECRET_KEY")}
        assert console.post("/api/v1/login", json=words).status_code == 204


def test_the_image_names_its_version(deployment: Deployment) -> None:
    labels = json.loads(
        deployment.engine.docker("image", "inspect", "-f", "{{json .Config.Labels}}", "async-stt:local")
    )
    assert labels["org.opencontainers.image.version"] == VERSION
    assert labels["org.opencontainers.image.licenses"] == "MIT"


def test_another_project_finds_the_service_by_its_alias(deployment: Deployment) -> None:
    (network,) = deployment.containers("api")[0]["NetworkSettings"]["Networks"]
    script = "import urllib.request as u; print(u.urlopen('http://stt-service:8000/live').status)"
    words = ("run", "--rm", "--network", network, "async-stt:local", "-c", script)
    assert deployment.engine.docker(*words).strip() == "200"


def test_the_image_alone_serves_nobody_without_a_key(deployment: Deployment) -> None:
    """`docker run` with a published port: the embedded service listens on all addresses."""
    docker = deployment.engine.docker
    container = docker(
        "run", "--detach", "--read-only", "--tmpfs", "/tmp", "-v", "/data", "-v", "/scratch", "async-stt:local"
    )
    container = container.strip()
    try:
        health = "{{.State.Health.Status}}"
        wait_until(lambda: docker("inspect", "-f", health, container).strip() == "healthy", "the container is healthy")
        script = "import urllib.request as u; u.urlopen('http://HOST:8000/api/v1/jobs')"
        address = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", container).strip()
        with pytest.raises(CommandFailed, match="401"):
            docker("run", "--rm", "async-stt:local", "-c", script.replace("HOST", address))
    finally:
        docker("rm", "--force", "--volumes", container)


def test_jobs_survive_a_killed_consumer(deployment: Deployment, sample: Path) -> None:
    deployment.compose("up", "--detach", "--wait", "--no-recreate", "--scale", "consumer=2")
    deployment.wait_for(2)
    jobs = [deployment.upload(sample) for _ in range(4)]
    killed = deployment.containers("consumer")[1]["Id"]
    deployment.engine.docker("kill", killed)
    assert all(WORDS in deployment.text(job) for job in jobs)
    deployment.compose("up", "--detach", "--wait", "--no-recreate", "--scale", "consumer=1")
    deployment.wait_for(1)


def test_health_is_steady_after_the_broker_was_restarted(deployment: Deployment, sample: Path) -> None:
    before = deployment.upload(sample)
    deployment.compose("restart", "rabbitmq")

    def up() -> bool:
        with deployment.api() as client:
            return client.get("/health").status_code == 200

    wait_until(up, "the service is healthy", BROKER_SECONDS)
    # each request is a new connection, which any of the API's processes may accept
    assert [up() for _ in range(12)] == [True] * 12
    assert WORDS in deployment.text(before)
    assert WORDS in deployment.text(deployment.upload(sample))


def test_everything_is_still_there_after_make_down_and_make_up(deployment: Deployment, sample: Path) -> None:
    job_id = deployment.upload(sample)
    text = deployment.text(job_id)
    states = [container["Id"] for container in deployment.containers()]
    assert len(states) == 7
    deployment.make("down")
    assert deployment.containers() == []
    deployment.make("up")
    assert deployment.text(job_id) == text
    assert WORDS in deployment.text(deployment.upload(sample))


def test_our_processes_stop_by_themselves(deployment: Deployment) -> None:
    """A process that is killed after `stop_grace_period` has exit code 137."""
    deployment.compose("stop", *OURS)
    codes = {service: deployment.containers(service)[0]["State"]["ExitCode"] for service in OURS}
    assert codes == dict.fromkeys(OURS, 0)
    deployment.compose("up", "--detach", "--wait")
    deployment.wait_for(1)
