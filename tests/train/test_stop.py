"""Signals that ask a run to stop: schedulers may repeat theirs, a person who presses Ctrl-C twice means it."""

import os
import signal
from types import SimpleNamespace

import pytest

from mmdiff.train.stop import SIGNALS, StopRequest
from mmdiff.train.trainer import Trainer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_scheduler_may_repeat_itself(number):
    with StopRequest() as request:
        assert not request.is_made
        for _ in range(3):
            os.kill(os.getpid(), number)
        assert request.is_made


def test_a_second_ctrl_c_ends_the_process(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    with StopRequest() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert request.is_made
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_under_torchrun_ctrl_c_may_arrive_twice(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    with StopRequest() as request:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert request.is_made


def test_the_handlers_of_before_come_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_signal_while_the_ranks_ask_each_other_is_not_forgotten():
    def reduce(flag, how):
        flag = flag.clone()  # what every rank has said; now the signal comes
        os.kill(os.getpid(), signal.SIGTERM)
        return flag

    trainer = Trainer.__new__(Trainer)
    trainer.accelerator = SimpleNamespace(num_processes=2, device="cpu", reduce=reduce)
    with StopRequest() as trainer.stop_request:
        assert not trainer._should_stop()
        assert trainer._should_stop()
