"""Models without the command line: MODELS, the routes, and jobs that wait for a download."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from core.database import after
from core.domain.job_options import JobOptions
from core.domain.model_states import ModelState, PullState
from core.domain.models import choose
from core.errors import SettingsError
from internal import bootstrap
from internal.api.app import create_app
from internal.bootstrap import Application
from internal.consumer.runtime import Consumer
from repositories import model_wait, wanted_models, workers
from repositories.models import Job, Worker
from tests.contract import rows
from tests.e2e.service import ROOT
from tests.hub import server as hub_server
from tests.hub.server import FakeHub
from tests.integration.test_consumer import open_application, settings_for
from worker.model_store.reference import parse

CONTENT = (ROOT / "assets" / "model" / "ggml-demo-q5_0.bin").read_bytes()
REFERENCE = "me/repo:ggml-mine.bin"
KEY = "stt_0123456789abcdef_" + "s" * 40
SECONDS = 60.0


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with hub_server.fake_hub() as hub:
        hub.add("ggml-mine.bin", CONTENT, "/me/repo/resolve/main/")
        yield hub


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@contextlib.asynccontextmanager
async def serve(folder: Path, hub: FakeHub, **more: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Application]]:
    """Open the adapters and the API."""
    async with open_application(settings_for(folder, hf_endpoint=hub.url, **more)) as app:
        await app.services.api_keys.ensure_configured()
        transport = httpx.ASGITransport(create_app(app.settings, app.services), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            yield client, app


@contextlib.asynccontextmanager
async def pulling(app: Application, name: str | None = None) -> AsyncIterator[Consumer]:
    """Run the heartbeat and the puller of a consumer, without its engine and subscriptions."""
    consumer = bootstrap.consumer(app, name)
    await consumer.announce()
    consumer.puller.start()
    try:
        yield consumer
    finally:
        await consumer.puller.stop()


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(SECONDS):
        while not (value := await condition()):
            await asyncio.sleep(0.02)
        return value


async def listed(client: httpx.AsyncClient, name: str = "mine") -> dict[str, Any]:
    response = await client.get("/api/v1/models")
    assert response.status_code == 200
    models: dict[str, dict[str, Any]] = {model["name"]: model for model in response.json()["models"]}
    return models.get(name, {})


async def not_listed(client: httpx.AsyncClient) -> bool:
    return await listed(client) == {}


async def in_state(client: httpx.AsyncClient, state: str, name: str = "mine") -> dict[str, Any]:
    async def reached() -> dict[str, Any] | None:
        model = await listed(client, name)
        return model if model.get("state") == state else None

    model: dict[str, Any] = await until(reached)
    return model


def install(client: httpx.AsyncClient, model: str = REFERENCE, **more: Any) -> Awaitable[httpx.Response]:
    return client.post("/api/v1/models", json={"model": model}, **more)


# -- MODELS -----------------------------------------------------------------------------------------------------------
async def test_models_are_installed_at_the_first_start(tmp_path: Path, hub: FakeHub) -> None:
    async with serve(tmp_path, hub, models=REFERENCE) as (client, app):
        async with pulling(app) as consumer:
            model = await in_state(client, "installed")
            assert model["workers"] == 1
            assert model["source"] == REFERENCE
        hub.seen.clear()
        async with pulling(app) as consumer:
            await consumer.puller.reconcile()
            assert consumer.puller.pending() == []
        assert not hub.seen


@pytest.mark.parametrize("name", ["huge", "a/b:../x.bin", "phowhisper-small"])
async def test_an_unknown_name_refuses_the_start(tmp_path: Path, hub: FakeHub, name: str) -> None:
    async with serve(tmp_path, hub, models=f"tiny,{name}") as (_, app):
        with pytest.raises(SettingsError, match="MODELS: "):
            bootstrap.consumer(app)


async def test_health_shows_a_download_and_jobs_wait_for_it(tmp_path: Path, hub: FakeHub) -> None:
    hub.storage_days = [hub_server.stall(2_000_000)]
    async with serve(tmp_path, hub, models=REFERENCE) as (client, app), pulling(app) as consumer:

        async def progress() -> Any:
            await consumer.puller.report()
            pulls = (await client.get("/health")).json()["model_pulls"]
            return [pull for pull in pulls if pull["done"]]

        [pull] = await until(progress)
        assert pull == {
            "name": "mine",
            "worker": consumer.worker_id,
            "state": "pulling",
            "done": pull["done"],
            "total": len(CONTENT),
            "error": None,
        }
        submit = {"language": "en", "model": "mine"}
        files = {"file": ("a.wav", b"RIFF" + bytes(2000))}
        response = await client.post("/api/v1/upload", data=submit, files=files)
        assert response.status_code == 200
        assert response.json()["warning"] == "The model is being installed; the job waits for it."
        job = await rows.job(app.database, response.json()["job_id"])
        assert job.model == "mine"
        async with app.database.write() as session:
            assert await model_wait.seconds_missing(session, await session.get_one(Job, job.job_id)) is None
        refused = await client.post("/api/v1/upload", data=submit | {"model": "medium"}, files=files)
        assert refused.status_code == 422
        assert "`stt models pull medium`" in refused.json()["detail"]
        hub.release.set()
        await in_state(client, "installed")


async def test_a_failed_download_is_shown_and_not_waited_for(tmp_path: Path, hub: FakeHub) -> None:
    hub.hub_days = [hub_server.respond(404)] * 9
    async with serve(tmp_path, hub, models=REFERENCE) as (client, app), pulling(app):
        model = await in_state(client, "failed")
        assert model["error"] == {
            "code": "HUB_NOT_FOUND",
            "message": "The hub has no file me/repo:ggml-mine.bin.",
        }
        vietnamese = await client.get("/api/v1/models", headers={"Accept-Language": "vi"})
        assert "Kho mô hình không có tệp" in vietnamese.text
        refused = await client.post("/api/v1/upload", data={"model": "mine"}, files={"file": ("a.wav", b"RIFF")})
        assert refused.status_code == 422


async def test_an_offline_consumer_keeps_trying(tmp_path: Path, hub: FakeHub) -> None:
    async with open_application(settings_for(tmp_path, hf_endpoint="http://127.0.0.1:1", models="tiny")) as app:
        consumer = bootstrap.consumer(app)
        await consumer.puller.reconcile()
        [state] = [state for state in consumer.puller.states() if state.name == "tiny"]
        assert (state.state, state.error) == (PullState.RETRYING, "HUB_UNREACHABLE")
        assert consumer.puller.pending() == ["tiny"]
        await consumer.puller.reconcile()  # too early for another attempt
        assert consumer.puller._wanted["tiny"].failures == 1


async def test_a_file_put_there_by_hand_satisfies_models(tmp_path: Path, hub: FakeHub) -> None:
    folder = tmp_path / "data" / "models"
    folder.mkdir(parents=True)
    (folder / "ggml-mine.bin").write_bytes(CONTENT)
    async with serve(tmp_path, hub, models=REFERENCE) as (client, app), pulling(app):
        await in_state(client, "installed")
        assert not hub.seen
        refused = await client.delete("/api/v1/models/mine")
        assert (refused.status_code, refused.json()["code"]) == (409, "MODEL_CONFIGURED")


# -- routes -----------------------------------------------------------------------------------------------------------
async def test_a_model_is_installed_and_removed_by_requests(tmp_path: Path, hub: FakeHub) -> None:
    async with serve(tmp_path, hub) as (client, app), pulling(app) as consumer:
        assert await listed(client, "tiny") == {
            "name": "tiny",
            "state": "available",
            "done": 0,
            "total": 77691713,
            "rate": 0.0,
            "remaining_seconds": None,
            "memory_mb": 272,
            "languages": "multilingual",
            "speed": "very fast",
            "licence": "MIT",
            "source": "ggerganov/whisper.cpp:ggml-tiny.bin",
            "workers": 0,
            "error": None,
        }
        accepted = await install(client)
        assert (accepted.status_code, accepted.json()["state"]) == (202, "queued")
        assert (await install(client)).status_code == 202
        await in_state(client, "installed")
        path = consumer.puller.store.folder / "ggml-mine.bin"
        assert path.read_bytes() == CONTENT
        assert (await client.delete("/api/v1/models/mine")).status_code == 202
        await until(lambda: asyncio.to_thread(lambda: not path.exists()))
        await until(lambda: not_listed(client))
        again = await client.delete("/api/v1/models/mine")
        assert (again.status_code, again.json()["code"]) == (404, "MODEL_NOT_INSTALLED")
        assert (await install(client)).status_code == 202
        await in_state(client, "installed")


async def test_a_removal_stops_the_download(tmp_path: Path, hub: FakeHub) -> None:
    """The part that has arrived is dropped, and a later request starts anew."""
    hub.storage_days = [hub_server.slow]
    async with serve(tmp_path, hub) as (client, app), pulling(app) as consumer:
        part = consumer.puller.store.folder / ".pull" / "ggml-mine.bin.part"
        await install(client)
        await until(lambda: asyncio.to_thread(part.exists))
        await in_state(client, "pulling")
        assert (await client.delete("/api/v1/models/mine")).status_code == 202
        await until(lambda: not_listed(client))
        await until(lambda: asyncio.to_thread(lambda: not part.exists()))
        assert not (consumer.puller.store.folder / "ggml-mine.bin").exists()
        await install(client)
        await in_state(client, "installed")
        assert "range" not in hub.requests("storage")[-1].headers


async def test_a_removal_at_the_last_moment_of_a_download(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model that has just been installed is removed, although its removal was asked for before."""
    async with serve(tmp_path, hub) as (client, app):
        consumer = bootstrap.consumer(app)
        await consumer.announce()
        await install(client)
        pull = consumer.puller.store.pull

        def deleted_meanwhile(*arguments: Any) -> Any:
            deleted = asyncio.run_coroutine_threadsafe(client.delete("/api/v1/models/mine"), loop)
            assert deleted.result(SECONDS).status_code == 202
            return pull(*arguments)

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(consumer.puller.store, "pull", deleted_meanwhile)
        await consumer.puller.reconcile()
        assert not (consumer.puller.store.folder / "ggml-mine.bin").exists()
        assert await listed(client) == {}


