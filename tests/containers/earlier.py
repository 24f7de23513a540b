"""The image of an earlier revision of this repository."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from tests.containers.engine import ROOT, Engine

IMAGE = "async-stt:earlier"
BUILD_SECONDS = 600.0
DOCKERFILE = "deploy/Dockerfile"
FROM = re.compile(r"^FROM (\S+)", re.MULTILINE)


def build(engine: Engine, network: str) -> str | None:
    """Build the image by its own Dockerfile, and return its name; None without the history of the repository.

    The packages come from the cache of the engine if their versions are those of this revision.
    """
    found = revision()
    if found is None:
        return None
    with tempfile.TemporaryDirectory(prefix="stt-earlier-") as folder:
        archive = Path(folder) / "archive.tar"
        git("archive", "--output", str(archive), found)
        subprocess.run(["tar", "--extract", "--file", str(archive), "--directory", folder], check=True)
        archive.unlink()
        words = ("docker", "build", "--quiet", "--network", network, "--tag", IMAGE, "--file", DOCKERFILE, ".")
        engine.run(*words, seconds=BUILD_SECONDS, cwd=Path(folder))
    return IMAGE


def revision() -> str | None:
    """Return the last tag, else the newest revision without the newest migration, built on the same base images.

    None if there is no history, or no such revision in the last thousand.
    """
    try:
        if tags := git("tag", "--merged", "HEAD", "--sort=-creatordate").split():
            return tags[0]
        newest = max(path.name for path in (ROOT / "migrations" / "versions").glob("[0-9]*.py"))
        candidates = git("log", "-1000", "--format=%H").split()
        return next((commit for commit in candidates if usable(commit, f"migrations/versions/{newest}")), None)
    except (OSError, subprocess.CalledProcessError):
        return None


def usable(commit: str, migration: str) -> bool:
    """Return True if the commit has no such migration, and an image of the base images that the tests provide."""
    if git("ls-tree", "--name-only", commit, migration):
        return False
    dockerfile = (ROOT / DOCKERFILE).read_text()
    return FROM.findall(git("show", f"{commit}:{DOCKERFILE}")) == FROM.findall(dockerfile)


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout
