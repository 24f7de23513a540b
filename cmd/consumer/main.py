"""The consumer service: `python cmd/consumer/main.py`, settings in the environment."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from internal.cli.processes import consumer

if __name__ == "__main__":
    consumer()
