"""DreamBooth (Ruiz et al. 2023): the whole denoiser learns, and others of the class keep it from forgetting (prior)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import nn
from tqdm import tqdm

from mmdiff.log import get_logger
from mmdiff.personalize.backbones.base import PipelineBackbone


class FullMethod:
    """Train the whole denoiser and, if asked, the text encoders that can learn."""

    def __init__(self, backbone: PipelineBackbone, recipe: Any):
        self.backbone = backbone
        self.trains_text = recipe.train_text_encoder
        self.modules = {backbone.denoiser_name: backbone.denoiser}
        if self.trains_text:
            self.modules |= {tower.name: tower.encoder for tower in backbone.towers if tower.is_open}

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return what is trained, by dotted name."""
        return {f"{part}.{name}": value for part, module in self.modules.items() for name, value in
                module.named_parameters()}  # fmt: skip

    def export(self, folder: Path) -> dict[str, Any]:
        """Write the whole pipeline in diffusers' layout; return what the record adds."""
        self.backbone.pipe.save_pretrained(folder, safe_serialization=True)
        return {"is_whole": True}

    def load(self, folder: Path) -> None:
        """Refuse: the whole model is named by another setting."""
        raise ValueError("train.initialize_from: a whole model is begun from by naming its folder as "
                         "pretrained_model_name_or_path")  # fmt: skip


@dataclass(frozen=True)
class ClassMaker:
    """How a model makes examples of a class: which files of a folder are such, one for every seed, and its file."""

    suffix: str
    present: Callable[[Path], Sequence[Path]]
    make: Callable[[list[int]], Iterable[Any]]
    save: Callable[[Any, Path], object]


def complete_class(
    maker: ClassMaker, folder: Path, prompt: str, count: int, *, batch_size: int, seed: int, rank: int = 0,
    world_size: int = 1,
) -> None:  # fmt: skip
    """Let the model as it is make examples of the class until a folder holds `count`; ranks share the work.

    Example i has a seed of its own, which depends on `seed` and i alone.
    """
    state = PartialState()
    taken = {path.stem for path in maker.present(folder)}
    free = (number for number in range(10**6) if f"class-{number:05d}" not in taken)
    numbers = [next(free) for _ in range(count - len(taken))]
    state.wait_for_everyone()  # all have counted
    mine = numbers[rank::world_size]
    if numbers and rank == 0:
        get_logger().info("making %d examples of '%s' in %s", len(numbers), prompt, folder)
    folder.mkdir(parents=True, exist_ok=True)
    for first in tqdm(range(0, len(mine), batch_size), unit="batch", disable=rank != 0 or not mine, leave=False):
        some = mine[first : first + batch_size]
        seeds = [image_seed(seed, number) for number in some]
        for number, made in zip(some, maker.make(seeds)):
            aside = folder / f".class-{number:05d}.partial"
            maker.save(made, aside)
            aside.replace(folder / f"class-{number:05d}{maker.suffix}")
    state.wait_for_everyone()  # all are there
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def image_seed(seed: int, number: int) -> int:
    """Return the seed of image `number` of a run."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint32)[0])
