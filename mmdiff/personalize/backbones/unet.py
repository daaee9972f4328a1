"""A U-Net of diffusers with a noise schedule: what Stable Diffusion 1 and 2 have in common with AudioLDM."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from mmdiff.diffusion.objective import Objective, draw_uniform
from mmdiff.diffusion.schedule import DiffusionConfig, exact_alphas_cumprod
from mmdiff.personalize.backbones.base import PipelineBackbone, Tower

UNET_LAYERS = ("to_q", "to_k", "to_v", "to_out.0")


class UNetBackbone(PipelineBackbone):
    """The scheduler says which noise schedule it is, and whether epsilon or v is predicted."""

    def __init__(self, pipe: Any, towers: list[Tower], snr_gamma: float | None):
        scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
        diffusion = DiffusionConfig(
            num_train_timesteps=scheduler.config.num_train_timesteps, snr_gamma=snr_gamma,
            prediction_type=scheduler.config.prediction_type,
        )  # fmt: skip
        super().__init__(pipe, "unet", Objective(diffusion, exact_alphas_cumprod(scheduler)), towers)

    def draw_timesteps(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """Draw whole timesteps, each as likely as any other."""
        return draw_uniform(batch_size, self.objective.config.num_train_timesteps, generator)

    def even_timesteps(self, count: int) -> Tensor:
        """Return so many whole timesteps, spread evenly."""
        total = self.objective.config.num_train_timesteps
        return (((torch.arange(count) + 0.5) * total / count).floor()).long()

    def adapter_targets(self, layers: Sequence[str], blocks: Sequence[int]) -> list[str]:
        """Return the names of attention's layers.

        Errors: `ValueError` where blocks are numbered: a U-Net's are not alike.
        """
        if blocks:
            raise ValueError("lora_blocks: a U-Net's blocks have no numbers; leave it out, and name lora_layers")
        return list(layers or UNET_LAYERS)
