"""Threads of the calls that run at the same time: together they use the cores, and no more threads than cores."""

from __future__ import annotations

from core.machine import usable_cores


class ThreadBudget:
    """Threads of the running calls of a pool.

    A call gets the cores divided by the number of processes that have work when it starts, rounded down to one of
    `choices`: a process's share of the cores, doubled up to all cores. Engines that compile a model for a number of
    threads thus see few of them. A call that starts while others use the cores gets what they leave, at least a share.
    """

    def __init__(self, processes: int, fixed: int | None = None, cores: int | None = None) -> None:
        """fixed: threads of every call, whatever else runs; cores: by default those that this process may use."""
        cores = cores if cores is not None else usable_cores()
        share = fixed or max(1, cores // processes)
        self.choices: list[int] = [share]
        while not fixed and self.choices[-1] < cores:
            self.choices.append(min(self.choices[-1] * 2, cores))
        # more processes than cores are the operator's choice
        self._total = max(cores, share * processes)
        self._cores = cores
        self.in_use = 0

    def take(self, busy: int) -> int:
        """Take threads for a call; return their number, 0 if too few are left. busy: processes that have work."""
        most = min(self._cores // busy, self._total - self.in_use)
        if self._total - self.in_use < self.choices[0]:
            return 0
        threads = max([self.choices[0], *(choice for choice in self.choices if choice <= most)])
        self.in_use += threads
        return threads

    def give_back(self, threads: int) -> None:
        self.in_use -= threads
