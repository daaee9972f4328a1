"""Identities of flow matching, and that its model is sampled, conditioned and refused as any other is."""

from dataclasses import replace

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from mmdiff.diffusion.flow import flow_level, mix, set_flow_timesteps, velocity
from mmdiff.diffusion.objective import make_objective
from mmdiff.diffusion.prediction import Level, clean_from, move_clean, noise_from
from mmdiff.diffusion.sampling import level_at, sample
from mmdiff.diffusion.schedule import (
    FLOW_SAMPLERS,
    DiffusionConfig,
    check_same_schedule,
    default_sampler,
    exact_alphas_cumprod,
    make_sampler,
    make_samplers,
    make_scheduler,
)

FLOW = DiffusionConfig(prediction_type="flow", timestep_mode="per_modality")
NAMES = ("video", "audio")


def a_pair(seed: int = 0) -> tuple[dict, dict]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"video": (2, 3, 2, 4, 4), "audio": (2, 1, 32)}
    return tuple({name: torch.randn(shape, generator=generator) for name, shape in shapes.items()} for _ in range(2))


def test_the_line_runs_from_data_to_noise_as_in_diffusers():
    clean, noise = (x["video"] for x in a_pair())
    ends = torch.tensor([0.0, 1000.0])
    assert torch.equal(mix(clean, noise, ends, 1000), torch.stack([clean[0], noise[1]]))
    scheduler = make_scheduler(FLOW)
    timesteps = scheduler.timesteps[[100, 700]]
    assert torch.allclose(mix(clean, noise, timesteps, 1000), scheduler.scale_noise(clean, timesteps, noise), atol=1e-6)


def test_the_velocity_is_the_derivative_and_tells_data_and_noise():
    clean, noise = (x["audio"] for x in a_pair())
    at = [mix(clean, noise, torch.full((2,), timestep), 1000) for timestep in (300.0, 800.0)]
    assert torch.allclose((at[1] - at[0]) / 0.5, velocity(clean, noise), atol=1e-5)
    level, answer = Level(300.0, 0.7, 0.3), velocity(clean, noise)
    assert torch.allclose(clean_from(answer, at[0], level, "flow"), clean, atol=1e-5)
    assert torch.allclose(noise_from(answer, at[0], level, "flow"), noise, atol=1e-5)
    moved = move_clean(answer, torch.full_like(clean, 0.1), level, "flow")
    assert torch.allclose(clean_from(moved, at[0], level, "flow"), clean + 0.1, atol=1e-5)


@pytest.mark.parametrize("num_inference_steps", [1, 7])
def test_a_perfect_velocity_ends_at_the_data_exactly(num_inference_steps):
    """The way is straight, so that one step is as good as many."""
    clean, noise = a_pair()
    seen = []

    def oracle(state, timesteps):
        seen.append(timesteps["video"][0].item())
        return {name: velocity(clean[name], noise[name]) for name in state}

    samplers = make_samplers("euler", make_scheduler(FLOW))
    assert samplers["video"] is not samplers["audio"]
    result = sample(oracle, samplers, noise, num_inference_steps=num_inference_steps)
    assert all(torch.allclose(result[name], clean[name], atol=1e-5) for name in NAMES)
    steps = [1000 * (1 - number / num_inference_steps) for number in range(num_inference_steps)]
    assert seen == pytest.approx(steps)


@pytest.mark.parametrize("conditioning", ["native", "replacement", "gradient"])
def test_a_given_modality_stays_and_is_shown_as_the_conditioning_says(conditioning):
    clean, noise = a_pair()
    seen = []

    def watch(state, timesteps):
        sigma = timesteps["audio"].float()[:, None, None] / 1000
        expected = (1 - sigma) * clean["audio"] + sigma * noise["audio"]
        seen.append((timesteps["audio"][0].item(), torch.allclose(state["audio"], expected, atol=1e-6)))
        return {name: noise[name] - clean[name] + 0 * state["video"].sum() for name in state}

    result = sample(
        watch, make_samplers("euler", make_scheduler(FLOW)), noise, clean={"audio": clean["audio"]},
        num_inference_steps=4, conditioning=conditioning, guidance_scale=1.0,
    )  # fmt: skip
    assert torch.equal(result["audio"], clean["audio"])
    assert torch.allclose(result["video"], clean["video"], atol=1e-5)
    assert seen == [(0 if conditioning == "native" else time, True) for time in (1000, 750, 500, 250)]


