"""The client of this repository, against the embedded service and through a front and a proxy that misbehave."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from internal.client import (
    AsyncClient,
    Client,
    ConflictError,
    Event,
    InvalidResponseError,
    LimitError,
    NotAllowedError,
    NotFoundError,
    RecordingChangedError,
    RefusedError,
    RetryPolicy,
    UnavailableError,
    UnreachableError,
)
from internal.client.event_stream import decode
from internal.client.uploads import FileRecording, Form, form_name
from tests.clients.front import Answer, Front, run_front
from tests.e2e.service import Service
from tests.servers.base import free_port
from tests.servers.proxy import Cut, Proxy

pytestmark = pytest.mark.speech
QUICK = RetryPolicy(total=30, first=0.01, longest=0.1)
NONE = RetryPolicy(total=0)
KEY = "stt_0123456789abcdef_" + "s" * 40


@pytest.fixture
def front(embedded_service: Service) -> Iterator[Front]:
    with run_front(embedded_service.url, free_port()) as front:
        yield front


@pytest.fixture
def proxy(embedded_service: Service) -> Iterator[Proxy]:
    proxy = Proxy("127.0.0.1", int(embedded_service.url.rsplit(":", 1)[1]))
    proxy.start()
    yield proxy
    proxy.stop()


async def test_a_file_from_submit_to_every_format(embedded_service: Service, sample: Path) -> None:
    sent: list[tuple[int, int | None]] = []
    async with AsyncClient(embedded_service.url) as client:
        assert (await client.about())["service"] == "async-stt"
        assert (await client.health())["workers_active"] == 1
        progress = lambda done, size: sent.append((done, size))  # noqa: E731
        options = {"language": "en", "words": True, "metadata": {"clip": 7}}
        submission = await client.submit_file(sample, on_progress=progress, **options)  # type: ignore[arg-type]
        events = [event async for event in client.events(submission.job_id)]
        job = await client.job(submission.job_id)
        texts = {kind: await client.download(job.job_id, kind) for kind in ("txt", "srt", "vtt", "tsv", "json")}
        result = await client.result(job.job_id)
        assert job.job_id in [one.job_id async for one in client.list_jobs(status="COMPLETED")]
        await client.delete(job.job_id)
        with pytest.raises(NotFoundError) as gone:
            await client.job(job.job_id)
    size = sample.stat().st_size
    assert sent[-1] == (size, size)
    assert (job.status, job.completed, job.metadata, job.original_filename) == (
        "COMPLETED",
        True,
        {"clip": 7},
        sample.name,
    )
    assert events[-1].kind == "completed"
    assert [event.data["id"] for event in events if event.kind == "segment"] == list(range(len(result["segments"])))
    assert texts["vtt"].startswith(b"WEBVTT")
    assert json.loads(texts["json"])["text"] == result["text"]
    assert result["segments"][0]["words"]
    assert (gone.value.code, gone.value.status) == ("JOB_NOT_FOUND", 404)


def test_the_client_without_async(embedded_service: Service, sample: Path) -> None:
    with Client(embedded_service.url, language="vi") as client:
        submission = client.submit_stream(iter([sample.read_bytes()[:9000], sample.read_bytes()[9000:]]), "a.mp3")
        assert client.wait(submission.job_id, timeout=90).completed
        with pytest.raises(ConflictError) as conflict:
            client.retry(submission.job_id)
        assert "Chỉ có thể" in conflict.value.message
        with open(sample, "rb") as file:  # noqa: PTH123
            again = client.submit_file(file, language="en")
        assert client.job(again.job_id).original_filename == sample.name
        for event in client.events(again.job_id):
            assert event.kind in ("progress", "segment", "completed")
            break
        client.delete(again.job_id)
        assert again.job_id not in [job.job_id for job in client.list_jobs()]


async def test_a_cancelled_job_can_be_continued(embedded_service: Service, external_server: object) -> None:
    async with AsyncClient(embedded_service.url) as client:
        slow = external_server.url("/drip/lecture.mp3")  # type: ignore[attr-defined]
        submission = await client.submit_url(slow)
        assert (await client.cancel(submission.job_id)).status == "CANCELLED"
        with pytest.raises(ConflictError):
            await client.cancel(submission.job_id)
        assert (await client.retry(submission.job_id)).status == "PENDING"
        await client.delete(submission.job_id)


async def test_refusals_have_types_and_codes(embedded_service: Service, tmp_path: Path) -> None:
    (tmp_path / "notes.docx").write_bytes(b"text")
    (tmp_path / "empty.mp3").write_bytes(b"")
    async with AsyncClient(embedded_service.url) as client:
        for name, fields, code in (
            ("notes.docx", {}, "UNSUPPORTED_FORMAT"),
            ("empty.mp3", {}, "EMPTY_FILE"),
            ("empty.mp3", {"model": "large"}, "UNKNOWN_MODEL"),
        ):
            with pytest.raises(RefusedError) as refused:
                await client.submit_file(tmp_path / name, **fields)  # type: ignore[arg-type]
            assert refused.value.code in (code, "EMPTY_FILE")
        with pytest.raises(FileNotFoundError):
            await client.submit_file(tmp_path / "none.mp3")
        for job_id in ("../../../live", "", "a/b", ".", "x" * 3000, "\r\nX: 1"):
            with pytest.raises((NotFoundError, RefusedError, InvalidResponseError)):
                await client.job(job_id)


async def test_busy_answers_are_waited_for(front: Front, sample: Path) -> None:
    front.answers = [Answer(429, {"Retry-After": "1"}), Answer(503, {"Retry-After": "0"}), Answer(502), Answer(504)]
    pauses: list[float] = []
    async with AsyncClient(front.url, retries=QUICK, on_retry=lambda _, pause: pauses.append(pause)) as client:
        submission = await client.submit_file(sample, language="en")
        assert (await client.wait(submission.job_id, timeout=90)).completed
    assert pauses[:2] == [1.0, 0.0]
    uploads = [headers for line, headers in front.requests if line == "POST /api/v1/upload"]
    assert len(uploads) == 5
    assert len({headers["idempotency-key"] for headers in uploads}) == 1


async def test_a_pause_longer_than_the_policy_is_an_error_at_once(front: Front, sample: Path) -> None:
    async with AsyncClient(front.url, retries=QUICK) as client:
        front.answers = [Answer(429, {"Retry-After": "3600"})]
        with pytest.raises(LimitError) as limit:
            await client.submit_file(sample)
        assert limit.value.retry_after == 3600
        front.answers = [Answer(503)] * 3
        with pytest.raises(UnavailableError):
            await AsyncClient(front.url, retries=NONE).job("a")
        assert len(front.answers) == 2


@pytest.mark.parametrize("status", [200, 301, 403, 500])
async def test_a_page_of_something_else_is_recognised(front: Front, status: int) -> None:
    front.answers = [Answer(status, {"Location": "http://127.0.0.1:1/"}, "<html>log in</html>")]
    async with AsyncClient(front.url, retries=NONE) as client:
        with pytest.raises(InvalidResponseError):
            await client.job("a")
    assert len(front.requests) == 1


async def test_nobody_listens(sample: Path) -> None:
    pauses: list[float] = []
    policy = RetryPolicy(total=0.3, first=0.05, longest=0.1)
    url = f"http://127.0.0.1:{free_port()}"
    async with AsyncClient(url, retries=policy, on_retry=lambda _, pause: pauses.append(pause)) as client:
        with pytest.raises(UnreachableError):
            await client.about()
        assert not pauses
        with pytest.raises(UnreachableError) as unreachable:
            await client.submit_file(sample)
        assert unreachable.value.code == "SERVICE_UNREACHABLE"
        assert url in unreachable.value.message
    assert pauses


@pytest.mark.parametrize("delivered", [False, True], ids=["cut", "answer lost"])
async def test_an_upload_that_breaks_is_one_job(
    proxy: Proxy, embedded_service: Service, sample: Path, delivered: bool
) -> None:
    proxy.cut = Cut(b"POST /api/v1/upload", sample.read_bytes()[-40:], delivered)
    name = f"broken-{delivered}.mp3"
    async with AsyncClient(f"http://127.0.0.1:{proxy.port}", retries=QUICK) as client:
        submission = await client.submit_file(sample, name=name, language="en")
        assert proxy.cuts == 1
        jobs = [job async for job in client.list_jobs() if job.original_filename == name]
        assert [job.job_id for job in jobs] == [submission.job_id]
        assert (await client.wait(submission.job_id, timeout=90)).completed


async def test_a_stream_that_breaks_is_not_repeated(proxy: Proxy, sample: Path) -> None:
    proxy.cut = Cut(b"POST /api/v1/upload", sample.read_bytes()[-40:], False)
    async with AsyncClient(f"http://127.0.0.1:{proxy.port}", retries=QUICK) as client:
        with pytest.raises(UnreachableError):
            await client.submit_stream([sample.read_bytes()], "a.mp3")


async def test_a_lost_answer_to_a_cancel_is_a_success(
    proxy: Proxy, embedded_service: Service, external_server: object
) -> None:
    async with AsyncClient(f"http://127.0.0.1:{proxy.port}", retries=QUICK) as client:
        submission = await client.submit_url(external_server.url("/drip/lecture.mp3"))  # type: ignore[attr-defined]
        proxy.cut = Cut(b"/cancel", b"/cancel", delivered=True)
        assert (await client.cancel(submission.job_id)).status == "CANCELLED"
        assert proxy.cuts == 1
        await client.delete(submission.job_id)


async def test_an_event_stream_that_breaks_is_resumed(proxy: Proxy, embedded_service: Service, sample: Path) -> None:
    kinds: list[str] = []
    segments: list[object] = []
    async with AsyncClient(f"http://127.0.0.1:{proxy.port}", retries=QUICK) as client:
        submission = await client.submit_file(sample, language="en")
        async with aclosing(client.events(submission.job_id)) as events:
            async for event in events:
                if not kinds:
                    proxy.break_connections()
                kinds.append(event.kind)
                segments += [event.data["id"]] if event.kind == "segment" else []
    assert kinds[-1] == "completed"
    assert segments == list(range(len(segments)))
    assert segments


async def test_a_file_that_shrinks_is_reported(embedded_service: Service, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(bytes(3 * 1024 * 1024))

    def shrink(sent: int, size: int | None) -> None:
        with path.open("r+b") as file:
            file.truncate(1024 * 1024 + 10)

    async with AsyncClient(embedded_service.url, retries=QUICK) as client:
        with pytest.raises(RecordingChangedError):
            await client.submit_file(path, on_progress=shrink)


async def test_the_key_is_sent_in_a_header_only(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with AsyncClient(front.url, api_key=KEY, retries=NONE) as client:
        front.answers = [Answer(401), Answer(302, {"Location": "http://127.0.0.1:1/"})]
        with pytest.raises(NotAllowedError) as refused:
            await client.job("a")
        with pytest.raises(InvalidResponseError):
            await client.job("a")
    assert [headers["x-api-key"] for _, headers in front.requests] == [KEY, KEY]
    assert not [line for line, _ in front.requests if KEY in line]
    assert KEY not in caplog.text + str(refused.value) + repr(refused.value)


@pytest.mark.parametrize(
    "server", ["ftp://a", "a:8000", "", "http://", "http://user:secret@a", "http://a/?k=1", "http://a/#k"]
)
def test_an_address_that_is_not_one(server: str) -> None:
    with pytest.raises(ValueError, match="server must be"):
        AsyncClient(server)


@pytest.mark.parametrize("key", ["a\r\nX-Other: b", "khóa"])
def test_a_key_that_does_not_fit_in_a_header(key: str) -> None:
    with pytest.raises(ValueError, match="api_key"):
        AsyncClient(api_key=key)


async def test_events_are_decoded_across_pieces() -> None:
    stream = (
        b': ping\r\n\r\nevent: segment\nid: 3\ndata: {"text": "a\xe2\x80\xa8b"}\n\n'
        b"event: progress\ndata: not json\n\nevent: progress\ndata: []\n\nevent: completed\ndata: {}"
    )

    async def pieces() -> AsyncIterator[bytes]:
        for byte in stream:
            yield bytes([byte])

    assert [event async for event in decode(pieces())] == [Event("segment", {"text": "a\u2028b"}, "3")]


async def test_a_form_does_not_hold_the_recording(tmp_path: Path) -> None:
    class Counted(io.BytesIO):
        most = 0

        def read(self, size: int | None = -1) -> bytes:
            self.most = max(self.most, size or 0)
            return super().read(size)

    file = Counted(bytes(5_000_000))
    form = Form({"language": "en"}, 'a"b\r\n\udcff.mp3', FileRecording(file))
    length = sum([len(piece) async for piece in form.pieces()])
    assert length == int(form.headers["Content-Length"])
    assert file.most == 1024 * 1024
    assert form_name('a"b\r\n\udcff.mp3') == "a%22b\ufffd\ufffd\ufffd.mp3"


async def test_waiting_has_a_limit(embedded_service: Service, external_server: object) -> None:
    async with AsyncClient(embedded_service.url) as client:
        submission = await client.submit_url(external_server.url("/drip/lecture.mp3"))  # type: ignore[attr-defined]
        with pytest.raises(TimeoutError):
            await client.wait(submission.job_id, timeout=0.01)
        await asyncio.wait_for(client.delete(submission.job_id), 30)
