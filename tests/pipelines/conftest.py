"""A tiny model of random weights, small enough to sample in a fraction of a second."""

import pytest
import torch

from mmdiff.checkpoint import JointComponents, save_components
from mmdiff.diffusion.schedule import DiffusionConfig, make_scheduler
from mmdiff.media import ClipSpec
from mmdiff.models import CoupledUNet, PatchCodec, PixelCodec, WaveformCodec


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """Folder of a saved model of 4 frames 16x16 at 10 fps, whose branches influence each other."""
    torch.manual_seed(0)
    network = CoupledUNet(
        model_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, num_heads=2, norm_groups=4,
        cross_attention_head_channels=4, cross_attention_resolutions=(2,), cross_attention_windows=(2,),
        video_attention_resolutions=(2,), timestep_per_modality=True,
    )  # fmt: skip
    for parameter in network.parameters():  # layers that start at zero would make it deaf and blind
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    schedule = make_scheduler(DiffusionConfig(prediction_type="v_prediction"))
    spec = ClipSpec(num_frames=4, height=16, width=16)
    parts = JointComponents(network, PixelCodec(), WaveformCodec(), schedule, spec)
    return save_components(tmp_path_factory.mktemp("model") / "tiny", parts)


@pytest.fixture(scope="session")
def continuing_folder(tmp_path_factory):
    """Folder of a saved model of such clips, whose network is told what it is given, and so can go on from it."""
    torch.manual_seed(0)
    network = CoupledUNet(
        video_channels=4, model_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, num_heads=2, norm_groups=4,
        cross_attention_head_channels=4, cross_attention_resolutions=(2,), cross_attention_windows=(1,),
        cross_attention_shift=False, video_attention_resolutions=(2,), timestep_per_modality=True, given_channel=True,
    )  # fmt: skip
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    schedule = make_scheduler(DiffusionConfig(prediction_type="v_prediction", clip_sample=False))
    spec = ClipSpec(num_frames=4, height=16, width=16)
    parts = JointComponents(network, PatchCodec(patch_size=2, latent_channels=4), WaveformCodec(), schedule, spec)
    return save_components(tmp_path_factory.mktemp("model") / "continuing", parts)
