"""The super-resolution U-Net: ADM's tensors by name, the recorded vectors, any size, and what it refuses."""

import re
from dataclasses import asdict, replace

import pytest
import torch

from mmdiff.models.sr_unet import SuperResUNet, SuperResUNetConfig, infer_sr_config

TINY = SuperResUNetConfig(
    model_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(2,), num_heads=2,
    norm_groups=4,
)  # fmt: skip


def a_network(config=TINY):
    """Return a network that no zeroed layer silences."""
    torch.manual_seed(0)
    network = SuperResUNet(**asdict(config)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def shapes_of(config):
    with torch.device("meta"):
        return {name: tuple(x.shape) for name, x in SuperResUNet(**asdict(config)).state_dict().items()}


def test_the_defaults_are_the_published_network():
    shapes = shapes_of(SuperResUNetConfig())
    assert len(shapes) == 566
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 311_027_910
    assert shapes["input_blocks.0.0.weight"] == (192, 6, 3, 3) and shapes["out.2.weight"] == (6, 192, 3, 3)
    assert shapes["middle_block.1.qkv.weight"] == (3 * 768, 768, 1)


@pytest.mark.parametrize("config", [
    SuperResUNetConfig(),
    SuperResUNetConfig(num_classes=1000),  # the public 64 to 256 upsampler
    SuperResUNetConfig(num_classes=1000, attention_resolutions=(16, 32), num_head_channels=64),  # 128 to 512
    SuperResUNetConfig(model_channels=32, channel_multipliers=(1,), num_res_blocks=3, attention_resolutions=()),
    SuperResUNetConfig(model_channels=64, channel_multipliers=(2, 1, 3), num_res_blocks=1, learn_sigma=False,
                       attention_resolutions=(1, 4), use_scale_shift_norm=False),
], ids=lambda config: f"{config.model_channels}-{config.num_classes}-{config.num_res_blocks}")  # fmt: skip
def test_the_configuration_is_read_off_the_tensors(config):
    assert infer_sr_config(shapes_of(config), num_head_channels=config.num_head_channels) == config


def test_incomplete_and_foreign_tensors_are_refused_by_name():
    shapes = shapes_of(SuperResUNetConfig(model_channels=32, channel_multipliers=(1, 2), attention_resolutions=(2,)))
    for name in shapes:
        less = {key: shape for key, shape in shapes.items() if key != name}
        with pytest.raises(ValueError, match=r"tensor|stages|model"):
            infer_sr_config(less)
    with pytest.raises(ValueError, match="tensor spare"):
        infer_sr_config({**shapes, "spare.weight": (3,)})
    with pytest.raises(ValueError, match=re.escape("middle_block.1.norm.weight has the shape (3,)")):
        infer_sr_config({**shapes, "middle_block.1.norm.weight": (3,)})
    with pytest.raises(ValueError, match="no super-resolution network"):
        infer_sr_config({"conv.weight": (3, 3)})


def test_it_runs_at_any_size_and_batches_do_not_mix():
    network = a_network()
    noisy, low_res = torch.randn(3, 3, 8, 12), torch.rand(3, 3, 2, 3)
    timesteps = torch.tensor([0, 500, 999])
    with torch.no_grad():
        together = network(noisy, timesteps, low_res)
        alone = network(noisy[1:2], timesteps[1:2], low_res[1:2])
    assert together.shape == (3, 6, 8, 12)
    assert torch.allclose(together[1:2], alone, atol=1e-5)
    with pytest.raises(ValueError, match="multiples of 2"):
        network(noisy[..., :11], timesteps, low_res)
    with pytest.raises(ValueError, match="one batch"):
        network(noisy, timesteps, low_res[:2])


def test_labels_matter_where_there_are_classes_and_are_asked_for():
    network = a_network(replace(TINY, num_classes=5))
    inputs = torch.randn(2, 3, 8, 8), torch.tensor([3, 3]), torch.rand(2, 3, 2, 2)
    with torch.no_grad():
        one, other = (network(*inputs, labels=torch.tensor(labels)) for labels in ([0, 1], [0, 2]))
    assert torch.allclose(one[0], other[0], atol=1e-6) and not torch.allclose(one[1], other[1], atol=1e-3)
    with pytest.raises(ValueError, match="5 classes"):
        network(*inputs)
    with pytest.raises(ValueError, match="knows no classes"):
        a_network()(*inputs, labels=torch.tensor([0, 0]))


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for is_checkpointing in (False, True):
        network = a_network().train()
        if is_checkpointing:
            network.enable_gradient_checkpointing()
        generator = torch.Generator().manual_seed(1)
        noisy, low_res = torch.randn(2, 3, 8, 8, generator=generator), torch.rand(2, 3, 2, 2, generator=generator)
        network(noisy, torch.tensor([1, 700]), low_res).square().mean().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    assert gradients[0].abs().sum() > 0 and torch.allclose(*gradients, atol=1e-6)


def test_impossible_settings_are_refused():
    for faults in ({"norm_groups": 3}, {"num_heads": 3}, {"channel_multipliers": ()}, {"num_head_channels": 5}):
        with pytest.raises(ValueError, match="model: "):
            replace(TINY, **faults)
