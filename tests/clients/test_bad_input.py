"""Each line of docs/errors.md: the request, and its status, code and message."""

from __future__ import annotations

import http.client
import json
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.clients.external_server import SAMPLE, ExternalServer
from tests.e2e.service import ROOT, Service
from tests.speech import encode, recording

pytestmark = [pytest.mark.speech, pytest.mark.timeout(240)]
LINE = re.compile(r"\| `([\w-]+)` \| .+? \| (\w+) \| `(\w+)` \| (.+) \|")
TABLE = {
    match[1]: (match[2], match[3], match[4])
    for line in (ROOT / "docs" / "errors.md").read_text().splitlines()
    if (match := LINE.fullmatch(line))
}


class Requests:
    def __init__(self, service: Service, external_server: ExternalServer, folder: Path) -> None:
        self.service, self.external_server, self.folder = service, external_server, folder

    def upload(self, name: str = "a.mp3", data: bytes | None = None, key: str = "", **fields: str) -> httpx.Response:
        file = (name, SAMPLE.read_bytes() if data is None else data)
        headers = {"Idempotency-Key": key} if key else {}
        return self.service.client.post("/api/v1/upload", files={"file": file}, data=fields, headers=headers)

    def raw(self, body: bytes, kind: str = "multipart/form-data; boundary=b") -> httpx.Response:
        return self.service.client.post("/api/v1/upload", content=body, headers={"Content-Type": kind})

    def json(self, **fields: object) -> httpx.Response:
        body = {"request_id": uuid.uuid4().hex, "media_url": self.external_server.url("/clip.mp3"), **fields}
        return self.service.client.post("/api/v1/transcribe", json=body)

    def failed(self) -> str:
        job_id = str(self.upload(data=b"no sound at all " * 500).json()["job_id"])
        self.service.wait(job_id)
        return job_id

    def too_large(self) -> httpx.Response:
        """Send a Content-Length and no body; the answer does not wait for the body."""
        address = urlsplit(self.service.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
        connection.putrequest("POST", "/api/v1/upload")
        connection.putheader("Content-Type", "multipart/form-data; boundary=b")
        connection.putheader("Content-Length", str(600 << 20))
        connection.endheaders()
        response = connection.getresponse()
        return httpx.Response(response.status, content=response.read())

    def reused_key(self) -> httpx.Response:
        key = uuid.uuid4().hex
        assert self.upload(key=key, language="en").status_code == 200
        return self.upload(key=key, language="vi")

    def nothing_uploaded(self) -> httpx.Response:
        link = self.service.client.post("/api/v1/uploads", json={"filename": "a.mp3"}).json()
        return self.service.client.post(f"/api/v1/jobs/{link['job_id']}/start")

    def cut_mp4(self) -> httpx.Response:
        complete = encode(recording("en", 4, seed=5)[0], self.folder / "whole.mp4").read_bytes()
        return self.upload("cut.mp4", complete[: len(complete) // 2])


def part(name: str, filename: str = "") -> bytes:
    attribute = f'; filename="{filename}"' if filename else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{attribute}\r\n\r\nRIFF\r\n'.encode()


CASES: dict[str, Callable[[Requests], httpx.Response]] = {
    "empty-file": lambda s: s.upload(data=b""),
    "no-file": lambda s: s.raw(part("language") + b"--b--\r\n"),
    "file-as-field": lambda s: s.raw(part("file") + b"--b--\r\n"),
    "wrong-extension": lambda s: s.upload("notes.docx"),
    "no-form": lambda s: s.raw(b"hello", "text/plain"),
    "cut-form": lambda s: s.raw(part("file", "a.mp3")),
    "too-large": lambda s: s.too_large(),
    "language": lambda s: s.upload(language="fr"),
    "model": lambda s: s.upload(model="large"),
    "priority": lambda s: s.upload(priority="urgent"),
    "callback": lambda s: s.upload(callback_url="http://10.0.0.1/hook"),
    "metadata": lambda s: s.upload(metadata="[1]"),
    "metadata-depth": lambda s: s.upload(metadata='{"a":' * 17 + "1" + "}" * 17),
    "metadata-keys": lambda s: s.upload(metadata=json.dumps({str(number): 1 for number in range(257)})),
    "metadata-number": lambda s: s.upload(metadata='{"a": 18446744073709551616}'),
    "prompt": lambda s: s.upload(prompt="x" * 2001),
    "two-files": lambda s: s.raw(part("file", "a.mp3") + part("file", "b.mp3") + b"--b--\r\n"),
    "media-url": lambda s: s.json(media_url="http://127.0.0.1:1/a.mp3"),
    "request-id": lambda s: s.json(request_id="a b"),
    "broken-json": lambda s: s.service.client.post(
        "/api/v1/transcribe", content=b"{", headers={"Content-Type": "application/json"}
    ),
    "big-json": lambda s: s.json(prompt="x" * 70_000),
    "format": lambda s: s.service.client.get(f"/api/v1/download/{s.failed()}", params={"format": "docx"}),
    "unknown-job": lambda s: s.service.client.get("/api/v1/status/7"),
    "too-early": lambda s: s.service.client.get(f"/api/v1/result/{s.failed()}"),
    "cancel-ended": lambda s: s.service.client.post(f"/api/v1/jobs/{s.failed()}/cancel"),
    "reused-key": lambda s: s.reused_key(),
    "nothing-uploaded": lambda s: s.nothing_uploaded(),
    "bad-cursor": lambda s: s.service.client.get("/api/v1/jobs", params={"cursor": "x"}),
    "text": lambda s: s.upload(data=b"no sound at all " * 500),
    "cut-mp4": lambda s: s.cut_mp4(),
    "forbidden-url": lambda s: s.json(media_url=s.external_server.url("/status/403")),
    "url-inside": lambda s: s.json(media_url=s.external_server.url("/inside")),
}


def test_every_documented_error_has_a_case() -> None:
    assert set(TABLE) == set(CASES)


@pytest.mark.parametrize("case", sorted(TABLE))
def test_errors_are_as_documented(
    case: str, embedded_service: Service, external_server: ExternalServer, tmp_path: Path
) -> None:
    status, code, message = TABLE[case]
    answer = CASES[case](Requests(embedded_service, external_server, tmp_path))
    if status == "job":
        assert answer.status_code in (200, 202), answer.text
        state = embedded_service.wait(answer.json()["job_id"])
        assert (state["status"], state["error_code"]) == ("FAILED", code)
        message_received = state["error_message"]
    else:
        assert (str(answer.status_code), answer.json()["code"]) == (status, code), answer.text
        message_received = answer.json()["detail"]
    assert message in message_received
