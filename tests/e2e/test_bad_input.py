"""Bad input gets a stable code and a helpful message, and leaves nothing behind. Both modes."""

from __future__ import annotations

import http.server
import io
import socket
import struct
import subprocess
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import imageio_ffmpeg
import psutil
import pytest

from internal.consumer.workspace import MARKER
from tests.e2e.service import Service
from tests.servers.base import wait_until
from tests.speech import encode, recording, silence, write_wav


def rejected_upload(service: Service, *, files: object = None, **fields: str) -> httpx.Response:
    return service.client.post("/api/v1/upload", files=files, data=fields)  # type: ignore[arg-type]


def check_error(answer: httpx.Response, status: int, code: str) -> str:
    """Check the common shape of errors and return the detail."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["code"] == code
    assert body["status"] == status
    assert isinstance(body["detail"], str)
    return str(body["detail"])


def test_an_empty_file_is_rejected(service: Service) -> None:
    check_error(rejected_upload(service, files={"file": ("a.mp3", b"")}), 400, "EMPTY_FILE")


def test_a_form_without_a_file_is_rejected(service: Service) -> None:
    detail = check_error(rejected_upload(service, files={"other": (None, "x")}, language="en"), 400, "FILE_MISSING")
    assert "`file`" in detail


def test_an_unsupported_extension_lists_the_supported_ones(service: Service) -> None:
    detail = check_error(rejected_upload(service, files={"file": ("a.exe", b"MZ")}), 400, "UNSUPPORTED_FORMAT")
    assert ".mp3" in detail
    assert ".amr" in detail


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("language", "xx", "UNSUPPORTED_LANGUAGE"),
        ("model", "gigantic", "UNKNOWN_MODEL"),
        ("priority", "urgent", "INVALID_FIELD"),
    ],
)
@pytest.mark.parametrize("fields_first", [True, False])
def test_an_invalid_value_lists_the_allowed_ones(
    service: Service, sample: Path, field: str, value: str, code: str, fields_first: bool
) -> None:
    file = ("file", (sample.name, sample.read_bytes()))
    own = (field, (None, value))
    answer = rejected_upload(service, files=[own, file] if fields_first else [file, own])
    detail = check_error(answer, 422, code)
    allowed = {"language": "en, vi, auto", "model": "demo-q5_0", "priority": "high, normal, low"}[field]
    assert allowed in detail


def test_fields_after_the_file_are_read(service: Service, sample: Path) -> None:
    files = [("file", (sample.name, sample.read_bytes())), ("language", (None, "en")), ("priority", (None, "high"))]
    answer = rejected_upload(service, files=files)
    assert answer.status_code == 200
    service.wait(answer.json()["job_id"])
    assert service.client.get(f"/api/v1/result/{answer.json()['job_id']}").json()["language"] == "en"


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "x" * 1000)
    return buffer.getvalue()


def _header_only_wav() -> bytes:
    return b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0" + struct.pack("<IIHH", 16000, 32000, 2, 16) + b"data\0\0\0\0"


CONTENTS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "text": ("a.mp3", lambda: b"this is no sound " * 500, "INVALID_AUDIO"),
    "zip": ("a.mp3", _zip, "INVALID_AUDIO"),
    "elf": ("a.mp3", lambda: Path("/bin/true").read_bytes(), "INVALID_AUDIO"),
    "header-only wav": ("a.wav", _header_only_wav, "INVALID_AUDIO"),
    "one byte": ("a.ogg", lambda: b"O", "INVALID_AUDIO"),
    "zeros": ("a.flac", lambda: bytes(100_000), "INVALID_AUDIO"),
}


@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_files_without_audio_fail_the_job(service: Service, name: str) -> None:
    filename, content, code = CONTENTS[name]
    answer = rejected_upload(service, files={"file": (filename, content())})
    assert answer.status_code == 200
    state = service.wait(answer.json()["job_id"])
    assert (state["status"], state["error_code"]) == ("FAILED", code)
    assert len(state["error_message"]) > 20
    result = service.client.get(f"/api/v1/result/{state['job_id']}")
    assert "Current status: FAILED" in check_error(result, 400, "JOB_NOT_COMPLETED")


def test_a_playlist_reads_no_other_file_and_opens_no_connection(service: Service, tmp_path: Path) -> None:
    requested: list[str] = []

    class Witness(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(self.path)
            self.send_error(404)

    server = http.server.HTTPServer(("127.0.0.1", 0), Witness)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/a.ts"
    secret = write_wav(tmp_path / "secret.wav", recording("en", 1, 1)[0])
    playlists = {
        "hls.mp3": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXTINF:10,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "concat.mp3": f"ffconcat version 1.0\nfile '{secret}'\nfile '{url}'\n",
        "sdp.mp3": f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio {server.server_address[1]} RTP/AVP 0\n",
    }
    try:
        for name, text in playlists.items():
            answer = rejected_upload(service, files={"file": (name, text.encode())})
            state = service.wait(answer.json()["job_id"])
            assert (state["status"], state["error_code"]) == ("FAILED", "INVALID_AUDIO"), name
        assert requested == []
    finally:
        server.shutdown()


def test_a_video_without_audio_fails_the_job(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "mute.mp4"
    call = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", "color=size=64x64:duration=2"]
    subprocess.run([*call, "-c:v", "mpeg4", str(path)], check=True)
    state = service.wait(service.upload(path))
    assert (state["status"], state["error_code"]) == ("FAILED", "INVALID_AUDIO")
    assert "no audio" in state["error_message"]


@pytest.mark.parametrize("keep", [0.5, 0.95])
def test_a_truncated_mp4_fails_the_job(service: Service, tmp_path: Path, keep: float) -> None:
    complete = encode(recording("en", 6, 3)[0], tmp_path / "whole.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(complete[: int(len(complete) * keep)])
    state = service.wait(service.upload(path))
    assert (state["status"], state["error_code"]) == ("FAILED", "CORRUPTED_FILE")


def test_a_truncated_flac_never_yields_a_partial_transcript(service: Service, tmp_path: Path) -> None:
    complete = encode(recording("en", 6, 3)[0], tmp_path / "whole.flac").read_bytes()
    path = tmp_path / "cut.flac"
    path.write_bytes(complete[: len(complete) // 2])
    state = service.wait(service.upload(path))
    assert (state["status"], state["error_code"]) == ("FAILED", "CORRUPTED_FILE")


@pytest.mark.timeout(300)
def test_a_day_of_silence_in_a_few_megabytes_is_too_long(embedded_service: Service, tmp_path: Path) -> None:
    hour, path = tmp_path / "hour.m4a", tmp_path / "day.m4a"
    call = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error"]
    silent = ["-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono", "-t", "3600", "-c:a", "alac"]
    subprocess.run([*call, *silent, str(hour)], check=True)
    subprocess.run([*call, "-stream_loop", "23", "-i", str(hour), "-c", "copy", str(path)], check=True)
    assert path.stat().st_size < 5_000_000
    state = embedded_service.wait(embedded_service.upload(path), 240)
    assert (state["status"], state["error_code"]) == ("FAILED", "AUDIO_TOO_LONG")
    assert "21600" in state["error_message"]


@pytest.mark.parametrize(
    "name", ["../../x.mp3", "a\x01\x1b[31m\nb.mp3", "/etc/passwd.mp3", "..\\..\\c.mp3", "ghi âm.mp3"]
)
def test_hostile_filenames_are_harmless(service: Service, sample: Path, name: str) -> None:
    job_id = service.upload(sample, name=name, language="en")
    assert service.wait(job_id)["status"] == "COMPLETED"
    if service.folder.joinpath("data", "objects").exists():
        stored = list((service.folder / "data" / "objects" / "uploads" / job_id).iterdir())
        assert len(stored) == 1
        assert stored[0].name.isascii()


@pytest.mark.parametrize(
    "job_id", ["0f0e7c4a-63f1-4a3c-9f5d-1f6f0a4b9a11", "1", "../../etc/passwd", "%00", "a" * 5000, "'; drop table jobs"]
)
@pytest.mark.parametrize("route", ["status", "result", "download"])
def test_unknown_and_malformed_ids_are_not_found(service: Service, route: str, job_id: str) -> None:
    answer = service.client.get(f"/api/v1/{route}/{httpx.URL('http://x/' + job_id).raw_path[1:].decode()}")
    assert answer.status_code == 404
    assert isinstance(answer.json()["detail"], str)


def test_an_unknown_format_is_rejected(service: Service, sample: Path) -> None:
    job_id = service.upload(sample, language="en")
    service.wait(job_id)
    answer = service.client.get(f"/api/v1/download/{job_id}", params={"format": "docx"})
    assert "srt" in check_error(answer, 422, "INVALID_FIELD")


def test_errors_are_available_in_vietnamese(service: Service) -> None:
    headers = {"Accept-Language": "vi-VN,vi;q=0.9,en;q=0.5"}
    answer = service.client.post("/api/v1/upload", files={"file": ("a.exe", b"x")}, headers=headers)
    assert "Định dạng" in check_error(answer, 400, "UNSUPPORTED_FORMAT")


def test_a_disconnected_upload_leaves_nothing_behind(service: Service, sample: Path) -> None:
    before = service.client.get("/api/v1/stats").json()["jobs_by_status"]
    host, port = service.url.removeprefix("http://").split(":")
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + bytes(12_000_000)
    kind = "Content-Type: multipart/form-data; boundary=b"
    head = f"POST /api/v1/upload HTTP/1.1\r\nHost: localhost\r\n{kind}\r\nContent-Length: 90000000\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body)
    log = service.folder / ("embedded.log" if (service.folder / "embedded.log").exists() else "api.log")
    wait_until(lambda: "upload_aborted" in log.read_text(), "the disconnect is noticed", 20)
    assert service.client.get("/api/v1/stats").json()["jobs_by_status"] == before
    uploads = service.folder / "data" / "objects" / "uploads"
    if uploads.exists():
        assert not list(uploads.rglob(".part-*"))


def test_a_partial_result_of_an_unfinished_job(service: Service, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", recording("en", 40, 9)[0])
    job_id = service.upload(path, language="en", priority="low")
    partial = service.client.get(f"/api/v1/result/{job_id}", params={"partial": "true"})
    assert partial.status_code == 200
    assert partial.json()["text"] is not None
    assert service.wait(job_id)["status"] == "COMPLETED"


def test_field_aliases_of_older_clients_are_accepted(service: Service, sample: Path) -> None:
    for path in ("/api/stt/upload", "/api/transcribe"):
        with sample.open("rb") as file:
            answer = service.client.post(path, files={"file": (sample.name, file)}, data={"language": "en"})
        job_id = answer.json()["job_id"]
        service.wait(job_id)
        assert service.client.get(f"/api/stt/status/{job_id}").json()["status"] == "COMPLETED"
        assert service.client.get(f"/api/stt/result/{job_id}").json()["text"]
    assert not any("/api/stt" in path for path in service.client.get("/openapi.json").json()["paths"])


def test_silence_is_not_an_error(service: Service, tmp_path: Path) -> None:
    assert service.transcribe(write_wav(tmp_path / "s.wav", silence(1)))["text"] == ""


def test_the_temporary_folder_is_empty_at_the_end(service: Service) -> None:
    def clean() -> bool:
        return not [path for path in (service.folder / "tmp").rglob("*") if path.is_file() and path.name != MARKER]

    wait_until(clean, "temporary files are removed", 20)


def test_engine_processes_inherit_no_secrets(service: Service) -> None:
    """The child's own environment is what a hostile recording could reach first."""
    secrets = ("DATABASE_URL", "RABBITMQ_URL", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "SECRET_KEY", "API_KEY")
    consumer = service.processes.get("consumer") or service.processes["embedded"]
    children = psutil.Process(consumer.pid).children(recursive=True)
    assert children
    for child in children:
        assert not set(child.environ()) & set(secrets)
