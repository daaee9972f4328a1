"""The coupled U-Net: its published size, its shapes, its shifts, and that it learns both modalities."""

import pytest
import torch

from mmdiff.models import CoupledUNet, CoupledUNetConfig
from mmdiff.models.attention import attend

TINY = {
    "model_channels": 16,
    "channel_multipliers": (1, 2),
    "num_res_blocks": 1,
    "cross_attention_resolutions": (1, 2),
    "cross_attention_windows": (1, 2),
    "cross_attention_head_channels": 8,
    "video_attention_resolutions": (2,),
    "norm_groups": 8,
}


def tiny_inputs(frames: int = 4, samples: int = 64) -> tuple[dict, dict]:
    generator = torch.Generator().manual_seed(1)
    noisy = {
        "video": torch.randn(2, 3, frames, 8, 8, generator=generator),
        "audio": torch.randn(2, 1, samples, generator=generator),
    }
    return noisy, {name: torch.tensor([10, 500]) for name in noisy}


def randomised(**settings) -> CoupledUNet:
    """A network whose zeroed branches are open, so that everything matters."""
    torch.manual_seed(0)
    network = CoupledUNet(**{**TINY, **settings})
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def test_the_default_is_the_published_base_model():
    with torch.device("meta"):
        network = CoupledUNet()
    assert sum(p.numel() for p in network.parameters()) == 133_675_524
    assert len(list(network.parameters())) == 1046
    assert len(network.cross_blocks) == 16


def test_shapes_and_other_lengths():
    network = randomised()
    for frames, samples in ((4, 64), (6, 92), (3, 32)):
        noisy, timesteps = tiny_inputs(frames, samples)
        output = network(noisy, timesteps)
        assert {name: x.shape for name, x in output.items()} == {name: x.shape for name, x in noisy.items()}


def test_a_size_that_does_not_divide_is_refused():
    network = randomised()
    noisy, timesteps = tiny_inputs(samples=65)
    with pytest.raises(ValueError, match="audio of size"):
        network(noisy, timesteps)


def test_each_modality_reaches_the_other():
    network = randomised()
    noisy, timesteps = tiny_inputs()
    before = network(noisy, timesteps, shifts=[0] * len(network.windowed_blocks))
    other = {"video": noisy["video"], "audio": noisy["audio"] + 1}
    after = network(other, timesteps, shifts=[0] * len(network.windowed_blocks))
    assert (before["video"] - after["video"]).abs().max() > 1e-3


