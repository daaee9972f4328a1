"""AudioCLIP's ear from a file with the published names: what it refuses, what it gives, and what it computes."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from mmdiff.eval.features.audioclip import AudioCLIP, AudioClipConfig, AudioClipNetwork
from mmdiff.eval.features.audioclip.network import Wavelets, blackman_harris, windowed
from mmdiff.media import Clip

TINY = AudioClipConfig(depths=(2, 1, 1, 1), width=8, groups=2, embedding=16)
EYES = {
    "visual.conv1.weight": torch.zeros(2, 3),
    "logit_scale_ai": torch.tensor(4.6),
    "token_embedding.weight": torch.zeros(5),
}


def make_clip(num_samples: int, seed: int = 0, sample_rate: int = 44_100) -> Clip:
    waveform = 0.3 * np.random.default_rng(seed).standard_normal((2, num_samples))
    return Clip(np.zeros((1, 4, 4, 3), np.uint8), waveform.astype(np.float32), Fraction(10), sample_rate)


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    network = AudioClipNetwork(TINY)
    network.fbsp.m.data.uniform_(0, 2)
    return {f"audio.{name}": x for name, x in network.state_dict().items()} | EYES


@pytest.fixture(scope="module")
def path(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("audioclip") / "AudioCLIP-Full-Training.pt"
    torch.save(state, path)
    return str(path)


@pytest.fixture(scope="module")
def extractor(path):
    return AudioCLIP.load(path, config=TINY)


def test_the_full_network_has_the_published_names_and_sizes():
    with torch.device("meta"):
        state = AudioClipNetwork(AudioClipConfig()).state_dict()
    shapes = {
        "window": (1654,),
        "fbsp.m": (1025,),
        "fbsp.bias": (0,),
        "conv1.weight": (64, 3, 7, 7),
        "layer1.0.conv2.weight": (128, 4, 3, 3),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer4.2.bn3.running_var": (2048,),
        "att1.conv_depth.weight": (64, 1, 3, 1),
        "att2.conv_depth.weight": (256, 1, 1, 5),
        "att5.conv_point.weight": (2048, 2048, 1, 1),
        "fc.weight": (1024, 2048),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    # counted in the published code
    assert len(state) == 370 and sum(x.numel() for x in state.values()) == 32_186_483


def test_sounds_of_different_lengths_give_one_vector_each(extractor):
    clips = [
        make_clip(70_560),
        make_clip(2000, 1),
        make_clip(2000, 2),
        make_clip(16_000, 3, 16_000),
        make_clip(70_560, 4),
    ]
    together = extractor.extract(clips)
    alone = [extractor.extract([clip])[0] for clip in clips]
    for found, expected in zip(together, alone, strict=True):
        assert found.keys() == extractor.outputs.keys()
        assert found["audio"].shape == found["audio_raw"].shape == (1, 16)
        assert found["audio"].dtype == np.float32
        assert np.linalg.norm(found["audio"]) == pytest.approx(1, abs=1e-5)
        assert found["audio_raw"] == pytest.approx(expected["audio_raw"], abs=1e-5)
        raw = found["audio_raw"]
        assert found["audio"] == pytest.approx(raw / np.linalg.norm(raw), abs=1e-6)


def test_the_first_channel_is_what_is_heard(extractor):
    clip = make_clip(9000)
    deaf = Clip(clip.frames, clip.waveform * np.float32([[1], [0]]), clip.fps, clip.sample_rate)
    assert np.array_equal(extractor.extract([clip])[0]["audio"], extractor.extract([deaf])[0]["audio"])


def test_the_level_that_is_fed_is_in_the_name(path, extractor):
    louder = AudioCLIP.load(path, level="16-bit", config=TINY)
    assert (extractor.name, louder.name) == ("audioclip", "audioclip:16-bit")
    clip = make_clip(9000)
    assert not np.allclose(extractor.extract([clip])[0]["audio_raw"], louder.extract([clip])[0]["audio_raw"], atol=1e-4)
    with pytest.raises(ValueError, match="level 'loud' is unknown"):
        AudioCLIP.load(path, level="loud", config=TINY)


def test_less_than_a_window_is_refused(extractor):
    with pytest.raises(ValueError, match="1653 samples"):
        extractor.extract([make_clip(1653)])


def test_files_that_do_not_fit_are_refused_but_what_is_not_learned_may_lack(state, tmp_path):
    slim = {name: x for name, x in state.items() if name not in ("audio.window", "audio.fbsp.bias")}
    torch.save(slim, tmp_path / "slim.pt")
    AudioCLIP.load(str(tmp_path / "slim.pt"), config=TINY)
    del slim["audio.fbsp.fc"]
    torch.save(slim, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=r"fbsp\.fc missing"):
        AudioCLIP.load(str(tmp_path / "bad.pt"), config=TINY)
    torch.save(EYES, tmp_path / "eyes.pt")
    with pytest.raises(ValueError, match="not weights of AudioClipNetwork"):
        AudioCLIP.load(str(tmp_path / "eyes.pt"), config=TINY)


def test_wavelets_of_order_zero_are_a_fourier_transform():
    kernels = Wavelets().kernels().detach()
    time = math.pi * torch.linspace(-1, 1, 2048)
    for k in (0, 1, 7):
        assert kernels[0, k].numpy() == pytest.approx((torch.cos(k * time) / 2048**0.5).numpy(), abs=1e-5)
        assert kernels[1, k].numpy() == pytest.approx((-torch.sin(k * time) / 2048**0.5).numpy(), abs=1e-5)


def test_wavelets_of_broken_order_follow_the_definition():
    wavelets = Wavelets()
    with torch.no_grad():
        wavelets.m[3], wavelets.fb[3], wavelets.fc[3] = 1.5, 4.0, 2.25
    kernels = wavelets.kernels().detach().numpy()
    for n in (5, 600, 1024, 2000):
        time = math.pi * (-1 + 2 * n / 2047)
        x = 4.0 * time / 1.5
        value = 2.0 * complex(math.sin(x) / x) ** 1.5 * np.exp(-2.25j * time) / 2048**0.5
        assert complex(*kernels[:, 3, n]) == pytest.approx(value, abs=1e-5)


def test_frames_lie_in_the_middle_of_what_is_padded():
    wave = torch.arange(1.0, 3001.0)[None]
    frames = windowed(wave, torch.ones(1654))
    assert frames.shape == (1, 4, 2048)  # 1 + ceil((3000 - 1654) / 561)
    pad = (3 * 561 + 1654 - 3000) // 2
    assert frames[0, 0, 197 + pad] == 1 and frames[0, 0, 196 + pad] == 0
    assert frames[0, 1, 197] == 1 + 561 - pad
    assert frames[0, 3, 1850] == 0


def test_the_window_is_scipys():
    from scipy.signal import get_window

    assert blackman_harris(1654).numpy() == pytest.approx(get_window("blackmanharris", 1654), abs=1e-7)
