"""What is given stays and is heard; a guidance scale means the same at any length, batch size and precision."""

import copy

import diffusers
import pytest
import torch
from diffusers import EulerDiscreteScheduler

from mmdiff.diffusion.dpm_solver import DPMSolver
from mmdiff.diffusion.guidance import Conditioned, Given, classifier_free, twice
from mmdiff.diffusion.objective import target
from mmdiff.diffusion.prediction import Level, clean_from, move_clean, noise_from
from mmdiff.diffusion.sampling import level_at, sample
from mmdiff.diffusion.schedule import SAMPLERS, DiffusionConfig, make_samplers, make_scheduler

COSINE = make_scheduler(DiffusionConfig(beta_schedule="squaredcos_cap_v2", clip_sample=False))
LEVEL = Level(400, 0.8, 0.6)
KINDS = ("epsilon", "v_prediction", "sample")


def noise(batch=1, frames=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "video": torch.randn(batch, 3, frames, 2, 2, generator=generator),
        "audio": torch.randn(batch, 1, 12 * frames, generator=generator),
    }


def local(state, _=None):
    """A denoiser in which every sample hears its own frame's pixels, and the other way round; it predicts clean."""
    video, audio = state["video"], state["audio"]
    heard = audio.unflatten(-1, (video.shape[2], -1)).mean(-1)  # b 1 f
    seen = video.mean((1, 3, 4)).repeat_interleave(12, dim=-1)[:, None]
    return {"video": 0.5 * video + heard[..., None, None].tanh(), "audio": 0.3 * audio + seen.tanh()}


def states_seen(sampler, steps=4, **options):
    """Return every state that the network was called with, and the result."""
    seen = []

    def watch(state, timesteps):
        seen.append(({name: x.detach().clone() for name, x in state.items()}, timesteps))
        return local(state)

    samplers = make_samplers(sampler, COSINE) if isinstance(sampler, str) else sampler
    result = sample(watch, samplers, noise(), num_inference_steps=steps, **options)
    return seen, result


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_say_the_same_in_every_form(kind):
    clean, noise_ = noise()["video"], noise(seed=1)["video"]
    alphas = torch.tensor([0.64])
    output = target(clean, noise_, torch.tensor([0]), alphas, kind)
    noisy = LEVEL.signal * clean + LEVEL.sigma * noise_
    assert torch.allclose(clean_from(output, noisy, LEVEL, kind), clean, atol=1e-5)
    assert torch.allclose(noise_from(output, noisy, LEVEL, kind), noise_, atol=1e-5)
    moved = clean_from(move_clean(output, torch.full_like(clean, 0.1), LEVEL, kind), noisy, LEVEL, kind)
    assert torch.allclose(moved, clean + 0.1, atol=1e-5)


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "mm-dpm++"])
def test_replacement_gives_the_network_the_levels_noise_and_returns_what_was_given(sampler):
    audio = noise(seed=1)["audio"]
    seen, result = states_seen(sampler, clean={"audio": audio}, conditioning="replacement")
    assert torch.equal(result["audio"], audio)
    fixed, errors = noise()["audio"], []
    for state, _ in seen:
        # sigma from the state itself: what is not signal is the one fixed noise
        basis = torch.stack([audio.flatten(), fixed.flatten()], dim=1)
        weights = torch.linalg.lstsq(basis, state["audio"].flatten()[:, None]).solution.flatten()
        errors.append((basis @ weights - state["audio"].flatten()).abs().max())
        assert weights.square().sum() == pytest.approx(1, abs=1e-3)
    assert max(errors) < 1e-4
    assert (result["video"] - states_seen(sampler)[1]["video"]).abs().max() > 1e-2, "what is given must be heard"


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm++", "dpm", "mm-ddpm"])
def test_a_part_may_be_given_and_the_rest_is_made(sampler):
    """The second half of the sound is missing, and one frame in the middle of the picture."""
    clean = noise(seed=1)
    mask = {"audio": torch.arange(48) < 24, "video": torch.arange(4)[:, None, None] != 2}
    for conditioning in ("replacement", "gradient"):
        seen, result = states_seen(sampler, clean=clean, mask=mask, conditioning=conditioning, guidance_scale=1.0)
        assert torch.equal(result["audio"][..., :24], clean["audio"][..., :24])
        assert torch.equal(result["video"][:, :, [0, 1, 3]], clean["video"][:, :, [0, 1, 3]])
        assert (result["audio"][..., 24:] - clean["audio"][..., 24:]).abs().min() > 0
        first = seen[0][0]["audio"]
        assert torch.equal(first[..., 24:], noise()["audio"][..., 24:]), "what is missing starts as noise"