async def test_every_consumer_follows_and_a_shared_folder_downloads_once(tmp_path: Path, hub: FakeHub) -> None:
    async with serve(tmp_path, hub) as (client, app), pulling(app, "a"), pulling(app, "b"):
        await install(client)

        async def both() -> bool:
            return bool((await in_state(client, "installed"))["workers"] == 2)

        await until(both)
        assert len(hub.requests("storage")) == 1


async def test_a_model_put_there_by_hand_is_not_removed(tmp_path: Path, hub: FakeHub) -> None:
    async with serve(tmp_path, hub) as (client, app), pulling(app):
        refused = await client.delete("/api/v1/models/demo-q5_0")
        assert (refused.status_code, refused.json()["code"]) == (409, "MODEL_NOT_MANAGED")


async def test_a_model_pulled_after_its_removal_stays(tmp_path: Path, hub: FakeHub) -> None:
    async with serve(tmp_path, hub) as (_, app):
        consumer = bootstrap.consumer(app)
        async with app.database.write() as session:
            await wanted_models.record(session, "mine", REFERENCE, wanted=False)
        await asyncio.to_thread(consumer.puller.store.pull, parse(REFERENCE))
        await consumer.puller.reconcile()
        assert (consumer.puller.store.folder / "ggml-mine.bin").exists()
        async with app.database.write() as session:
            await wanted_models.record(session, "mine", REFERENCE, wanted=False)
        await consumer.puller.reconcile()
        assert not (consumer.puller.store.folder / "ggml-mine.bin").exists()


