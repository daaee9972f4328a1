"""Identities of the diffusion mathematics."""

import itertools

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from mmdiff.diffusion.objective import add_noise, draw_timesteps, min_snr_weight, signal_and_noise, snr, target
from mmdiff.diffusion.sampling import sample
from mmdiff.diffusion.schedule import (
    SAMPLERS,
    DiffusionConfig,
    PublishedDDIM,
    check_same_schedule,
    make_sampler,
    make_samplers,
    make_scheduler,
)

COSINE = DiffusionConfig(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False)


def a_mixture():
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 6, 3, 8, generator=generator)
    return clean, noise, torch.tensor([0, 1, 250, 500, 900, 998])


def test_noise_is_added_as_diffusers_does():
    clean, noise, timesteps = a_mixture()
    scheduler = make_scheduler(DiffusionConfig())
    ours = add_noise(clean, noise, timesteps, scheduler.alphas_cumprod)
    assert torch.allclose(ours, scheduler.add_noise(clean, noise, timesteps), atol=1e-6)


def test_velocity_equals_diffusers_and_inverts():
    clean, noise, timesteps = a_mixture()
    scheduler = make_scheduler(COSINE)
    alphas = scheduler.alphas_cumprod
    velocity = target(clean, noise, timesteps, alphas, "v_prediction")
    assert torch.allclose(velocity, scheduler.get_velocity(clean, noise, timesteps), atol=1e-6)
    signal, sigma = signal_and_noise(alphas, timesteps, clean)
    noisy = add_noise(clean, noise, timesteps, alphas)
    assert torch.allclose(signal * noisy - sigma * velocity, clean, atol=1e-5)


def test_min_snr_is_one_loss_on_the_clean_prediction_whatever_is_predicted():
    """The weighted error is the same however the network states the same wrong answer (Hang et al. 2023)."""
    clean, noise, timesteps = a_mixture()
    timesteps = timesteps.clamp(min=50)
    alphas = make_scheduler(DiffusionConfig()).alphas_cumprod
    signal, sigma = signal_and_noise(alphas, timesteps, clean)
    noisy = add_noise(clean, noise, timesteps, alphas)
    wrong_clean = clean + 0.1
    wrong_noise = (noisy - signal * wrong_clean) / sigma
    wrong = {
        "sample": wrong_clean,
        "epsilon": wrong_noise,
        "v_prediction": signal * wrong_noise - sigma * wrong_clean,
    }
    losses = []
    for kind, guess in wrong.items():
        error = (guess - target(clean, noise, timesteps, alphas, kind)).square().flatten(1).mean(1)
        losses.append(min_snr_weight(alphas, timesteps, 5.0, kind) * error)
    assert torch.allclose(losses[0], losses[1], rtol=1e-3)
    assert torch.allclose(losses[0], losses[2], rtol=1e-3)
    assert torch.allclose(losses[0], snr(alphas, timesteps).clamp(max=5) * 0.01, rtol=1e-3)


def test_timesteps_per_modality_hold_joint_independent_and_given_examples():
    names = ("video", "audio")
    drawn = draw_timesteps(3000, names, 1000, "per_modality", torch.Generator().manual_seed(0))
    equal = (drawn["video"] == drawn["audio"]).float().mean()
    given = [(drawn[name] == 0).float().mean() for name in names]
    assert 0.30 < equal < 0.37
    assert all(0.13 < share < 0.21 for share in given)
    shared = draw_timesteps(10, names, 1000, "shared", torch.Generator().manual_seed(0))
    assert torch.equal(shared["video"], shared["audio"])


