"""Text in our networks: it counts, for its own clip alone; padding does not; no text is one learned token."""

import pytest
import torch

from mmdiff.models import CoupledUNet, JointTransformer
from mmdiff.models.text import TextStates
from mmdiff.models.time_grid import denoised

SMALL = {
    CoupledUNet: {"video_channels": 2, "audio_channels": 3, "model_channels": 16, "channel_multipliers": (1, 2),
                  "num_res_blocks": 1, "num_heads": 2, "cross_attention_resolutions": (2,), "norm_groups": 8,
                  "cross_attention_windows": (1,), "cross_attention_shift": False, "audio_downsampling": 2,
                  "time_grid": ("1/10", "1/10", "1/70", "1/70")},
    JointTransformer: {"video_channels": 2, "audio_channels": 3, "width": 32, "depth": 2, "num_heads": 2,
                       "audio_patch": 2, "time_grid": ("1/10", "1/10", "1/70", "1/70")},
}  # fmt: skip
PICTURE = {"video_channels": 2, "width": 32, "depth": 2, "num_heads": 2, "modalities": ("video",)}
SHAPES = {"video": (2, 2, 3, 4, 4), "audio": (2, 3, 21)}


def build(network_class: type, **settings):
    """A network in which nothing starts at zero: every input must count."""
    torch.manual_seed(0)
    network = network_class(**{**SMALL[network_class], "text_channels": 5, **settings})
    for name, parameter in network.named_parameters():
        parameter.data = torch.randn_like(parameter) * (0.5 if name.startswith("text.") else 0.1)
    return network.eval()


def noise(*names: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items() if name in names}


def run(network, text=None):
    state = noise(*network.settings.modalities)
    with torch.no_grad():
        return denoised(network, state, {name: torch.full((2,), 500) for name in state}, text=text)


def states(lengths=(4, 2), length=4, seed=2) -> TextStates:
    values = torch.randn(len(lengths), length, 5, generator=torch.Generator().manual_seed(seed))
    return TextStates(values, torch.arange(length) < torch.tensor(lengths)[:, None])


def same(one: dict, other: dict, clip: slice = slice(None)) -> bool:
    return all(torch.allclose(one[name][clip], other[name][clip], rtol=1e-5, atol=1e-5) for name in one)


def differ(one: dict, other: dict, clip: int) -> bool:
    return all((one[name][clip] - other[name][clip]).abs().max() > 1e-4 for name in one)


@pytest.mark.parametrize("network_class", SMALL)
def test_text_changes_what_is_predicted_for_its_own_clip_alone(network_class):
    network, text = build(network_class), states()
    plain, told = run(network), run(network, text)
    assert differ(plain, told, 0) and differ(plain, told, 1)
    values = text.values.clone()
    values[0, 1] = values[0, 1].flip(0)
    changed = run(network, TextStates(values, text.mask))
    assert differ(told, changed, 0) and same(told, changed, slice(1, 2))


@pytest.mark.parametrize("network_class", SMALL)
def test_what_is_masked_is_never_seen(network_class):
    network, text = build(network_class), states()
    told = run(network, text)
    for filling in (7.0, float("nan")):
        filled = TextStates(text.values.masked_fill(~text.mask[..., None], filling), text.mask)
        assert all(torch.equal(x, told[name]) for name, x in run(network, filled).items())
    longer = TextStates(torch.nn.functional.pad(text.values, (0, 0, 0, 5)), torch.nn.functional.pad(text.mask, (0, 5)))
    assert same(told, run(network, longer))


@pytest.mark.parametrize("network_class", SMALL)
def test_no_text_is_one_learned_token(network_class):
    """Also for one clip of a batch; and it is not the text of zeros, nor that of nothing to attend to."""
    network = build(network_class)
    plain = run(network)
    assert same(plain, run(network, states(lengths=(0, 0))))
    half = run(network, states(lengths=(0, 2)))
    assert same(plain, half, slice(0, 1)) and differ(plain, half, 1)
    assert differ(plain, run(network, TextStates(torch.zeros(2, 1, 5), torch.ones(2, 1) > 0)), 0)
    network.text.null.data += 1
    assert differ(plain, run(network), 0)


@pytest.mark.parametrize("network_class", SMALL)
def test_every_parameter_learns_from_text_and_from_none(network_class):
    network = build(network_class).train()
    state = noise("video", "audio")
    state["audio"] = state["audio"][..., :20]
    times = {name: torch.full((2,), 500) for name in state}
    gradients = []
    for is_on in (False, True):
        network.zero_grad()
        (network.enable_gradient_checkpointing if is_on else network.disable_gradient_checkpointing)()
        output = network(state, times, text=states(lengths=(0, 3)))
        sum(x.square().mean() for x in output.values()).backward()
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters()})
    assert all(gradient.any() for gradient in gradients[0].values())
    assert all(torch.allclose(x, gradients[1][name], atol=1e-6) for name, x in gradients[0].items())


@pytest.mark.parametrize("network_class", SMALL)
def test_text_of_the_wrong_kind_is_refused(network_class):
    with pytest.raises(ValueError, match="without text_channels"):
        run(build(network_class, text_channels=0), states())
    for wrong in (TextStates(torch.zeros(2, 3, 4), torch.ones(2, 3) > 0), states(lengths=(1,)),
                  TextStates(torch.zeros(2, 3, 5), torch.ones(2, 2) > 0)):  # fmt: skip
        with pytest.raises(ValueError, match="takes 5 channels"):
            run(build(network_class), wrong)


def test_a_network_of_pictures_alone_is_told_text_too(tmp_path):
    network = build(JointTransformer, **PICTURE)
    plain, told = run(network), run(network, states())
    assert plain.keys() == {"video"} and plain["video"].shape == SHAPES["video"] and differ(plain, told, 1)
    assert not any("audio" in name.split(".") for name in network.state_dict())
    network.save_pretrained(tmp_path)
    loaded = JointTransformer.from_pretrained(tmp_path).eval()
    assert loaded.settings == network.settings and torch.equal(run(loaded, states())["video"], told["video"])
    with pytest.raises(ValueError, match="given to a network of video"):
        network(noise("video", "audio"), {name: torch.full((2,), 500) for name in SHAPES})


def test_with_text_the_transformer_compiles_and_runs_in_bfloat16():
    network, text = build(JointTransformer), states()
    state = noise("video", "audio")
    times = {name: torch.full((2,), 500.0) for name in state}
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    with torch.no_grad():
        told = network(state, times, text=text)
        assert same(told, compiled(state, times, text=text))
        near = network.to(torch.bfloat16)({name: x.bfloat16() for name, x in state.items()}, times, text=text)
    size = max(x.abs().max() for x in told.values())
    assert all((near[name] - x).abs().max() < 0.1 * size for name, x in told.items())
