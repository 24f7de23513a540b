"""The api service: `python cmd/api/main.py`, configured from the environment."""

if __name__ == "__main__":
    # imported here because child processes of the engine pool load this file as well
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from internal.cli.processes import api

    api()
