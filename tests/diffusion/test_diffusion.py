"""Identities of the diffusion mathematics."""

import pytest
import torch
from diffusers import DDPMScheduler

from mmdiff.diffusion.objective import add_noise, draw_timesteps, min_snr_weight, signal_and_noise, snr, target
from mmdiff.diffusion.sampling import sample
from mmdiff.diffusion.schedule import (
    SAMPLERS,
    DiffusionConfig,
    check_same_schedule,
    make_sampler,
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


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_every_sampler_finds_data_that_is_known(name, kind):
    """With the exact answer from an oracle, every sampler ends at the data, in both modalities at once."""
    config = DiffusionConfig(beta_schedule="squaredcos_cap_v2", prediction_type=kind, clip_sample=False)
    scheduler = make_scheduler(config)
    generator = torch.Generator().manual_seed(0)
    data = {"video": torch.randn(1, 3, 2, 4, 4), "audio": torch.randn(1, 1, 32)}

    def oracle(state, timesteps):
        answer = {}
        for key, clean in data.items():
            signal, sigma = signal_and_noise(scheduler.alphas_cumprod, timesteps[key], clean)
            noise = (state[key] - signal * clean) / sigma
            answer[key] = target(clean, noise, timesteps[key], scheduler.alphas_cumprod, kind)
        return answer

    noisy = {key: torch.randn(x.shape, generator=generator) for key, x in data.items()}
    result = sample(
        oracle, {key: make_sampler(name, scheduler) for key in data}, noisy,
        clean={}, num_inference_steps=25, generator=generator,
    )  # fmt: skip
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
