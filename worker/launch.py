"""Launcher of ffmpeg: sets limits that cannot fail open, leaves the network, and becomes the program.

Run as a file, by path, with Python's isolated mode: it imports nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

REFUSED = 125
"""Exit status when the limits could not be set: the program was not started."""
NICE = 5
_NEW_NETWORK, _NEW_USER, _NO_NEW_PRIVILEGES = 0x4000_0000, 0x1000_0000, 38


def limit(address_space: int, cpu_seconds: int) -> None:
    """Bytes and seconds. No file may be written: the program's output is a pipe."""
    wanted = {
        resource.RLIMIT_AS: address_space,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # the soft limit on CPU time ends the program with a signal of its own, SIGXCPU; at the hard one it is SIGKILL
        resource.setrlimit(kind, (value, hard if kind == resource.RLIMIT_CPU else value))


def leave_network() -> bool:
    """Enter an empty network namespace, with a user namespace where that is what permits it.

    False where the kernel or the container allows neither.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    return any(libc.unshare(flags) == 0 for flags in (_NEW_NETWORK, _NEW_USER | _NEW_NETWORK))


def main(words: list[str]) -> None:
    """Arguments: address space, CPU seconds, program, its arguments. Without a program: status 0 means no network."""
    try:
        limit(int(words[0]), int(words[1]))
        isolated = leave_network()
        os.nice(NICE)
        if len(words) == 2:
            sys.exit(0 if isolated else 1)
        os.execve(words[2], words[2:], {"LC_ALL": "C"})
    except (OSError, ValueError, OverflowError, AttributeError) as error:
        sys.stderr.write(f"not started: {error}\n")
        sys.exit(REFUSED)


if __name__ == "__main__":
    main(sys.argv[1:])
