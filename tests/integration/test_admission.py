"""Requests that reach loopback by way of proxies, other host names or web sites, and URLs in answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.config import load_settings
from core.errors import SettingsError
from internal.api.app import api_routes, create_app
from internal.api.authentication import AuthenticationMiddleware, depends_on_owner
from internal.api.middleware import METHODS, UNMATCHED
from internal.scheduler.sampler import Sampler
from internal.services.request_origin import RequestOrigin
from repositories import parking
from tests.integration.test_access import FIRST, serve_api, upload, with_key

HERE = "http://127.0.0.1:8000"
FOREIGN: list[dict[str, str]] = [
    {"Host": "stt.example"},
    {"Host": "stt.example:8000"},
    {"Host": "127.0.0.1.example"},
    {"Host": "localhost.example"},
    {"Host": "10.0.0.7"},
    {"Host": "[::2]:8000"},
    {"Host": ""},
    {"X-Forwarded-For": "203.0.113.9"},
    {"X-Forwarded-Proto": "https"},
    {"X-Forwarded-Anything": "1"},
    {"Forwarded": "for=203.0.113.9"},
    {"X-Real-IP": "203.0.113.9"},
    {"Via": "1.1 proxy"},
    {"CF-Connecting-IP": "203.0.113.9"},
]
CROSS_SITE: list[dict[str, str]] = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:3000"},
    {"Origin": "http://localhost:8000"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
]
PATHS = ("/", "/health", "/metrics", "/api/v1/jobs", "/api/v1/stats", "/v1/models", "/openapi.json", "/nowhere")


def code_of(answer: httpx.Response) -> str:
    body = answer.json()
    return str(body.get("code") or body["error"]["code"]).upper()


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_without_keys_foreign_requests_are_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    async with serve_api(tmp_path) as (client, _):
        for path in PATHS:
            answer = await client.get(path, headers=headers)
            assert (answer.status_code, code_of(answer)) == (403, "LOCAL_ONLY"), path
        refused = await upload(client, **headers)
        assert (refused.status_code, code_of(refused)) == (403, "LOCAL_ONLY")
        assert "stt keys create" in refused.json()["detail"]
        vietnamese = await client.get("/api/v1/jobs", headers={**headers, "Accept-Language": "vi"})
        assert "khóa" in vietnamese.json()["detail"]
        assert (await client.get("/live", headers=headers)).status_code == 200


@pytest.mark.parametrize("headers", CROSS_SITE, ids=str)
async def test_without_keys_cross_site_requests_are_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    anonymous: dict[str, Any] = {"allow_anonymous": True}
    for number, more in enumerate(({}, anonymous, {**anonymous, "api_host": "0.0.0.0"})):
        async with serve_api(tmp_path / str(number), **more) as (client, _):
            refused = await upload(client, **headers)
            assert (refused.status_code, code_of(refused)) == (403, "CROSS_SITE")
            assert (await client.get("/api/v1/jobs", headers=headers)).status_code == 403
            assert (await client.delete("/api/v1/jobs/x", headers=headers)).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        *({}, {"Host": "localhost:8000"}, {"Host": "[::1]:8000"}, {"Host": "127.0.0.9"}, {"Host": "LOCALHOST."}),
        *({"Origin": HERE}, {"Origin": "http://localhost", "Host": "localhost"}, {"Sec-Fetch-Site": "same-origin"}),
        *({"Sec-Fetch-Site": "none"}, {"Origin": "http://localhost:80", "Host": "localhost"}),
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ],
    ids=str,
)
async def test_local_requests_are_served(tmp_path: Path, headers: dict[str, str]) -> None:
    async with serve_api(tmp_path, rate_limit_per_minute=3) as (client, _):
        for _ in range(5):
            assert (await client.get("/api/v1/jobs", headers=headers)).status_code == 200, (
                "requests from loopback are not counted"
            )
        if "Sec-Fetch-Mode" not in headers:
            assert (await upload(client, **headers)).status_code == 200


async def test_trusted_hosts_and_allowed_origins_are_served(tmp_path: Path) -> None:
    settings = {"trusted_hosts": "stt.lan", "cors_origins": "https://app.example"}
    async with serve_api(tmp_path, **settings) as (client, _):
        assert (await upload(client, Host="stt.lan:8000")).status_code == 200
        assert (
            await upload(client, Origin="https://app.example", **{"Sec-Fetch-Site": "cross-site"})
        ).status_code == 200
        assert (await upload(client, Origin="https://app.example:444")).status_code == 403


async def test_requests_from_another_machine_are_not_local(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (_, app):
        for peer, status in (("10.0.0.7", 403), ("::ffff:127.0.0.1", 200), ("::1", 200), ("::ffff:10.0.0.7", 403)):
            transport = httpx.ASGITransport(create_app(app.settings, app.services), client=(peer, 1))
            async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
                assert (await client.get("/api/v1/jobs")).status_code == status, peer


def test_default_nginx_requests_are_recognised_as_proxied() -> None:
    """nginx forwards with HTTP/1.0, the upstream address as Host, and no header of its own."""
    plain = {"host": "127.0.0.1:8000"}
    assert RequestOrigin("127.0.0.1", "GET", "1.1", plain).reason_not_local(()) is None
    assert RequestOrigin("127.0.0.1", "GET", "1.0", plain).reason_not_local(()) is not None


async def test_with_keys_a_key_is_enough_from_anywhere(tmp_path: Path) -> None:
    async with serve_api(tmp_path, api_key=FIRST) as (client, _):
        for headers in (*FOREIGN, *CROSS_SITE):
            assert (await client.get("/api/v1/jobs", headers={**headers, **with_key(FIRST)})).status_code == 200
            assert (await client.get("/health", headers=headers)).status_code == 200


async def test_with_keys_trusted_hosts_are_enforced_if_set(tmp_path: Path) -> None:
    async with serve_api(tmp_path, api_key=FIRST, api_host="0.0.0.0", trusted_hosts="stt.example") as (client, _):
        for host, status in (("stt.example", 200), ("STT.example:443", 200), ("localhost", 200), ("evil.example", 403)):
            for path in ("/api/v1/jobs", "/health"):
                answer = await client.get(path, headers={"Host": host, **with_key(FIRST)})
                assert answer.status_code == status, (host, path)
        refused = await client.get("/api/v1/jobs", headers={"Host": "evil.example", **with_key(FIRST)})
        assert code_of(refused) == "HOST_NOT_TRUSTED"
        assert (await client.get("/live", headers={"Host": "evil.example"})).status_code == 200


async def test_anonymous_remote_requests_are_rate_limited(tmp_path: Path) -> None:
    async with serve_api(tmp_path, allow_anonymous=True, rate_limit_per_minute=2) as (client, _):
        forwarded = {"X-Forwarded-For": "203.0.113.9"}
        assert [(await client.get("/api/v1/jobs", headers=forwarded)).status_code for _ in range(3)] == [200, 200, 429]
        assert (await client.get("/api/v1/jobs")).status_code == 200


async def test_every_origin_needs_keys(tmp_path: Path) -> None:
    for more in ({}, {"allow_anonymous": True}):
        with pytest.raises(SettingsError, match="CORS_ORIGINS"):
            async with serve_api(tmp_path / "a", cors_origins="*", **more):
                pass
    async with serve_api(tmp_path / "b", cors_origins="*", api_key=FIRST) as (client, _):
        answer = await client.get("/live", headers={"Origin": "https://app.example"})
        assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("trusted_hosts", "https://a.example"), ("trusted_hosts", "a.example:80"), ("public_url", "a.example")),
        *(("public_url", "ftp://a.example"), ("public_url", "https://a.example/?x"), ("public_url", "https://")),
        *(("forwarded_allow_ips", "proxy"), ("forwarded_allow_ips", "*"), ("forwarded_allow_ips", "10.0.0.0/99")),
    ],
)
def test_the_error_for_an_invalid_address_names_the_setting(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name.upper()):
        load_settings(_env_file=None, **{name: value})


@pytest.mark.parametrize(
    ("settings", "base"),
    [({}, HERE), ({"public_url": "https://stt.example/base/"}, "https://stt.example/base")],
)
async def test_the_host_header_does_not_appear_in_urls(tmp_path: Path, settings: dict[str, Any], base: str) -> None:
    async with serve_api(tmp_path, api_key=FIRST, **settings) as (client, _):
        headers = {"Host": "evil.example", **with_key(FIRST)}
        answer = await client.post("/api/v1/uploads", json={"filename": "a.wav"}, headers=headers)
        assert answer.json()["upload_url"].startswith(f"{base}/api/v1/uploads/")
        assert "evil" not in answer.text


def test_every_route_with_an_owner_is_authenticated_first() -> None:
    owned = [route for route in api_routes() if depends_on_owner(route.dependant)]
    admission = AuthenticationMiddleware(lambda *_: None, None, api_routes())  # type: ignore[arg-type]
    assert len(owned) >= 20
    for route in owned:
        path = re.sub(r"\{\w+\}", "x", route.path)
        for method in route.methods or ():
            assert admission.requires_owner({"path": path, "method": method}), route.path


async def test_unauthenticated_json_is_not_read(tmp_path: Path) -> None:
    read = 0

    async def body() -> Any:
        nonlocal read
        read += 1
        yield b"{"

    async with serve_api(tmp_path, api_key=FIRST) as (client, _):
        for route in api_routes():
            if not depends_on_owner(route.dependant):
                continue
            path = re.sub(r"\{\w+\}", "x", route.path)
            for method in route.methods or ():
                answer = await client.request(
                    method, path, content=body(), headers={"Content-Type": "application/json"}
                )
                assert answer.status_code == 401, path
                assert answer.headers["connection"] == "close"
    assert read == 0


async def test_metric_labels_are_bounded(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (client, _):
        for number in range(50):
            await client.request(f"INVENTED{number}" + "X" * 1000, f"/made/up/{number}")
            await client.request(f"INVENTED{number}", "/api/v1/jobs")
            await client.get(f"/api/v1/status/made-up-{number}")
        text = (await client.get("/metrics")).text
    assert "INVENTED" not in text
    assert "made" not in text
    assert set(re.findall(r'method="(\w+)"', text)) <= METHODS | {"OTHER"}
    assert {"OTHER"} <= set(re.findall(r'method="(\w+)"', text))
    routes = set(re.findall(r'route="([^"]+)"', text))
    assert UNMATCHED in routes
    assert routes <= {route.path for route in api_routes()} | {UNMATCHED}


async def test_parked_items_are_counted_by_step_in_metrics(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (client, app):
        async with app.database.write() as session:
            for step, item in (("collect", "a"), ("collect", "b"), ("expire", "c")):
                await parking.park(session, step, item, "it fails")
        sampler = Sampler(app.database, app.broker, app.storage)
        await sampler.sample()
        assert await parked_items(client) == {"collect": 2.0, "expire": 1.0}
        async with app.database.write() as session:
            for step, item in (("collect", "a"), ("expire", "c")):
                await parking.unpark(session, step, item)
        await sampler.sample()
        assert await parked_items(client) == {"collect": 1.0}


async def parked_items(client: httpx.AsyncClient) -> dict[str, float]:
    text = (await client.get("/metrics")).text
    return {step: float(count) for step, count in re.findall(r'^stt_parked_items{step="(\w+)"} (\S+)$', text, re.M)}


@pytest.mark.parametrize("path", ["/://" + "a" * 60_000, "/a?" * 20_000, "/" + "://" * 20_000, "/%0a%1b[31m" * 4000])
async def test_a_long_path_is_truncated_in_logs_and_answers(
    tmp_path: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serve_api(tmp_path) as (client, _):
        answer = await client.get(httpx.URL(HERE, raw_path=path.encode()))
    assert answer.status_code == 404
    assert len(answer.text) < 2000
    shown = "".join(capsys.readouterr())
    assert len(shown) < 5000
    assert "\x1b[31m" not in answer.text
