"""The page and the reference of the API, served from local files under policies that allow no foreign script."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from core.version import VERSION
from internal.api import page_files
from tests.integration.test_access import FIRST, serve_api

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html><title>page</title>")
    (folder / "main.js").write_text("let a = 1\n" * 100)
    (folder / "notes.txt").write_text("not served")
    (tmp_path / "secret.js").write_text("outside")
    monkeypatch.setattr(page_files, "page_folder", lambda: folder)
    return folder


async def test_the_page_is_for_browsers(tmp_path: Path, folder: Path) -> None:
    async with serve_api(tmp_path, api_key=FIRST) as (client, _):
        page = await client.get("/", headers=BROWSER)
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        policy = page.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "Accept" in page.headers["vary"]
        assert page.headers["permissions-policy"] == "camera=(), geolocation=(), microphone=(self)"
        for accept in ({}, {"Accept": "application/json"}, {"Accept": "*/*"}):
            assert (await client.get("/", headers=accept)).json()["version"] == VERSION
        (folder / "index.html").unlink()
        assert (await client.get("/", headers=BROWSER)).json()["version"] == VERSION


async def test_files_are_revalidated_and_compressed(tmp_path: Path, folder: Path) -> None:
    async with serve_api(tmp_path) as (client, _):
        async with client.stream("GET", "/page/main.js", headers={"Accept-Encoding": "gzip"}) as answer:
            packed = b"".join([piece async for piece in answer.aiter_raw()])
        assert gzip.decompress(packed) == (folder / "main.js").read_bytes()
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        plain = await client.get("/page/main.js", headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        tag = plain.headers["etag"]
        assert (await client.get("/page/main.js", headers={"If-None-Match": tag})).status_code == 304
        (folder / "main.js").write_text("let changed = 2\n")
        assert (await client.get("/page/main.js", headers={"If-None-Match": tag})).text == "let changed = 2\n"


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "missing.js", "..%2Fsecret.js", "%2e%2e/secret.js", "../secret.js", ".js", "a%00.js", "%2Fetc.js"],
)
async def test_nothing_else_is_served(tmp_path: Path, folder: Path, name: str) -> None:
    async with serve_api(tmp_path) as (client, _):
        (folder / "folder.js").mkdir()
        for each in (name, "folder.js"):
            assert (await client.get(f"/page/{each}")).status_code == 404


async def test_the_reference_names_every_route_and_loads_nothing_foreign(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (client, _):
        page = await client.get("/docs")
        assert "script-src" not in page.headers["content-security-policy"]
        assert "<script" not in page.text
        assert re.findall(r'(?:src|href)="(?!#|/)', page.text) == []
        for path in (await client.get("/openapi.json")).json()["paths"]:
            assert f"<code>{path}</code>" in page.text
        assert (await client.get("/page/docs.css")).status_code == 200
        assert (await client.get("/redoc")).status_code == 404
