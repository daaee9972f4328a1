"""Stopping a run from outside: the first signal asks it to finish its step and save."""

import os
import signal
import threading
from types import FrameType, TracebackType

# SIGUSR1 is the warning that schedulers send before they end a job, on request (SLURM's --signal).
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# Of a run that a signal stopped before its last step: EX_TEMPFAIL of sysexits.h, "try again later".
STOPPED_STATUS = 75


class StopRequest:
    """Inside this context SIGTERM, SIGINT and SIGUSR1 set `is_made`; a second SIGINT ends the process at once.

    Any other may come again while the run saves: a scheduler warns first, and asks later. Under torchrun a second
    SIGINT is ignored too: there Ctrl-C arrives twice, from the terminal and from torchrun, which kills a process that
    does not end in time. Outside the main thread, where Python allows no handlers, nothing is changed.
    """

    def __init__(self) -> None:
        self.is_made = False
        self._earlier: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._earlier = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.is_made = True
        if number == signal.SIGINT and "TORCHELASTIC_RUN_ID" not in os.environ:
            signal.signal(number, self._earlier[number])