def test_shifts_come_from_the_generator_and_matter():
    network = randomised()
    noisy, timesteps = tiny_inputs()
    draws = [network.draw_shifts(4, torch.Generator().manual_seed(seed)).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    windows = [block.window_frames(4) for block in network.windowed_blocks]
    assert all(0 <= shift <= 4 - window for shift, window in zip(draws[0], windows))
    one = network(noisy, timesteps, generator=torch.Generator().manual_seed(0))
    same = network(noisy, timesteps, shifts=draws[0])
    other = network(noisy, timesteps, shifts=draws[2])
    assert torch.equal(one["video"], same["video"])
    assert not torch.allclose(one["video"], other["video"])


def test_checkpointed_gradients_equal_the_plain_ones():
    noisy, timesteps = tiny_inputs()
    gradients = []
    for is_checkpointed in (False, True):
        network = randomised().train()
        if is_checkpointed:
            network.enable_gradient_checkpointing()
        output = network(noisy, timesteps, generator=torch.Generator().manual_seed(3))
        sum(x.square().mean() for x in output.values()).backward()
        gradients.append([p.grad for p in network.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients))


def test_one_timestep_for_each_modality():
    network = randomised(timestep_per_modality=True, frame_phase=True)
    noisy, timesteps = tiny_inputs()
    shifts = [0] * len(network.windowed_blocks)
    clean_video = network(noisy, {**timesteps, "video": torch.zeros(2, dtype=torch.long)}, shifts=shifts)
    assert not torch.allclose(clean_video["audio"], network(noisy, timesteps, shifts=shifts)["audio"])


def test_saved_and_loaded_it_is_the_same(tmp_path):
    network = randomised()
    network.save_pretrained(tmp_path)
    again = CoupledUNet.from_pretrained(tmp_path)
    noisy, timesteps = tiny_inputs()
    shifts = [0] * len(network.windowed_blocks)
    ours, theirs = network(noisy, timesteps, shifts=shifts), again(noisy, timesteps, shifts=shifts)
    assert all(torch.equal(ours[name], theirs[name]) for name in noisy)


def test_impossible_settings_die_at_construction():
    with pytest.raises(ValueError, match="one window for each"):
        CoupledUNetConfig(cross_attention_windows=(1,))
    with pytest.raises(ValueError, match="no multiple"):
        CoupledUNetConfig(model_channels=100)


def test_the_network_compiles_without_a_graph_break():
    network = randomised()
    noisy, timesteps = tiny_inputs()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(network, backend="eager", fullgraph=True)  # raises where the graph would break
    for seed in range(3):
        shifts = network.draw_shifts(4, torch.Generator().manual_seed(seed))
        ours, theirs = network(noisy, timesteps, shifts=shifts), compiled(noisy, timesteps, shifts=shifts)
        assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1  # one for every shift


def test_a_network_without_shifts_needs_none_and_a_wrong_number_is_refused():
    noisy, timesteps = tiny_inputs()
    network = randomised(cross_attention_shift=False)
    assert network.draw_shifts(4) is None
    plain, told = network(noisy, timesteps), network(noisy, timesteps, shifts=[])
    zeros = randomised()(noisy, timesteps, shifts=[0] * len(network.windowed_blocks))
    assert all(torch.equal(plain[name], told[name]) for name in plain)
    assert all(torch.allclose(plain[name], zeros[name], atol=1e-5) for name in plain)
    with pytest.raises(ValueError, match="2 shifts are given"):
        randomised()(noisy, timesteps, shifts=[0, 0])


def test_attention_backends_agree_and_others_are_refused():
    network = randomised()
    noisy, timesteps = tiny_inputs()
    shifts = network.draw_shifts(4)
    with torch.no_grad():
        before = network(noisy, timesteps, shifts=shifts)
        network.set_attention_backend("flash")
        after = network(noisy, timesteps, shifts=shifts)
    assert all(torch.allclose(before[name], after[name], atol=1e-5) for name in before)
    with pytest.raises(ValueError, match="sdpa, flash, xformers"):
        network.set_attention_backend("fast")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="xformers"):
            network.set_attention_backend("xformers")


def test_bfloat16_attention_by_products_equals_the_kernel():
    query, key, value = torch.randn(3, 5, 7, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = attend(query.float(), key.float(), value.float(), 4)
    with torch.no_grad():
        assert torch.allclose(attend(query, key, value, 4).float(), expected, atol=2e-2)


def test_labels_matter_and_are_asked_for():
    network = randomised(num_classes=3)
    noisy, timesteps = tiny_inputs()
    shifts = network.draw_shifts(4)
    one, two = (network(noisy, timesteps, shifts=shifts, labels=torch.tensor([0, k])) for k in (1, 2))
    assert torch.equal(one["video"][0], two["video"][0])
    assert not torch.allclose(one["audio"][1], two["audio"][1])
    with pytest.raises(ValueError, match="3 classes"):
        network(noisy, timesteps)
    with pytest.raises(ValueError, match="0 classes"):
        randomised()(noisy, timesteps, labels=torch.tensor([0, 1]))


def test_a_learned_variance_doubles_the_channels():
    noisy, timesteps = tiny_inputs()
    output = randomised(learn_sigma=True)(noisy, timesteps)
    assert output["video"].shape[1] == 6
    assert output["audio"].shape[1] == 2
