"""A pool in which one file that crashes or hangs a decoder costs one result and nothing else."""

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")
IN_FLIGHT = 4  # tasks for each worker that are handed out at once
BASE_SECONDS, BYTES_PER_SECOND = 120, 250_000  # a file may take so long, and longer the larger it is


def run_isolated(
    function: Callable[[Path], Result], paths: Iterable[Path], workers: int
) -> Iterator[tuple[Path, Result | Exception]]:
    """Yield every path with what the function returns or raises, in the order in which they are done.

    function: a picklable one. Where it ends its process, or takes far longer than the file's size explains, the path
    comes with a `RuntimeError`; files that were in work beside it are done again, each alone.
    """
    todo, suspects = deque(paths), deque()
    context = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload([function.__module__])  # imported once, not by every process
    while todo or suspects:
        alone = bool(suspects)
        queue = deque([suspects.popleft()]) if alone else todo
        with ProcessPoolExecutor(1 if alone else workers, mp_context=context) as pool:
            broken = yield from _drain(pool, function, queue, 1 if alone else workers * IN_FLIGHT)
        if alone and broken:
            yield broken[0], RuntimeError("decoding it crashes or hangs the decoder; leave this file out")
        elif broken:
            suspects.extend(broken)


def _drain(pool: ProcessPoolExecutor, function: Callable, queue: deque, most: int) -> Iterator:
    """Work a queue off until it is empty or the pool breaks; return the paths that were in work then."""
    flying: dict[Future, Path] = {}
    try:
        while queue or flying:
            while queue and len(flying) < most:
                flying[pool.submit(_limited, function, queue[0])] = queue[0]
                queue.popleft()
            done, _ = wait(flying, return_when=FIRST_COMPLETED)
            for future in done:
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    return list(flying.values())
                path = flying.pop(future)
                yield path, error if error is not None else future.result()
    except BrokenProcessPool:
        return list(flying.values())
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    return []


def _limited(function: Callable[[Path], Result], path: Path) -> Result:
    """Call the function; the process is ended by the alarm's default action where libav never returns."""
    size = path.stat().st_size if path.is_file() else 0
    if hasattr(signal, "alarm"):
        signal.alarm(BASE_SECONDS + size // BYTES_PER_SECOND)
    try:
        return function(path)
    finally:
        if hasattr(signal, "alarm"):
            signal.alarm(0)
