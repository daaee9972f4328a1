"""The recipes of the published runs: the published network, the published settings, and headers that are true."""

import json
import math
import re
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import data_tools.cli
import mmdiff.cli
from mmdiff.models import CoupledUNet
from mmdiff.recipes import load_recipe

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("landscape", "aist", "concerts", "games")
SMALL = ("model.model_channels=32", "model.channel_multipliers=[1,1,1]")


@pytest.fixture(params=NAMES)
def path(request) -> Path:
    return ROOT / "configs" / "joint" / f"{request.param}.yaml"


def test_it_builds_the_published_network_with_the_published_settings(path):
    recipe = load_recipe(path)
    with torch.device("meta"):
        network = CoupledUNet(**asdict(recipe.model))
    assert sum(parameter.numel() for parameter in network.parameters()) == 133_675_524
    assert replace(recipe.model, dropout=0.0) == type(recipe.model)()
    spec = recipe.clip.spec()
    assert (spec.num_frames, spec.height, spec.width, spec.num_samples) == (16, 64, 64, 25_600)
    train = recipe.train
    assert (train.learning_rate, train.weight_decay, train.warmup_steps, train.ema_decay) == (1e-4, 0, 0, 0.9999)
    assert (recipe.model.dropout, train.max_grad_norm, train.max_steps) == (0.1, math.inf, 100_000)
    assert train.batch_size * 8 * train.gradient_accumulation_steps == 32
    assert (recipe.diffusion.beta_schedule, recipe.diffusion.prediction_type) == ("linear", "epsilon")


def test_without_its_data_it_says_what_is_missing(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # no data folder here
    assert mmdiff.cli.main(["train", str(path), "--dry-run", *SMALL]) == 2
    message = capsys.readouterr().err
    assert f"data/{path.stem}: neither manifest.jsonl nor media files here" in message
    assert "mmdiff-data" in message


def test_a_smaller_network_trains_by_it(tmp_path):
    path = ROOT / "configs" / "joint" / "landscape.yaml"  # the others differ in their data alone
    words = [*SMALL, "clip.height=16", "clip.width=16", "clip.sample_rate=1600", f"data.path={ROOT}/samples/freedoom",
             "data.num_workers=0", "train.max_steps=2", "train.batch_size=1", f"output_dir={tmp_path}"]  # fmt: skip
    assert mmdiff.cli.main(["train", str(path), *words]) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in lines] == [1e-4, 1e-4]
    assert not any(line["skipped"] for line in lines)
    assert (tmp_path / "export" / "model_index.json").is_file()


def test_the_commands_of_its_header_can_be_given(path):
    """What they do is tested elsewhere; here, that their words are known and their files are there."""
    commands = re.findall(r"(?:mmdiff|mmdiff-data|scripts/\S+) .*", "\n".join(header(path)))
    assert len(commands) >= 3
    for command in commands:
        program, *words = shlex.split(re.sub(r"\s{2,}.*|\(.*", "", command))
        if program == "mmdiff-data":
            options = data_tools.cli.build_parser().parse_args(words)
            assert str(options.output) == load_recipe(path).data.path
        else:
            assert (ROOT / words[-2 if "--dry-run" in words else -1]) == path
            assert program == "mmdiff" or (ROOT / program).is_file()


def header(path: Path) -> list[str]:
    return [line.removeprefix("#").strip() for line in path.read_text().splitlines() if line.startswith("#")]