@pytest.mark.parametrize("name", [name for name in SAMPLERS if not name.startswith("mm-dpm")])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_every_sampler_finds_data_that_is_known(name, kind):
    """With the exact answer from an oracle, every sampler ends at the data, in both modalities at once."""
    config = DiffusionConfig(beta_schedule="squaredcos_cap_v2", prediction_type=kind, clip_sample=False)
    scheduler = make_scheduler(config)
    generator = torch.Generator().manual_seed(0)
    data = {"video": torch.randn(1, 3, 2, 4, 4), "audio": torch.randn(1, 1, 32)}
    log_alphas = scheduler.alphas_cumprod.double().log().numpy()

    def oracle(state, timesteps):
        answer = {}
        for key, clean in data.items():
            # Only an answer exact at times between whole ones, too, ends at the data.
            at = float(timesteps[key][0])
            alpha = torch.exp(torch.from_numpy(np.interp([at], np.arange(1000), log_alphas)))
            whole = torch.zeros(1, dtype=torch.int64)
            signal, sigma = signal_and_noise(alpha, whole, clean)
            noise = (state[key] - signal * clean) / sigma
            answer[key] = target(clean, noise, whole, alpha, kind)
        return answer

    noisy = {key: torch.randn(x.shape, generator=generator) for key, x in data.items()}
    result = sample(
        oracle, make_samplers(name, scheduler), noisy, clean={}, num_inference_steps=25, generator=generator
    )
    for key, clean in data.items():
        assert torch.allclose(result[key], clean, atol=0.05)


def test_a_given_modality_stays_and_is_seen_at_timestep_zero():
    scheduler, seen = make_scheduler(COSINE), []
    audio = torch.randn(1, 1, 16)

    def watch(state, timesteps):
        seen.append((torch.equal(state["audio"], audio), int(timesteps["audio"][0]), int(timesteps["video"][0])))
        return {key: torch.zeros_like(x) for key, x in state.items()}

    result = sample(
        watch, {"video": make_sampler("ddim", scheduler)}, {"video": torch.randn(1, 3, 2, 4, 4)},
        clean={"audio": audio}, num_inference_steps=4,
    )  # fmt: skip
    assert torch.equal(result["audio"], audio)
    assert all(same and time == 0 for same, time, _ in seen)
    assert [time for *_, time in seen] == [999, 749, 499, 249]


def test_another_schedule_is_refused():
    trained = make_scheduler(COSINE)
    check_same_schedule(trained, make_sampler("dpm++", trained))
    with pytest.raises(ValueError, match="beta_schedule"):
        check_same_schedule(trained, DDPMScheduler(beta_schedule="linear", prediction_type="v_prediction"))


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="v_prediction"):
        DiffusionConfig(prediction_type="velocity")
    with pytest.raises(ValueError, match="ddim"):
        make_sampler("euler", make_scheduler(COSINE))


@pytest.mark.parametrize("steps", [1, 5, 7, 25, 30, 250])
def test_published_ddim_strides_from_zero(steps):
    sampler = make_sampler("mm-ddim", make_scheduler(DiffusionConfig()))
    sampler.set_timesteps(steps)
    times = sampler.timesteps.tolist()
    assert isinstance(sampler, PublishedDDIM) and len(times) == steps and times[-1] == 0
    assert len({a - b for a, b in itertools.pairwise(times)}) <= 1


def test_published_ddim_says_which_numbers_of_steps_there_are():
    sampler = make_sampler("mm-ddim", make_scheduler(DiffusionConfig()))
    with pytest.raises(ValueError, match="no stride gives 999 steps"):
        sampler.set_timesteps(999)


def test_learned_variance_is_used_where_a_sampler_knows_it():
    """A variance at its upper bound gives the steps of fixed_large; other samplers ignore the second half."""
    scheduler = make_scheduler(DiffusionConfig())
    noisy = {"audio": torch.randn(1, 1, 16)}

    def network(state, _, interpolation):
        return {name: torch.cat([x.sin(), torch.full_like(x, interpolation)], dim=1) for name, x in state.items()}

    def run(name, interpolation, learn_sigma):
        samplers = make_samplers(name, scheduler, noisy, learn_sigma=learn_sigma)
        return sample(
            lambda state, t: network(state, t, interpolation), samplers, noisy, num_inference_steps=4,
            generator=torch.Generator().manual_seed(0),
        )["audio"]  # fmt: skip

    assert torch.allclose(run("mm-ddpm", 1.0, True), run("mm-ddpm", -1.0, False), atol=1e-5)
    assert not torch.allclose(run("mm-ddpm", -1.0, True), run("mm-ddpm", 1.0, True), atol=1e-2)
    for name in ("ddim", "dpm", "dpm++"):
        assert torch.equal(run(name, 1.0, True), run(name, -1.0, True))
