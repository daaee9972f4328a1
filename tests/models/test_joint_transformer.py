"""The joint transformer: its shapes, its time in seconds, and that it learns both modalities."""

import math
from dataclasses import asdict
from fractions import Fraction
from itertools import pairwise

import pytest
import torch

from mmdiff.diffusion.objective import make_objective, per_example_mse
from mmdiff.diffusion.schedule import DiffusionConfig, make_scheduler
from mmdiff.models.joint_transformer import JointTransformer, JointTransformerConfig
from mmdiff.models.rotary import middles, phases, rotate
from mmdiff.models.time_grid import TimeGrid

TINY = {
    "video_channels": 3,
    "audio_channels": 2,
    "width": 32,
    "depth": 2,
    "num_heads": 2,
    "time_grid": ("1/10", "1/10", "1/40", "1/40"),
    "timestep_per_modality": True,
}
NAMES = ("video", "audio")


def tiny_inputs(frames: int = 4, steps: int = 16, batch: int = 2) -> tuple[dict, dict]:
    generator = torch.Generator().manual_seed(1)
    noisy = {
        "video": torch.randn(batch, 3, frames, 4, 8, generator=generator),
        "audio": torch.randn(batch, 2, steps, generator=generator),
    }
    return noisy, {name: torch.linspace(10.0, 500.5, batch) for name in noisy}


def randomised(**settings) -> JointTransformer:
    """A network whose zeroed branches are open, so that everything matters."""
    torch.manual_seed(0)
    network = JointTransformer(**{**TINY, **settings})
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def difference(one: dict, other: dict) -> float:
    return max((one[name] - other[name]).abs().max().item() for name in NAMES)


@pytest.mark.parametrize("settings", [{}, {"audio_patch": 4}, {"video_patch": 1, "learn_sigma": True}])
def test_shapes_and_other_lengths(settings):
    network = randomised(**settings)
    factor = 1 + network.settings.learn_sigma
    for frames, steps in ((4, 16), (1, 1), (3, 13)):
        noisy, timesteps = tiny_inputs(frames, steps)
        output = network(noisy, timesteps)
        for name, x in noisy.items():
            assert output[name].shape == (2, factor * x.shape[1], *x.shape[2:])


def test_tokens_are_put_back_where_they_were():
    network = JointTransformer(**TINY, audio_patch=3)
    noisy, _ = tiny_inputs()
    assert difference(network._to_latents(network._to_tokens(noisy), noisy), noisy) == 0


def test_it_begins_as_nothing():
    noisy, timesteps = tiny_inputs()
    assert all(not x.any() for x in JointTransformer(**TINY)(noisy, timesteps).values())


def test_each_modality_reaches_the_other():
    network = randomised()
    noisy, timesteps = tiny_inputs()
    before = network(noisy, timesteps)
    for name, other in (NAMES, NAMES[::-1]):
        after = network({**noisy, name: noisy[name] + 1}, timesteps)
        assert (before[other] - after[other]).abs().max() > 1e-3


def test_each_stream_hears_of_both_times_where_it_is_told():
    _, timesteps = tiny_inputs()
    given = {**timesteps, "audio": torch.zeros(2)}
    told = randomised()
    embedded = [told._embed(times, None, torch.float32, None)["video"] for times in (timesteps, given)]
    assert (embedded[0] - embedded[1]).abs().max() > 1e-3
    untold = randomised(timestep_per_modality=False)
    embedded = [untold._embed(times, None, torch.float32, None)["video"] for times in (timesteps, given)]
    assert torch.equal(*embedded)


