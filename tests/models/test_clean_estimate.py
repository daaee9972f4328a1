"""A network that estimates clean latents answers with the velocity that leads there."""

from dataclasses import replace

import pytest
import torch

from mmdiff.diffusion.flow import mix, velocity
from mmdiff.diffusion.sampling import sample
from mmdiff.diffusion.schedule import DiffusionConfig, make_samplers, make_scheduler
from mmdiff.models import CoupledUNet, CoupledUNetConfig
from mmdiff.models.clean_estimate import velocities
from mmdiff.train.joint import JointRecipe

NONE = {"video": 0.0, "audio": 0.0}
FLOW = DiffusionConfig(prediction_type="flow")
TINY = CoupledUNetConfig(
    model_channels=8, channel_multipliers=(1,), num_res_blocks=1, num_heads=2, norm_groups=4,
    cross_attention_head_channels=4, cross_attention_resolutions=(1,), cross_attention_windows=(1,),
    cross_attention_shift=False, video_attention_resolutions=(),
)  # fmt: skip


def draw(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"video": (2, 3, 2, 8, 8), "audio": (2, 1, 32)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_a_right_estimate_is_the_velocity_of_flow_and_sampling_ends_there():
    clean, noise = draw(0), draw(1)
    timesteps = {"video": torch.tensor([80.0, 1000.0]), "audio": torch.tensor([500.0, 50.0])}
    noisy = {name: mix(clean[name], noise[name], timesteps[name], 1000) for name in clean}
    told = velocities(clean, noisy, timesteps, NONE)
    assert all(torch.allclose(told[name], velocity(clean[name], noise[name]), atol=1e-5) for name in clean)
    samplers = make_samplers("euler", make_scheduler(FLOW))
    ends = sample(lambda state, times: velocities(clean, state, times, NONE), samplers, noise, num_inference_steps=5)
    assert all(torch.allclose(ends[name], clean[name], atol=1e-5) for name in clean)


def test_near_data_an_error_of_the_estimate_stays_bounded():
    noisy, timesteps = draw(0), {name: torch.zeros(2) for name in ("video", "audio")}
    told = velocities({name: x + 1 for name, x in noisy.items()}, noisy, timesteps, NONE)
    assert all(torch.allclose(x, torch.full_like(x, -20), atol=1e-4) for x in told.values())


def test_a_network_that_says_nothing_samples_the_texture():
    """With no output at all, what comes out of noise has the deviation of the texture."""
    noise = {"audio": torch.randn(4, 8, 4096, generator=torch.Generator().manual_seed(0))}
    nothing = {name: torch.zeros_like(x) for name, x in noise.items()}
    for texture in (0.25, 0.5):
        ends = sample(
            lambda state, times, texture=texture: velocities(nothing, state, times, {"audio": texture}),
            make_samplers("euler", make_scheduler(FLOW), ("audio",)), noise, num_inference_steps=200,
        )  # fmt: skip
        assert abs(ends["audio"].std() / texture - 1) < 0.1


def test_the_network_answers_with_the_velocity_of_its_estimate():
    torch.manual_seed(0)
    plain, estimating = CoupledUNet(**vars(TINY)), CoupledUNet(**vars(replace(TINY, texture=(0.0, 0.0))))
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    estimating.load_state_dict(plain.state_dict())
    noisy, timesteps = draw(2), {name: torch.tensor([400.0, 900.0]) for name in ("video", "audio")}
    with torch.no_grad():
        estimate, answer = plain(noisy, timesteps), estimating(noisy, timesteps)
    for name, value in answer.items():
        sigma = torch.tensor([0.4, 0.9]).reshape(-1, *[1] * (value.ndim - 1))
        assert torch.allclose(noisy[name] - sigma * value, estimate[name], atol=1e-5)


def test_a_recipe_without_flow_is_refused():
    model = replace(TINY, texture=(0.0, 0.0))
    JointRecipe(model=model, diffusion=FLOW)
    for diffusion in (DiffusionConfig(), replace(FLOW, num_train_timesteps=500)):
        with pytest.raises(ValueError, match=r"model\.texture: is for prediction_type flow"):
            JointRecipe(model=model, diffusion=diffusion)
    with pytest.raises(ValueError, match=r"texture is \(0\.1,\)"):
        replace(TINY, texture=(0.1,))
