"""The decoder process: what it inherits, its limits, and its termination."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import CorruptedFileError, DecodeTimeoutError, Kind
from tests.speech import silence, write_wav
from worker import ffmpeg, launch
from worker.audio import decode

LOOK = """
import json, os, resource, sys
found = {"env": dict(os.environ), "fds": os.listdir("/proc/self/fd"), "cwd": os.getcwd(), "nice": os.nice(0),
         "interfaces": [line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]],
         "memory": resource.getrlimit(resource.RLIMIT_AS)[1], "files": resource.getrlimit(resource.RLIMIT_FSIZE)[1],
         "cpu": resource.getrlimit(resource.RLIMIT_CPU)[0]}
sys.stdout.write(json.dumps(found) + " ")
"""


def play(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Run `code` in place of ffmpeg."""
    program = folder / "program"
    program.write_text(f"#!{sys.executable} -IS\n{code}")
    program.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "program", lambda: str(program))


async def run(folder: Path, deadline: float = 60) -> bytes:
    source, target = write_wav(folder / "a.wav", silence(1)), folder / "pcm"
    await decode(source, target, max_duration=600, deadline=deadline, on_pcm=lambda _: None)
    return target.read_bytes()


async def test_the_decoder_inherits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://stt:secret@db/stt")
    play(monkeypatch, tmp_path, LOOK)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    report = json.loads(await run(tmp_path))
    os.close(descriptor)
    assert report["env"].items() <= {"LC_ALL": "C", "LC_CTYPE": "C.UTF-8"}.items()
    assert len(report["fds"]) == 4, "the three standard ones, and the listed folder itself"
    assert report["cwd"] == str(tmp_path)


async def test_the_decoder_has_resource_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, tmp_path, LOOK)
    report = json.loads(await run(tmp_path, deadline=60))
    assert (report["memory"], report["files"], report["cpu"]) == (ffmpeg.ADDRESS_SPACE, 0, 61)
    assert report["nice"] >= launch.NICE


async def test_the_decoder_has_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not ffmpeg.network_isolated():
        pytest.skip("this kernel allows no network namespace")
    play(monkeypatch, tmp_path, LOOK)
    assert json.loads(await run(tmp_path))["interfaces"] == ["lo"]


async def test_the_decoder_does_not_start_without_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is at fault, not the recording: nothing is decoded, and the job does not fail."""
    monkeypatch.setattr(ffmpeg, "ADDRESS_SPACE", 2**70)
    with pytest.raises(OSError, match="limits"):
        await run(tmp_path)
    with pytest.raises(OSError, match="limits"):
        ffmpeg.network_isolated()


async def test_a_missing_program_is_a_machine_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "program", lambda: str(tmp_path / "none"))
    with pytest.raises(OSError, match="missing"):
        await run(tmp_path)


@pytest.mark.parametrize("sound", ["", "sys.stdout.buffer.write(bytes(64000)); sys.stdout.flush()"])
async def test_an_endless_log_ends_the_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sound: str) -> None:
    play(monkeypatch, tmp_path, f"import sys\n{sound}\nwhile True: sys.stderr.write('x' * 65536)")
    with pytest.raises(CorruptedFileError):
        await run(tmp_path)


async def test_exceeding_the_deadline_has_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, tmp_path, "import time; time.sleep(600)")
    with pytest.raises(DecodeTimeoutError):
        await run(tmp_path, deadline=1)
    assert DecodeTimeoutError.kind is Kind.PERMANENT, "the same file takes as long on every attempt"


def test_exceeding_the_cpu_limit_has_the_same_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, tmp_path, "while True: pass")
    status = subprocess.run([*ffmpeg._launcher(0), ffmpeg.program()], check=False).returncode
    assert isinstance(ffmpeg.decode_error(status, "", 0), DecodeTimeoutError)


def test_the_deadline_grows_with_the_size() -> None:
    assert ffmpeg.deadline(0) == 300
    assert ffmpeg.deadline(500 * 1024**2) == 1300
