"""The api service: `python cmd/api/main.py`, settings in the environment."""

if __name__ == "__main__":
    # imported here, because the child processes of the pool load this file too
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from internal.cli.processes import api

    api()
