"""Latents against pixels: the models are the recipes', whole steps and samplings are measured, the table says it."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import bench
import bench_latents
from bench_latents import JOINT_CASES, JointCase, add_ratios, describe, latent_shapes, measure, table
from bench_network import Plan, count_gflop

from mmdiff.recipes import build_task, load_recipe

ROOT = Path(__file__).resolve().parents[2]
TINY = {"U-Net": "configs/tiny/joint.yaml", "transformer": "configs/tiny/joint_latent.yaml"}


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)  # recipes name their codecs' folder from there


def plan(case: str, work: str, **settings) -> Plan:
    return Plan(case, work, threads=torch.get_num_threads(), **settings)


@pytest.mark.parametrize("name", TINY)
def test_a_training_step_and_a_sampling_are_measured_with_their_codecs(name, monkeypatch):
    monkeypatch.setitem(JOINT_CASES, "tiny", JointCase("tiny", TINY[name]))
    trained = measure(plan("tiny", "train", batch_size=2, repeats=1, gradient_checkpointing=True))
    sampled = measure(plan("tiny", "sample", precision="bf16", repeats=1, processor_time=True))
    for row in (trained, sampled):
        assert 0 < row["codec_seconds"] < row["seconds"] and row["peak_bytes"] > 1e8
    assert 0 < sampled["network_seconds"] < sampled["seconds"] - sampled["codec_seconds"]
    network = build_task(JOINT_CASES["tiny"].load()).network
    assert trained["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert 0 < trained["network_gflop"] == sampled["network_gflop"]


def test_both_latent_models_are_those_of_the_recipes_and_cost_alike():
    gflop, parameters = {}, {}
    for name in ("latent-unet", "latent-transformer", "pixels-unet"):
        task = build_task(JOINT_CASES[name].load())
        assert (task.spec.num_frames, task.spec.height, task.spec.num_samples) == (16, 64, 25_600)
        shapes = latent_shapes(task)
        if name.startswith("latent"):
            assert shapes == {"video": (24, 16, 8, 8), "audio": (64, 128)}
        network = task.network
        gflop[name] = count_gflop(lambda network=network: type(network)(**asdict(network.settings)), shapes)
        parameters[name] = sum(parameter.numel() for parameter in network.parameters())
    assert gflop["latent-transformer"] == pytest.approx(gflop["latent-unet"], rel=0.1)
    assert parameters["latent-transformer"] == pytest.approx(parameters["latent-unet"], rel=0.05)
    assert gflop["pixels-unet"] > 100 * gflop["latent-unet"]


def test_the_transformer_is_trained_on_the_same_clips_as_the_released_model():
    ours, released = (load_recipe(f"configs/joint_latent/{name}.yaml") for name in ("impacts_transformer", "impacts"))
    assert (ours.clip, ours.data, ours.seed) == (released.clip, released.data, released.seed)
    assert ours.train.batch_size == released.train.batch_size and ours.train.max_steps == released.train.max_steps
    assert ours.diffusion.prediction_type == "flow" and ours.train.mixed_precision == "bf16"


@pytest.mark.parametrize("case", bench_latents.CODEC_CASES)
def test_the_released_codecs_are_measured_alone(case):
    encoded, decoded = (measure(plan(case, work, repeats=1)) for work in ("encode", "decode"))
    assert encoded["seconds"] > 0 and decoded["seconds"] > 0
    assert encoded["parameters"] == decoded["parameters"]
    assert (encoded["parameters"] > 5e5) == (case == "video-codec")  # the sound's is a spectrogram


def test_a_quick_run_takes_the_precision_of_each_recipe(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench.py", "--quick", "--cases", *JOINT_CASES, *bench_latents.CODEC_CASES])
    plans = bench.make_plans(bench.parse())
    trained = {(plan.case, plan.batch_size): plan.precision for plan in plans if plan.work == "train"}
    assert trained == {
        ("pixels", 1): "bf16", ("pixels-unet", 1): "fp32", ("latent-unet", 1): "fp32", ("latent-unet", 16): "fp32",
        ("latent-transformer", 1): "bf16", ("latent-transformer", 16): "bf16",
    }  # fmt: skip
    assert {plan.precision for plan in plans if plan.work != "train"} == {"fp32"}


def measured(case: str, work: str, seconds: float, batch_size: int = 1, precision: str = "fp32") -> dict:
    return {**asdict(plan(case, work, batch_size=batch_size, precision=precision)), "seconds": seconds,
            "codec_seconds": 0.25, "peak_bytes": 2e9, "parameters": 6_300_000, "network_gflop": 1.64}  # fmt: skip


def test_the_table_compares_clips_with_pixels_of_the_same_work():
    rows = [describe(row) for row in (
        measured("pixels", "train", 8.0, precision="bf16"), measured("pixels", "sample", 40.0),
        measured("latent-unet", "train", 2.0, batch_size=16), measured("latent-unet", "sample", 0.8),
        {**asdict(plan("latent-transformer", "train", batch_size=16)), "failure": "out of memory"},
    )]  # fmt: skip
    add_ratios(rows)
    assert [row.get("times_as_fast") for row in rows] == [1, 1, 64, 50, None]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(rows).splitlines()]
    assert {len(cells) for cells in lines} == {len(bench_latents.COLUMNS)}
    assert lines[3] == ["coupled U-Net, latents (6.3 M, 1.6 GFLOP)", "training step, fp32", "16", "2.0", "0.50",
                        "0.12", "codecs 0.25", "2.00 GB", "64"]  # fmt: skip
    assert "out of memory" in lines[4]  # training comes before sampling
    assert [cells[-1] for cells in lines[5:]] == ["1.0", "50"]


def test_pixels_in_a_rows_own_precision_come_first():
    rows = [describe(measured("pixels", "train", seconds, precision=name))
            for name, seconds in (("fp32", 9.0), ("bf16", 6.0))]  # fmt: skip
    rows += [describe(measured("latent-unet", "train", 3.0, precision=name)) for name in ("fp32", "bf16")]
    add_ratios(rows)
    assert [row["times_as_fast"] for row in rows] == [1, 1, 3, 2]


@pytest.mark.slow
def test_the_bench_prints_the_table_and_writes_its_rows(monkeypatch, tmp_path, capsys):
    words = ["--cases", "latent-transformer", "video-codec", "--work", "train", "decode", "--batch-size", "1",
             "--precision", "bf16", "--repeats", "1", "--threads", "1", "--no-data", "-o", str(tmp_path)]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["bench.py", *words])
    assert bench.main() == 0
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert [(row["case"], row["work"], row["precision"]) for row in rows] == [
        ("latent-transformer", "train", "bf16"), ("video-codec", "decode", "fp32"),
    ]  # fmt: skip
    assert all(row["value"] == row["seconds"] > 0 for row in rows)
    assert table(rows) in capsys.readouterr().out
