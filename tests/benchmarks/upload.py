"""Upload of 2 GB through the API compared with the SDK's own `fput_object`, into the same MinIO."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
from minio import Minio as Client

from tests.benchmarks.table import Row
from tests.e2e.service import ROOT, Service, settings
from tests.servers import minio
from tests.servers.base import free_port, wait_until

SIZE = 2 * 1024**3
PIECE = 1024 * 1024


def run() -> list[Row]:
    server = minio.find()
    try:
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / "two-gigabytes.wav"
            write(file)
            alone = sdk(server, file)
            return through_api(server, Path(name), file, alone)
    finally:
        server.remove()


def write(path: Path) -> None:
    with path.open("wb") as file, Path("/dev/urandom").open("rb") as random:
        block = random.read(PIECE)
        for _ in range(SIZE // PIECE):
            file.write(block)


def sdk(server: minio.Minio, file: Path) -> float:
    """Return the seconds that `fput_object` takes with the same part size."""
    client = Client(server.endpoint, server.access_key, server.secret_key, secure=False)
    client.make_bucket("alone")
    started = time.monotonic()
    client.fput_object("alone", "object", str(file), part_size=8 * PIECE, num_parallel_uploads=1)
    return time.monotonic() - started


def through_api(server: minio.Minio, folder: Path, file: Path, alone: float) -> list[Row]:
    port = free_port()
    stores = {
        "STORAGE": "minio",
        "MINIO_ENDPOINT": server.endpoint,
        "MINIO_ACCESS_KEY": server.access_key,
        "MINIO_SECRET_KEY": server.secret_key,
        "MINIO_BUCKET": f"t{uuid.uuid4().hex[:16]}",
        "MAX_UPLOAD_SIZE_MB": "3000",
    }
    service = Service(f"http://127.0.0.1:{port}", folder, settings(folder, port, **stores))
    migrate(service)
    service.start("api")
    try:
        wait_until(lambda: httpx.get(f"{service.url}/live").status_code == 200, "the API responds")
        process = psutil.Process(service.processes["api"].pid)
        with Peak(process) as peak:
            before, cpu = process.memory_info().rss, sum(process.cpu_times()[:2])
            seconds = send(service.url, file)
            cpu = sum(process.cpu_times()[:2]) - cpu
    finally:
        service.stop()
    share = alone / seconds
    f"{SIZE / seconds / 1e6:.0f} of {SIZE / alone / 1e6:.0f} MB/s"
    growth = (peak.value - before) / 1024 / 1024
    return [
        Row("API's peak memory growth during a 2 GB upload", f"{growth:.0f} MB", "", "< 64 MB"),
        Row("its CPU time", f"{cpu:.1f} s", f"{seconds:.1f} s elapsed", "low"),
        Row(
            "its throughput relative to the SDK's own",
            f"{share:.0%}",
            f"{SIZE / seconds / 1e6:.0f} of {SIZE / alone / 1e6:.0f} MB/s",
            "near 100 %",
        ),
    ]


def migrate(service: Service) -> None:
    call = [sys.executable, "-m", "internal.cli", "migrate"]
    subprocess.run(call, env=service.environment, cwd=ROOT, check=True, capture_output=True)


def send(url: str, file: Path) -> float:
    head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="big.wav"\r\n\r\n'
    tail = b"\r\n--edge--\r\n"

    def body() -> Iterator[bytes]:
        yield head
        with file.open("rb") as source:
            while block := source.read(PIECE):
                yield block
        yield tail

    headers = {
        "Content-Type": "multipart/form-data; boundary=edge",
        "Content-Length": str(SIZE + len(head) + len(tail)),
    }
    started = time.monotonic()
    httpx.post(f"{url}/api/v1/upload", content=body(), headers=headers, timeout=600).raise_for_status()
    return time.monotonic() - started


class Peak:
    """A sampler of a process's resident memory, every 20 ms; `value` is the peak in bytes."""

    def __init__(self, process: psutil.Process) -> None:
        self.value = 0
        self._process = process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.value = max(self.value, self._process.memory_info().rss)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
