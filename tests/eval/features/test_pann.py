"""PANN reads published files, hears what librosa hears, and gives each clip its own vector in any batch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdiff.eval.features.logmel import slaney_filters
from mmdiff.eval.features.pann import CONFIGS, Cnn14, Pann
from mmdiff.pretrained import Weights
from tests.eval.features.sounds import noise_clip, sound_clip

TINY = replace(CONFIGS["pann-cnn14-16k"], channels=(4, 4, 8, 8, 16, 32), num_classes=11)


def make_extractor() -> Pann:
    """Build a tiny random Cnn14, as only a test may, its statistics away from 0 and 1."""
    torch.manual_seed(0)
    network = Cnn14(TINY).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
        elif isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    return Pann(network, TINY, Weights(Path("tiny"), "random", "0" * 64))


@pytest.mark.parametrize("name", CONFIGS)
def test_front_end_is_librosas(name):
    """The log-mel of either rate is that of librosa, in decibels."""
    librosa = pytest.importorskip("librosa")
    config = CONFIGS[name]
    waveform = noise_clip(0.5, config.sample_rate).waveform
    network = Cnn14(replace(config, channels=(1,) * 6, num_classes=1))
    ours = network.logmel_extractor(network.spectrogram_extractor(torch.from_numpy(waveform)))[0, 0].detach().numpy()
    mel = librosa.feature.melspectrogram(
        y=waveform[0], sr=config.sample_rate, n_fft=config.n_fft, hop_length=config.hop_length, n_mels=64,
        fmin=50, fmax=config.high_hz, pad_mode="reflect",
    )  # fmt: skip
    np.testing.assert_allclose(ours, 10 * np.log10(np.maximum(mel.T, 1e-10)), atol=2e-3)
    filters = slaney_filters(config.sample_rate, config.n_fft, 64, 50.0, config.high_hz)
    theirs = librosa.filters.mel(sr=config.sample_rate, n_fft=config.n_fft, n_mels=64, fmin=50, fmax=config.high_hz)
    np.testing.assert_allclose(filters.T.numpy(), theirs, atol=1e-8)


def test_batch_keeps_clips_apart():
    """Clips of two lengths give in one call what each gives alone."""
    extractor = make_extractor()
    loud = [10.0**-i * noise_clip(1.6, seed=i).waveform for i in range(3)]
    clips = [*(sound_clip(waveform, 16_000) for waveform in loud), noise_clip(0.7, 48_000, seed=9, channels=2)]
    together = extractor.extract(clips)
    for clip, out in zip(clips, together, strict=True):
        assert out["embedding"].shape == (1, 32) and out["logits"].shape == (1, 11)
        for key, values in extractor.extract([clip])[0].items():
            np.testing.assert_allclose(values, out[key], rtol=1e-4, atol=1e-5)
    assert not np.allclose(together[0]["logits"], together[1]["logits"], rtol=1e-3)


@pytest.mark.parametrize("is_zip", [True, False])
def test_published_file_is_read_without_running_it(tmp_path, is_zip):
    """A training checkpoint with NumPy arrays beside the network, as NumPy 1 wrote them, gives the same logits."""
    extractor = make_extractor()
    state = extractor.network.state_dict()
    published = ["spectrogram_extractor.stft.conv_real.weight", "spectrogram_extractor.stft.conv_imag.weight"]
    published += ["logmel_extractor.melW", "bn0.running_mean", "conv_block1.conv1.weight", "conv_block6.bn2.bias"]
    published += ["fc1.weight", "fc_audioset.bias"]
    assert set(published) < set(state)
    path = tmp_path / "Cnn14.pth"
    checkpoint = {"iteration": 3, "model": state, "sampler": {"indexes": np.arange(4), "pointer": np.int64(2)}}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=is_zip)
    if not is_zip:
        path.write_bytes(path.read_bytes().replace(b"cnumpy._core.", b"cnumpy.core."))
    loaded = Pann.load(str(path), config=TINY)
    clip = noise_clip(1.0)
    np.testing.assert_array_equal(loaded.extract([clip])[0]["logits"], extractor.extract([clip])[0]["logits"])


def test_wrong_weights_and_short_clips_are_refused(tmp_path):
    """The file of the other rate, of other widths, no file at all, and a clip of a quarter second."""
    torch.save({"model": make_extractor().network.state_dict()}, tmp_path / "Cnn14.pth")
    with pytest.raises(ValueError, match="not weights of Cnn14"):
        Pann.load(str(tmp_path / "Cnn14.pth"), config=replace(TINY, n_fft=1024))
    with pytest.raises(ValueError, match=r"not weights of Cnn14: .*\(4, 1, 3, 3\), not \(64, 1, 3, 3\)"):
        Pann.load(str(tmp_path / "Cnn14.pth"))
    with pytest.raises(ValueError, match="ship in no package"):
        Pann.load(None)
    with pytest.raises(ValueError, match=r"0.2500 s of sound, but it takes 0.310 s"):
        make_extractor().extract([noise_clip(0.25)])
    assert make_extractor().extract([noise_clip(0.31)])[0]["embedding"].shape == (1, 32)
