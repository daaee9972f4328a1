"""What a network learns to predict, and how much every example counts: for one tensor of any shape `b ...`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from mmdiff.diffusion.flow import draw_logit_normal, mix, velocity
from mmdiff.diffusion.schedule import DiffusionConfig, exact_alphas_cumprod


def signal_and_noise(alphas_cumprod: Tensor, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return sqrt(alpha-bar) and sqrt(1 - alpha-bar) at the timesteps `b`, shaped to multiply `like`, in float32.

    The roots are taken in the precision of `alphas_cumprod`: in float32, 1 - 0.9999 is wrong by 2e-4.
    """

    def at(values: Tensor) -> Tensor:
        return values.to(like.device, torch.float32)[timesteps].reshape(-1, *[1] * (like.ndim - 1))

    return at(alphas_cumprod.sqrt()), at((1 - alphas_cumprod).sqrt())


def add_noise(clean: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Mix data and noise: q(x_t | x_0) of DDPM (Ho et al. 2020, eq. 4)."""
    signal, sigma = signal_and_noise(alphas_cumprod, timesteps, clean)
    return signal * clean + sigma * noise


def target(clean: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor, prediction_type: str) -> Tensor:
    """Return what the network should say: noise, data, or v = signal noise - sigma data (Salimans & Ho 2022)."""
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "sample":
        return clean
    if prediction_type == "v_prediction":
        signal, sigma = signal_and_noise(alphas_cumprod, timesteps, clean)
        return signal * noise - sigma * clean
    raise ValueError(f"prediction_type: '{prediction_type}' is not known; use epsilon, v_prediction or sample")


def snr(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """Return the signal-to-noise power at the timesteps `b`."""
    alpha = alphas_cumprod.to(timesteps.device, torch.float32)[timesteps]
    return alpha / (1 - alpha)


def min_snr_weight(alphas_cumprod: Tensor, timesteps: Tensor, gamma: float | None, prediction_type: str) -> Tensor:
    """Return the loss weight `b` of min-SNR-gamma (Hang et al. 2023, section 3.4), for any prediction type.

    With gamma None every example weighs one. The weight on the clean prediction is min(snr, gamma); what the network
    predicts turns it into min(snr, gamma) / snr for epsilon and / (snr + 1) for v.
    """
    ratio = snr(alphas_cumprod, timesteps)
    if gamma is None:
        return torch.ones_like(ratio)
    clamped = ratio.clamp(max=gamma)
    divisor = {"epsilon": ratio, "v_prediction": ratio + 1, "sample": torch.ones_like(ratio)}
    return clamped / divisor[prediction_type].clamp(min=1e-8)


def per_example_mse(prediction: Tensor, expected: Tensor, where: Tensor | None = None) -> Tensor:
    """Return the mean squared error of every example, `b`, in float32: of all, or of what `where` (bool) leaves.

    An example of which nothing is left has no error.
    """
    error = (prediction.float() - expected.float()).square()
    if where is None:
        return error.flatten(1).mean(1)
    kept = where.expand_as(error).flatten(1)
    return (error.flatten(1) * kept).sum(1) / kept.sum(1).clamp(min=1)


def draw_uniform(batch_size: int, num_train_timesteps: int, generator: torch.Generator) -> Tensor:
    """Draw whole timesteps `b`, each as likely as any other."""
    return torch.randint(0, num_train_timesteps, (batch_size,), generator=generator, device=generator.device)


def draw_timesteps(
    batch_size: int, names: tuple[str, ...], num_train_timesteps: int, mode: str, generator: torch.Generator,
    draw_some: Callable[..., Tensor] = draw_uniform,
) -> dict[str, Tensor]:  # fmt: skip
    """Draw a timestep `b` for every modality: one for all (`shared`), or one each (`per_modality`).

    In the second mode a third of the examples share one timestep (joint generation), a third draw independent ones, and
    a third hold one modality, chosen at random, at timestep 0: what native conditional generation asks for.
    `draw_some(batch_size, num_train_timesteps, generator)` is the distribution of each.
    """
    device = generator.device

    def draw() -> Tensor:
        return draw_some(batch_size, num_train_timesteps, generator)

    shared = draw()
    if mode == "shared":
        return dict.fromkeys(names, shared)
    kind = torch.randint(0, 3, (batch_size,), generator=generator, device=device)
    given = torch.randint(0, len(names), (batch_size,), generator=generator, device=device)
    timesteps = {}
    for number, name in enumerate(names):
        own = torch.where(kind == 0, shared, draw())
        timesteps[name] = torch.where((kind == 2) & (given == number), torch.zeros_like(own), own)
    return timesteps


@dataclass(frozen=True, eq=False)
class Objective:
    """What a recipe's `diffusion` section trains: noise on the schedule's curve, or on the straight line of `flow`."""

    config: DiffusionConfig
    alphas_cumprod: Tensor | None  # None for flow matching

    @property
    def is_flow(self) -> bool:
        """Whether the way from data to noise is straight."""
        return self.alphas_cumprod is None

    def draw_timesteps(self, batch_size: int, names: tuple[str, ...], generator: torch.Generator) -> dict[str, Tensor]:
        """Draw a timestep `b` for every modality, in the recipe's `timestep_mode`."""
        config = self.config
        draw_some = partial(draw_logit_normal, shift=config.shift) if self.is_flow else draw_uniform
        return draw_timesteps(batch_size, names, config.num_train_timesteps, config.timestep_mode, generator, draw_some)

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Mix data and noise at the timesteps `b`."""
        if self.is_flow:
            return mix(clean, noise, timesteps, self.config.num_train_timesteps)
        return add_noise(clean, noise, timesteps, self.alphas_cumprod)

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the network should say."""
        if self.is_flow:
            return velocity(clean, noise)
        return target(clean, noise, timesteps, self.alphas_cumprod, self.config.prediction_type)

    def weight(self, timesteps: Tensor) -> Tensor:
        """Return how much every example counts, `b`."""
        if self.is_flow:
            return torch.ones_like(timesteps)
        return min_snr_weight(self.alphas_cumprod, timesteps, self.config.snr_gamma, self.config.prediction_type)


def make_objective(config: DiffusionConfig, scheduler: SchedulerMixin) -> Objective:
    """Return the objective of a recipe, on the schedule of its scheduler."""
    return Objective(config, None if config.prediction_type == "flow" else exact_alphas_cumprod(scheduler))
