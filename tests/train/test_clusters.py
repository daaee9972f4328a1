"""The scripts for clusters, run for real with two gloo ranks: a signal reaches Python, and the same command goes on."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launch import _free_port, read_metrics

from mmdiff.train.state import find_checkpoints
from mmdiff.train.stop import STOPPED_STATUS

ROOT = Path(__file__).resolve().parents[2]
STEPS = 30
SETTINGS = ("configs/tiny/joint.yaml", f"train.max_steps={STEPS}", "train.checkpoint_every=1000",
            "train.preview_every=0", "train.batch_size=1")  # fmt: skip
JOB = "4242"
# What SLURM's own commands do here: srun hands on SIGUSR1, but ends its tasks at once when it is told to end.
SRUN = f"""#!{sys.executable}
import os, signal, subprocess, sys
tasks = []
signal.signal(signal.SIGUSR1, lambda *_: [task.send_signal(signal.SIGUSR1) for task in tasks])
signal.signal(signal.SIGTERM, lambda *_: [task.kill() for task in tasks])
words = sys.argv[1:]
while words[0].startswith("--"):
    del words[0]
for number in range(int(os.environ["SLURM_NTASKS"])):
    place = {{"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)}}
    tasks.append(subprocess.Popen(words, env={{**os.environ, **place}}))
statuses = [task.wait() for task in tasks]
sys.exit(max(status if status >= 0 else 128 - status for status in statuses))
"""
SCONTROL = """#!/bin/sh
case "$1" in
  show) echo localhost ;;
  requeue) echo "$2" >> "$REQUEUED" ;;
esac
"""


class Run:
    """A script that trains into a folder, started on as many "machines" as are asked for; each is a process group."""

    def __init__(self, words: list[str], folder: Path, num_machines: int = 1, overrides: tuple[str, ...] = (),
                 **environment: str):  # fmt: skip
        words = [*words, *SETTINGS, f"output_dir={folder}", *overrides]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHON": sys.executable,
                       "PYTHONPATH": str(ROOT), **environment}  # fmt: skip
        self.told, telling = os.pipe()
        self.machines = [
            subprocess.Popen(words, cwd=ROOT, env=environment, stderr=telling, start_new_session=True)
            for _ in range(num_machines)
        ]
        os.close(telling)
        self.seen = b""

    def signal_once_it_trains(self, number: signal.Signals, to_all: bool = False, after: int = 0) -> None:
        """Wait until the progress bar tells of a step, then signal the last machine's script, or all its processes.

        A run that resumes begins its bar with the step `after` which it goes on.
        """
        while all(int(step) <= after for step in re.findall(rb"\b(\d+)/%d" % STEPS, self.seen)):
            assert self._hear(), self.seen.decode()
        if to_all:
            os.killpg(self.machines[-1].pid, number)
        else:
            self.machines[-1].send_signal(number)

    def statuses(self) -> list[int]:
        """Wait for the end, and return each machine's status."""
        try:
            while self._hear():
                pass
            return [machine.wait() for machine in self.machines]
        finally:
            for machine in self.machines:
                if machine.poll() is None:
                    os.killpg(machine.pid, signal.SIGKILL)
            os.close(self.told)
            print(self.seen.decode())

    def _hear(self) -> bytes:
        text = os.read(self.told, 4096)
        self.seen += text
        return text


def one_node(folder: Path) -> Run:
    return Run(["scripts/train_one_node.sh"], folder, RANKS="2")


def two_nodes(folder: Path) -> Run:
    return Run(["scripts/train_several_nodes.sh"], folder, 2, NODES="2", RANKS="1", HEAD=f"localhost:{_free_port()}")


@pytest.fixture
def slurm(tmp_path):
    """Return what runs the batch script's body as SLURM's shell would, with stand-ins for SLURM's own commands."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def start(folder: Path, *overrides: str) -> Run:
        return Run(
            ["bash", "scripts/train_slurm.sbatch"], folder, 1, overrides,
            PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}", REQUEUED=str(tmp_path / "requeued"), SLURM_JOB_ID=JOB,
            SLURM_JOB_NODELIST="localhost", SLURM_SUBMIT_DIR=str(ROOT), SLURM_NTASKS="2", SLURM_NTASKS_PER_NODE="2",
        )  # fmt: skip

    return start


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    assert one_node(folder).statuses() == [0]
    return folder


def stopped_at(folder: Path) -> int:
    """Return the step of the newest checkpoint, which no other command than the signal has asked for."""
    step = int(find_checkpoints(folder / "checkpoints")[-1].name.split("-")[1])
    assert 0 < step < STEPS
    return step


def assert_same_run(one: Path, other: Path) -> None:
    assert read_metrics(one) == read_metrics(other)
    assert [line["step"] for line in read_metrics(one)] == list(range(STEPS))


@pytest.mark.parametrize("name", ["train_one_node.sh", "train_several_nodes.sh", "train_slurm.sbatch"])
def test_the_scripts_can_be_read_by_bash(name):
    subprocess.run(["bash", "-n", ROOT / "scripts" / name], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_one_node_saves_at_a_signal_and_goes_on_bit_for_bit(number, whole, tmp_path):
    run = one_node(tmp_path)
    run.signal_once_it_trains(number)
    assert run.statuses() == [STOPPED_STATUS]
    assert stopped_at(tmp_path)
    assert one_node(tmp_path).statuses() == [0]
    assert_same_run(whole, tmp_path)


@pytest.mark.slow
def test_a_signal_to_all_processes_does_not_end_the_loaders_before_the_run_has_saved(tmp_path):
    run = Run([sys.executable, "-m", "mmdiff.cli", "train"], tmp_path, overrides=("data.num_workers=2",))
    run.signal_once_it_trains(signal.SIGTERM, to_all=True)
    assert run.statuses() == [STOPPED_STATUS]
    assert stopped_at(tmp_path)


@pytest.mark.slow
def test_a_signal_to_one_node_stops_them_all(whole, tmp_path):
    run = two_nodes(tmp_path)
    run.signal_once_it_trains(signal.SIGUSR1)
    assert run.statuses() == [STOPPED_STATUS] * 2
    assert stopped_at(tmp_path)
    assert two_nodes(tmp_path).statuses() == [0, 0]
    assert_same_run(whole, tmp_path)


@pytest.mark.slow
def test_a_slurm_job_requeues_itself_until_the_run_is_finished(slurm, whole, tmp_path):
    requeued, folder = tmp_path / "requeued", tmp_path / "run"
    run = slurm(folder)
    run.signal_once_it_trains(signal.SIGUSR1)  # the warning before the time limit
    assert run.statuses() == [STOPPED_STATUS]
    assert requeued.read_text().split() == [JOB]
    step = stopped_at(folder)
    run = slurm(folder)
    run.signal_once_it_trains(signal.SIGTERM, after=step)  # pre-emption
    assert run.statuses() == [STOPPED_STATUS]
    assert requeued.read_text().split() == [JOB, JOB]
    assert stopped_at(folder) > step
    assert slurm(folder).statuses() == [0]
    assert requeued.read_text().split() == [JOB, JOB]
    assert_same_run(whole, folder)


@pytest.mark.slow
def test_a_slurm_job_that_fails_is_not_queued_again(slurm, tmp_path):
    assert slurm(tmp_path / "run", "data.path=nowhere").statuses() == [2]
    assert not (tmp_path / "requeued").exists()