def test_equal_time_in_seconds_is_equal_phase_at_any_rate():
    """What is heard in the middle of a frame has the frame's angles, though there are five steps to a frame."""
    grid = {"time_grid": ("1/10", "1/10", "1/50", "1/50")}
    network = JointTransformer(**{**TINY, **grid})
    state = {"video": torch.zeros(1, 3, 6, 4, 8), "audio": torch.zeros(1, 2, 30)}
    angles = {name: network.angles(name, x) for name, x in state.items()}
    in_time = network.settings.head_channels // 2 - 2 * (network.settings.head_channels // 8)
    per_frame = angles["video"].reshape(6, 2 * 4, -1)
    assert torch.allclose(per_frame[:, 0, :in_time], angles["audio"][2::5, :in_time], atol=1e-4)
    assert torch.equal(per_frame[:, 0, :in_time], per_frame[:, -1, :in_time])
    assert not angles["audio"][:, in_time:].any() and per_frame[:, -1, in_time:].all()
    patched = JointTransformer(**{**TINY, **grid, "audio_patch": 5}).angles("audio", state["audio"])
    assert torch.allclose(patched[:, :in_time], per_frame[:, 0, :in_time], atol=1e-4)


def test_a_token_s_time_is_the_middle_of_its_step_on_the_grid():
    """Also of a causal codec, whose steps are of 1, 4 and 4 frames: the middles are at half, 3 and 7 frames."""
    grid = TimeGrid(Fraction(4, 24), Fraction(1, 24), Fraction(1, 25), Fraction(1, 100))
    config = JointTransformerConfig(**TINY).on_grid(grid, 9)
    assert config.grid == grid
    times = middles(3, 4 / 24, 1 / 24)
    assert torch.allclose(times * 24, torch.tensor([0.5, 3.0, 7.0]), atol=1e-5)
    for bounds, step, first in (
        (grid.video_bounds(9), grid.video_step, grid.first_video_step),
        (grid.audio_bounds(9), grid.audio_step, grid.first_audio_step),
    ):
        expected = [float(sum(pair)) / 2 for pair in pairwise(bounds)]
        assert middles(9, float(step), float(first)).tolist() == pytest.approx(expected, abs=1e-6)
    angles = JointTransformer(**asdict(config)).angles("audio", torch.zeros(1, 2, 3))
    assert torch.allclose(angles[:, 0], middles(3, 1 / 25, 1 / 100) * 2 * math.pi / 0.05, atol=1e-4)


def test_attention_depends_on_distances_alone():
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 5, 1, 16, generator=generator)

    def scores(offset: float) -> torch.Tensor:
        angles = phases(torch.arange(5) * 0.04 + offset, 8, (0.05, 50.0))
        turned = [rotate(x, angles.cos(), angles.sin()) for x in (query, key)]
        return turned[0][:, :, 0] @ turned[1][:, :, 0].mT

    assert torch.allclose(scores(0.0), scores(2.5), atol=1e-4)
    assert not torch.allclose(scores(0.0), query[:, :, 0] @ key[:, :, 0].mT, atol=1e-2)


def test_order_in_time_and_place_matters_and_order_in_the_batch_does_not():
    network = randomised()
    noisy, timesteps = tiny_inputs(batch=3)
    output, order = network(noisy, timesteps), torch.tensor([2, 0, 1])
    shuffled = network({n: x[order] for n, x in noisy.items()}, {n: t[order] for n, t in timesteps.items()})
    assert difference(shuffled, {n: x[order] for n, x in output.items()}) < 1e-5
    for axis in (2, 4):
        turned = network({**noisy, "video": noisy["video"].flip(axis)}, timesteps)
        assert (turned["video"].flip(axis) - output["video"]).abs().max() > 1e-3
    late = network({**noisy, "audio": noisy["audio"].flip(2)}, timesteps)
    assert (late["video"] - output["video"]).abs().max() > 1e-3


def test_every_parameter_learns_and_checkpointing_changes_nothing():
    network = randomised().train()
    noisy, timesteps = tiny_inputs()
    gradients = []
    for is_on in (False, True):
        network.zero_grad()
        (network.enable_gradient_checkpointing if is_on else network.disable_gradient_checkpointing)()
        assert network.gradient_checkpointing is is_on
        sum(x.square().mean() for x in network(noisy, timesteps).values()).backward()
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters()})
    assert all(gradient.any() for gradient in gradients[0].values())
    for name in NAMES:
        assert sum(name in parameter.split(".") for parameter in gradients[0]) > 20
    assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-6) for name in gradients[0])


