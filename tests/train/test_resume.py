"""A run that is killed and started again takes the steps that an uninterrupted one takes, bit for bit."""

import json
import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from launch import read_metrics, run_ranks
from safetensors.torch import load_file
from toy import ToyData, ToyRecipe, run_toy

from mmdiff.train.optim import TrainConfig
from mmdiff.train.state import find_checkpoints
from mmdiff.train.stop import STOPPED_STATUS

STEPS, EVERY = 14, 4
TRAIN = TrainConfig(
    max_steps=STEPS, checkpoint_every=EVERY, log_every=6, batch_size=2, gradient_accumulation_steps=2,
    learning_rate=1e-2, warmup_steps=3, schedule="cosine", ema_decay=0.9,
)  # fmt: skip


def toy_recipe(folder: Path, **data) -> ToyRecipe:
    return ToyRecipe(output_dir=str(folder), data=ToyData(**data), train=TRAIN)


def assert_same_run(one: Path, other: Path) -> None:
    assert read_metrics(one) == read_metrics(other)
    assert [line["step"] for line in read_metrics(one)] == list(range(STEPS))
    ours, theirs = (find_checkpoints(folder / "checkpoints")[-1] for folder in (one, other))
    assert ours.name == theirs.name == f"step-{STEPS:07d}"
    for name in ("network", "average", "optimizer"):
        left, right = (load_file(folder / f"{name}.safetensors") for folder in (ours, theirs))
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left), name
    assert not list((other / "checkpoints").glob(".*")), "a killed run's leftovers were not removed"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of an uninterrupted run, by its number of ranks."""
    folders: dict[int, Path] = {}

    def run(num_ranks: int) -> Path:
        if num_ranks not in folders:
            folders[num_ranks] = tmp_path_factory.mktemp(f"whole{num_ranks}")
            assert run_ranks(toy_recipe(folders[num_ranks]), num_ranks) == [0] * num_ranks
        return folders[num_ranks]

    return run


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_killed_at_any_step_it_goes_on_bit_for_bit(num_ranks, whole, tmp_path):
    at_forward = random.SystemRandom().randrange(2 * STEPS)
    print(f"killed at micro-step {at_forward}")
    killed = run_ranks(
        toy_recipe(tmp_path), num_ranks, dying_rank=num_ranks - 1, send=signal.SIGKILL, at_forward=at_forward
    )
    assert killed[-1] == -signal.SIGKILL
    assert run_ranks(toy_recipe(tmp_path), num_ranks) == [0] * num_ranks
    assert_same_run(whole(num_ranks), tmp_path)


@pytest.mark.slow
def test_three_ranks_add_up_their_gradients_in_the_same_order_after_a_resume(tmp_path):
    one, other = (replace(toy_recipe(tmp_path / name), is_large=True) for name in ("one", "other"))
    assert run_ranks(one, 3) == [0, 0, 0]
    assert run_ranks(other, 3, send=signal.SIGKILL, at_forward=20)[0] == -signal.SIGKILL
    assert run_ranks(other, 3) == [0, 0, 0]
    assert_same_run(tmp_path / "one", tmp_path / "other")


@pytest.mark.parametrize("at_file", [3, 5])  # three files a checkpoint: in the second one, and after its last
def test_killed_while_it_writes_a_checkpoint_it_goes_on_from_the_one_before(at_file, whole, tmp_path):
    assert run_ranks(toy_recipe(tmp_path), at_file=at_file) == [-signal.SIGKILL]
    assert [path.name for path in find_checkpoints(tmp_path / "checkpoints")] == ["step-0000004"]
    assert list((tmp_path / "checkpoints").glob(".step-*"))
    assert run_ranks(toy_recipe(tmp_path)) == [0]
    assert_same_run(whole(1), tmp_path)


def test_killed_twice_with_loader_processes_it_goes_on_bit_for_bit(whole, tmp_path):
    recipe = toy_recipe(tmp_path, num_workers=1)
    for at_forward in (11, 9):
        assert run_ranks(recipe, send=signal.SIGKILL, at_forward=at_forward) == [-signal.SIGKILL]
    assert run_ranks(recipe) == [0]
    assert_same_run(whole(1), tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_the_step_and_says_so_in_the_exit_status(number, whole, tmp_path):
    assert run_ranks(toy_recipe(tmp_path), send=number, at_forward=10) == [STOPPED_STATUS]
    assert [path.name for path in find_checkpoints(tmp_path / "checkpoints")] == ["step-0000004", "step-0000006"]
    assert (tmp_path / "export" / "network.safetensors").is_file()
    assert run_ranks(toy_recipe(tmp_path)) == [0]
    assert_same_run(whole(1), tmp_path)


def test_a_signal_to_one_rank_stops_them_all(whole, tmp_path):
    assert run_ranks(toy_recipe(tmp_path), 2, dying_rank=1, send=signal.SIGTERM, at_forward=10) == [STOPPED_STATUS] * 2
    assert find_checkpoints(tmp_path / "checkpoints")[-1].name == "step-0000006"
    assert run_ranks(toy_recipe(tmp_path), 2) == [0, 0]
    assert_same_run(whole(2), tmp_path)


def test_a_signal_during_the_last_step_leaves_a_finished_run(whole, tmp_path):
    assert run_ranks(toy_recipe(tmp_path), send=signal.SIGTERM, at_forward=2 * STEPS - 1) == [0]
    assert_same_run(whole(1), tmp_path)


def test_another_number_of_processes_is_refused(whole):
    recipe = toy_recipe(whole(2))
    with pytest.raises(ValueError, match="trained by 2 processes, not 1"):
        run_toy(recipe)


def test_incomplete_checkpoints_are_passed_over(whole, tmp_path):
    stopped = toy_recipe(tmp_path)
    run_toy(replace(stopped, train=replace(TRAIN, max_steps=STEPS)))
    newest = find_checkpoints(tmp_path / "checkpoints")[-1]
    path = newest / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert newest not in find_checkpoints(tmp_path / "checkpoints")
    run_toy(stopped)
    assert_same_run(whole(1), tmp_path)


def test_a_damaged_checkpoint_is_named(tmp_path):
    recipe = toy_recipe(tmp_path)
    run_toy(recipe)
    path = find_checkpoints(tmp_path / "checkpoints")[-1] / "network.safetensors"
    path.write_bytes(bytes(len(path.read_bytes())))
    with pytest.raises(ValueError, match="step-0000014: damaged"):
        run_toy(recipe)


def test_settings_that_decide_the_numbers_must_not_change(tmp_path):
    recipe = toy_recipe(tmp_path)
    run_toy(replace(recipe, train=replace(TRAIN, max_steps=4)))
    text = (tmp_path / "recipe.yaml").read_text()
    for changed in (replace(recipe, dropout=0.5), replace(recipe, train=replace(TRAIN, learning_rate=1e-3))):
        with pytest.raises(ValueError, match=r"(dropout was 0.1|train.learning_rate was 0.01) and is"):
            run_toy(changed)
    assert (tmp_path / "recipe.yaml").read_text() == text
    free = replace(TRAIN, max_steps=5, log_every=1, checkpoint_every=5, checkpoints_total_limit=1)
    run_toy(replace(recipe, train=free))
    assert [path.name for path in find_checkpoints(tmp_path / "checkpoints")] == ["step-0000005"]


def test_a_finished_run_changes_nothing_but_missing_exports(tmp_path):
    recipe = toy_recipe(tmp_path)
    run_toy(recipe)
    before = read_metrics(tmp_path)
    exported = tmp_path / "export" / "network.safetensors"
    exported.unlink()
    run_toy(recipe)
    assert exported.is_file()
    assert read_metrics(tmp_path) == before
    facts = json.loads((find_checkpoints(tmp_path / "checkpoints")[-1] / "state.json").read_text())
    assert facts["step"] == STEPS
