"""Log-mel spectrograms of exactly one column a hop, and the way back by Griffin-Lim."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def mel_filters(sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> Tensor:
    """Return triangular filters `m k`, evenly spaced on the mel scale 2595 log10(1 + f / 700), each of sum one."""

    def to_mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    mels = torch.linspace(to_mel(f_min), to_mel(f_max), n_mels + 2, dtype=torch.float64)
    edges = 700 * (10 ** (mels / 2595) - 1)
    bins = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    rising = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    filters = torch.minimum(rising, falling).clamp(min=0)
    if (filters.sum(1) == 0).any():
        raise ValueError(f"mel: {n_mels} bands are too many for n_fft {n_fft}; some would hear nothing")
    return (filters / filters.sum(1, keepdim=True)).float()


def spectrum(wave: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Return the complex spectrum `b k l` of a waveform `b n`; column i is centred on sample (i + 1/2) hop."""
    margin = (n_fft - hop_length) // 2
    padded = F.pad(wave[:, None], (margin, n_fft - hop_length - margin), mode="reflect")[:, 0]
    window = torch.hann_window(n_fft, device=wave.device)
    return torch.fft.rfft(padded.unfold(1, n_fft, hop_length) * window, dim=-1).transpose(1, 2)


def waveform(spectral: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Return the waveform `b n` of n = l hop samples whose spectrum is nearest to `b k l` (least squares)."""
    columns = spectral.shape[-1]
    window = torch.hann_window(n_fft, device=spectral.device)
    pieces = torch.fft.irfft(spectral.transpose(1, 2), n=n_fft, dim=-1).transpose(1, 2) * window[:, None]
    length = (columns - 1) * hop_length + n_fft

    def overlap(x: Tensor) -> Tensor:
        return F.fold(x, (1, length), (1, n_fft), stride=(1, hop_length))[:, 0, 0]

    weight = overlap(window.square()[None, :, None].expand(1, -1, columns))
    margin = (n_fft - hop_length) // 2
    return (overlap(pieces) / weight.clamp(min=1e-3))[:, margin : margin + columns * hop_length]


def linear_magnitude(mel: Tensor, filters: Tensor, num_iterations: int = 30) -> Tensor:
    """Return non-negative magnitudes `b k l` whose mel bands are `b m l` (multiplicative updates, Lee & Seung 2001)."""
    back = filters.T @ mel
    gram = filters.T @ filters
    magnitude = back.clamp(min=1e-8)
    for _ in range(num_iterations):
        magnitude = magnitude * back / (gram @ magnitude).clamp(min=1e-10)
    return magnitude


def griffin_lim(magnitude: Tensor, n_fft: int, hop_length: int, num_iterations: int, momentum: float = 0.99) -> Tensor:
    """Return a waveform `b n` with about these magnitudes `b k l` (fast Griffin-Lim, Perraudin et al. 2013).

    The phase begins as every bin's own steady tone, so that the result does not depend on chance.
    """
    k, columns = magnitude.shape[1:]
    turns = torch.arange(k, device=magnitude.device)[:, None] * torch.arange(columns, device=magnitude.device)
    phase = torch.polar(torch.ones(k, columns, device=magnitude.device), 2 * math.pi * hop_length / n_fft * turns)
    estimate = magnitude * phase
    previous = torch.zeros_like(estimate)
    for _ in range(num_iterations):
        rebuilt = spectrum(waveform(estimate, n_fft, hop_length), n_fft, hop_length)
        ahead = rebuilt + momentum * (rebuilt - previous)
        estimate = magnitude * ahead / ahead.abs().clamp(min=1e-8)
        previous = rebuilt
    return waveform(estimate, n_fft, hop_length)


def log_mel(audio: Tensor, filters: Tensor, n_fft: int, hop_length: int, floor: float) -> Tensor:
    """Return the log-mel spectrogram `b c m l` of audio `b c n`, which must last a whole number of hops."""
    wave = rearrange(audio, "b c n -> (b c) n")
    mel = filters.to(wave.device) @ spectrum(wave.float(), n_fft, hop_length).abs()
    return rearrange(mel.clamp(min=floor).log(), "(b c) m l -> b c m l", b=audio.shape[0])
