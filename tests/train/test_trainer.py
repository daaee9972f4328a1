"""The trainer: schedules, averages, accumulation, what it measures, and what it refuses."""

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from launch import read_metrics, run_ranks
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from toy import ToyData, ToyRecipe, ToyTask, run_toy

from mmdiff.train.monitor import check_groups, coverage, gradient_norms
from mmdiff.train.optim import MovingAverage, TrainConfig, learning_rate
from mmdiff.train.trainer import MAX_BAD_STEPS, Trainer, run_training


def toy_recipe(folder: Path, data: ToyData | None = None, dropout: float = 0.0, **train) -> ToyRecipe:
    train = {"max_steps": 6, "batch_size": 2, "learning_rate": 1e-2, "log_every": 2, **train}
    return ToyRecipe(output_dir=str(folder), dropout=dropout, data=data or ToyData(), train=TrainConfig(**train))


def test_the_rate_warms_up_then_follows_its_schedule():
    config = TrainConfig(max_steps=14, warmup_steps=4, learning_rate=0.01, schedule="cosine")
    rates = [learning_rate(step, config) for step in range(15)]
    assert rates[:4] == [0.0025, 0.005, 0.0075, 0.01]
    assert rates[4] == 0.01 and math.isclose(rates[9], 0.005) and rates[14] == 0
    assert learning_rate(9, replace(config, schedule="constant_with_warmup")) == 0.01
    assert math.isclose(learning_rate(9, replace(config, schedule="linear")), 0.005)


@pytest.mark.parametrize("wrong", [
    {"max_steps": 0}, {"learning_rate": 3.0}, {"schedule": "cosin"}, {"mixed_precision": "fp8"}, {"ema_decay": 1.0},
    {"max_grad_norm": 0.0}, {"warmup_steps": -1},
])  # fmt: skip
def test_impossible_settings_die_at_construction(wrong):
    with pytest.raises(ValueError, match=f"train.{next(iter(wrong))}"):
        TrainConfig(**wrong)


def test_the_average_forgets_its_first_steps_soon_and_is_float32():
    network = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    average = MovingAverage(network, 0.5)
    expected = average.network.weight.item()
    for step in range(12):
        network.weight.data.fill_(step)
        average.update(network, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert average.network.weight.dtype == torch.float32
    assert math.isclose(average.network.weight.item(), expected, rel_tol=1e-5)


def test_without_an_average_no_second_network_is_held_and_a_run_still_goes_on_bit_for_bit(tmp_path):
    tasks = []

    class Watched(ToyTask):
        def preview(self, network, batch, generator):
            assert network is self.network and not network.training and not torch.is_grad_enabled()
            return super().preview(network, batch, generator)

        def forward(self, batch, generator):
            assert self.network.video.training and torch.is_grad_enabled()
            return super().forward(batch, generator)

    def build(recipe):
        tasks.append(Watched(recipe))
        return tasks[-1]

    for name, stops in (("whole", (6,)), ("parts", (3, 6))):
        for stop in stops:
            run_training(toy_recipe(tmp_path / name, dropout=0.1, ema_decay=0.0, max_steps=stop, preview_every=2,
                                    checkpoint_every=3), build)  # fmt: skip
    ours, theirs = (tmp_path / name / "checkpoints" / "step-0000006" for name in ("whole", "parts"))
    assert sorted(path.name for path in ours.iterdir()) == [
        "network.safetensors", "optimizer.safetensors", "state.json",
    ]  # fmt: skip
    for file in ("network", "optimizer"):
        assert (ours / f"{file}.safetensors").read_bytes() == (theirs / f"{file}.safetensors").read_bytes()
    exported = load_file(tmp_path / "whole" / "export" / "network.safetensors")
    assert all(torch.equal(value, exported[name]) for name, value in tasks[0].network.state_dict().items())


def test_gradient_norms_by_modality_make_up_the_whole():
    task = ToyTask(toy_recipe(Path("unused")))
    batch = next(iter(task.loader(rank=0, world_size=1)))
    task(batch, torch.Generator().manual_seed(0))["loss"].backward()
    norms = gradient_norms(task.parameter_groups())
    parts = [norms[f"grad_norm/{name}"] for name in ("video", "audio", "shared")]
    everything = torch.cat([p.grad.flatten() for p in task.network.parameters()]).norm()
    assert torch.allclose(norms["grad_norm"], everything) and all(part > 0 for part in parts)
    with pytest.raises(AssertionError, match="8 parameters in groups, 9 learn"):
        check_groups({**task.parameter_groups(), "shared": []}, task.network)


def test_coverage_counts_examples_that_carry_something():
    video, audio = torch.zeros(4, 3, 5, 8, 8), torch.zeros(4, 1, 100)
    video[0, :, 2:] = 0.5
    video[1] = 0.9
    audio[0, :, ::2], audio[1, :], audio[2, :] = 0.1, 0.01, 0.0009  # the last is below -60 dBFS
    shares = coverage({"video": video, "audio": audio, "key": ["a"] * 4})
    assert {name: value.item() for name, value in shares.items()} == {"coverage/video": 0.25, "coverage/audio": 0.5}


def test_every_step_leaves_its_numbers(tmp_path):
    run_toy(toy_recipe(tmp_path, data=ToyData(is_silent=True)))
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines] == list(range(6))
    assert all({"loss", "loss/video", "loss/audio", "grad_norm", "grad_norm/video", "grad_norm/audio",
                "grad_norm/shared", "lr", "skipped"} <= line.keys() for line in lines)  # fmt: skip
    assert {(line["coverage/video"], line["coverage/audio"]) for line in lines} == {(0.5, 0.0)}
    for line in lines:
        assert math.isclose(line["loss"], line["loss/video"] + line["loss/audio"], rel_tol=1e-6)
    with_quartiles = [line["step"] for line in lines if any("/q" in name for name in line)]
    assert with_quartiles == [1, 3, 5], "quartile losses are means over the log window"


