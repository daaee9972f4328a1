"""Codecs fitted to a data set: ours, and pretrained ones whose latents are measured on it."""

from fractions import Fraction

import pytest
import torch

from data_tools.encode import load_codecs
from data_tools.impacts import synthesize_impacts
from mmdiff.checkpoint import load_part
from mmdiff.data.clips import ClipConfig, DataConfig
from mmdiff.data.loader import build_loader
from mmdiff.models import MelCodec, PatchCodec
from mmdiff.models.codecs.video import VIDEO_CODECS
from mmdiff.train.codec import fit_codecs
from tests.models.codecs.tiny_video import tiny


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    synthesize_impacts(folder, count=3, seconds=3, fps=Fraction(10), height=32, width=32, sample_rate=16_000, seed=5)
    return folder


@pytest.mark.parametrize("name", ["PatchCodec", "AutoencoderKL", "AutoencoderKLWan"])
@torch.no_grad()
def test_a_folder_of_codecs_fitted_to_a_data_set(name, clips, tmp_path):
    own = name == "PatchCodec"
    video = PatchCodec(latent_channels=8) if own else VIDEO_CODECS[name].from_network(tiny(name))
    spec, data = ClipConfig(height=28, width=28, num_frames=6).spec(), DataConfig(path=str(clips))
    figures = fit_codecs(data, spec, video, MelCodec(hop_length=200), tmp_path, num_windows=8, seed=0)
    assert set(figures) == ({"variance_kept", "psnr_db"} if own else {"psnr_db"})
    batch = next(iter(build_loader(data, spec, split="train", batch_size=8, seed=0)))
    for modality in ("video", "audio"):
        latent = load_part(tmp_path, f"{modality}_codec").encode(batch[modality])
        assert latent.square().mean().sqrt() == pytest.approx(1, abs=0.01)
    error = (video.reconstruct(batch["video"]) - batch["video"]).square().mean()
    assert figures["psnr_db"] == pytest.approx(float(10 * torch.log10(4 / error)), abs=0.01)
    assert load_codecs(tmp_path).clip == spec, "`mmdiff-data encode` takes the folder as it is"


def test_a_codec_for_another_rate_is_refused_before_any_work(clips, tmp_path):
    with pytest.raises(ValueError, match="for sound at 44100 Hz, the clip's is at 16000 Hz"):
        fit_codecs(
            DataConfig(path=str(clips)), ClipConfig(height=32, width=32, num_frames=4).spec(), PatchCodec(),
            MelCodec(sample_rate=44_100, n_fft=2048), tmp_path, num_windows=8, seed=0,
        )  # fmt: skip
