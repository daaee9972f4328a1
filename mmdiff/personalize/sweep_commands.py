"""Commands of a sweep, each in a process of its own: what it says is shown, and a signal is handed on to it."""

import fcntl
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmdiff.train.stop import STOPPED_STATUS, StopRequest

TAIL_BYTES = 20_000


class StoppedError(Exception):
    """A signal asked the sweep, or the command that it waits for, to stop."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status, and the last line that it said."""

    status: int
    last_line: str


@contextmanager
def alone_in(folder: Path) -> Iterator[int]:
    """Hold a folder for this process and the commands that are given the lock, whose number is returned.

    Errors: `ValueError` where another sweep holds it, or a command that outlived one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{folder}: another sweep is at work here, or a command of one that was killed has not "
                             "ended yet; wait for it, or name another folder") from error  # fmt: skip
        yield lock.fileno()


def run_command(words: Sequence[str], stop: StopRequest, lock: int) -> Ended:
    """Run `mmdiff WORDS`, which holds the lock too, and wait for it.

    Errors: `StoppedError` where it, or this process, was asked to stop; it has saved what it had to save.
    """
    if stop.is_made:
        raise StoppedError
    process = subprocess.Popen(
        [sys.executable, "-m", "mmdiff.cli", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        pass_fds=(lock,),
    )  # fmt: skip
    tail, is_told = b"", False
    while True:
        if stop.is_made and not is_told:
            process.send_signal(signal.SIGTERM)
            is_told = True
        ready, _, _ = select.select([process.stderr], [], [], 0.2)
        said = os.read(process.stderr.fileno(), 65_536) if ready else b""
        if not said and (ready or process.poll() is not None):
            break
        sys.stderr.write(said.decode("utf-8", "replace"))
        sys.stderr.flush()
        tail = (tail + said)[-TAIL_BYTES:]
    process.stderr.close()
    status = process.wait()
    if stop.is_made or status == STOPPED_STATUS:
        raise StoppedError
    lines = [line.strip() for line in tail.decode("utf-8", "replace").replace("\r", "\n").split("\n") if line.strip()]
    return Ended(status, lines[-1] if lines else "")
