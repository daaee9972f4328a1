"""Learned variance: what the second half of a network's output means, and the bound that trains it.

Nichol & Dhariwal 2021 ("Improved Denoising Diffusion Probabilistic Models"), for one tensor `b c ...`.
"""

import math
from dataclasses import dataclass

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from mmdiff.diffusion.prediction import Level, clean_from
from mmdiff.diffusion.schedule import exact_alphas_cumprod

HALF_BIN = 1 / 255  # 256 values spread over [-1, 1] lie 2/255 apart
LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class Posterior:
    """q(x_{t-1} | x_t, x_0) of DDPM (Ho et al. 2020, eq. 6, 7), shaped to multiply a batch.

    Its mean is `clean_weight x_0 + noisy_weight x_t`; `log_variance` is its own, `log_beta` that of the forward step:
    the lower and the upper bound of the reverse step's variance. At timestep 0, where the posterior has none, the
    lower bound is that of timestep 1.
    """

    level: Level
    clean_weight: Tensor
    noisy_weight: Tensor
    log_variance: Tensor
    log_beta: Tensor


def posterior_at(timesteps: Tensor, scheduler: SchedulerMixin, like: Tensor) -> Posterior:
    """Return the posterior at the timesteps `b`; it is worked out in float64 and given as float32."""
    alphas = exact_alphas_cumprod(scheduler).cpu()
    before = torch.cat([torch.ones(1, dtype=alphas.dtype), alphas[:-1]])
    betas = 1 - alphas / before
    variances = betas * (1 - before) / (1 - alphas)
    variances[0] = variances[1]

    def at(values: Tensor) -> Tensor:
        chosen = values[timesteps.cpu()].to(like.device, torch.float32)
        return chosen.reshape(-1, *[1] * (like.ndim - 1))

    return Posterior(
        level=Level(0, at(alphas.sqrt()), at((1 - alphas).sqrt())),
        clean_weight=at(before.sqrt() * betas / (1 - alphas)),
        noisy_weight=at((1 - betas).sqrt() * (1 - before) / (1 - alphas)),
        log_variance=at(variances.log()),
        log_beta=at(betas.log()),
    )


def split_learned_range(output: Tensor, channels_dim: int = 1) -> tuple[Tensor, Tensor]:
    """Return both halves of the channels: the prediction, and v in about [-1, 1] that says how large the variance is.

    Errors: `ValueError` where the number of channels is odd.
    """
    channels = output.shape[channels_dim]
    if channels % 2:
        raise ValueError(f"output has {channels} channels; a network with learned variance gives an even number")
    prediction, interpolation = output.split(channels // 2, dim=channels_dim)
    return prediction, interpolation


def variational_bound(
    prediction: Tensor, interpolation: Tensor, clean: Tensor, noisy: Tensor, timesteps: Tensor,
    scheduler: SchedulerMixin,
) -> Tensor:  # fmt: skip
    """Return each example's term of the variational bound, `b`, in bits per dimension (eq. 4 to 6, 15).

    From timestep 1 on it is the divergence of the reverse step from the posterior; at 0 it is the negative
    log-likelihood of 256 grey levels in [-1, 1]. The prediction is held fixed: only the variance learns from it.
    """
    prediction, clean, noisy = prediction.detach().float(), clean.float(), noisy.float()
    posterior = posterior_at(timesteps, scheduler, clean)
    predicted = clean_from(prediction, noisy, posterior.level, scheduler.config.prediction_type)
    share = (interpolation.float() + 1) / 2
    log_variance = share * posterior.log_beta + (1 - share) * posterior.log_variance
    distance = posterior.clean_weight * (clean - predicted)  # of the means, whose part in x_t is the same
    divergence = 0.5 * (
        log_variance - posterior.log_variance - 1
        + (posterior.log_variance - log_variance).exp() + distance.square() * (-log_variance).exp()
    )  # fmt: skip
    mean = posterior.clean_weight * predicted + posterior.noisy_weight * noisy
    surprise = -level_log_likelihood(clean, mean, 0.5 * log_variance)
    nats = torch.where(timesteps.to(clean.device) == 0, _mean(surprise), _mean(divergence))
    return nats / math.log(2)


def level_log_likelihood(clean: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """Return the log-probability, in nats, of grey levels under a Gaussian that is cut into 256 bins (DDPM, eq. 13)."""
    scale = (-log_sigma).exp()
    below_upper = _normal_cdf(scale * (clean - mean + HALF_BIN))
    below_lower = _normal_cdf(scale * (clean - mean - HALF_BIN))
    inside = torch.where(clean > 0.999, 1 - below_lower, below_upper - below_lower)
    probability = torch.where(clean < -0.999, below_upper, inside)
    return probability.clamp(min=LEAST_PROBABILITY).log()


def _normal_cdf(x: Tensor) -> Tensor:
    """The normal distribution function in Page's (1977) approximation, with which the public models were trained."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)
