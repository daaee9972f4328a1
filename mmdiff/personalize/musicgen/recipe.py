"""The recipe of MusicGen fine-tuning, with the names that users of the public fine-tuner know."""

import os
from dataclasses import dataclass, field, fields, replace
from typing import Any

from mmdiff.personalize.musicgen.methods import METHODS
from mmdiff.train.optim import TrainConfig

EPOCHS, UPDATES_PER_EPOCH = 3, 100  # of the public fine-tuner, where only one of the two is said
DEFAULTS = {each.name: each.default for each in fields(TrainConfig)}


@dataclass(frozen=True)
class MusicgenRecipe:
    """Everything that decides a MusicGen fine-tuning run.

    `lr`, `epochs`, `updates_per_epoch` and `batch_size` are other words for settings of `train`, see `house_names`;
    once these are set they are null. `drop_probability` is of captions, which guidance needs.

    Errors: `ValueError` where settings are impossible, or said twice.
    """

    task: str = "musicgen"
    seed: int = 0
    output_dir: str = "runs/musicgen"
    dataset_path: str = ""
    one_same_description: str | None = None
    auto_labeling: bool = True
    drop_vocals: bool = False
    model_version: str = "small"  # small, medium, melody, or any hub id or folder
    lr: float | None = None
    epochs: int | None = None
    updates_per_epoch: int | None = None
    batch_size: int | None = None  # of one update, all processes and accumulated parts together
    method: str = "lora"
    rank: int = 16
    lora_alpha: float = 16.0
    lora_dropout: float = 0.05
    drop_probability: float = 0.3
    chunk_seconds: float = 30.0
    min_seconds: float = 5.0
    separator: str = "adefossez/HTDemucs"  # the Demucs that drops vocals: a hub id or a folder
    cache_dir: str | None = None  # of codes and labels; null: in output_dir
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method: '{self.method}' is not known; use {', '.join(METHODS)}")
        if self.rank < 1 or not self.lora_alpha > 0:
            raise ValueError(f"rank is {self.rank} and lora_alpha {self.lora_alpha}; both must be positive")
        for name in ("drop_probability", "lora_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie from 0 to below 1")
        if not 0 < self.min_seconds <= self.chunk_seconds:
            raise ValueError(f"min_seconds is {self.min_seconds} and chunk_seconds {self.chunk_seconds}; the first "
                             f"must be positive and not above the second")  # fmt: skip
        if self.auto_labeling and self.one_same_description is None and self.min_seconds < 1:
            raise ValueError(f"min_seconds is {self.min_seconds}; labels of auto_labeling need a second of sound")
        if self.train.compile:
            raise ValueError("train.compile: generation shares the decoder with training; set it to false")
        train = replace(self.train, **house_names(self))
        for name in ("lr", "epochs", "updates_per_epoch", "batch_size"):
            object.__setattr__(self, name, None)
        object.__setattr__(self, "train", train)


def house_names(recipe: MusicgenRecipe) -> dict[str, Any]:
    """Return the settings of `train` that a recipe's other words stand for.

    `lr` is `learning_rate`; `epochs` x `updates_per_epoch` is `max_steps`; `batch_size` over processes and accumulated
    parts is `batch_size`, of one backward pass.

    Errors: `ValueError` where both are said and differ, a number is not positive, or a batch cannot be divided.
    """
    train, settings, words = recipe.train, {}, {}
    for name in ("epochs", "updates_per_epoch", "batch_size"):
        if getattr(recipe, name) is not None and getattr(recipe, name) < 1:
            raise ValueError(f"{name} is {getattr(recipe, name)}; it must be at least 1")
    if recipe.lr is not None:
        settings["learning_rate"], words["learning_rate"] = recipe.lr, "lr"
    if recipe.epochs is not None or recipe.updates_per_epoch is not None:
        settings["max_steps"] = (recipe.epochs or EPOCHS) * (recipe.updates_per_epoch or UPDATES_PER_EPOCH)
        words["max_steps"] = "epochs and updates_per_epoch"
    if recipe.batch_size is not None:
        parts = int(os.environ.get("WORLD_SIZE", "1")) * train.gradient_accumulation_steps
        if recipe.batch_size % parts:
            raise ValueError(f"batch_size is {recipe.batch_size}; give a multiple of {parts}, the number of processes "
                             f"x train.gradient_accumulation_steps, which share it")  # fmt: skip
        settings["batch_size"], words["batch_size"] = recipe.batch_size // parts, "batch_size"
    for name, value in settings.items():
        said = getattr(train, name)
        if said not in (DEFAULTS[name], value):
            raise ValueError(f"{words[name]} says train.{name}={value}, and the recipe says {said} too; give one of "
                             f"them, and null for the other")  # fmt: skip
    return settings