def test_schedulers_that_scale_their_state_hear_what_is_given_too():
    euler = EulerDiscreteScheduler.from_config(COSINE.config, prediction_type="sample")
    audio = noise(seed=1)["audio"]
    seen, result = states_seen({"video": euler}, steps=6, clean={"audio": audio}, conditioning="replacement")
    level = level_at(euler, euler.timesteps[3])
    assert level.signal**2 + level.sigma**2 == pytest.approx(1)
    expected = level.signal * audio + level.sigma * noise()["audio"]
    assert torch.allclose(seen[3][0]["audio"], expected, atol=1e-5)
    assert result["video"].isfinite().all() and torch.equal(result["audio"], audio)


@pytest.mark.parametrize("name", ["HeunDiscrete", "UniPCMultistep", "DPMSolverSinglestep"])
def test_every_scheduler_of_diffusers_finds_data_that_is_known(name):
    """Given the sound, an oracle's picture comes out, whatever scale a scheduler's state has."""
    scheduler = getattr(diffusers, f"{name}Scheduler").from_config(COSINE.config, prediction_type="sample")
    data, samplers = noise(seed=1), {key: copy.deepcopy(scheduler) for key in ("video", "audio")}
    told = []

    def oracle(state, timesteps):
        told.append(state["audio"].square().mean())
        return data

    result = sample(
        oracle, samplers, noise(), num_inference_steps=10, clean={"audio": data["audio"]}, conditioning="replacement"
    )
    assert torch.allclose(result["video"], data["video"], atol=1e-2)
    assert all(0.5 < size < 2 for size in told), "the network sees unit variance"


def guided(state, clean, kind="sample", scale=2.0, dtype=torch.float32):
    def denoise(inputs, _):
        inputs = {name: x.to(dtype) for name, x in inputs.items()}
        answer = {}
        for name, x in local(inputs).items():
            is_sample, is_epsilon = kind == "sample", kind == "epsilon"
            epsilon = (inputs[name] - LEVEL.signal * x) / LEVEL.sigma
            velocity = LEVEL.signal * epsilon - LEVEL.sigma * x
            answer[name] = (x if is_sample else epsilon if is_epsilon else velocity).float()
        return answer

    given = Given({"audio": clean}, {}, {"audio": torch.zeros_like(clean)})
    network = Conditioned(denoise, given, "gradient", scale, kind)
    return clean_from(network(state, LEVEL)["video"], state["video"], LEVEL, kind)


def test_guidance_is_equation_7():
    """The gradient by finite differences, of the squared error of what is given, times w alpha / 2."""
    state = {"video": noise()["video"].double()}
    clean = noise(seed=1)["audio"].double()

    def squared_error(video):
        answer = local({"video": video, "audio": LEVEL.signal * clean})
        return float((clean - answer["audio"]).square().sum())

    plain = guided(state, clean, scale=0.0, dtype=torch.float64)
    change = guided(state, clean, scale=2.0, dtype=torch.float64) - plain
    for index in (0, 7, 30):
        bump = torch.zeros_like(state["video"]).flatten()
        bump[index] = 1e-3
        bump = bump.view_as(state["video"])
        slope = (squared_error(state["video"] + bump) - squared_error(state["video"] - bump)) / 2e-3
        assert float(change.flatten()[index]) == pytest.approx(-2.0 * LEVEL.signal / 2 * slope, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_depends_on_no_prediction_type_batch_length_or_precision(kind):
    state, clean = {"video": noise()["video"]}, noise(seed=1)["audio"]
    plain = guided(state, clean, scale=0.0)
    change = guided(state, clean) - plain
    assert change.abs().max() > 0.05
    assert torch.allclose(guided(state, clean, kind) - plain, change, atol=1e-5)
    wide = guided({"video": state["video"].repeat(3, 1, 1, 1, 1)}, clean.repeat(3, 1, 1), kind)
    assert torch.allclose(wide, (plain + change).repeat(3, 1, 1, 1, 1), atol=1e-5)
    long = guided({"video": state["video"].repeat(1, 1, 2, 1, 1)}, clean.repeat(1, 1, 2), kind)
    assert torch.allclose(long, (plain + change).repeat(1, 1, 2, 1, 1), atol=1e-5)
    rough = guided(state, clean, kind, dtype=torch.bfloat16) - guided(state, clean, kind, 0.0, torch.bfloat16)
    assert (rough - change).abs().max() < 0.05 * change.abs().max()


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm++", "dpm", "mm-dpm", "mm-ddim"])
def test_guidance_brings_the_prediction_of_what_is_given_closer_with_every_sampler(sampler):
    audio = noise(seed=1)["audio"].clamp(-1, 1)
    scheduler = make_scheduler(DiffusionConfig(prediction_type="sample", clip_sample=False))
    errors = []
    for scale in (0.0, 0.2):
        result = sample(
            local, make_samplers(sampler, scheduler), noise(), num_inference_steps=10, clean={"audio": audio},
            conditioning="gradient", guidance_scale=scale, generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        errors.append(float((local(result)["audio"] - audio).square().sum()))
    assert errors[1] < errors[0]


@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "dpm"])
def test_conditioning_costs_no_further_network_calls(sampler):
    audio = noise(seed=1)["audio"]
    for conditioning in ("native", "replacement", "gradient"):
        seen, _ = states_seen(sampler, steps=7, clean={"audio": audio}, conditioning=conditioning)
        assert len(seen) == 7


