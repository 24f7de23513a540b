"""The image of an earlier revision of this repository."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from tests import history
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
        history.unpack(found, Path(folder))
        words = ("docker", "build", "--quiet", "--network", network, "--tag", IMAGE, "--file", DOCKERFILE, ".")
        engine.run(*words, seconds=BUILD_SECONDS, cwd=Path(folder))
    return IMAGE


def revision() -> str | None:
    """Return the last tag, else the newest revision without the newest migration, built on the same base images.

    None if there is no history, or no such revision.
    """
    try:
        tags = history.git("tag", "--merged", "HEAD", "--sort=-creatordate").decode().split()
    except (OSError, subprocess.CalledProcessError):
        return None
    return tags[0] if tags else history.before_newest_migration(_has_base_images)


def _has_base_images(commit: str) -> bool:
    """Return True if its image is made of the base images that the tests provide."""
    dockerfile = (ROOT / DOCKERFILE).read_text()
    return FROM.findall(history.git("show", f"{commit}:{DOCKERFILE}").decode()) == FROM.findall(dockerfile)
