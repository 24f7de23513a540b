"""An engine of the service behind its port, as a pool's process calls it."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.engines.child import Item, OwnProcess, costs_of, main, samples_of
from worker.engine import adapter, build
from worker.transcriber import Call, EngineOutput, EngineSpec, Options


class PortRunner(OwnProcess):
    def __init__(self, task: dict[str, Any]) -> None:
        self._threads = int(task["threads"])
        self._engine = build(EngineSpec(task["engine"], Path(task["model"])))
        self._batch: int = getattr(importlib.import_module(adapter(task["engine"])), "BATCH_SIZE", 1)

    def transcribe(self, items: list[Item]) -> list[str]:
        calls, owners = [], []
        for index, item in enumerate(items):
            samples = samples_of(item["wav"])
            for chunk in item["chunks"]:
                piece = np.concatenate([samples[first:last] for first, last in chunk])
                calls.append(Call(piece, Options(item["language"])))
                owners.append(index)
        texts: list[list[str]] = [[] for _ in items]
        for owner, output in zip(owners, self._outputs(calls), strict=True):
            texts[owner] += [segment.text for segment in output.segments]
        return [" ".join(parts) for parts in texts]

    def _outputs(self, calls: list[Call]) -> list[EngineOutput]:
        outputs = []
        for first in range(0, len(calls), self._batch):
            for output in self._engine.transcribe(calls[first : first + self._batch], self._threads):
                if not isinstance(output, EngineOutput):
                    raise output
                outputs.append(output)
        return outputs

    def windows(self, dense: list[Item], sparse: list[Item]) -> tuple[float, float]:
        count = max(2, self._batch)
        return costs_of(self, *(list(itertools.islice(itertools.cycle(items), count)) for items in (dense, sparse)))


if __name__ == "__main__":
    main(PortRunner)