def test_the_published_gradient_is_refused():
    clean, noise = a_pair()
    with pytest.raises(ValueError, match="DDPM or DDIM"):
        sample(lambda state, _: state, make_samplers("euler", make_scheduler(FLOW)), noise, num_inference_steps=2,
               clean={"audio": clean["audio"]}, conditioning="mm-diffusion")  # fmt: skip


def test_timesteps_are_logit_normal_and_leave_room_for_what_is_given():
    objective = make_objective(FLOW, make_scheduler(FLOW))
    drawn = objective.draw_timesteps(6000, NAMES, torch.Generator().manual_seed(0))
    for name in NAMES:
        made = drawn[name][drawn[name] > 0] / 1000
        assert 0.13 < 1 - len(made) / 6000 < 0.21
        odds = torch.logit(made)
        assert abs(odds.mean()) < 0.05 and abs(odds.std() - 1) < 0.05
    assert not ((drawn["video"] == 0) & (drawn["audio"] == 0)).any()
    assert 0.30 < (drawn["video"] == drawn["audio"]).float().mean() < 0.37


def test_a_shift_dwells_on_noise_in_training_as_in_sampling():
    """Esser et al. 2024, section 5.3.2: what training draws is what the scheduler makes of what it drew without."""
    shifted = replace(FLOW, shift=3.0)
    plain, moved = (make_objective(c, make_scheduler(c)).draw_timesteps(500, NAMES, torch.Generator().manual_seed(0))
                    for c in (FLOW, shifted))  # fmt: skip
    for name in NAMES:
        sigma = plain[name] / 1000
        assert torch.allclose(moved[name] / 1000, 3 * sigma / (1 + 2 * sigma), atol=1e-5)
    sampler = make_sampler("euler", make_scheduler(shifted))
    set_flow_timesteps(sampler, 4)
    assert sampler.sigmas.tolist() == pytest.approx([1, 0.9, 0.75, 0.5, 0])


@pytest.mark.parametrize("settings", [{"shift": 0.0}, {"shift": float("nan")}, {"prediction_type": "epsilon"}])
def test_a_shift_that_cannot_be_is_refused(settings):
    with pytest.raises(ValueError, match=r"diffusion\.shift"):
        replace(FLOW, **{"shift": 3.0, **settings})


def test_an_objective_is_what_the_prediction_type_says():
    clean, noise = (x["video"] for x in a_pair())
    for config in (FLOW, DiffusionConfig(prediction_type="v_prediction", snr_gamma=5.0)):
        scheduler = make_scheduler(config)
        objective = make_objective(config, scheduler)
        timesteps = scheduler.timesteps[[300, 600]]
        noisy, answer = objective.add_noise(clean, noise, timesteps), objective.target(clean, noise, timesteps)
        for number in range(2):
            if config is FLOW:
                level = flow_level(scheduler, timesteps[number])
            else:
                alpha = exact_alphas_cumprod(scheduler)[timesteps[number]].item()
                level = Level(0, alpha**0.5, (1 - alpha) ** 0.5)
            told = clean_from(answer[number], noisy[number], level, config.prediction_type)
            assert torch.allclose(told, clean[number], atol=1e-4)
        weight = objective.weight(timesteps)
        assert weight.shape == (2,) and (weight > 0).all() and (config is not FLOW or (weight == 1).all())


def test_the_model_is_told_the_scheduler_s_own_level():
    sampler = make_sampler("euler", make_scheduler(FLOW))
    sampler.set_timesteps(4)
    for timestep, sigma in zip(sampler.timesteps, sampler.sigmas):
        assert level_at(sampler, timestep).sigma == pytest.approx(sigma.item(), abs=1e-6)


def test_flow_and_diffusion_are_not_taken_for_each_other():
    flow, curved = make_scheduler(FLOW), make_scheduler(DiffusionConfig())
    assert default_sampler(flow) == FLOW_SAMPLERS[0] and default_sampler(curved) == "ddim"
    check_same_schedule(flow, FlowMatchEulerDiscreteScheduler(shift=3.0))
    with pytest.raises(ValueError, match="invert_sigmas"):
        check_same_schedule(flow, FlowMatchEulerDiscreteScheduler(invert_sigmas=True))
    for trained, offered in ((flow, DDPMScheduler()), (curved, flow)):
        with pytest.raises(ValueError, match="flow matching"):
            check_same_schedule(trained, offered)
    with pytest.raises(ValueError, match="use euler"):
        make_sampler("ddim", flow)
    with pytest.raises(ValueError, match="alphas"):
        exact_alphas_cumprod(flow)
    with pytest.raises(ValueError, match="snr_gamma"):
        DiffusionConfig(prediction_type="flow", snr_gamma=5.0)
