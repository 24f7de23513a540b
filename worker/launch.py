"""Launcher of ffmpeg: sets resource limits, leaves the network, and executes the program.

The program does not start if a limit cannot be set. This file is run by its path in Python's isolated mode, so it
imports the standard library only.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

NOT_STARTED = 125
"""Exit status if a limit could not be set or the program could not be executed."""
NICE = 5
_NEW_NETWORK, _NEW_USER, _NO_NEW_PRIVILEGES = 0x4000_0000, 0x1000_0000, 38


def set_limits(address_space: int, cpu_seconds: int) -> None:
    """Set resource limits, in bytes and seconds. Files cannot be written, since the output is a pipe."""
    limits = {
        resource.RLIMIT_AS: address_space,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        # the soft limit of CPU time sends SIGXCPU, the hard one SIGKILL
        resource.setrlimit(kind, (value, hard if kind == resource.RLIMIT_CPU else value))


def leave_network() -> bool:
    """Enter an empty network namespace, through a user namespace if needed.

    Returns False if the kernel or container does not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    return any(libc.unshare(flags) == 0 for flags in (_NEW_NETWORK, _NEW_USER | _NEW_NETWORK))


def main(arguments: list[str]) -> None:
    """Set the limits and execute the program. arguments: address space, CPU seconds, program, its arguments.

    Without a program, exit with status 0 if there is no network access, else with 1.
    """
    try:
        set_limits(int(arguments[0]), int(arguments[1]))
        isolated = leave_network()
        os.nice(NICE)
        if len(arguments) == 2:
            sys.exit(0 if isolated else 1)
        os.execve(arguments[2], arguments[2:], {"LC_ALL": "C"})
    except (OSError, ValueError, OverflowError, AttributeError) as error:
        sys.stderr.write(f"not started: {error}\n")
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main(sys.argv[1:])
