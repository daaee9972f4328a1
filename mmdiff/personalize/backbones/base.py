"""What a method of personalization asks of a pretrained diffusion model, be it of images or of sound."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Posterior:
    """What an autoencoder makes of media: mean and standard deviation of its latents `b ...`, at the model's scale."""

    mean: Tensor
    std: Tensor

    def draw(self, generator: torch.Generator) -> Tensor:
        """Return latents, drawn anew at every call."""
        noise = torch.randn(self.mean.shape, generator=generator, device=generator.device)
        return self.mean + self.std * noise.to(self.mean)


@dataclass(eq=False)
class Tower:
    """A text encoder with its tokenizer; `name` is that of the pipeline's part. Only where `is_open` can it learn.

    It reads `max_tokens` of a caption; None: as many as its tokenizer says. `layers` are those that take a LoRA.
    """

    name: str
    tokenizer: Any
    encoder: nn.Module
    is_open: bool = True
    max_tokens: int | None = None
    layers: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "out_proj")


class Backbone(Protocol):
    """A pretrained pipeline of diffusers, taken apart; float32 where it is trained.

    `timesteps` are those that the denoiser is told, `b`. `conditions` is a dictionary of tensors with a batch axis.
    """

    pipe: Any
    denoiser: nn.Module
    denoiser_name: str
    towers: list[Tower]
    device: torch.device
    dtype: torch.dtype

    def to(self, device: torch.device | str) -> None:
        """Move all parts to a device."""

    def rest(self, *names: str) -> None:
        """Move parts that are not needed for a while to the CPU's memory."""

    def posterior(self, media: Tensor) -> Posterior:
        """Return what the autoencoder makes of media in [-1, 1], in float32."""

    def encode(self, media: Tensor, generator: torch.Generator) -> Tensor:
        """Return latents of media."""

    def decode(self, latents: Tensor) -> Tensor:
        """Return the media of latents."""

    def encode_text(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Return the conditions of prompts; gradients reach the text encoders that learn."""

    def denoise(self, noisy: Tensor, timesteps: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        """Return the denoiser's prediction."""

    def draw_timesteps(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """Draw the timesteps that are trained."""

    def even_timesteps(self, count: int) -> Tensor:
        """Return so many timesteps, spread evenly from data to noise: for measuring."""

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Mix data and noise."""

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the denoiser should say."""

    def weight(self, timesteps: Tensor) -> Tensor:
        """Return how much every example counts, `b`."""

    def adapter_targets(self, layers: Sequence[str], blocks: Sequence[int]) -> list[str]:
        """Return the names of the linear layers that take a LoRA; the usual ones where none are named."""


class PipelineBackbone:
    """What backbones over a pipeline of diffusers have in common: devices, and an objective of `mmdiff.diffusion`."""

    def __init__(self, pipe: Any, denoiser_name: str, objective: Any, towers: list[Tower]):
        self.pipe, self.denoiser_name, self.objective, self.towers = pipe, denoiser_name, objective, towers
        self.denoiser = getattr(pipe, denoiser_name)
        self.device = torch.device("cpu")
        self.word: Any = None  # that the text encoders were taught, if any
        for part in pipe.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()

    @property
    def dtype(self) -> torch.dtype:
        """What the denoiser computes in; its own property of that name looks through all of its parameters."""
        return next(self.denoiser.parameters()).dtype

    def to(self, device: torch.device | str) -> None:
        """Move all parts to a device."""
        self.device = torch.device(device)
        self.pipe.to(self.device)

    def rest(self, *names: str) -> None:
        """Move parts that are not needed for a while to the CPU's memory."""
        for name in names:
            getattr(self.pipe, name).to("cpu")

    def encode(self, media: Tensor, generator: torch.Generator) -> Tensor:
        """Return latents of media in [-1, 1]."""
        return self.posterior(media).draw(generator)

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Mix data and noise."""
        return self.objective.add_noise(clean, noise, timesteps)

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the denoiser should say."""
        return self.objective.target(clean, noise, timesteps)

    def weight(self, timesteps: Tensor) -> Tensor:
        """Return how much every example counts, `b`."""
        return self.objective.weight(timesteps)
