"""Engines: every task has a result, a crash or a hang costs one task, and both engines give the same."""

import os
import signal
import threading

import pytest

from data_tools.engine import Crash, run_pool, run_ray


def stage(task: int, tell) -> int:
    """Square a number; some numbers end badly."""
    tell({"number": task})
    if task == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == 4:
        threading.Event().wait()
    if task == 5:
        raise RuntimeError("an odd number")
    return task * task


def test_the_pool_outlives_crashes_hangs_and_errors():
    heard = []
    results = dict(run_pool(stage, [1, 3, 4, 5, 2, 7], 2, on_message=heard.append, stall_seconds=1.5))
    assert [results[index] for index in (0, 4, 5)] == [1, 4, 49]
    assert "SIGSEGV" in results[1].reason
    assert "no sign of life" in results[2].reason
    assert results[3] == Crash("RuntimeError: an odd number")
    assert sorted(message["number"] for message in heard) == [1, 2, 3, 3, 4, 4, 5, 7]  # what dies is tried twice


def refuse_seven(task: int) -> int:
    if task == 7:
        raise ValueError("seven: cannot be read")
    return task + 1


def test_tasks_are_prepared_by_threads_and_what_cannot_be_is_reported():
    results = dict(run_pool(stage, [1, 7, 5], 2, prepare=refuse_seven))
    assert results == {0: 4, 1: Crash("seven: cannot be read"), 2: 36}


@pytest.mark.slow
def test_ray_gives_the_same_on_two_workers():
    pytest.importorskip("ray")
    heard = []
    results = dict(run_ray(stage, [1, 3, 5, 2, 7], 2, on_message=heard.append))
    assert [results[index] for index in (0, 3, 4)] == [1, 4, 49]
    assert isinstance(results[1], Crash) and isinstance(results[2], Crash)
    assert {message["number"] for message in heard} >= {1, 2, 7}