async def test_only_the_operator_changes_models(tmp_path: Path, hub: FakeHub) -> None:
    async with serve(tmp_path / "keys", hub, api_key=KEY) as (client, app):
        other, _ = await app.services.api_keys.create("somebody", None, None)
        for key, status in ((KEY, 202), (other, 403)):
            headers = {"X-API-Key": key}
            assert (await install(client, headers=headers)).status_code == status
            assert (await client.get("/api/v1/models", headers=headers)).status_code == 200
            assert (await client.delete("/api/v1/models/mine", headers=headers)).status_code == status
        assert (await install(client)).status_code == 401
    async with serve(tmp_path / "open", hub, api_host="0.0.0.0", allow_anonymous=True) as (client, _):
        refused = await install(client)
        assert (refused.status_code, refused.json()["code"]) == (403, "ADMIN_ONLY")
        assert (await client.get("/api/v1/models")).status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model": "huge"}, "MODEL_NAME_INVALID"),
        ({"model": "a/b:../../x.bin"}, "MODEL_NAME_INVALID"),
        ({"model": REFERENCE, "name": "../x"}, "MODEL_NAME_INVALID"),
        ({"model": "tiny\n"}, "MODEL_NAME_INVALID"),
        ({"model": ""}, "INVALID_FIELD"),
        ({}, "INVALID_FIELD"),
    ],
)
async def test_bad_names_are_refused(tmp_path: Path, hub: FakeHub, body: dict[str, str], code: str) -> None:
    async with serve(tmp_path, hub) as (client, app):
        response = await client.post("/api/v1/models", json=body)
        assert (response.status_code, response.json()["code"]) == (422, code)
        async with app.database.read() as session:
            assert await wanted_models.list_all(session) == []


