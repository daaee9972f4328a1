"""Engines that run a stage over many tasks: processes of this machine, or a Ray cluster. A crash costs one task.

A stage is a module's function of (task, tell) that returns plain values; `tell` takes a mapping: an empty one is a sign
of life, others reach `on_message`. Both engines yield (index of the task, what the stage returned or a `Crash`).
"""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from typing import Any

ATTEMPTS = 2
STALL_SECONDS = 300.0
PATIENCE_SECONDS = 0.5  # between two looks at processes that say nothing
ENGINES = ("pool", "ray")

Stage = Callable[[Any, Callable[[dict], None]], Any]


@dataclass(frozen=True)
class Crash:
    """Why a task has no result: its process died or hung, or an error that is none of the stage's own."""

    reason: str


def run_pool(
    stage: Stage, tasks: Sequence[Any], workers: int, *, on_message: Callable[[dict], None] = lambda message: None,
    prepare: Callable[[Any], Any] | None = None, stall_seconds: float = STALL_SECONDS,
) -> Iterator[tuple[int, Any]]:  # fmt: skip
    """Run a stage in worker processes of this machine, which end when this process does, however it ends.

    prepare: turns a task into the one that is run; called in threads, a few tasks ahead. A worker that dies, or gives
    no sign of life for `stall_seconds`, is replaced; its task is tried once more.
    """
    waiting = deque((index, 1) for index in range(len(tasks)))
    crew = [_Worker(stage) for _ in range(min(workers, len(tasks)))]
    with ThreadPoolExecutor(max(len(crew), 1)) as threads:
        ready: dict[int, Future] = {}
        try:
            while waiting or any(worker.job for worker in crew):
                _prepare_ahead(threads, ready, waiting, tasks, prepare, len(crew) + 1)
                for worker in crew:
                    if worker.job is None and waiting and ready[waiting[0][0]].done():
                        index, attempt = waiting.popleft()
                        fault = ready[index].exception()
                        if fault is not None:
                            yield index, Crash(str(fault))
                        else:
                            worker.start(index, attempt, ready[index].result())
                for worker in _with_news(crew):
                    index, attempt = worker.job
                    result = worker.take(on_message, stall_seconds)
                    if isinstance(result, Crash) and result.reason and not worker.is_alive and attempt < ATTEMPTS:
                        waiting.appendleft((index, attempt + 1))
                    elif result is not None:
                        ready.pop(index)
                        yield index, result
        finally:
            for worker in crew:
                worker.stop()
            threads.shutdown(cancel_futures=True)


def run_ray(
    stage: Stage, tasks: Sequence[Any], workers: int, *, on_message: Callable[[dict], None] = lambda message: None,
) -> Iterator[tuple[int, Any]]:  # fmt: skip
    """Run a stage on Ray: the cluster that RAY_ADDRESS names, else a local one of `workers` processes.

    The messages of a task arrive when it is done. Errors: `ValueError` where Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ValueError("Ray is missing; install it with `pip install 'mmdiff[ray]'`, or use --engine pool") from error
    is_own = not ray.is_initialized()
    if is_own:
        local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
        ray.init(log_to_driver=False, logging_level="error", **local)
    remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(_run_told)
    waiting, running = deque(range(len(tasks))), {}
    try:
        while waiting or running:
            while waiting and len(running) < 2 * workers:
                index = waiting.popleft()
                running[remote.remote(stage, tasks[index])] = index
            done, _ = ray.wait(list(running))
            index = running.pop(done[0])
            try:
                messages, result = ray.get(done[0])
                for message in messages:
                    on_message(message)
                yield index, result
            except ray.exceptions.RayError as error:
                yield index, Crash(f"the worker failed: {str(error).splitlines()[0]}")
    finally:
        if is_own:
            ray.shutdown()


def _run_told(stage: Stage, task: Any) -> tuple[list[dict], Any]:
    messages: list[dict] = []
    result = stage(task, messages.append)
    return [message for message in messages if message], result


def _prepare_ahead(threads, ready, waiting, tasks, prepare, count: int) -> None:
    for index, _ in list(waiting)[:count]:
        if index not in ready:
            ready[index] = threads.submit(prepare or (lambda task: task), tasks[index])


def _with_news(crew: list["_Worker"]) -> list["_Worker"]:
    """Return the busy workers, after waiting for one to say something or for a while."""
    busy = [worker for worker in crew if worker.job is not None]
    if busy:
        connection.wait([worker.pipe for worker in busy], PATIENCE_SECONDS)
    else:
        time.sleep(PATIENCE_SECONDS / 50)
    return busy


class _Worker:
    """A process that runs one task after another, replaced when it dies."""

    def __init__(self, stage: Stage):
        self.stage, self.job, self.heard_at = stage, None, 0.0
        self._process = None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def start(self, index: int, attempt: int, task: Any) -> None:
        """Hand over a task."""
        if not self.is_alive:
            context = get_context("spawn")
            self.pipe, theirs = context.Pipe()
            self._process = context.Process(target=_work, args=(self.stage, theirs), daemon=True)
            self._process.start()
            theirs.close()
        self.pipe.send(task)
        self.job, self.heard_at = (index, attempt), time.monotonic()

    def take(self, on_message: Callable[[dict], None], stall_seconds: float) -> Any:
        """Return the task's result or a `Crash` if there is one by now, else None."""
        try:
            while self.pipe.poll():
                kind, value = self.pipe.recv()
                self.heard_at = time.monotonic()
                if kind == "done":
                    self.job = None
                    return value
                if kind == "failed":
                    self.job = None
                    return Crash(value)
                if value:
                    on_message(value)
        except (EOFError, OSError):
            self._process.join()
            self.job = None
            return Crash(_obituary(self._process.exitcode))
        if time.monotonic() - self.heard_at > stall_seconds:
            self.stop()
            self.job = None
            return Crash(f"no sign of life for {stall_seconds:g} s; its process was ended")
        return None

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self.pipe.close()


def _obituary(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process ended with code {code}"


def _work(stage: Stage, pipe) -> None:
    """Run tasks until the parent closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            result = ("done", stage(task, lambda message: pipe.send(("told", message))))
        except Exception as error:  # a fault of ours must not end the run either: it is reported as a crash
            result = ("failed", f"{type(error).__name__}: {error}")
        pipe.send(result)


def _die_with_parent() -> None:
    parent_process().join()
    os._exit(1)
