"""A Docker engine in namespaces of its own: `python -m tests.containers.daemon FOLDER [--host-network] PORT…`.

Nothing remains on the machine: mounts, bridges, firewall rules and published ports are in the namespaces, images and
volumes in FOLDER. Each PORT of the loopback interface inside is reached through the Unix socket FOLDER/PORT.sock. With
--host-network the engine has the machine's network and no bridge, for builds. The engine ends with this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import signal
import socket
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
PR_SET_PDEATHSIG = 1
SIOCSIFFLAGS = 0x8914
IFF_UP, IFF_RUNNING = 0x1, 0x40
STOP_SECONDS = 60.0
_libc = ctypes.CDLL(None, use_errno=True)


def main(folder: Path, *, host_network: bool, ports: list[int]) -> int:
    end_with_parent()
    enter_new_namespaces(0 if host_network else CLONE_NEWNET)
    with (folder / "dockerd.log").open("ab") as log:
        engine = subprocess.Popen(
            command(folder, host_network=host_network), stdout=log, stderr=log, preexec_fn=end_with_parent
        )
    return asyncio.run(serve(engine, folder, ports))


def command(folder: Path, *, host_network: bool) -> list[str]:
    # its configuration file is that of the machine's own engine
    words = ["dockerd", "--config-file", str(folder / "daemon.json"), "--host", f"unix://{folder}/docker.sock"]
    words += ["--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")]
    words += ["--pidfile", str(folder / "dockerd.pid"), "--log-level", "warn"]
    return [*words, "--bridge=none", "--iptables=false", "--ip-forward=false"] if host_network else words


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent ends, for which the engine stops its containers."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def enter_new_namespaces(network: int) -> None:
    """Enter a mount namespace, and a network namespace with its loopback interface up if `network` is its flag.

    Mounts of the engine then end with it, however it ends. Raises OSError without the privilege.
    """
    if _libc.unshare(CLONE_NEWNS | network) or _libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "no namespaces of its own")
    if not network:
        return
    with socket.socket() as control:
        request = struct.pack("16sH14x", b"lo", IFF_UP | IFF_RUNNING)
        fcntl.ioctl(control, SIOCSIFFLAGS, request)


async def serve(engine: subprocess.Popen[bytes], folder: Path, ports: list[int]) -> int:
    """Forward the ports until SIGTERM or the engine's end; stop the engine; return its exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    for port in ports:
        await asyncio.start_unix_server(partial(forward, port), folder / f"{port}.sock")
    ended = asyncio.create_task(asyncio.to_thread(engine.wait))
    await asyncio.wait([ended, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    engine.terminate()
    done, _ = await asyncio.wait([ended], timeout=STOP_SECONDS)
    if not done:
        engine.kill()
    return await ended


async def forward(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Connect a client of the Unix socket with the port of this namespace."""
    try:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        writer.close()
        return
    await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


if __name__ == "__main__":
    words = sys.argv[2:]
    ports = [int(word) for word in words if word.isdigit()]
    sys.exit(main(Path(sys.argv[1]), host_network="--host-network" in words, ports=ports))
