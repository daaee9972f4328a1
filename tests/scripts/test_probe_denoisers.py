"""What the probe prints is what a network's answers are worth."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from probe_denoisers import HOW, levels, probe

from mmdiff.diffusion.schedule import DiffusionConfig, make_scheduler
from mmdiff.media import ClipSpec
from mmdiff.models import CoupledUNet, PatchCodec, WaveformCodec
from mmdiff.pipelines import JointPipeline


@pytest.mark.parametrize("kind", ["flow", "v_prediction", "epsilon"])
def test_a_network_that_says_nothing_has_the_error_of_its_schedule(kind):
    """An untrained head answers 0: the clean prediction is then a known multiple of the noisy state."""
    torch.manual_seed(0)
    network = CoupledUNet(
        video_channels=4, model_channels=8, channel_multipliers=(1,), num_res_blocks=1, num_heads=2, norm_groups=4,
        cross_attention_resolutions=(), cross_attention_windows=(), video_attention_resolutions=(),
        timestep_per_modality=True, given_channel=True,
    )  # fmt: skip
    schedule = make_scheduler(DiffusionConfig(prediction_type=kind, clip_sample=False))
    pipe = JointPipeline(network, PatchCodec(patch_size=2, latent_channels=4), WaveformCodec(), schedule, ClipSpec())
    clean = {"video": torch.randn(4, 4, 4, 8, 8), "audio": torch.randn(4, 1, 6_400)}
    for decibels in (-10, 0, 10):
        level, _ = levels(schedule, decibels)
        assert level.signal / level.sigma == pytest.approx(10 ** (decibels / 20), rel=0.02)
        factor = {"flow": 1.0, "v_prediction": level.signal, "epsilon": 1 / level.signal}[kind]
        expected = (factor * level.signal - 1) ** 2 + (factor * level.sigma) ** 2
        for how in HOW:
            assert probe(pipe, clean, "video", how, decibels, seed=1) == pytest.approx(expected, rel=0.1)
