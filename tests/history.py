"""Earlier revisions of the program, from the history of the repository."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = "migrations/versions"
SEARCHED = 1000


def git(*words: str) -> bytes:
    """Run git in the repository. Raises OSError, subprocess.CalledProcessError."""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=True).stdout


def before_newest_migration(usable: Callable[[str], bool] = lambda _: True) -> str | None:
    """Return the newest usable revision whose migrations are today's without the newest one.

    None if there is no history, or no such revision among the last SEARCHED.
    """
    names = sorted(path.name for path in (ROOT / VERSIONS).glob("[0-9]*.py"))[:-1]
    try:
        commits = git("log", f"-{SEARCHED}", "--format=%H").decode().split()
        return next((commit for commit in commits if _migrations(commit) == names and usable(commit)), None)
    except (OSError, subprocess.CalledProcessError):
        return None


def unpack(commit: str, folder: Path) -> None:
    """Write the files of a revision into the folder."""
    subprocess.run(["tar", "--extract", "--directory", str(folder)], input=git("archive", commit), check=True)


def _migrations(commit: str) -> list[str]:
    paths = git("ls-tree", "--name-only", commit, f"{VERSIONS}/").decode().split()
    return sorted(name for name in (Path(path).name for path in paths) if name[0].isdigit())
