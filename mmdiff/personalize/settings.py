"""What recipes of personalization share: the names that users of diffusers' scripts know, and checks of ranges."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmdiff.train.optim import TrainConfig

# What scripts of diffusers call settings of `train`.
FLAGS = {
    "learning_rate": "learning_rate", "train_batch_size": "batch_size", "max_train_steps": "max_steps",
    "gradient_accumulation_steps": "gradient_accumulation_steps", "gradient_checkpointing": "gradient_checkpointing",
    "mixed_precision": "mixed_precision", "lr_scheduler": "schedule", "lr_warmup_steps": "warmup_steps",
    "max_grad_norm": "max_grad_norm", "adam_weight_decay": "weight_decay", "optimizer": "optimizer",
    "use_8bit_adam": "optimizer", "checkpointing_steps": "checkpoint_every",
    "checkpoints_total_limit": "checkpoints_total_limit", "validation_steps": "preview_every",
}  # fmt: skip


@dataclass(frozen=True)
class ScriptFlags:
    """Other words for settings of `train`, into which `settle_flags` puts them: null in a recipe that is built."""

    learning_rate: float | None = None
    scale_lr: bool | None = None  # the rate times the examples of a step: batch, accumulated parts and processes
    train_batch_size: int | None = None
    max_train_steps: int | None = None
    gradient_accumulation_steps: int | None = None
    gradient_checkpointing: bool | None = None
    mixed_precision: str | None = None
    lr_scheduler: str | None = None
    lr_warmup_steps: int | None = None
    max_grad_norm: float | None = None
    adam_weight_decay: float | None = None
    optimizer: str | None = None
    use_8bit_adam: bool | None = None
    checkpointing_steps: int | None = None
    checkpoints_total_limit: int | None = None
    validation_steps: int | None = None


def settle_flags(recipe: Any, usual: TrainConfig) -> None:
    """Move what a recipe says by the scripts' names into its `train`; `usual` is that of a recipe that says nothing.

    Errors: `ValueError` where both are said and differ.
    """
    settings: dict[str, Any] = {}
    for flag, name in FLAGS.items():
        value = getattr(recipe, flag)
        if value is None or (flag == "use_8bit_adam" and not value):
            continue
        if flag == "use_8bit_adam":
            value = "adamw8bit"
        elif name == "schedule" and value == "constant":
            value = "constant_with_warmup"
        elif name == "optimizer":
            value = value.lower()
        said = settings.get(name, getattr(recipe.train, name))
        if said not in (value, getattr(usual, name)):
            raise ValueError(f"{flag} says train.{name}={value}, and the recipe says {said} too; give one of them")
        settings[name] = value
    train = replace(recipe.train, **settings)
    if recipe.scale_lr:
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        rate = train.learning_rate * train.batch_size * train.gradient_accumulation_steps * processes
        train = replace(train, learning_rate=rate)
    object.__setattr__(recipe, "train", train)
    for name in (*FLAGS, "scale_lr"):
        object.__setattr__(recipe, name, None)


def check_known(recipe: Any, choices: Mapping[str, Sequence[str]]) -> None:
    """Refuse a word that a setting does not know."""
    for name, known in choices.items():
        if getattr(recipe, name) not in known:
            raise ValueError(f"{name}: '{getattr(recipe, name)}' is not known; use {', '.join(known)}")


def check_given(recipe: Any, *names: str) -> None:
    """Refuse settings that are empty."""
    for name in names:
        if not getattr(recipe, name):
            raise ValueError(f"{name}: missing; give it in the recipe, or as {name}=...")


def check_counts(recipe: Any, *names: str) -> None:
    """Refuse numbers below one; what is not given is not checked, here and below."""
    for name in names:
        if getattr(recipe, name) is not None and getattr(recipe, name) < 1:
            raise ValueError(f"{name} is {getattr(recipe, name)}; it must be at least 1")


def check_shares(recipe: Any, *names: str) -> None:
    """Refuse numbers that do not lie from 0 to below 1."""
    for name in names:
        if not 0 <= (getattr(recipe, name) or 0) < 1:
            raise ValueError(f"{name} is {getattr(recipe, name)}; it must lie from 0 to below 1")


def check_positive(recipe: Any, *names: str) -> None:
    """Refuse numbers that are not above 0."""
    for name in names:
        if getattr(recipe, name) is not None and not getattr(recipe, name) > 0:
            raise ValueError(f"{name} is {getattr(recipe, name)}; it must be above 0")


def check_prior(recipe: Any) -> None:
    """Refuse impossible settings of prior preservation, and any where nothing could be forgotten."""
    if not recipe.prior_loss_weight >= 0 or recipe.dataloader_num_workers < 0:
        raise ValueError("prior_loss_weight and dataloader_num_workers cannot be negative")
    if recipe.with_prior_preservation and recipe.method == "textual_inversion":
        raise ValueError("with_prior_preservation: textual_inversion changes nothing that could be forgotten; "
                         "leave it out")  # fmt: skip
