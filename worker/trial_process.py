"""Child processes for work that may crash, hang or run out of memory: trials of engines and of models.

`run` is called by the parent, `main` by the child, which is a module that is run as `python -m MODULE TASK`. The task
and its result are JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from core.errors import SttError
from core.machine import physical_memory

ROOT = Path(__file__).resolve().parents[1]
MAX_REASON = 300
"""Characters of a reason."""


class TrialFailed(Exception):
    """The work was not completed. reason: a few words; timed_out: True if a time limit was the reason."""

    def __init__(self, reason: str, *, timed_out: bool = False) -> None:
        self.reason, self.timed_out = reason[:MAX_REASON], timed_out
        super().__init__(self.reason)


async def run(module: str, task: object, seconds: float) -> Any:
    """Run a task in a child process, which ends with this one, and return its result. seconds: its time limit.

    The child and all that it has started are ended when this returns, also by a cancellation. Raises TrialFailed.
    """
    # a file, since the end of a pipe does not come while anything that the child has started holds it
    with tempfile.TemporaryFile() as output:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, json.dumps(task)),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(seconds):
                status = await child.wait()
        except TimeoutError:
            raise TrialFailed(f"not done within {seconds:.0f} s", timed_out=True) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
        output.seek(0)
        return _result(status, output.read())


def _result(status: int, output: bytes) -> Any:
    """Return the result that the child printed. Raises TrialFailed."""
    if status == -signal.SIGPROF:
        raise TrialFailed("more CPU time than the limit", timed_out=True)
    if status < 0:
        raise TrialFailed(f"ended by {signal.Signals(-status).name}")
    try:
        answer = json.loads(output)
    except ValueError:
        raise TrialFailed(f"ended with status {status}") from None
    if "error" in answer:
        raise TrialFailed(answer["error"])
    return answer["result"]


# -- in the child ------------------------------------------------------------------------------------------------------
def main(work: Callable[[Any], object]) -> NoReturn:
    """Do the work with the task of the command line, print its result or the reason of its failure, and exit."""
    output = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries print to standard output
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # the system ends this process before any other
    limit = physical_memory() * 9 // 10
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        answer = {"result": work(json.loads(sys.argv[1]))}
    except SttError as error:
        answer = {"error": str(error) or error.code}
    except MemoryError:
        answer = {"error": "out of memory"}
    except Exception as error:  # noqa: BLE001
        answer = {"error": repr(error)}
    with open(output, "wb") as file:  # noqa: PTH123 - a descriptor
        file.write(json.dumps(answer).encode())
    os._exit(0)  # a crash while libraries are unloaded is not the engine's


@contextlib.contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """End the process once it has used these CPU seconds; native code cannot delay that. None: no limit."""
    signal.setitimer(signal.ITIMER_PROF, seconds or 0)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)


def _exit_with_parent() -> None:
    os.read(0, 1)  # nothing is sent: this returns when the parent's end is closed
    os._exit(1)
