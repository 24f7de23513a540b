"""A job that is submitted before its model has arrived waits for it, and ends with a transcript."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import service as services
from tests.e2e.service import ROOT, Service
from tests.hub import server as hub_server
from tests.servers.base import wait_until

pytestmark = pytest.mark.speech
CONTENT = (ROOT / "assets" / "model" / "ggml-demo-q5_0.bin").read_bytes()
SAMPLE = ROOT / "assets" / "samples" / "hello.en.mp3"
REFERENCE = "me/repo:ggml-mine.bin"
WARNING = "The model is being installed; the job waits for it."


def downloaded(service: Service) -> int:
    """Return the bytes of the model that have arrived."""
    pulls = service.client.get("/health").json()["model_pulls"]
    return max((pull["done"] for pull in pulls), default=0)


@pytest.mark.parametrize("model", ["mine", None], ids=["named", "default"])
def test_a_job_waits_for_its_model(tmp_path: Path, model: str | None) -> None:
    """Also one that names no model: it does not run with the demo model while a real one is on its way."""
    with hub_server.fake_hub() as hub:
        hub.add("ggml-mine.bin", CONTENT, "/me/repo/resolve/main/")
        hub.storage_days = [hub_server.stall(1_000_000)]
        with services.embedded(tmp_path, MODELS=REFERENCE, HF_ENDPOINT=hub.url) as service:
            wait_until(lambda: downloaded(service) > 0, "a part of the model has arrived", 30)
            form = {"language": "en"} | ({"model": model} if model else {})
            with SAMPLE.open("rb") as file:
                answer = service.client.post("/api/v1/upload", files={"file": file}, data=form).json()
            assert answer["warning"] == WARNING
            assert service.status(answer["job_id"])["status"] in ("PENDING", "PROCESSING")
            assert service.status(answer["job_id"])["chunks_completed"] in (0, None)
            hub.release.set()
            assert service.wait(answer["job_id"])["status"] == "COMPLETED", service.logs()
            result = service.client.get(f"/api/v1/result/{answer['job_id']}").json()
            assert result["model"] == "mine"
            assert result["text"].startswith("The code is eight seven seven.")
