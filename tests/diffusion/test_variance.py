"""Learned variance: the posterior fits its marginals, the bound is zero where it must be, and only v learns from it."""

import math

import pytest
import torch
from diffusers import DDPMScheduler

from mmdiff.diffusion.objective import add_noise, target
from mmdiff.diffusion.schedule import DiffusionConfig, exact_alphas_cumprod, make_scheduler
from mmdiff.diffusion.variance import level_log_likelihood, posterior_at, split_learned_range, variational_bound

CONFIGS = [
    DiffusionConfig(),
    DiffusionConfig(prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2"),
    DiffusionConfig(prediction_type="sample"),
]


def a_batch(config, timesteps):
    """Return clean, noisy and the perfect prediction of five tensors `b c f h`."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 256, (len(timesteps), 2, 3, 8), generator=generator) / 127.5 - 1
    noise = torch.randn(clean.shape, generator=generator)
    alphas = make_scheduler(config).alphas_cumprod
    expected = target(clean, noise, timesteps, alphas, config.prediction_type)
    return clean, add_noise(clean, noise, timesteps, alphas), expected


def test_the_halves_of_the_channels_in_either_layout():
    output = torch.arange(12.0).reshape(1, 6, 2)
    for x, axis in ((output, 1), (output.mT, -1)):
        prediction, interpolation = split_learned_range(x, axis)
        assert torch.equal(torch.cat([prediction, interpolation], axis), x)
    with pytest.raises(ValueError, match="even number"):
        split_learned_range(output[:, :5])


def test_the_posterior_gives_back_the_marginal():
    """Integrating x_t out of q(x_{t-1} | x_t, x_0) q(x_t | x_0) leaves q(x_{t-1} | x_0)."""
    scheduler, timesteps = make_scheduler(DiffusionConfig()), torch.tensor([1, 2, 10, 500, 999])
    alphas = exact_alphas_cumprod(scheduler)
    posterior = posterior_at(timesteps, scheduler, torch.zeros(5, 1))
    signal = posterior.clean_weight + posterior.noisy_weight * alphas[timesteps].sqrt()[:, None]
    power = posterior.noisy_weight**2 * (1 - alphas[timesteps])[:, None] + posterior.log_variance.exp()
    assert torch.allclose(signal[:, 0], alphas[timesteps - 1].sqrt(), atol=1e-6)
    assert torch.allclose(power[:, 0], 1 - alphas[timesteps - 1], rtol=1e-5, atol=0)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.prediction_type)
def test_a_perfect_prediction_with_the_least_variance_costs_nothing(config):
    timesteps = torch.tensor([1, 50, 400, 900])
    clean, noisy, expected = a_batch(config, timesteps)
    bound = variational_bound(expected, torch.full_like(clean, -1), clean, noisy, timesteps, make_scheduler(config))
    assert bound.abs().max() < 1e-4
    wider = variational_bound(expected, torch.ones_like(clean), clean, noisy, timesteps, make_scheduler(config))
    posterior = posterior_at(timesteps, make_scheduler(config), clean)
    ratio = (posterior.log_beta - posterior.log_variance).flatten()  # KL of two centred Gaussians
    assert torch.allclose(wider, 0.5 * (ratio - 1 + (-ratio).exp()) / math.log(2), rtol=1e-3, atol=1e-4)


def test_the_probabilities_of_all_grey_levels_sum_to_one():
    levels = torch.arange(256) / 127.5 - 1
    for mean, sigma in ((0.3, 0.2), (-0.99, 0.5), (0.0, 0.01)):
        logs = level_log_likelihood(levels, torch.full((256,), mean), torch.full((256,), math.log(sigma)))
        assert logs.exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_at_timestep_0_the_bound_is_the_likelihood_of_the_clean_levels():
    timesteps = torch.zeros(3, dtype=torch.long)
    clean, noisy, expected = a_batch(DiffusionConfig(), timesteps)
    scheduler = make_scheduler(DiffusionConfig())
    bits = variational_bound(expected, torch.ones_like(clean), clean, noisy, timesteps, scheduler)
    sigma = 1e-4**0.5  # beta at timestep 0
    inside = math.erf(1 / 255 / sigma / 2**0.5)
    assert bits == pytest.approx(-math.log2(inside), rel=0.05)


def test_only_the_variance_learns_from_the_bound():
    timesteps = torch.tensor([0, 3, 700])
    clean, noisy, expected = a_batch(DiffusionConfig(), timesteps)
    output = torch.cat([expected + 0.1, torch.zeros_like(expected)], 1).requires_grad_()
    prediction, interpolation = split_learned_range(output)
    variational_bound(
        prediction, interpolation, clean, noisy, timesteps, make_scheduler(DiffusionConfig())
    ).sum().backward()
    of_prediction, of_variance = split_learned_range(output.grad)
    assert not of_prediction.any() and of_variance.abs().amin((1, 2, 3)).gt(0).all()


def test_the_variance_is_the_one_that_the_sampler_adds():
    scheduler = make_scheduler(DiffusionConfig())
    ancestral = DDPMScheduler.from_config(scheduler.config, variance_type="learned_range")
    v = torch.linspace(-1, 1, 5)
    for timestep in (1, 40, 999):
        posterior = posterior_at(torch.tensor([timestep]), scheduler, v[None])
        log_variance = torch.lerp(posterior.log_variance, posterior.log_beta, (v + 1) / 2)[0]
        assert torch.allclose(log_variance, ancestral._get_variance(timestep, v), atol=1e-3)
