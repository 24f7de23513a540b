"""Installing models from a hub of the tests' own, on its good days and its bad ones.

The table of bad days in docs/models.md names these tests.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.errors_models import (
    FileInTheWayError,
    HubAnswerError,
    HubBusyError,
    HubForbiddenError,
    HubInterruptedError,
    HubNotFoundError,
    HubRedirectError,
    HubUnauthorizedError,
    HubUnreachableError,
    ModelChecksumError,
    ModelDiskFullError,
    ModelNotInstalledError,
    ModelNotManagedError,
    ModelsFolderError,
    ModelSizeError,
    ModelStoreError,
    NotAModelError,
    PullStoppedError,
    TransientHubError,
)
from tests.hub import server as hub_server
from tests.hub.server import FakeHub, Handler, StoredFile
from worker.model_store import registry
from worker.model_store.download import RetryLimits
from worker.model_store.hub import HubSettings, _is_private, _resolve
from worker.model_store.progress import CHECKING, DOWNLOADING, Progress
from worker.model_store.reference import ModelReference, parse
from worker.model_store.store import ModelStore

CONTENT = b"lmgg" + random.Random(1).randbytes(1_500_000)
OTHER = b"lmgg" + random.Random(2).randbytes(1_500_000)
LIMITS = RetryLimits(attempts=4, first_seconds=0.001, max_seconds=0.002, retry_after_seconds=1.0)
PUBLISHED = "small"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with hub_server.fake_hub() as hub:
        yield hub


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def store(hub: FakeHub, folder: Path, limits: RetryLimits = LIMITS, **settings: Any) -> ModelStore:
    defaults: dict[str, Any] = {"endpoint": hub.url, "stall_seconds": 5.0}
    return ModelStore(folder, HubSettings(**defaults | settings), limits, check=lambda _: None)


def published(file: StoredFile, name: str = PUBLISHED) -> ModelReference:
    """Return a model as in the table: with its length and checksums."""
    checksums = {"sha256": file.sha256, "sha1": hashlib.sha1(file.content).hexdigest()}
    return replace(parse(name), size=len(file.content), checksums=checksums)


def path_of(folder: Path, name: str = PUBLISHED) -> Path:
    return folder / f"ggml-{name}.bin"


def part_of(folder: Path, name: str = PUBLISHED) -> Path:
    return folder / ".pull" / f"ggml-{name}.bin.part"


def fail(hub: FakeHub, folder: Path, reference: ModelReference, **settings: Any) -> ModelStoreError:
    """Pull and return the error. Nothing may be installed, and the error has a text in both languages."""
    with pytest.raises(ModelStoreError) as raised:
        store(hub, folder, **settings).pull(reference)
    assert not path_of(folder, reference.name).exists()
    assert not (folder / ".pull" / "lock").exists()
    assert raised.value.message("vi") != raised.value.message("en")
    return raised.value


# -- good days --------------------------------------------------------------------------------------------------------
def test_a_published_model_is_installed(hub: FakeHub, tmp_path: Path) -> None:
    reports: list[Progress] = []
    model = store(hub, tmp_path).pull(published(hub.add("ggml-small.bin", CONTENT)), reports.append)
    assert model.path.read_bytes() == CONTENT
    assert model.record is not None
    assert model.removable
    assert model.record.checksums["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert sorted(path.name for path in (tmp_path / ".pull").iterdir()) == ["ggml-small.bin.json"]
    done = [report.done for report in reports if report.phase == DOWNLOADING]
    assert done == sorted(done)
    assert done[-1] == len(CONTENT)
    assert reports[-1] == Progress(CHECKING, len(CONTENT), len(CONTENT))
    assert {report.total for report in reports} == {len(CONTENT)}


def test_an_installed_model_needs_no_network(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    first = store(hub, tmp_path).pull(reference)
    hub.seen.clear()
    assert store(hub, tmp_path, endpoint="http://127.0.0.1:1").pull(reference) == first
    assert not hub.seen


def test_a_model_copied_by_hand_needs_no_network_and_is_read_once(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path_of(tmp_path).write_bytes(CONTENT)
    reference = published(StoredFile(CONTENT))
    model = store(hub, tmp_path).pull(reference)
    assert model.record is not None
    assert not model.removable
    monkeypatch.setattr("worker.model_store.installed.digests", None)
    assert store(hub, tmp_path).pull(reference).path == path_of(tmp_path)
    assert not hub.seen


def test_the_token_goes_to_the_hub_alone(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    hub.token = "hf_secret"
    store(hub, tmp_path, token="hf_secret").pull(reference)
    assert [request.headers.get("authorization") for request in hub.requests("hub")] == ["Bearer hf_secret"]
    assert [request.headers.get("authorization") for request in hub.requests("storage")] == [None]
    assert "hf_secret" not in repr(HubSettings(token="hf_secret"))


def test_a_model_outside_the_table_is_checked_with_the_hubs_checksum(hub: FakeHub, tmp_path: Path) -> None:
    file = hub.add("ggml-mine.bin", CONTENT, "/me/repo/resolve/v1/")
    model = store(hub, tmp_path).pull(parse("me/repo@v1:ggml-mine.bin"))
    assert model.record is not None
    assert (model.name, model.record.checksums["sha256"]) == ("mine", file.sha256)
    assert model.record.source == "me/repo@v1:ggml-mine.bin"


def test_a_mirror_has_the_bare_files_and_gets_no_token(hub: FakeHub, tmp_path: Path) -> None:
    hub.hub_days = [hub_server.body(CONTENT)]
    store(hub, tmp_path, mirror=f"{hub.url}/files/", token="hf_secret").pull(published(StoredFile(CONTENT)))
    [request] = hub.seen
    assert request.path == "/files/ggml-small.bin"
    assert "authorization" not in request.headers


def test_a_proxy_is_used_and_no_proxy_respected(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = published(StoredFile(CONTENT))
    hub.hub_days = [hub_server.body(CONTENT)]
    monkeypatch.setenv("HTTP_PROXY", hub.url)
    store(hub, tmp_path, endpoint="http://hub.example").pull(reference)
    assert [request.path for request in hub.seen] == [f"http://hub.example{hub_server.REPOSITORY}ggml-small.bin"]
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    hub.add("ggml-small.bin", CONTENT)
    assert store(hub, tmp_path / "other").pull(reference).removable


# -- cuts, stalls and lies --------------------------------------------------------------------------------------------
def test_a_cut_download_is_continued(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    hub.storage_days = [hub_server.cut(400_000), hub_server.cut(300_000)]
    assert store(hub, tmp_path).pull(reference).path.read_bytes() == CONTENT
    ranges = [request.headers.get("range") for request in hub.requests("storage")]
    assert ranges == [None, "bytes=400000-", "bytes=700000-"]
    assert hub.requests("storage")[1].headers["if-range"] == f'"{reference.checksums["sha256"]}"'


def test_a_download_is_continued_by_a_later_process(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    hub.storage_days = [hub_server.cut(400_000), *[hub_server.close] * 9]
    assert isinstance(fail(hub, tmp_path, reference), HubInterruptedError)
    assert part_of(tmp_path).read_bytes() == CONTENT[:400_000]
    hub.storage_days, hub.seen = [], []
    assert store(hub, tmp_path).pull(reference).path.read_bytes() == CONTENT
    assert [request.headers.get("range") for request in hub.requests("storage")] == ["bytes=400000-"]


def test_a_stall_counts_as_a_cut(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    hub.storage_days = [hub_server.stall(500_000)]
    assert store(hub, tmp_path, stall_seconds=0.2).pull(reference).path.read_bytes() == CONTENT
    assert hub.requests("storage")[1].headers["range"] == "bytes=500000-"


def test_a_trickle_counts_as_a_stall(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    limits = replace(LIMITS, rate_seconds=0.0, min_rate=1e15)
    with pytest.raises(HubInterruptedError, match="too slowly"):
        store(hub, tmp_path, limits=replace(limits, attempts=1)).pull(reference)
    assert part_of(tmp_path).stat().st_size > 0


def test_a_shorter_body_is_continued_then_reported(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    hub.storage_days = [hub_server.body(CONTENT[:1000], ETag='"x"')]
    assert store(hub, tmp_path).pull(reference).path.read_bytes() == CONTENT
    hub.storage_days = [hub_server.body(CONTENT[:1000])] * 9
    error = fail(hub, tmp_path / "other", reference)
    assert isinstance(error, HubInterruptedError)
    assert str(error) == f"The hub sent 1000 of {len(CONTENT)} bytes."
    assert part_of(tmp_path / "other").read_bytes() == CONTENT[:1000]


def test_a_longer_body_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    hub.storage_days = [hub_server.body(CONTENT + b"more")]
    assert isinstance(fail(hub, tmp_path, reference), ModelSizeError)
    assert not part_of(tmp_path).exists()


def test_a_server_that_ignores_ranges_starts_again(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    hub.storage_days = [hub_server.cut(400_000), hub_server.ignore_ranges]
    assert store(hub, tmp_path).pull(reference).path.read_bytes() == CONTENT


def test_a_wrong_content_range_starts_again_without_ranges(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    hub.storage_days = [hub_server.cut(400_000), hub_server.wrong_content_range]
    assert store(hub, tmp_path).pull(reference).path.read_bytes() == CONTENT
    assert "range" not in hub.requests("storage")[2].headers


def test_a_part_longer_than_the_file_starts_again(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    hub.storage_days = [hub_server.cut(400_000), *[hub_server.close] * 9]
    fail(hub, tmp_path, reference)
    hub.storage_days = []
    with part_of(tmp_path).open("ab") as file:
        file.write(bytes(2_000_000))
    assert store(hub, tmp_path).pull(reference).path.read_bytes() == CONTENT


def test_a_part_damaged_on_the_disk_is_downloaded_again(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    hub.storage_days = [hub_server.cut(400_000), *[hub_server.close] * 9]
    fail(hub, tmp_path, reference)
    hub.storage_days = []
    part_of(tmp_path).write_bytes(bytes(400_000))
    assert store(hub, tmp_path).pull(reference).path.read_bytes() == CONTENT


def test_a_complete_part_is_installed_without_another_byte(hub: FakeHub, tmp_path: Path) -> None:
    """The process was killed after the last byte and before the renaming."""
    reference = published(hub.add("ggml-small.bin", CONTENT))
    hub.storage_days = [hub_server.cut(400_000), *[hub_server.close] * 9]
    fail(hub, tmp_path, reference)
    hub.storage_days, hub.seen = [], []
    part_of(tmp_path).write_bytes(CONTENT)
    assert store(hub, tmp_path).pull(reference).path.read_bytes() == CONTENT
    assert [request.headers["range"] for request in hub.requests("storage")] == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("known", [True, False], ids=["published", "unpublished"])
def test_a_file_that_changes_between_two_parts_is_not_mixed(hub: FakeHub, tmp_path: Path, known: bool) -> None:
    file = hub.add("ggml-mine.bin", CONTENT, "/me/repo/resolve/main/")
    reference = parse("me/repo:ggml-mine.bin")

    def cut_and_change(handler: Handler) -> None:
        hub_server.cut(400_000)(handler)
        file.content = OTHER

    hub.linked = known
    hub.storage_days = [cut_and_change]
    assert store(hub, tmp_path).pull(reference).path.read_bytes() == OTHER


def test_the_part_of_another_file_is_not_continued(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("ggml-mine.bin", OTHER, "/you/repo/resolve/main/")
    hub.add("ggml-mine.bin", CONTENT, "/me/repo/resolve/main/")
    hub.storage_days = [hub_server.cut(400_000), *[hub_server.close] * 9]
    fail(hub, tmp_path, parse("you/repo:ggml-mine.bin"))
    hub.storage_days = []
    assert store(hub, tmp_path).pull(parse("me/repo:ggml-mine.bin")).path.read_bytes() == CONTENT


# -- refusals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("day", "error", "text"),
    [
        (hub_server.respond(401), HubUnauthorizedError, "HF_TOKEN"),
        (hub_server.respond(403, X_Error_Code="GatedRepo"), HubForbiddenError, "Accept the model's conditions"),
        (hub_server.respond(404), HubNotFoundError, "no file ggerganov/whisper.cpp:ggml-small.bin"),
        (hub_server.respond(418), HubAnswerError, "status 418"),
        (hub_server.redirect_to("http://127.0.0.1:9/", 302), HubUnreachableError, "cannot be reached"),
        (hub_server.redirect_to("file:///etc/passwd"), HubRedirectError, "not https"),
        (hub_server.redirect_to("ftp://example.org/x"), HubRedirectError, "not https"),
        (hub_server.redirect_to("http://user:password@127.0.0.1:9/"), HubRedirectError, "contains a password"),
    ],
    ids=["401", "403", "404", "418", "dead storage", "file", "ftp", "password"],
)
def test_refusals_say_what_to_do(
    hub: FakeHub, tmp_path: Path, day: hub_server.Day, error: type[ModelStoreError], text: str
) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    hub.hub_days = [day] * 9
    raised = fail(hub, tmp_path, reference)
    assert type(raised) is error
    assert text in str(raised)
    permanent = error is not HubUnreachableError
    assert len(hub.requests("hub")) == 1 or not permanent
    assert raised.transient != permanent


def test_a_redirect_loop_ends(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    hub.hub_days = [hub_server.redirect_to(hub.url + "/again")] * 9
    assert "too often" in str(fail(hub, tmp_path, reference))
    assert len(hub.requests("hub")) == 6


def test_a_relative_redirect_of_a_renamed_repository_keeps_the_token(hub: FakeHub, tmp_path: Path) -> None:
    file = hub.add("ggml-small.bin", CONTENT, "/new/name/resolve/main/")
    hub.token = "hf_secret"
    hub.hub_days = [hub_server.redirect_to("/new/name/resolve/main/ggml-small.bin", 307)]
    store(hub, tmp_path, token="hf_secret").pull(published(file))
    assert [request.headers.get("authorization") for request in hub.requests("hub")] == ["Bearer hf_secret"] * 2


def test_a_public_hub_may_not_redirect_into_the_local_network(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    addresses = {"hub.example": ["192.0.78.9"], "inside.example": ["10.0.0.1", "192.0.78.9"]}
    monkeypatch.setenv("HTTP_PROXY", hub.url)  # plays hub.example
    monkeypatch.setenv("NO_PROXY", "inside.example")
    for location in ("http://127.0.0.1:9/x", "http://[::1]:9/x", "http://2130706433/x", "http://inside.example/x"):
        hub.hub_days = [hub_server.redirect_to(location)]
        error = fail(hub, tmp_path, reference, endpoint="http://hub.example", resolve=addresses.__getitem__)
        assert isinstance(error, HubRedirectError), location
        assert "into the local network" in str(error)


def test_a_hub_with_https_may_not_redirect_to_http(hub: FakeHub, tmp_path: Path) -> None:
    from worker.model_store.hub import Hub

    client = Hub(HubSettings(endpoint="https://hub.example", resolve=lambda _: ["192.0.78.9"]))
    with pytest.raises(HubRedirectError):
        client._redirected(client._base, "http://storage.example/x")
    assert client._redirected(client._base, "https://storage.example/x").host == "storage.example"
    client.close()


def test_an_expired_signed_address_is_requested_again(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    hub.storage_days = [hub_server.cut(400_000), hub_server.respond(403)]
    assert store(hub, tmp_path).pull(reference).path.read_bytes() == CONTENT
    assert len(hub.requests("hub")) == 3


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_hub_is_asked_again(hub: FakeHub, tmp_path: Path, status: int) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    hub.hub_days = [hub_server.respond(status)] * 3
    assert store(hub, tmp_path).pull(reference).path.read_bytes() == CONTENT
    hub.hub_days = [hub_server.respond(status)] * 9
    error = fail(hub, tmp_path / "other", reference)
    assert isinstance(error, HubBusyError)
    assert len(hub.hub_days) == 5


def test_retry_after_is_respected_and_bounded(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    waits: list[float] = []
    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", lambda seconds: waits.append(seconds))
    hub.hub_days = [hub_server.respond(429, Retry_After="1"), hub_server.respond(503, Retry_After="soon")]
    store(hub, tmp_path).pull(reference, stop=stop)
    assert waits[0] == 1.0
    assert waits[1] < 1.0
    hub.hub_days = [hub_server.respond(429, Retry_After="3600")]
    error = fail(hub, tmp_path / "other", reference)
    assert isinstance(error, HubBusyError)
    assert error.retry_after == 3600
    hub.hub_days = [hub_server.respond(429, Retry_After="Wed, 21 Oct 2099 07:28:00 GMT")]
    assert (fail(hub, tmp_path / "other", reference).retry_after or 0) > 3600


def test_offline_fails_at_once(tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = published(StoredFile(CONTENT))
    monkeypatch.setattr("worker.model_store.download.random.uniform", None)  # no wait is computed
    for endpoint in ("http://127.0.0.1:1", "http://no-such-host.invalid"):
        error = fail(hub, tmp_path, reference, endpoint=endpoint)
        assert isinstance(error, HubUnreachableError)
        assert "HF_ENDPOINT" in str(error)


# -- wrong files ------------------------------------------------------------------------------------------------------
def test_a_wrong_file_is_noticed_before_it_is_downloaded(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("ggml-small.bin", OTHER)
    reference = published(StoredFile(CONTENT))
    error = fail(hub, tmp_path, reference)
    assert isinstance(error, ModelChecksumError)
    assert reference.checksums["sha256"] in str(error)
    assert hashlib.sha256(OTHER).hexdigest() in str(error)
    assert not part_of(tmp_path).exists()


def test_a_wrong_file_that_the_hub_does_not_announce_fails_its_checksum(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("ggml-small.bin", OTHER, etag='"multipart-9"')
    hub.linked = False
    error = fail(hub, tmp_path, published(StoredFile(CONTENT)))
    assert isinstance(error, ModelChecksumError)
    assert not part_of(tmp_path).exists()


def test_a_wrong_sha1_is_noticed(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    error = fail(hub, tmp_path, replace(reference, checksums=reference.checksums | {"sha1": "0" * 40}))
    assert isinstance(error, ModelChecksumError)
    assert "sha1" in str(error)


def test_a_login_page_is_no_model(hub: FakeHub, tmp_path: Path) -> None:
    hub.hub_days = [hub_server.body(b"<html>Sign in</html>")] * 9
    assert isinstance(fail(hub, tmp_path, published(StoredFile(CONTENT))), ModelSizeError)
    error = fail(hub, tmp_path, parse("me/repo:ggml-mine.bin"))
    assert isinstance(error, NotAModelError)
    assert not part_of(tmp_path, "mine").exists()


def test_a_compressed_body_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    hub.storage_days = [hub_server.compressed]
    error = fail(hub, tmp_path, reference)
    assert isinstance(error, HubAnswerError)
    assert "compressed" in str(error)
    assert all(request.headers["accept-encoding"] == "identity" for request in hub.seen)


# -- the folder -------------------------------------------------------------------------------------------------------
def test_a_file_that_no_pull_wrote_is_neither_replaced_nor_removed(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    path_of(tmp_path).write_bytes(b"mine")
    models = store(hub, tmp_path)
    with pytest.raises(FileInTheWayError, match=r"4 bytes.*Move it away"):
        models.pull(reference)
    with pytest.raises(ModelNotManagedError):
        models.remove(PUBLISHED)
    assert path_of(tmp_path).read_bytes() == b"mine"
    assert not hub.seen


def test_a_damaged_file_that_a_pull_wrote_is_replaced_only_if_its_record_fits(hub: FakeHub, tmp_path: Path) -> None:
    """A file that changed after the pull is somebody else's."""
    reference = published(hub.add("ggml-small.bin", CONTENT))
    models = store(hub, tmp_path)
    models.pull(reference)
    path_of(tmp_path).write_bytes(CONTENT[:1000])
    with pytest.raises(FileInTheWayError):
        models.pull(reference)


