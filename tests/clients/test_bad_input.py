"""docs/errors.md, line by line: what is sent, and the status, code and message that come back."""

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
    found[1]: (found[2], found[3], found[4])
    for line in (ROOT / "docs" / "errors.md").read_text().splitlines()
    if (found := LINE.fullmatch(line))
}


class Sender:
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
        """A length is stated and nothing follows: the answer does not wait for it."""
        address = urlsplit(self.service.url)
        line = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
        line.putrequest("POST", "/api/v1/upload")
        line.putheader("Content-Type", "multipart/form-data; boundary=b")
        line.putheader("Content-Length", str(600 << 20))
        line.endheaders()
        got = line.getresponse()
        return httpx.Response(got.status, content=got.read())

    def reused_key(self) -> httpx.Response:
        key = uuid.uuid4().hex
        assert self.upload(key=key, language="en").status_code == 200
        return self.upload(key=key, language="vi")

    def nothing_uploaded(self) -> httpx.Response:
        link = self.service.client.post("/api/v1/uploads", json={"filename": "a.mp3"}).json()
        return self.service.client.post(f"/api/v1/jobs/{link['job_id']}/start")

    def cut_mp4(self) -> httpx.Response:
        whole = encode(recording("en", 4, seed=5)[0], self.folder / "whole.mp4").read_bytes()
        return self.upload("cut.mp4", whole[: len(whole) // 2])


def part(name: str, filename: str = "") -> bytes:
    own = f'; filename="{filename}"' if filename else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{own}\r\n\r\nRIFF\r\n'.encode()


CASES: dict[str, Callable[[Sender], httpx.Response]] = {
    "empty-file": lambda s: s.upload(data=b""),
    "no-file": lambda s: s.raw(part("language") + b"--b--\r\n"),
    "file-as-field": lambda s: s.raw(part("file") + b"--b--\r\n"),
    "wrong-ending": lambda s: s.upload("notes.docx"),
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


def test_the_table_and_the_cases_are_the_same() -> None:
    assert set(TABLE) == set(CASES)


@pytest.mark.parametrize("case", sorted(TABLE))
def test_as_the_table_says(
    case: str, embedded_service: Service, external_server: ExternalServer, tmp_path: Path
) -> None:
    status, code, message = TABLE[case]
    answer = CASES[case](Sender(embedded_service, external_server, tmp_path))
    if status == "job":
        assert answer.status_code in (200, 202), answer.text
        state = embedded_service.wait(answer.json()["job_id"])
        assert (state["status"], state["error_code"]) == ("FAILED", code)
        told = state["error_message"]
    else:
        assert (str(answer.status_code), answer.json()["code"]) == (status, code), answer.text
        told = answer.json()["detail"]
    assert message in told
