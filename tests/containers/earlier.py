"""The image of an earlier revision of this repository."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.containers.engine import ROOT, Engine

IMAGE = "async-stt:earlier"
BUILD_SECONDS = 600.0


def build(engine: Engine, network: str) -> str | None:
    """Build the image by its own Dockerfile, and return its name; None without the history of the repository.

    The packages come from the cache of the engine if their versions are those of this revision.
    """
    found = revision()
    if found is None:
        return None
    with tempfile.TemporaryDirectory(prefix="stt-earlier-") as folder:
        with tarfile.open(fileobj=io.BytesIO(git("archive", found))) as archive:
            archive.extractall(folder, filter="data")
        words = ("docker", "build", "--quiet", "--network", network, "--tag", IMAGE, "--file", "deploy/Dockerfile", ".")
        engine.run(*words, seconds=BUILD_SECONDS, cwd=Path(folder))
    return IMAGE


def revision() -> str | None:
    """Return the last tag, else the revision before the newest migration; None if there is no history."""
    try:
        if tags := git("tag", "--merged", "HEAD", "--sort=-creatordate").decode().split():
            return tags[0]
        newest = max(path.name for path in (ROOT / "migrations" / "versions").glob("[0-9]*.py"))
        # a merge may have added it, under a number of its own
        words = ("log", "--no-patch", "--first-parent", "--diff-merges=first-parent", "--diff-filter=A", "--format=%H")
        added = git(*words, "--", f"migrations/versions/{newest}").decode().split()
        return git("rev-parse", "--verify", f"{added[-1]}^").decode().strip() if added else None
    except (OSError, subprocess.CalledProcessError):
        return None


def git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=True).stdout
