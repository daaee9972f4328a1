"""A tiny task for tests of the trainer, and a process of a run that dies where it is told to.

Two small networks learn to undo noise on random pictures and sounds. Run by `launch.run_rank` in a process of its own.
"""

import os
import signal
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

import mmdiff.train.state
from mmdiff.media import Clip
from mmdiff.train.optim import TrainConfig
from mmdiff.train.trainer import run_training


@dataclass(frozen=True)
class ToyData:
    """How the random clips are made; `poisoned` lists the batches (from 0) that hold a NaN."""

    num_workers: int = 0
    poisoned: tuple[int, ...] = ()
    is_silent: bool = False


@dataclass(frozen=True)
class ToyRecipe:
    """A recipe with the parts that the trainer knows."""

    task: str = "toy"
    seed: int = 3
    output_dir: str = "run"
    dropout: float = 0.1
    is_large: bool = False  # several of DDP's buckets, used in another order than they are defined in
    data: ToyData = field(default_factory=ToyData)
    train: TrainConfig = field(default_factory=TrainConfig)


class ToyClips(IterableDataset):
    """An endless stream of batches, each a function of seed, rank and position."""

    def __init__(self, recipe: ToyRecipe, rank: int, world_size: int):
        self.recipe, self.rank, self.world_size, self.position = recipe, rank, world_size, 0

    def __iter__(self):
        while True:
            random = np.random.default_rng((self.recipe.seed, self.rank, self.world_size, self.position))
            video = random.uniform(-1, 1, (self.recipe.train.batch_size, 3, 4, 8, 8)).astype(np.float32)
            audio = random.uniform(-1, 1, (self.recipe.train.batch_size, 1, 64)).astype(np.float32)
            if self.position in self.recipe.data.poisoned:
                audio[0, 0, 0] = np.nan
            if self.recipe.data.is_silent:
                audio[:] = 0
                video[0] = 0.5
            self.position += 1
            yield {"video": torch.from_numpy(video), "audio": torch.from_numpy(audio)}

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


class ToyNetwork(nn.Module):
    """One convolution stack a modality, with a scale that both share."""

    def __init__(self, dropout: float, is_large: bool = False):
        super().__init__()
        self.video = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), nn.SiLU(), nn.Dropout(dropout), nn.Conv3d(8, 3, 1))
        self.audio = nn.Sequential(nn.Conv1d(1, 8, 3, padding=1), nn.SiLU(), nn.Dropout(dropout), nn.Conv1d(8, 1, 1))
        self.scale = nn.Parameter(torch.ones(()))
        self.large = nn.ModuleList([nn.Linear(64, width) for width in (700, 9000, 3000, 5000)] if is_large else [])
        self.is_checkpointing = False

    def forward(self, noisy: dict[str, Tensor]) -> dict[str, Tensor]:
        output = {name: getattr(self, name)(x) * self.scale for name, x in noisy.items()}
        for number in (2, 0, 3, 1) if self.large else ():
            layer = self.large[number]
            output["audio"] = output["audio"] + layer(output["audio"]).tanh() @ layer.weight / 64
        return output

    def enable_gradient_checkpointing(self) -> None:
        self.is_checkpointing = True


class ToyTask(nn.Module):
    """Undo noise in both modalities."""

    def __init__(self, recipe: ToyRecipe):
        super().__init__()
        self.recipe = recipe
        self.network = ToyNetwork(recipe.dropout, recipe.is_large)
        self.precision: torch.dtype | None = None

    def loader(self, *, rank: int, world_size: int) -> StatefulDataLoader:
        clips = ToyClips(self.recipe, rank, world_size)
        return StatefulDataLoader(clips, batch_size=None, num_workers=self.recipe.data.num_workers)

    def preflight(self) -> str | None:
        return "random clips"

    def load_weights(self, folder: str) -> None:
        self.network.load_state_dict(load_file(Path(folder) / "network.safetensors"))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        groups = {name: list(getattr(self.network, name).parameters()) for name in ("video", "audio")}
        return {**groups, "shared": [self.network.scale, *self.network.large.parameters()]}

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        clean = {name: batch[name] for name in ("video", "audio")}
        noisy = {name: x + torch.randn(x.shape, generator=generator) for name, x in clean.items()}
        output = self.network(noisy)
        self.precision = output["video"].dtype
        losses = {f"loss/{name}": (output[name] - x).square().mean() for name, x in clean.items()}
        quartile = int(torch.randint(4, (), generator=generator))
        quartiles = {
            f"{name}/q{number + 1}": loss.detach() if number == quartile else torch.tensor(float("nan"))
            for name, loss in losses.items() for number in range(4)
        }  # fmt: skip
        return {"loss": sum(losses.values()), **losses, **quartiles}

    def preview(self, network: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> list[Clip]:
        output = network({"video": batch["video"][:1], "audio": batch["audio"][:1]})
        frames = output["video"][0].detach().clamp(-1, 1).add(1).mul(127.5).byte().permute(1, 2, 3, 0).numpy()
        return [Clip(frames, output["audio"][0].detach().numpy(), Fraction(10), 160)]

    def export(self, folder: Path, network: nn.Module) -> None:
        folder.mkdir(exist_ok=True)
        save_file(network.state_dict(), folder / "network.safetensors")


class DyingTask(ToyTask):
    """A toy task that sends a signal to its own process during a chosen forward pass."""

    def __init__(self, recipe: ToyRecipe, number: signal.Signals, at_forward: int):
        super().__init__(recipe)
        self.number, self.left = number, at_forward

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        self.left -= 1
        return super().forward(batch, generator)


def run_toy(recipe: ToyRecipe, send: signal.Signals | None = None, at_forward: int = -1, at_file: int = -1) -> int:
    """Train the toy; die at a forward pass, or while the `at_file`-th file of a checkpoint is written (from 0)."""
    torch.set_num_threads(1)
    left = at_file

    def save_or_die(*arguments):
        nonlocal left
        save_file(*arguments)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    with mock.patch.object(mmdiff.train.state, "save_file", save_or_die):
        return run_training(recipe, lambda recipe: DyingTask(recipe, send, at_forward) if send else ToyTask(recipe))
