"""Optimizer, learning-rate schedule and the moving average of the weights."""

import copy
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import nn

SCHEDULES = ("constant_with_warmup", "cosine", "linear")
PRECISIONS = ("no", "bf16")
OPTIMIZERS = ("adamw", "adamw8bit", "prodigy")
LARGEST_RATE = 0.05  # what AdamW can bear; Prodigy's rate is a factor of one that it finds by itself
COUNTS = ("max_steps", "batch_size", "gradient_accumulation_steps", "log_every", "checkpoint_every",
          "checkpoints_total_limit")  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """How a run is trained; `batch_size` is for one process and one backward pass.

    Errors: `ValueError` where a value is impossible.
    """

    max_steps: int = 1000
    batch_size: int = 4
    gradient_accumulation_steps: int = 1
    optimizer: str = "adamw"  # or adamw8bit (bitsandbytes, on a GPU), or prodigy, whose usual learning rate is 1
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    adam_beta2: float = 0.999
    warmup_steps: int = 0
    schedule: str = "constant_with_warmup"
    max_grad_norm: float = 1.0
    ema_decay: float = 0.9999
    mixed_precision: str = "no"
    gradient_checkpointing: bool = False
    compile: bool = False  # torch.compile: worth its minutes on a GPU, not on a CPU
    log_every: int = 10
    preview_every: int = 0  # 0: never
    checkpoint_every: int = 500
    checkpoints_total_limit: int = 2
    initialize_from: str | None = None  # a model folder whose weights a new run begins with

    def __post_init__(self) -> None:
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("warmup_steps", "preview_every", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"train.{name} is {getattr(self, name)}; it cannot be negative")
        choices = (("schedule", SCHEDULES), ("mixed_precision", PRECISIONS), ("optimizer", OPTIMIZERS))
        for name, known in choices:
            if getattr(self, name) not in known:
                raise ValueError(f"train.{name}: '{getattr(self, name)}' is not known; use {', '.join(known)}")
        _check_rate(self)
        if not self.max_grad_norm > 0:
            raise ValueError(f"train.max_grad_norm is {self.max_grad_norm}; give a positive norm; .inf never clips")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"train.ema_decay is {self.ema_decay}; it must lie from 0 to below 1")


def _check_rate(config: TrainConfig) -> None:
    if not 0 < config.adam_beta2 < 1:
        raise ValueError(f"train.adam_beta2 is {config.adam_beta2}; it must lie between 0 and 1")
    if not 0 < config.learning_rate < math.inf:
        raise ValueError(f"train.learning_rate is {config.learning_rate}; give a positive number")
    if config.optimizer != "prodigy" and config.learning_rate >= LARGEST_RATE:
        raise ValueError(
            f"train.learning_rate is {config.learning_rate}; AdamW needs a value between 0 and {LARGEST_RATE}: a rate "
            f"such as 1 is for an optimizer that finds its own, set train.optimizer=prodigy for it"
        )


def make_optimizer(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], config: TrainConfig
) -> torch.optim.Optimizer:
    """Return the recipe's optimizer with its learning rate and decay.

    Prodigy has a warm-up's steps left out of its estimate and Adam's bias corrected, as its authors advise where a rate
    is scheduled (Mishchenko and Defazio, Prodigy, 2023).

    Errors: `ValueError` with the pip line where the optimizer's package is not installed.
    """
    settings = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "betas": (0.9, config.adam_beta2)}
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **settings, fused=True)  # all tensors in one call, on a CPU too
    if config.optimizer == "adamw8bit":
        return _package("bitsandbytes", config).optim.AdamW8bit(parameters, **settings)
    with redirect_stdout(sys.stderr):  # it prints that it decays
        return _package("prodigyopt", config).Prodigy(
            parameters, **settings, use_bias_correction=True, safeguard_warmup=True
        )


def _package(name: str, config: TrainConfig) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(f"train.optimizer={config.optimizer} needs the package {name}, which cannot be imported "
                         f"({error}); run `pip install {name}`, or set train.optimizer=adamw") from error  # fmt: skip


def by_rate(groups: dict[str, list[nn.Parameter]], shares: dict[str, float]) -> list[dict[str, Any]]:
    """Return groups of parameters that learn as an optimizer takes them; `shares` are of the recipe's rate, by name."""
    return [
        {"params": learning, "lr_share": shares.get(name, 1.0)}
        for name, parameters in groups.items() if (learning := [each for each in parameters if each.requires_grad])
    ]  # fmt: skip


def learning_rate(step: int, config: TrainConfig) -> float:
    """Return the rate of optimizer step `step`, counted from 0: a linear warm-up, then the schedule.

    It depends on nothing but the step, so that a resumed run has no schedule to restore.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = min((step - config.warmup_steps) / max(config.max_steps - config.warmup_steps, 1), 1.0)
    if config.schedule == "cosine":
        return config.learning_rate * (1 + math.cos(math.pi * progress)) / 2
    return config.learning_rate * (1 - progress if config.schedule == "linear" else 1)


class MovingAverage:
    """An exponential moving average of a network's parameters, in float32; its buffers are the newest.

    The decay rises from 0.1 as (1 + k) / (10 + k), so that the first steps are soon forgotten. With a decay of 0 there
    is nothing to remember: `network` is the trained network itself, and no copy is held.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False).float().eval() if decay else network

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the network after optimizer step `step`, counted from 0."""
        if self.network is network:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        for ours, theirs in zip(self.network.parameters(), network.parameters(), strict=True):
            ours.lerp_(theirs.float(), 1 - decay)
        for ours, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            ours.copy_(theirs)

    @contextmanager
    def in_use(self) -> Iterator[nn.Module]:
        """Inside this context the averaged network is to be used: without dropout and without gradients."""
        modes = [(module, module.training) for module in self.network.modules()]
        self.network.eval()
        try:
            with torch.no_grad():
                yield self.network
        finally:
            for module, is_training in modes:
                module.training = is_training