def test_a_name_taken_by_another_source_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("ggml-mine.bin", CONTENT, "/me/repo/resolve/main/")
    models = store(hub, tmp_path)
    models.pull(parse("me/repo:ggml-mine.bin"))
    with pytest.raises(FileInTheWayError, match=r"taken by a file from me/repo:ggml-mine\.bin"):
        models.pull(parse("you/repo:ggml-mine.bin"))


def test_removing_takes_the_file_and_its_record(hub: FakeHub, tmp_path: Path) -> None:
    models = store(hub, tmp_path)
    models.pull(published(hub.add("ggml-small.bin", CONTENT)))
    assert [model.name for model in models.installed()] == [PUBLISHED]
    models.remove(PUBLISHED)
    assert models.installed() == []
    assert list((tmp_path / ".pull").iterdir()) == []
    with pytest.raises(ModelNotInstalledError):
        models.remove(PUBLISHED)


def test_verify_reads_the_whole_file(hub: FakeHub, tmp_path: Path) -> None:
    models = store(hub, tmp_path)
    hub.add("ggml-mine.bin", CONTENT, "/me/repo/resolve/main/")
    models.pull(parse("me/repo:ggml-mine.bin"))
    assert models.verify("mine").size == len(CONTENT)
    path, state = path_of(tmp_path, "mine"), path_of(tmp_path, "mine").stat()
    path.write_bytes(OTHER)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(ModelChecksumError, match=hashlib.sha256(OTHER).hexdigest()):
        models.verify("mine")
    path_of(tmp_path).write_bytes(CONTENT)
    with pytest.raises(ModelSizeError, match=str(registry.entries()["small"].size)):
        models.verify(PUBLISHED)


