"""PANN Cnn14: one embedding and the scores of 527 AudioSet classes for a whole clip."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiff.eval.features.base import Extractor, InputRate, sound_at, to_array
from mmdiff.eval.features.logmel import reflect_ends, slaney_filters
from mmdiff.media import Clip
from mmdiff.pretrained import Weights, load_exactly, locate, read_state

N_MELS = 64
MIN_POWER = 1e-10
NUM_POOLINGS = 5  # each halves time
BATCH_SECONDS = 40.0


@dataclass(frozen=True)
class PannConfig:
    """Front end and widths of Cnn14; the defaults are those of `Cnn14_16k_mAP=0.438.pth`."""

    sample_rate: int = 16_000
    n_fft: int = 512
    hop_length: int = 160
    high_hz: float = 8000.0
    channels: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    num_classes: int = 527

    @property
    def min_samples(self) -> int:
        """Least samples that leave one step after the poolings."""
        return (2**NUM_POOLINGS - 1) * self.hop_length


CONFIGS = MappingProxyType(
    {
        "pann-cnn14-16k": PannConfig(),
        "pann-cnn14-32k": PannConfig(sample_rate=32_000, n_fft=1024, hop_length=320, high_hz=14_000.0),
    }
)


class _Stft(nn.Module):
    """Short-time spectrum by convolution with windowed cosines and sines, which the checkpoint holds as weights."""

    def __init__(self, n_fft: int, hop_length: int) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.conv_real = nn.Conv1d(1, n_fft // 2 + 1, n_fft, stride=hop_length, bias=False)
        self.conv_imag = nn.Conv1d(1, n_fft // 2 + 1, n_fft, stride=hop_length, bias=False)
        waves = torch.fft.fft(torch.eye(n_fft, dtype=torch.float64))[: n_fft // 2 + 1]
        waves = waves * torch.hann_window(n_fft, dtype=torch.float64)
        self.conv_real.weight.data = waves.real[:, None].float()
        self.conv_imag.weight.data = waves.imag[:, None].float()

    def forward(self, waveform: Tensor) -> Tensor:
        """Return the power `b k l` of a waveform `b n`."""
        padded = reflect_ends(waveform, self.n_fft)[:, None]
        return self.conv_real(padded) ** 2 + self.conv_imag(padded) ** 2


class _Spectrogram(nn.Module):
    def __init__(self, n_fft: int, hop_length: int) -> None:
        super().__init__()
        self.stft = _Stft(n_fft, hop_length)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.stft(waveform)


class _Logmel(nn.Module):
    def __init__(self, config: PannConfig) -> None:
        super().__init__()
        filters = slaney_filters(config.sample_rate, config.n_fft, N_MELS, 50.0, config.high_hz)
        self.melW = nn.Parameter(filters.float())

    def forward(self, power: Tensor) -> Tensor:
        """Return decibels `b 1 l m` of a power `b k l`."""
        mel = rearrange(power, "b k l -> b 1 l k") @ self.melW
        return 10.0 * torch.log10(mel.clamp(min=MIN_POWER))


class _ConvBlock(nn.Module):
    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Cnn14(nn.Module):
    """Map waveforms `b n` to embeddings `b 2048` and logits `b 527` before the sigmoid.

    Parameters carry the published names, the matrices of the front end among them: a checkpoint brings its own.
    Source: Kong et al., PANNs: Large-Scale Pretrained Audio Neural Networks (2020), table 2.
    """

    def __init__(self, config: PannConfig) -> None:
        super().__init__()
        self.spectrogram_extractor = _Spectrogram(config.n_fft, config.hop_length)
        self.logmel_extractor = _Logmel(config)
        self.bn0 = nn.BatchNorm2d(N_MELS)
        for i, (before, after) in enumerate(zip((1, *config.channels), config.channels, strict=False), start=1):
            self.add_module(f"conv_block{i}", _ConvBlock(before, after))
        self.num_blocks = len(config.channels)
        self.fc1 = nn.Linear(config.channels[-1], config.channels[-1])
        self.fc_audioset = nn.Linear(config.channels[-1], config.num_classes)

    def forward(self, waveform: Tensor) -> dict[str, Tensor]:
        x = self.logmel_extractor(self.spectrogram_extractor(waveform))
        x = rearrange(self.bn0(rearrange(x, "b c l m -> b m l c")), "b m l c -> b c l m")
        for i in range(1, self.num_blocks + 1):
            x = self.get_submodule(f"conv_block{i}")(x)
            x = F.avg_pool2d(x, 2) if i <= NUM_POOLINGS else x
        x = reduce(x, "b c l m -> b c l", "mean")
        x = reduce(x, "b c l -> b c", "max") + reduce(x, "b c l -> b c", "mean")
        embedding = F.relu(self.fc1(x))
        return {"embedding": embedding, "logits": self.fc_audioset(embedding)}


class Pann(Extractor):
    """Cnn14's embedding `1 2048` and logits `1 527` (before the sigmoid) of a whole clip, however long."""

    name = "pann-cnn14-16k"
    inputs = frozenset({"audio"})
    outputs = MappingProxyType({"embedding": "1 2048", "logits": "1 527"})
    rate = InputRate(sample_rate=16_000)

    def __init__(
        self, network: Cnn14, config: PannConfig, weights: Weights, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(weights, device)
        self.config = config
        self.name = f"pann-cnn14-{config.sample_rate // 1000}k"
        self.rate = InputRate(sample_rate=config.sample_rate)
        self.network = network.to(self.device)

    @classmethod
    def load(cls, source: str | None, device: torch.device | str = "cpu", config: PannConfig | None = None) -> "Pann":
        """Read `Cnn14_16k_mAP=0.438.pth` or `Cnn14_mAP=0.431.pth` (32 kHz) from a file, a folder or a hub id.

        Which of them it is shows in the length of its window.

        Errors: `ValueError` where there is no source, or the tensors are another network's.
        """
        if source is None:
            raise ValueError("pann: its weights ship in no package; give a file of Cnn14 (zenodo 3987831)")
        weights = locate(source)
        # published files hold the order of the training data beside the network, as NumPy arrays
        with torch.serialization.safe_globals(_array_makers()):
            state = read_state(weights.path)
        window = state.get("spectrogram_extractor.stft.conv_real.weight", torch.zeros(0)).shape[-1]
        is_slow = window == CONFIGS["pann-cnn14-16k"].n_fft
        config = config or CONFIGS["pann-cnn14-16k" if is_slow else "pann-cnn14-32k"]
        return cls(load_exactly(Cnn14(config), state, str(weights.path)), config, weights, device)

    @torch.inference_mode()
    def extract(self, clips: Sequence[Clip]) -> list[dict[str, np.ndarray]]:
        """Return every clip's arrays; clips of one length share batches.

        Errors: `ValueError` for a clip too short to leave one step after the poolings.
        """
        sounds = [sound_at(clip, self.config.sample_rate) for clip in clips]
        least = self.config.min_samples
        for sound in sounds:
            if len(sound) < least:
                raise ValueError(
                    f"{self.name}: {len(sound) / self.config.sample_rate:.4f} s of sound, but it takes "
                    f"{least / self.config.sample_rate:.3f} s; leave such clips out"
                )
        arrays: list[dict[str, np.ndarray]] = [{} for _ in sounds]
        for indices in _batches(sounds, int(BATCH_SECONDS * self.config.sample_rate)):
            batch = torch.from_numpy(np.stack([sounds[i] for i in indices])).to(self.device)
            for key, values in self.network(batch).items():
                for i, value in zip(indices, to_array(values), strict=True):
                    arrays[i][key] = value[None]
        return arrays


def _batches(sounds: Sequence[np.ndarray], num_samples: int) -> Iterator[list[int]]:
    """Yield indices of sounds of one length, as many as hold about `num_samples` together: memory stays bounded."""
    by_length: dict[int, list[int]] = {}
    for i, sound in enumerate(sounds):
        by_length.setdefault(len(sound), []).append(i)
    for length, indices in by_length.items():
        size = max(num_samples // length, 1)
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


def _array_makers() -> list:
    """Return what makes NumPy arrays, under the names of NumPy 1 and 2: harmless for a file of weights to call."""
    multiarray = np._core.multiarray
    kinds = {type(np.dtype(name)) for name in ("bool", "int32", "int64", "float32", "float64")}
    renamed = [
        (function, f"{package}.multiarray.{function.__name__}")
        for function in (multiarray._reconstruct, multiarray.scalar)
        for package in ("numpy.core", "numpy._core")
    ]
    return [*renamed, np.ndarray, np.dtype, *kinds]
