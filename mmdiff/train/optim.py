"""Optimizer, learning-rate schedule and the moving average of the weights."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from diffusers.optimization import get_scheduler
from torch import nn

SCHEDULES = ("constant_with_warmup", "cosine", "linear")
PRECISIONS = ("no", "bf16")


@dataclass(frozen=True)
class TrainConfig:
    """How a run is trained; `batch_size` is for one process and one backward pass.

    Errors: `ValueError` where a value is impossible.
    """

    max_steps: int = 1000
    batch_size: int = 4
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: str = "constant_with_warmup"
    max_grad_norm: float = 1.0
    ema_decay: float = 0.9999
    mixed_precision: str = "no"
    gradient_checkpointing: bool = False
    log_every: int = 10
    preview_every: int = 0  # 0: never
    checkpoint_every: int = 500
    checkpoints_total_limit: int = 2
    initialize_from: str | None = None  # a model folder whose weights a new run begins with

    def __post_init__(self) -> None:
        for name in ("max_steps", "batch_size", "gradient_accumulation_steps", "log_every", "checkpoint_every",
                     "checkpoints_total_limit"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} is {getattr(self, name)}; it must be at least 1")
        for name, known in (("schedule", SCHEDULES), ("mixed_precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"train.{name}: '{getattr(self, name)}' is not known; use {', '.join(known)}")
        if not 0 < self.learning_rate < 0.05:
            raise ValueError(f"train.learning_rate is {self.learning_rate}; AdamW needs a value between 0 and 0.05")


def make_optimizer(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW with the recipe's learning rate and decay."""
    return torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)


def make_schedule(optimizer: torch.optim.Optimizer, config: TrainConfig) -> torch.optim.lr_scheduler.LambdaLR:
    """Return the learning-rate schedule, in optimizer steps."""
    return get_scheduler(
        config.schedule, optimizer, num_warmup_steps=config.warmup_steps, num_training_steps=config.max_steps
    )


class MovingAverage:
    """An exponential moving average of a network's parameters, in float32.

    The decay rises from 0.1 as (1 + k) / (10 + k), so that the first steps are soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the network after optimizer step `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        ours, theirs = list(self.network.parameters()), [p.detach() for p in network.parameters()]
        torch._foreach_lerp_(ours, theirs, 1 - decay)