def test_a_full_disk_is_noticed_before_the_download(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr("worker.model_store.download.shutil.disk_usage", lambda _: usage)
    error = fail(hub, tmp_path, reference)
    assert isinstance(error, ModelDiskFullError)
    assert str(error) == "The disk of the models folder has 1 MB free; small needs 68 MB."


def test_a_file_without_an_end_does_not_fill_the_disk(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody says how long it is; the download ends while FREE_MARGIN is left."""
    hub.add("ggml-endless.bin", CONTENT, "/me/repo/resolve/main/")
    hub.linked = False
    monkeypatch.setattr("worker.model_store.download.FREE_MARGIN", len(CONTENT) // 8)
    usage, free = shutil.disk_usage(tmp_path), len(CONTENT) // 2
    monkeypatch.setattr(
        "worker.model_store.download.shutil.disk_usage",
        lambda folder: usage._replace(free=free - sum(path.stat().st_size for path in folder.glob("*.part"))),
    )
    hub.storage_days = [hub_server.without_length]
    error = fail(hub, tmp_path, parse("me/repo:ggml-endless.bin"))
    assert isinstance(error, ModelDiskFullError)
    [part] = (tmp_path / ".pull").glob("*.part")
    assert part.stat().st_size < free


def test_a_folder_with_the_models_name_is_noticed_before_the_download(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    target = tmp_path / "ggml-small.bin"
    makers: list[Callable[[], None]] = [
        target.mkdir,
        lambda: target.symlink_to("nowhere"),
        lambda: os.mkfifo(target),
    ]
    for make in makers:
        make()
        with pytest.raises(FileInTheWayError):
            store(hub, tmp_path).pull(reference)
        target.rmdir() if target.is_dir() else target.unlink()
    assert not hub.seen


def test_a_redirect_to_a_name_that_no_host_can_have(hub: FakeHub, tmp_path: Path) -> None:
    """A label has at most 63 letters; looking it up is an error of its own kind."""
    reference = published(hub.add("ggml-small.bin", CONTENT))
    for host in ("a" * 70, "a..b", "[::1"):
        hub.hub_days = [hub_server.redirect_to(f"http://{host}.example/x")] * 9
        assert isinstance(fail(hub, tmp_path, reference), HubRedirectError | HubAnswerError | TransientHubError)
    assert not _is_private(httpx.URL(f"http://{'a' * 70}.example"), _resolve)


def test_a_disk_that_fills_up_keeps_the_part(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    models = store(hub, tmp_path)

    def full_at(limit: int) -> Callable[[Progress], None]:
        def report(progress: Progress) -> None:
            if progress.phase == DOWNLOADING and progress.done > limit:
                raise OSError(errno.ENOSPC, "No space left on device")

        return report

    with pytest.raises(ModelDiskFullError):
        models.pull(reference, full_at(500_000))
    assert part_of(tmp_path).stat().st_size > 500_000
    assert models.pull(reference).path.read_bytes() == CONTENT
    assert "range" in hub.requests("storage")[-1].headers


def test_a_read_only_folder(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(ModelsFolderError, match="cannot be written"):
        store(hub, tmp_path / "models").pull(reference)
    assert not hub.seen


def test_a_stopped_pull_keeps_its_part(hub: FakeHub, tmp_path: Path) -> None:
    reference = published(hub.add("ggml-small.bin", CONTENT))
    models, stop = store(hub, tmp_path), threading.Event()
    with pytest.raises(PullStoppedError):
        models.pull(reference, lambda progress: stop.set(), stop)
    assert 0 < part_of(tmp_path).stat().st_size < len(CONTENT)
    assert models.pull(reference).path.read_bytes() == CONTENT
    assert "range" in hub.requests("storage")[-1].headers


def test_the_record_of_a_removed_file_does_not_describe_another(hub: FakeHub, tmp_path: Path) -> None:
    """The process was killed between the record and the renaming; then somebody put a file there by hand."""
    models = store(hub, tmp_path)
    models.pull(published(hub.add("ggml-small.bin", CONTENT)))
    path_of(tmp_path).unlink()
    path_of(tmp_path).write_bytes(OTHER[:1000])
    model = models.get(PUBLISHED)
    assert model is not None
    assert model.record is None
    assert not model.removable


def test_broken_records_are_ignored(hub: FakeHub, tmp_path: Path) -> None:
    models = store(hub, tmp_path)
    reference = published(hub.add("ggml-small.bin", CONTENT))
    models.pull(reference)
    record = tmp_path / ".pull" / "ggml-small.bin.json"
    for content in ("", "[]", "{}", json.dumps({"source": "x"})):
        record.write_text(content)
        assert models.get(PUBLISHED).record is None  # type: ignore[union-attr]
    assert not models.pull(reference).removable
