"""What stands between a clip's sound and a network's: another sample rate, and log-mel as networks were trained on."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

ZERO_CROSSINGS = 64  # of the filter, on either side
KAISER_BETA = 9.0  # 90 dB of what lies beyond half the lower rate is taken off
PASSED = 0.955  # the filter's cut-off as a share of half the lower rate; below 0.91 nothing is lost


def resample(wave: Tensor, sample_rate: int, new_rate: int, length: int) -> Tensor:
    """Return `length` samples of a sound `b c n` at another rate: sample i is what is heard at i / new_rate seconds.

    A filter of no delay (a sinc under a Kaiser window), in plain torch: on any device, with gradients. Before and after
    the sound is silence.
    """
    if sample_rate == new_rate:
        return F.pad(wave, (0, length - wave.shape[-1]))
    divisor = math.gcd(sample_rate, new_rate)
    down, up = sample_rate // divisor, new_rate // divisor
    kernels, reach = _kernels(down, up)
    kernels = kernels.to(wave.device, wave.dtype)
    blocks = -(-length // up)  # `up` new samples for every `down` old ones
    needed = (blocks - 1) * down + kernels.shape[-1]
    rows = rearrange(F.pad(wave, (reach, needed - reach - wave.shape[-1])), "b c n -> (b c) 1 n")
    new = rearrange(F.conv1d(rows, kernels[:, None], stride=down), "r k l -> r (l k)")
    return rearrange(new[:, :length], "(b c) n -> b c n", c=wave.shape[1])


def _kernels(down: int, up: int) -> tuple[Tensor, int]:
    """Return one filter for each of `up` phases, and how many old samples it reaches back."""
    cutoff = PASSED * min(1.0, up / down)
    reach = math.ceil(ZERO_CROSSINGS / cutoff)
    phases = torch.arange(up, dtype=torch.float64) * down / up
    distance = torch.arange(-reach, reach + down + 1, dtype=torch.float64) - phases[:, None]
    inside = (1 - (distance / reach).square()).clamp(min=0)
    window = torch.special.i0(KAISER_BETA * inside.sqrt()) * (distance.abs() <= reach)
    kernels = torch.sinc(cutoff * distance) * window
    return kernels / kernels.sum(1, keepdim=True), reach


def mix(wave: Tensor, channels: int) -> Tensor:
    """Return a sound `b c n` of one or two channels with another number of them: their mean, or the one repeated."""
    if wave.shape[1] == channels:
        return wave
    return wave.mean(1, keepdim=True).expand(-1, channels, -1)


def slaney_filters(sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> Tensor:
    """Return mel filters `m k`, triangles in hertz of area one: what librosa makes where nothing else is said.

    Source: Slaney, Auditory Toolbox (1998): the scale is linear up to 1 kHz, and logarithmic from there.
    """

    def to_mel(hertz: float) -> float:
        return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)

    mels = torch.linspace(to_mel(f_min), to_mel(f_max), n_mels + 2, dtype=torch.float64)
    edges = torch.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    bins = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    low, centre, high = (edges[i : i + n_mels, None] for i in range(3))
    triangles = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp(min=0)
    return (triangles * 2 / (high - low)).float()


def log_mel(wave: Tensor, filters: Tensor, n_fft: int, hop_length: int, margin: int, floor: float = 1e-5) -> Tensor:
    """Return log-mel magnitudes `b c l m` of a sound `b c n`; the first window begins `margin` samples before it.

    Beyond both ends the sound is reflected; one shorter than that is first lengthened with silence.
    """
    wave = F.pad(wave.float(), (0, max(0, margin + 1 - wave.shape[-1])))
    rows = F.pad(rearrange(wave, "b c n -> (b c) n"), (margin, margin), mode="reflect")
    window = torch.hann_window(n_fft, device=rows.device)
    magnitude = torch.fft.rfft(rows.unfold(1, n_fft, hop_length) * window, dim=-1).abs()
    return rearrange((magnitude @ filters.T).clamp(min=floor).log(), "(b c) l m -> b c l m", b=wave.shape[0])
