"""Log-mel front ends of the networks that hear: short-time spectra and the two families of mel filters."""

import functools
import math

import torch
from torch import Tensor


def stft_magnitude(waveform: Tensor, window_length: int, hop_length: int, n_fft: int) -> Tensor:
    """Return magnitudes `... l k` of a waveform `... n` under a periodic Hann window; the ends are not padded."""
    window = torch.hann_window(window_length, periodic=True, dtype=waveform.dtype, device=waveform.device)
    frames = waveform.unfold(-1, window_length, hop_length) * window
    return torch.fft.rfft(frames, n=n_fft).abs()


def reflect_ends(waveform: Tensor, n_fft: int) -> Tensor:
    """Return a waveform `b n` with half a window of its mirror image on both sides: frame i centres on i * hop."""
    return torch.nn.functional.pad(waveform[:, None], (n_fft // 2, n_fft // 2), mode="reflect")[:, 0]


@functools.cache
def htk_filters(sample_rate: int, n_fft: int, n_mels: int, low_hz: float, high_hz: float) -> Tensor:
    """Return float64 mel filters `k m`, triangles of height 1 whose sides are straight in mels; DC has no weight.

    Source: the HTK Book, section 5.4, as VGGish reads it.
    """
    bins = torch.linspace(0.0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    low, high = (1127.0 * math.log1p(hertz / 700.0) for hertz in (low_hz, high_hz))
    edges = torch.linspace(low, high, n_mels + 2, dtype=torch.float64)
    filters = _triangles(1127.0 * torch.log1p(bins / 700.0), edges)
    filters[0] = 0.0
    return filters


@functools.cache
def slaney_filters(sample_rate: int, n_fft: int, n_mels: int, low_hz: float, high_hz: float) -> Tensor:
    """Return float64 mel filters `k m`, triangles of area 1 whose sides are straight in hertz: librosa's default.

    Source: Slaney, Auditory Toolbox (1998): linear up to 1 kHz, then 27 mels for every factor of 6.4.
    """
    bins = torch.linspace(0.0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    mels = torch.linspace(_slaney_mel(low_hz), _slaney_mel(high_hz), n_mels + 2, dtype=torch.float64)
    edges = torch.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * 6.4 ** ((mels - 15.0) / 27.0))
    return _triangles(bins, edges) * (2.0 / (edges[2:] - edges[:-2]))


def _slaney_mel(hertz: float) -> float:
    return hertz * 3.0 / 200.0 if hertz < 1000.0 else 15.0 + 27.0 * math.log(hertz / 1000.0) / math.log(6.4)


def _triangles(points: Tensor, edges: Tensor) -> Tensor:
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (points[:, None] - low) / (centre - low)
    falling = (high - points[:, None]) / (high - centre)
    return torch.minimum(rising, falling).clamp(min=0.0)
