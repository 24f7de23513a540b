"""Threads of concurrent calls: all cores for a lone call, never more threads than cores."""

from __future__ import annotations

import random

import pytest

from worker.thread_budget import ThreadBudget


def test_a_lone_call_gets_all_cores() -> None:
    assert ThreadBudget(16, cores=16).take(1) == 16
    assert ThreadBudget(4, cores=6).take(1) == 6


def test_calls_that_start_together_share_the_cores() -> None:
    budget = ThreadBudget(16, cores=16)
    assert [budget.take(4) for _ in range(4)] == [4, 4, 4, 4]
    assert budget.take(5) == 0, "a fifth one waits"
    budget.give_back(4)
    assert budget.take(5) == 2


def test_a_call_waits_while_another_uses_all_cores() -> None:
    budget = ThreadBudget(4, cores=8)
    assert budget.take(1) == 8
    assert budget.take(2) == 0
    budget.give_back(8)
    assert budget.take(2) == 4


@pytest.mark.parametrize(
    ("processes", "cores", "choices"),
    [
        (16, 16, [1, 2, 4, 8, 16]),
        (4, 6, [1, 2, 4, 6]),
        (2, 2, [1, 2]),
        (1, 8, [8]),
        (8, 2, [1, 2]),
        (4, 18, [4, 8, 16, 18]),
    ],
)
def test_there_are_few_numbers_of_threads(processes: int, cores: int, choices: list[int]) -> None:
    assert ThreadBudget(processes, cores=cores).choices == choices


def test_more_processes_than_cores_all_run() -> None:
    budget = ThreadBudget(4, cores=2)
    assert [budget.take(4) for _ in range(4)] == [1, 1, 1, 1]


def test_a_fixed_number_is_always_given() -> None:
    budget = ThreadBudget(4, fixed=3, cores=4)
    assert [budget.take(number) for number in (1, 2, 3, 4)] == [3, 3, 3, 3]


def test_threads_never_exceed_the_cores() -> None:
    rng = random.Random(1)
    for _ in range(200):
        processes, cores = rng.randint(1, 12), rng.randint(1, 24)
        budget, running = ThreadBudget(processes, cores=cores), list[int]()
        for _ in range(100):
            if running and rng.random() < 0.5:
                budget.give_back(running.pop(rng.randrange(len(running))))
            elif len(running) < processes and (threads := budget.take(rng.randint(len(running) + 1, processes))):
                assert threads in budget.choices
                running.append(threads)
            assert budget.in_use == sum(running) <= max(cores, processes)
