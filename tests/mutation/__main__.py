"""`make mutate`: mutation testing of one module; prints the mutants that no test kills.

mutmut does the work in `mutants/`, with the settings of pyproject.toml. It reads the module and the tests only from its
configuration, so both are set here. It does not mutate decorated functions or module constants.
"""

from __future__ import annotations

import argparse
import collections
import random
import shlex
import shutil
from pathlib import Path

from mutmut.__main__ import create_mutants_for_file, run
from mutmut.configuration import config
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

FOLDER = Path("mutants")
SEED = 10
"""Seed of the sample, so that a repeated run tries the same mutants."""


def main() -> None:
    arguments = _arguments()
    module: Path = arguments.module
    shutil.rmtree(FOLDER, ignore_errors=True)
    settings = config()
    settings.only_mutate = [str(module)]
    if arguments.tests:
        settings.pytest_add_cli_args_test_selection = arguments.tests
    names = _mutants(module, arguments.sample)
    run.main(["--max-children", str(arguments.processes), *names], standalone_mode=False)
    _report(module, names)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("module", type=Path, help="a file, for example worker/merger.py")
    parser.add_argument("--tests", type=shlex.split, default=[], help="arguments for pytest; default: pyproject.toml")
    parser.add_argument("--sample", type=int, default=0, help="number of mutants to try, picked at random; 0: all")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    if not arguments.module.is_file() or arguments.module.is_absolute():
        parser.error(f"{arguments.module} is not a file of this repository")
    return arguments


def _mutants(module: Path, sample: int) -> list[str]:
    """Create the module's mutants and return the names of those to try."""
    output = FOLDER / module
    output.parent.mkdir(parents=True)
    create_mutants_for_file(module, output)
    names = list(_exit_codes(module))
    return random.Random(SEED).sample(names, sample) if 0 < sample < len(names) else names


def _exit_codes(module: Path) -> dict[str, int | None]:
    data = SourceFileMutationData(path=module)
    data.load()
    return data.exit_code_by_key


def _report(module: Path, names: list[str]) -> None:
    codes = _exit_codes(module)
    verdicts = {name: status_by_exit_code[codes[name]] for name in names}
    for name, verdict in verdicts.items():
        if verdict not in ("killed", "timeout"):
            print(f"\n{name}: {verdict}\n{get_diff_for_mutant(name, path=module)}")
    counts = collections.Counter(verdicts.values())
    print(f"\n{module}: {len(names)} of {len(codes)} mutants tried,", ", ".join(f"{n} {v}" for v, n in counts.items()))


if __name__ == "__main__":
    main()
