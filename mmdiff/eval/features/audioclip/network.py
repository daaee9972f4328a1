"""ESResNeXt with learned wavelets: AudioCLIP's network for sound, under the names of the published checkpoint."""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

N_FFT = 2048
WINDOW_LENGTH = 1654
HOP_LENGTH = 561
NUM_BINS = N_FFT // 2 + 1
NUM_BANDS = 3  # lower, middle and upper frequencies are the colours of a picture
POWER_FLOOR = 1e-18
EXPANSION = 4
EPSILON = 1e-8


@dataclass(frozen=True)
class AudioClipConfig:
    """Blocks in each stage, planes of the first, groups of a convolution and their width, width of the embedding."""

    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    width: int = 64
    groups: int = 32
    width_per_group: int = 4
    embedding: int = 1024


class Wavelets(nn.Module):
    """Projects windowed frames on frequency B-spline wavelets whose order, bandwidth and centre are learned.

    Source: Guzhov et al., ESResNe(X)t-fbsp (2021), equations 3 and 4.
    """

    def __init__(self) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.zeros(NUM_BINS))
        self.fb = nn.Parameter(torch.ones(NUM_BINS))
        self.fc = nn.Parameter(torch.arange(NUM_BINS, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(0))  # in the file, and empty

    def kernels(self) -> Tensor:
        """Return the wavelets' real and imaginary parts `2 k n`, of norm about 1."""
        time = math.pi * torch.linspace(-1.0, 1.0, N_FFT, dtype=self.m.dtype, device=self.m.device) + EPSILON
        order, bandwidth, centre = (x[:, None] for x in (self.m, self.fb, self.fc))
        x = bandwidth * time / (order + EPSILON)
        sinc = torch.where(x == 0, 1.0, torch.sin(x) / x)
        # a negative sinc has phase pi, so a broken power of it is complex
        size, angle = sinc.abs() ** order, order * math.pi * (sinc < 0)
        phase = angle - centre * time
        return bandwidth.sqrt() * size * torch.stack([torch.cos(phase), torch.sin(phase)]) / N_FFT**0.5

    def forward(self, frames: Tensor) -> Tensor:
        """Return the power `b k m` of frames `b m n`."""
        real, imaginary = (F.linear(frames, kernel) for kernel in self.kernels())
        return rearrange(real**2 + imaginary**2, "b m k -> b k m")


class Attention(nn.Module):
    """Weights of a stage's output by its input: maxima, a convolution by channels, one across them, a sigmoid."""

    def __init__(self, channels: int, out_channels: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv_depth = nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels)
        self.conv_point = nn.Conv2d(channels, out_channels, 1)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        x = F.adaptive_max_pool2d(x, like.shape[-2:])
        return torch.sigmoid(self.bn(self.conv_point(self.conv_depth(x))))


class Bottleneck(nn.Module):
    def __init__(self, channels: int, planes: int, stride: int, config: AudioClipConfig) -> None:
        super().__init__()
        width, out_channels = int(planes * config.width_per_group / config.width) * config.groups, planes * EXPANSION
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=config.groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        if stride != 1 or channels != out_channels:
            skip = nn.Conv2d(channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(skip, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + skip)


class AudioClipNetwork(nn.Module):
    """Embeds a sound; module names are those of AudioCLIP-Full-Training.pt after its prefix `audio.`.

    Source: Guzhov et al., AudioCLIP (2021).
    """

    def __init__(self, config: AudioClipConfig) -> None:
        super().__init__()
        self.register_buffer("window", blackman_harris(WINDOW_LENGTH))
        self.fbsp = Wavelets()
        self.conv1 = nn.Conv2d(NUM_BANDS, config.width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(config.width)
        channels = config.width
        for i, depth in enumerate(config.depths):
            planes = config.width * 2**i
            strides = [1 if i == 0 else 2] + [1] * (depth - 1)
            widths = [channels] + [planes * EXPANSION] * (depth - 1)
            blocks = (Bottleneck(c, planes, stride, config) for c, stride in zip(widths, strides, strict=True))
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            self.add_module(f"att{i + 1}", Attention(channels, planes * EXPANSION, ((3, 1), (1, 5))[i % 2]))
            channels = planes * EXPANSION
        self.att5 = Attention(channels, channels, (3, 5))
        self.fc = nn.Linear(channels, config.embedding)

    def picture(self, waveform: Tensor) -> Tensor:
        """Return power in dB `b 3 k m` of sounds `b n` in 16-bit units, -32768 .. 32767, at 44.1 kHz."""
        # in this order in float32, for it rounds: of a sound in [-1, 1] some eight bits are left
        unit = ((waveform - -32768.0) * 2.0) / 65535.0 + -1.0
        power = self.fbsp(windowed(unit, self.window))
        bands = rearrange(power[:, : NUM_BINS // NUM_BANDS * NUM_BANDS], "b (c k) m -> b c k m", c=NUM_BANDS)
        return 10 * torch.where(bands > 0, bands, POWER_FLOOR).log10()

    def forward(self, waveform: Tensor) -> Tensor:
        """Return embeddings `b d`, not normalised, of sounds `b n` in 16-bit units at 44.1 kHz."""
        x = F.relu(self.bn1(self.conv1(self.picture(waveform))))
        x = F.max_pool2d(x, 3, 2, 1)
        for i in range(1, 5):
            y = self.get_submodule(f"layer{i}")(x)
            x = y * self.get_submodule(f"att{i}")(x, y)
        y = F.adaptive_avg_pool2d(x, 1)
        return self.fc((y * self.att5(x, y)).flatten(1))


def blackman_harris(length: int) -> Tensor:
    """Return the periodic four-term Blackman-Harris window; source: Harris (1978)."""
    angle = 2 * math.pi * torch.arange(length, dtype=torch.float64) / length
    terms = (0.35875, -0.48829, 0.14128, -0.01168)
    return sum(term * torch.cos(i * angle) for i, term in enumerate(terms)).to(torch.float32)


def windowed(waveform: Tensor, window: Tensor) -> Tensor:
    """Return frames `b m 2048` of a waveform `b n`, zeros at its two ends and at those of every windowed frame."""
    num_frames = 1 + max(math.ceil((waveform.shape[-1] - WINDOW_LENGTH) / HOP_LENGTH), 0)
    spare = (num_frames - 1) * HOP_LENGTH + WINDOW_LENGTH - waveform.shape[-1]
    padded = F.pad(waveform, (spare // 2, spare - spare // 2))
    left = (N_FFT - WINDOW_LENGTH) // 2
    return F.pad(padded.unfold(-1, WINDOW_LENGTH, HOP_LENGTH) * window, (left, N_FFT - WINDOW_LENGTH - left))