def test_two_micro_steps_log_the_mean_and_the_whole_batch(tmp_path):
    run_toy(toy_recipe(tmp_path / "two", gradient_accumulation_steps=2, max_steps=1))
    task = ToyTask(replace(toy_recipe(tmp_path), seed=3))
    torch.manual_seed(3)
    task = ToyTask(toy_recipe(tmp_path))
    trainer = Trainer(task.recipe, task)
    batches = iter(task.loader(rank=0, world_size=1))
    losses = [task(next(batches), trainer._generator(part))["loss"] for part in range(2)]
    (sum(losses) / 2).backward()
    line = read_metrics(tmp_path / "two")[0]
    assert math.isclose(line["loss"], sum(losses).item() / 2, rel_tol=1e-6)
    assert math.isclose(line["grad_norm"], gradient_norms(task.parameter_groups())["grad_norm"].item(), rel_tol=1e-5)


def test_a_batch_with_nan_changes_nothing_and_is_counted(tmp_path):
    run_toy(toy_recipe(tmp_path, data=ToyData(poisoned=(2, 4))))
    lines = read_metrics(tmp_path)
    assert [line["skipped"] for line in lines] == [0, 0, 1, 0, 1, 0]
    assert "loss" not in lines[2] and "loss/video" in lines[2]
    weights = load_file(tmp_path / "export" / "network.safetensors")
    assert all(value.isfinite().all() for value in weights.values())


def test_nothing_but_nan_ends_the_run_with_a_clear_error(tmp_path):
    recipe = toy_recipe(tmp_path, data=ToyData(poisoned=tuple(range(1, 99))), max_steps=50, checkpoint_every=1)
    with pytest.raises(ValueError, match=f"not finite in {MAX_BAD_STEPS} steps in a row, up to step 10"):
        run_toy(recipe)
    for path in (tmp_path / "checkpoints").glob("step-*/network.safetensors"):
        assert all(value.isfinite().all() for value in load_file(path).values())