def test_native_conditioning_shows_the_clean_modality_at_timestep_zero_to_a_solver_too():
    audio = noise(seed=1)["audio"]
    seen, _ = states_seen("dpm", clean={"audio": audio})
    assert all(torch.equal(state["audio"], audio) and times["audio"] == 0 for state, times in seen)
    assert seen[0][1]["video"] == pytest.approx(999)


def test_the_published_guidance_grows_weaker_with_the_batch_and_ours_does_not():
    """Fault 13 of the published code, behind its name."""
    scheduler = make_scheduler(DiffusionConfig(prediction_type="sample", clip_sample=False))
    changes = {}
    for conditioning in ("mm-diffusion", "gradient"):
        for batch in (1, 4):
            start = {name: x.repeat(batch, *[1] * (x.ndim - 1)) for name, x in noise().items()}
            results = [
                sample(
                    local, make_samplers("mm-ddim", scheduler), start, num_inference_steps=2,
                    clean={"audio": noise(seed=1)["audio"].repeat(batch, 1, 1)}, conditioning=conditioning,
                    guidance_scale=scale,
                )["video"][:1]
                for scale in (0.0, 0.5)
            ]  # fmt: skip
            changes[conditioning, batch] = float((results[1] - results[0]).abs().max())
    assert changes["gradient", 4] == pytest.approx(changes["gradient", 1], rel=1e-4)
    assert changes["mm-diffusion", 4] == pytest.approx(changes["mm-diffusion", 1] / 4, rel=0.05)


def test_what_cannot_go_together_is_explained():
    audio = noise(seed=1)["audio"]

    def run(sampler="ddim", start=None, **options):
        start = noise() if start is None else start
        sample(local, make_samplers(sampler, COSINE), start, num_inference_steps=2, clean={"audio": audio}, **options)

    with pytest.raises(ValueError, match="native, replacement, gradient"):
        run(conditioning="magic")
    with pytest.raises(ValueError, match="use gradient with this sampler"):
        run("dpm", conditioning="mm-diffusion")
    with pytest.raises(ValueError, match="needs noise for audio"):
        run(conditioning="replacement", start={"video": noise()["video"]})
    assert isinstance(make_samplers("dpm", COSINE), DPMSolver)


def test_a_scale_goes_from_without_the_condition_over_with_it_and_beyond():
    like, without, with_it = noise(2), noise(2, seed=1), noise(2, seed=2)
    both = {name: torch.cat([with_it[name], without[name]]) for name in like}
    for scales, expected in (
        ({"video": 1, "audio": 0}, {"video": with_it["video"], "audio": without["audio"]}),
        ({"video": 3, "audio": 1}, {"video": 3 * with_it["video"] - 2 * without["video"], "audio": with_it["audio"]}),
    ):
        guided = classifier_free(both, scales, like)
        torch.testing.assert_close(guided, expected, rtol=1e-5, atol=1e-5)
        assert all(torch.equal(guided[name], with_it[name]) for name, scale in scales.items() if scale == 1)
    assert all(torch.equal(part, like[name]) for name, x in twice(like).items() for part in x.chunk(2))


def test_a_learned_variance_is_that_with_the_condition():
    like = noise(1)
    output = {name: torch.cat([noise(2, seed=1)[name], noise(2, seed=2)[name]], dim=1) for name in like}
    guided = classifier_free(output, {"video": 2.0, "audio": 2.0}, like)
    for name, x in output.items():
        channels = like[name].shape[1]
        assert guided[name].shape == x[:1].shape and torch.equal(guided[name][:, channels:], x[:1, channels:])
        torch.testing.assert_close(guided[name][:, :channels], 2 * x[:1, :channels] - x[1:, :channels])
