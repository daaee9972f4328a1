"""The channel that tells a network what it is given."""

import pytest
import torch

from mmdiff.models import CoupledUNet, JointTransformer
from mmdiff.models.time_grid import denoised

SMALL = {
    CoupledUNet: {"video_channels": 2, "audio_channels": 3, "model_channels": 16, "channel_multipliers": (1, 2),
                  "num_res_blocks": 1, "num_heads": 2, "cross_attention_resolutions": (2,), "norm_groups": 8,
                  "cross_attention_windows": (1,), "cross_attention_shift": False, "audio_downsampling": 2,
                  "time_grid": ("1/10", "1/10", "1/70", "1/70")},
    JointTransformer: {"video_channels": 2, "audio_channels": 3, "width": 32, "depth": 2, "num_heads": 2,
                       "audio_patch": 2, "time_grid": ("1/10", "1/10", "1/70", "1/70")},
}  # fmt: skip


def build(network_class: type, **settings):
    torch.manual_seed(0)
    network = network_class(**SMALL[network_class], **settings)
    for parameter in network.parameters():  # nothing starts at zero here: every input must count
        parameter.data = torch.randn_like(parameter) * 0.1
    return network.eval()


def noise() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"video": (2, 2, 3, 4, 4), "audio": (2, 3, 21)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


TIMES = {"video": torch.full((2,), 500), "audio": torch.full((2,), 500)}


@pytest.mark.parametrize("network_class", SMALL)
@torch.no_grad()
def test_marked_steps_change_what_is_predicted_for_their_own_clip_only(network_class):
    network = build(network_class, given_channel=True)
    plain = denoised(network, noise(), TIMES)
    nothing = {"video": torch.zeros(3, dtype=torch.bool), "audio": torch.zeros(2, 21, dtype=torch.bool)}
    first = {"audio": torch.tensor([[True] * 7 + [False] * 14, [False] * 21])}
    told = denoised(network, noise(), TIMES, given=first)
    for name in plain:
        assert torch.equal(denoised(network, noise(), TIMES, given=nothing)[name], plain[name])
        assert (told[name][0] - plain[name][0]).abs().max() > 1e-4
        torch.testing.assert_close(told[name][1], plain[name][1], rtol=1e-5, atol=1e-5)
        assert told[name].shape == noise()[name].shape


@pytest.mark.parametrize("network_class", SMALL)
def test_a_network_without_the_channel_refuses_marks(network_class):
    with pytest.raises(ValueError, match="no given_channel"):
        build(network_class)(noise() | {"audio": noise()["audio"][..., :20]}, TIMES, given={"video": torch.ones(3) > 0})