def test_a_step_is_no_longer_than_the_clipped_gradient_allows(tmp_path):
    run_toy(toy_recipe(tmp_path / "free", max_steps=1))
    run_toy(toy_recipe(tmp_path / "clipped", max_steps=1, max_grad_norm=1e-12))
    start = ToyTask(toy_recipe(tmp_path)).network.state_dict()
    torch.manual_seed(3)
    start = ToyTask(toy_recipe(tmp_path)).network.state_dict()
    free, clipped = (load_file(tmp_path / name / "export" / "network.safetensors") for name in ("free", "clipped"))
    assert max((free[key] - start[key]).abs().max() for key in start) > 1e-3
    assert max((clipped[key] - start[key]).abs().max() for key in start) < 1e-5


def test_bf16_computes_in_bf16_and_keeps_float32_weights(tmp_path):
    recipe = toy_recipe(tmp_path, mixed_precision="bf16", gradient_checkpointing=True)
    torch.manual_seed(recipe.seed)
    task = ToyTask(recipe)
    Trainer(recipe, task).run()
    assert task.precision == torch.bfloat16 and task.network.is_checkpointing
    assert {value.dtype for value in task.network.state_dict().values()} == {torch.float32}
    assert all(line["skipped"] == 0 for line in read_metrics(tmp_path))


def test_a_run_can_begin_with_trained_weights(tmp_path):
    run_toy(toy_recipe(tmp_path / "one"))
    export = tmp_path / "one" / "export"
    run_toy(toy_recipe(tmp_path / "two", initialize_from=str(export), max_steps=1, learning_rate=1e-9))
    one, two = (load_file(tmp_path / name / "export" / "network.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(one[key], two[key], atol=1e-6) for key in one)


def test_two_ranks_see_other_clips_and_log_their_mean(tmp_path):
    assert run_ranks(toy_recipe(tmp_path, max_steps=1), 2) == [0, 0]
    torch.manual_seed(3)
    task = ToyTask(toy_recipe(tmp_path))
    trainer = Trainer(task.recipe, task)
    losses = []
    for rank in range(2):
        key = np.random.SeedSequence((3, 0, 0, rank)).generate_state(1, np.uint64)[0] >> np.uint64(1)
        batch = next(iter(task.loader(rank=rank, world_size=2)))
        losses.append(task(batch, torch.Generator().manual_seed(int(key)))["loss"].item())
    assert trainer.is_main and losses[0] != losses[1]
    assert math.isclose(read_metrics(tmp_path)[0]["loss"], sum(losses) / 2, rel_tol=1e-6)


def test_previews_are_moving_pictures_and_sound(tmp_path):
    run_toy(toy_recipe(tmp_path, preview_every=3))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tags()["audio"] == ["preview/0/audio"]
    images = events.Images("preview/0/video")
    assert [image.step for image in images] == [2, 5]
    moving = Image.open(io.BytesIO(images[0].encoded_image_string))
    assert moving.n_frames == 4 and moving.size == (8, 8)
    assert len(events.Scalars("loss/audio")) == 6


def test_previews_and_logs_do_not_change_the_run(tmp_path):
    run_toy(toy_recipe(tmp_path / "plain", dropout=0.1))
    run_toy(toy_recipe(tmp_path / "shown", dropout=0.1, preview_every=1, checkpoint_every=1))
    assert read_metrics(tmp_path / "plain") == read_metrics(tmp_path / "shown")


def test_a_dry_run_prints_the_recipe_and_writes_nothing(tmp_path, capsys):
    assert run_training(toy_recipe(tmp_path / "run"), ToyTask, dry_run=True) == 0
    printed = capsys.readouterr().out
    assert "max_steps: 6" in printed and "random clips" in printed and "0.00 M parameters" in printed
    assert not (tmp_path / "run").exists()


def test_a_compiled_network_is_saved_under_its_own_names(tmp_path):
    with torch.compiler.set_stance("force_eager"):  # the wiring alone: a compiler takes minutes on a CPU
        run_toy(toy_recipe(tmp_path / "compiled", compile=True, max_steps=2))
    run_toy(toy_recipe(tmp_path / "plain", max_steps=2))
    assert read_metrics(tmp_path / "compiled")[-1]["loss"] == read_metrics(tmp_path / "plain")[-1]["loss"]
    compiled, plain = (load_file(tmp_path / name / "export/network.safetensors") for name in ("compiled", "plain"))
    assert compiled.keys() == plain.keys()
