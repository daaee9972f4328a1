"""Optimizers by name: which learning rates they bear, what they learn, and what a checkpoint keeps of them."""

import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from toy import ToyRecipe, run_toy

from mmdiff.train.optim import TrainConfig, make_optimizer
from mmdiff.train.state import RunFacts, RunTensors, find_checkpoints, load_checkpoint, save_checkpoint

PRODIGY = TrainConfig(optimizer="prodigy", learning_rate=1.0, weight_decay=0.01, max_steps=200)


def descend(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> float:
    goal = torch.linspace(-3, 3, 8)
    for _ in range(steps):
        loss = (network(torch.ones(1, 4)) - goal).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def build(config: TrainConfig) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = nn.Linear(4, 8)
    nn.init.zeros_(network.bias)  # of which Prodigy keeps one number only
    return network, make_optimizer(network.parameters(), config)


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
def test_a_rate_of_one_is_refused_where_it_would_destroy_the_weights(name):
    for rate in (1.0, 0.05):
        with pytest.raises(ValueError, match=r"train.learning_rate is .*optimizer=prodigy"):
            TrainConfig(optimizer=name, learning_rate=rate)
    assert TrainConfig(optimizer=name, learning_rate=0.049).learning_rate == 0.049
    for wrong in ({"optimizer": "sgd"}, {"adam_beta2": 1.0}, {"optimizer": "prodigy", "learning_rate": 0.0}):
        with pytest.raises(ValueError, match=f"train.{list(wrong)[-1]}"):
            TrainConfig(**wrong)


def test_prodigy_finds_its_rate_and_prints_nothing(capsys):
    network, optimizer = build(PRODIGY)
    first = descend(network, optimizer, 1)
    assert descend(network, optimizer, 150) < 0.1 * first
    assert optimizer.param_groups[0]["d"] > 100 * optimizer.param_groups[0]["d0"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("config", [PRODIGY, TrainConfig(learning_rate=1e-2, adam_beta2=0.99)])
def test_what_a_checkpoint_keeps_is_all_that_an_optimizer_knows(config, tmp_path):
    whole, optimizer = build(config)
    descend(whole, optimizer, 10)
    tensors = RunTensors(whole, whole, optimizer)
    path = save_checkpoint(tmp_path, tensors, RunFacts(10, [None]), {}, 1)
    expected = descend(whole, optimizer, 10)
    other, fresh = build(config)
    load_checkpoint(path, RunTensors(other, other, fresh), {}, 1)
    assert descend(other, fresh, 10) == expected
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), other.parameters()))
    keys = load_file(path / "optimizer.safetensors").keys()
    assert any(key.startswith("group.0.d") for key in keys) == (config.optimizer == "prodigy")


def test_a_run_of_prodigy_goes_on_bit_for_bit(tmp_path):
    train = replace(PRODIGY, batch_size=2, checkpoint_every=3, log_every=3)
    for name, stops in (("whole", (6,)), ("parts", (3, 6))):
        for stop in stops:
            run_toy(ToyRecipe(output_dir=str(tmp_path / name), train=replace(train, max_steps=stop)))
    ours, theirs = (find_checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("whole", "parts"))
    for file in ("network", "average", "optimizer"):
        assert (ours / f"{file}.safetensors").read_bytes() == (theirs / f"{file}.safetensors").read_bytes()


class Packed(torch.optim.SGD):
    """Keeps what it knows in a mapping within a parameter's state, beside plain numbers, as bitsandbytes does."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                packed = state.setdefault("packed", {"codes": torch.zeros(3, dtype=torch.uint8), "scale": 0.1})
                packed["codes"] = packed["codes"] + 1
                state["step"] = state.get("step", 0) + 1
        return super().step(closure)


def test_nested_state_and_plain_numbers_come_back_as_what_they_were(tmp_path):
    network = nn.Linear(4, 8)
    optimizer = Packed(network.parameters(), lr=0.1)
    descend(network, optimizer, 3)
    path = save_checkpoint(tmp_path, RunTensors(network, network, optimizer), RunFacts(3, [None]), {}, 1)
    fresh = Packed(network.parameters(), lr=0.1)
    load_checkpoint(path, RunTensors(network, network, fresh), {}, 1)
    state = fresh.state[network.weight]
    assert state["step"] == 3 and isinstance(state["step"], int) and state["packed"]["scale"] == 0.1
    assert state["packed"]["codes"].tolist() == [3, 3, 3]


def test_8_bit_moments_come_back_to_the_bit(tmp_path):
    pytest.importorskip("bitsandbytes")

    def large() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 1024), nn.Linear(1024, 8))  # small tensors keep all their bits
        return network, make_optimizer(network.parameters(), TrainConfig(optimizer="adamw8bit", learning_rate=1e-3))

    network, optimizer = large()
    descend(network, optimizer, 3)
    path = save_checkpoint(tmp_path, RunTensors(network, network, optimizer), RunFacts(3, [None]), {}, 1)
    assert any(x.dtype == torch.uint8 for x in load_file(path / "optimizer.safetensors").values())
    expected = descend(network, optimizer, 3)
    other, fresh = large()
    load_checkpoint(path, RunTensors(other, other, fresh), {}, 1)
    assert descend(other, fresh, 3) == expected


@pytest.mark.parametrize(("name", "package"), [("prodigy", "prodigyopt"), ("adamw8bit", "bitsandbytes")])
def test_a_package_that_is_missing_is_named_with_the_command_that_mends_it(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"needs the package {package}.*`pip install {package}`"):
        build(TrainConfig(optimizer=name, learning_rate=1e-3))