async def test_a_fine_tune_is_refused_with_the_way_to_import_it(tmp_path: Path, hub: FakeHub) -> None:
    async with serve(tmp_path, hub) as (client, _):
        response = await install(client, "phowhisper-small")
        assert "stt models import vinai/PhoWhisper-small" in response.json()["detail"]


# -- choosing and waiting ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("asked", "default", "names", "pending", "expected"),
    [
        ("", None, ["demo-q5_0"], ["small"], "small"),
        ("", None, ["demo-q5_0", "base"], ["small"], "base"),
        ("", None, ["demo-q5_0"], [], "demo-q5_0"),
        ("demo", None, ["demo-q5_0"], ["small"], "demo-q5_0"),
        ("medium", None, ["base", "medium-q5_0"], ["medium"], "medium-q5_0"),
        ("medium", None, ["base"], ["medium-q5_0"], "medium-q5_0"),
        ("medium", None, ["base"], ["small"], None),
        ("", "medium", ["base", "medium", "medium-q5_0"], [], "medium-q5_0"),
        ("medium", None, ["base", "medium", "medium-q5_0"], [], "medium"),
        ("", "medium", ["base", "medium"], [], "medium"),
        ("", "medium-q8_0", ["medium-q8_0", "medium-q5_0"], [], "medium-q8_0"),
        ("", None, ["small", "medium", "medium-q5_0"], [], "medium-q5_0"),
        ("", "small", ["base"], ["small"], "small"),
    ],
)
def test_the_model_of_a_job(
    asked: str, default: str | None, names: list[str], pending: list[str], expected: str | None
) -> None:
    assert choose(asked, "vi", names, default, pending) == expected


@pytest.mark.parametrize(
    ("state", "missing"), [("pulling", False), ("queued", False), ("retrying", True), ("failed", True)]
)
def test_a_download_that_makes_progress_counts_as_the_file(state: str, missing: bool) -> None:
    pull = ModelState("small", PullState(state), error="HUB_UNREACHABLE" if missing else None)
    worker = Worker(worker_id="w", models=["demo-q5_0"], model_states=[pull.to_json()])
    unplanned = Job(job_id="a", language="en", model="small", asked_model="small", options=JobOptions())
    assert model_wait.is_available(unplanned, [worker]) != missing
    planned = Job(job_id="a", language="en", model="small", plan=1, chunks_total=1, options=JobOptions(file_sha256="x"))
    assert model_wait.is_available(planned, [worker]) != missing


def test_a_state_is_read_as_it_was_written() -> None:
    state = ModelState("a", PullState.FAILED, 5, 10, 1.5, "b/c:d", True, True, "HUB_BUSY", "text", {"status": 503})
    assert ModelState.from_json(state.to_json()) == state
    assert ModelState.from_json({"name": "a", "state": "installed", "of a later version": 1}) == ModelState(
        "a", PullState.INSTALLED
    )


async def test_dead_workers_install_nothing(tmp_path: Path, hub: FakeHub) -> None:
    async with serve(tmp_path, hub, models=REFERENCE) as (client, app):
        await bootstrap.consumer(app, "gone").announce()
        assert (await listed(client))["state"] == "queued"
        async with app.database.write() as session:
            await session.execute(update(Worker).values(heartbeat_at=after(-workers.LIVE_SECONDS - 1)))
        assert await listed(client) == {}
