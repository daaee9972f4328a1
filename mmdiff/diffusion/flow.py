"""Flow matching on straight lines (Liu et al. 2022; Lipman et al. 2022), for one tensor of any shape `b ...`.

Signs and times are those of diffusers' FlowMatchEulerDiscreteScheduler: sigma runs from 0, data, to 1, noise; the state
is `noisy = (1 - sigma) clean + sigma noise`, and a network with prediction_type `flow` says its derivative by sigma,
`velocity = noise - clean`, which points away from the data. So a step to a lower sigma adds (sigma' - sigma) velocity.
A network is told timestep = sigma num_train_timesteps, no whole number; 0 is data as it was given.
"""

import math
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from mmdiff.diffusion.prediction import Level


def is_flow(scheduler: Any) -> bool:
    """Say whether a scheduler is one of flow matching."""
    return isinstance(scheduler, FlowMatchEulerDiscreteScheduler)


def sigmas_at(timesteps: Tensor, num_train_timesteps: int, like: Tensor) -> Tensor:
    """Return sigma at the timesteps `b`, shaped to multiply `like`, in float32."""
    sigmas = timesteps.to(like.device, torch.float32) / num_train_timesteps
    return sigmas.reshape(-1, *[1] * (like.ndim - 1))


def mix(clean: Tensor, noise: Tensor, timesteps: Tensor, num_train_timesteps: int) -> Tensor:
    """Return the state on the straight line from data to noise at the timesteps `b`."""
    sigmas = sigmas_at(timesteps, num_train_timesteps, clean)
    return (1 - sigmas) * clean + sigmas * noise


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """Return what the network should say, at every timestep: how the state changes with sigma."""
    return noise - clean


def draw_logit_normal(
    batch_size: int, num_train_timesteps: int, generator: torch.Generator, shift: float = 1.0
) -> Tensor:
    """Draw timesteps `b` whose sigma is the logistic function of a normal number (Esser et al. 2024, section 3.1).

    The middle of the way, where data and noise are hardest to tell apart, is drawn most often. `shift` moves the middle
    towards noise, as the scheduler's moves the steps of sampling: sigma becomes shift sigma / (1 + (shift - 1) sigma),
    which adds log(shift) to the number (section 5.3.2 there).
    """
    numbers = torch.randn(batch_size, generator=generator, device=generator.device)
    return num_train_timesteps * torch.sigmoid(numbers + math.log(shift))


def flow_level(scheduler: FlowMatchEulerDiscreteScheduler, timestep: Tensor) -> Level:
    """Return the noise in the state at one of the scheduler's timesteps."""
    sigma = timestep.item() / scheduler.config.num_train_timesteps
    return Level(timestep.item(), 1 - sigma, sigma)


def set_flow_timesteps(scheduler: FlowMatchEulerDiscreteScheduler, num_inference_steps: int) -> None:
    """Space steps of equal length from noise to data, before the scheduler's own `shift`.

    Left to itself the scheduler goes to the smallest sigma of training first, and spends its last step on the
    thousandth that remains.
    """
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / num_inference_steps, num_inference_steps))