def test_one_batch_is_overfitted_in_both_modalities():
    """The velocity of one batch at two thirds of the way to noise and with either modality given."""
    torch.manual_seed(0)
    network = JointTransformer(**TINY).train()
    config = DiffusionConfig(prediction_type="flow", timestep_mode="per_modality")
    objective, generator = make_objective(config, make_scheduler(config)), torch.Generator().manual_seed(0)
    clean, _ = tiny_inputs(batch=4)
    noise = {name: torch.randn(x.shape, generator=generator) for name, x in clean.items()}
    timesteps = {"video": torch.tensor([667.0, 667, 0, 667]), "audio": torch.tensor([667.0, 667, 667, 0])}
    noisy = {name: objective.add_noise(clean[name], noise[name], timesteps[name]) for name in NAMES}
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        output = network(noisy, timesteps)
        loss = {n: per_example_mse(output[n], objective.target(clean[n], noise[n], timesteps[n])).mean() for n in NAMES}
        optimizer.zero_grad()
        sum(loss.values()).backward()
        optimizer.step()
        losses.append({name: value.item() for name, value in loss.items()})
    assert all(losses[-1][name] < 0.1 * losses[0][name] for name in NAMES)


def test_what_is_saved_is_loaded(tmp_path):
    network = randomised(wavelengths=(0.02, 20.0), audio_patch=2)
    network.save_pretrained(tmp_path)
    loaded = JointTransformer.from_pretrained(tmp_path).eval()
    noisy, timesteps = tiny_inputs()
    assert loaded.settings == network.settings and loaded.config.timestep_per_modality
    assert difference(loaded(noisy, timesteps), network(noisy, timesteps)) == 0


def test_the_network_compiles_without_a_graph_break():
    network = randomised(audio_patch=3)
    noisy, timesteps = tiny_inputs()
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="eager", fullgraph=True)  # raises where the graph would break
    assert difference(network(noisy, timesteps), compiled(noisy, timesteps)) < 1e-5


def test_bfloat16_is_near_float32():
    network = randomised()
    noisy, timesteps = tiny_inputs()
    exact = network(noisy, timesteps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near = network(noisy, timesteps)
    whole = network.to(torch.bfloat16)({name: x.bfloat16() for name, x in noisy.items()}, timesteps)
    size = max(x.abs().max().item() for x in exact.values())
    assert difference(exact, near) < 0.05 * size and difference(exact, whole) < 0.1 * size


def test_classes_change_the_output_and_must_be_given():
    noisy, timesteps = tiny_inputs()
    network = randomised(num_classes=3)
    one, two = (network(noisy, timesteps, labels=torch.tensor(labels)) for labels in ([0, 1], [2, 1]))
    assert all((one[name][0] - two[name][0]).abs().max() > 1e-3 for name in NAMES)
    assert all(torch.allclose(one[name][1], two[name][1], atol=1e-6) for name in NAMES)
    with pytest.raises(ValueError, match="labels none"):
        network(noisy, timesteps)
    with pytest.raises(ValueError, match="0 classes"):
        randomised()(noisy, timesteps, labels=torch.tensor([0, 1]))


def test_impossible_settings_and_sizes_are_refused():
    for settings, words in (
        ({"width": 36}, "heads"),
        ({"time_grid": ("1/10", "1/10", "0", "1/80")}, "audio_step"),
        ({"time_grid": ("1/10", "1/80")}, "time_grid"),
        ({"wavelengths": (1.0, 0.5)}, "shortest"),
        ({"depth": 0}, "depth"),
        ({"modalities": ("audio", "video")}, "modalities"),
        ({"modalities": ("video",)}, "of two modalities"),
    ):
        with pytest.raises(ValueError, match=words):
            JointTransformerConfig(**{**TINY, **settings})
    noisy, timesteps = tiny_inputs()
    with pytest.raises(ValueError, match="patches"):
        randomised(video_patch=8)({**noisy}, timesteps)
    with pytest.raises(ValueError, match="audio of shape"):
        randomised()({**noisy, "audio": noisy["audio"][:, :1]}, timesteps)
