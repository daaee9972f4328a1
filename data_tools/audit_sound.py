"""Measuring sound as it streams by: loudness, true peak, clipping, silence, bandwidth; memory stays bounded.

Every meter takes blocks `c n` in [-1, 1] (a codec may overshoot) in order, by `push`, and answers at the end.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.signal import sosfilt

LOUDNESS_STEP = 0.1  # seconds; a loudness block is four of them (ITU-R BS.1770-5, annex 1)
ABSOLUTE_GATE, RELATIVE_GATE = -70.0, -10.0  # LUFS, LU
LOUDNESS_OFFSET = -0.691  # dB, eq. 2: a 997 Hz sine at full scale in one front channel reads -3.01 LKFS
SURROUND = {"BL", "BR", "SL", "SR", "BC"}
SURROUND_WEIGHT = 1.41
SILENCE_DBFS = -60.0
SILENCE_WINDOW = 0.05  # seconds
CEILING = 0.9999  # three samples in a row at or beyond it are clipped
PEAK_TAPS = 24  # of each phase of the interpolator
ROLL_OFF_DB = -60.0
BANDWIDTH_WINDOW = 0.043  # seconds
BANDWIDTH_SHARE = 0.95


class SoundMeter:
    """All meters of one sound; `channel_names` as libav gives them (FL, FR, FC, LFE, BL ...)."""

    def __init__(self, sample_rate: int, channel_names: Sequence[str]):
        self.sample_rate, self.num_samples, self.num_clipped = sample_rate, 0, 0
        self.loudness = LoudnessMeter(sample_rate, channel_names)
        self.true_peak = TruePeakMeter(sample_rate, len(channel_names))
        self.silence = WindowEnergies(sample_rate, SILENCE_WINDOW)
        self.bandwidth = BandwidthMeter(sample_rate)

    def push(self, block: np.ndarray) -> None:
        """Take the next samples `c n`."""
        self.num_samples += block.shape[1]
        self.num_clipped += count_clipped(block)
        self.loudness.push(block)
        self.true_peak.push(block)
        self.silence.push(np.mean(np.square(block, dtype=np.float64), axis=0))
        self.bandwidth.push(block.mean(0))

    def result(self) -> dict[str, Any]:
        """Return the columns of an audit that tell of the sound alone; what cannot be said is None."""
        is_silent = self.silence.means() < 10 ** (SILENCE_DBFS / 10)
        share = float(is_silent.mean()) if len(is_silent) else None
        return {
            "silence_ratio": share,
            "silence_longest_seconds": longest_run(is_silent) * SILENCE_WINDOW,
            "lufs": self.loudness.result(),
            "true_peak_dbtp": decibels(self.true_peak.peak),
            "clipped_ratio": self.num_clipped / self.num_samples if self.num_samples else None,
            "bandwidth_khz": self.bandwidth.result(),
        }


class WindowEnergies:
    """Means over windows side by side of a stream of instant powers; a last window less than half full is dropped."""

    def __init__(self, sample_rate: int, seconds: float):
        self.step = sample_rate * seconds
        self.sums: list[np.ndarray] = []
        self.position, self.open_sum, self.done = 0, 0.0, 0

    def push(self, power: np.ndarray) -> None:
        """Take the next powers `n`."""
        end = self.position + len(power)
        last = math.floor(end / self.step)  # windows that are complete at the end of this block
        edges = np.round(np.arange(self.done + 1, last + 1) * self.step).astype(int) - self.position
        edges = edges[edges <= len(power)]
        pieces = np.add.reduceat(np.append(power, 0.0), np.concatenate([[0], edges])) if len(power) else np.zeros(1)
        pieces[0] += self.open_sum
        self.sums.append(pieces[:-1])
        self.open_sum = float(pieces[-1])
        self.done += len(edges)
        self.position = end

    def means(self) -> np.ndarray:
        """Return the mean power of every window."""
        sums = np.concatenate(self.sums) if self.sums else np.zeros(0)
        left = self.position - round(self.done * self.step)
        means = sums / max(self.step, 1)
        return np.append(means, self.open_sum / left) if left > self.step / 2 else means


class LoudnessMeter:
    """Integrated loudness in LUFS (ITU-R BS.1770-5, annex 1), at any sample rate."""

    def __init__(self, sample_rate: int, channel_names: Sequence[str]):
        self.filter = k_weighting(sample_rate)
        self.state = np.zeros((len(self.filter), len(channel_names), 2))
        self.weights = np.array([channel_weight(name) for name in channel_names])
        self.energies = WindowEnergies(sample_rate, LOUDNESS_STEP)

    def push(self, block: np.ndarray) -> None:
        """Take the next samples `c n`."""
        weighted, self.state = sosfilt(self.filter, block, axis=1, zi=self.state)
        self.energies.push(self.weights @ np.square(weighted))

    def result(self) -> float | None:
        """Return the loudness; None where no block of 0.4 s reaches -70 LUFS."""
        steps = self.energies.means()
        if len(steps) < 4:
            return None
        blocks = np.convolve(steps, np.full(4, 0.25), "valid")  # each 0.4 s, overlapping by three quarters
        blocks = blocks[_lufs(blocks) > ABSOLUTE_GATE]
        if not len(blocks):
            return None
        blocks = blocks[_lufs(blocks) > _lufs(blocks.mean()) + RELATIVE_GATE]
        return float(_lufs(blocks.mean()))


class TruePeakMeter:
    """The highest value between the samples, found by interpolating to four times the rate (BS.1770-5, annex 2)."""

    def __init__(self, sample_rate: int, channels: int):
        factor = 4 if sample_rate < 96_000 else 2 if sample_rate < 192_000 else 1
        self.phases = interpolator(factor)
        self.gain = float(np.abs(self.phases).sum(0).max()) if factor > 1 else 1.0
        self.tail = np.zeros((channels, PEAK_TAPS - 1), np.float32)
        self.peak = 0.0

    def push(self, block: np.ndarray) -> None:
        """Take the next samples `c n`."""
        self.peak = max(self.peak, float(np.abs(block).max(initial=0)))
        joined = np.concatenate([self.tail, block], 1)
        self.tail = joined[:, -(PEAK_TAPS - 1) :]
        if self.gain <= 1 or not block.shape[1]:
            return
        for channel in joined:
            # Between samples that are all below peak / gain nothing can exceed the peak.
            loud = np.flatnonzero(np.abs(channel) > self.peak / self.gain)
            if not len(loud):
                continue
            steps = np.zeros(len(channel) + 1, np.int32)
            np.add.at(steps, np.maximum(loud - PEAK_TAPS + 1, 0), 1)
            np.add.at(steps, loud + 1, -1)
            windows = np.lib.stride_tricks.sliding_window_view(channel, PEAK_TAPS)
            near = windows[np.cumsum(steps)[: len(windows)] > 0]
            self.peak = max(self.peak, float(np.abs(near @ self.phases).max(initial=0)))


class BandwidthMeter:
    """Up to which frequency a sound reaches: of every window the highest bin within 60 dB of its strongest one."""

    def __init__(self, sample_rate: int):
        self.size = 2 ** round(math.log2(sample_rate * BANDWIDTH_WINDOW))
        self.window = np.hanning(self.size).astype(np.float32)
        self.bin_khz = sample_rate / self.size / 1000
        self.counts = np.zeros(self.size // 2 + 1, np.int64)
        self.rest = np.zeros(0, np.float32)

    def push(self, mono: np.ndarray) -> None:
        """Take the next samples `n`."""
        joined = np.concatenate([self.rest, mono])
        count = len(joined) // self.size
        self.rest = joined[count * self.size :]
        if not count:
            return
        pieces = joined[: count * self.size].reshape(count, self.size)
        pieces = pieces[np.square(pieces).mean(1) > 10 ** (SILENCE_DBFS / 10)]
        power = np.abs(np.fft.rfft(pieces * self.window, axis=1)) ** 2
        is_strong = power > power.max(1, keepdims=True, initial=0) * 10 ** (ROLL_OFF_DB / 10)
        highest = power.shape[1] - 1 - np.argmax(is_strong[:, ::-1], axis=1)
        self.counts += np.bincount(highest, minlength=len(self.counts))

    def result(self) -> float | None:
        """Return what 95 % of the windows stay below, in kHz; None where all is silent."""
        total = self.counts.sum()
        if not total:
            return None
        return float(np.searchsorted(np.cumsum(self.counts), BANDWIDTH_SHARE * total) * self.bin_khz)


def k_weighting(sample_rate: int) -> np.ndarray:
    """Return the two second-order sections of BS.1770's frequency weighting at a sample rate.

    The standard tabulates them at 48 kHz; the analogue prototypes behind the table are those of De Man (2014),
    "Evaluation of implementations of the EBU R128 loudness measurement", whose bilinear transform is taken here.
    """
    gain, quality = 10 ** (3.999843853973347 / 20), 0.7071752369554196
    k = math.tan(math.pi * 1681.974450955533 / sample_rate)
    middle = gain**0.4996667741545416
    norm = 1 + k / quality + k * k
    shelf = [
        (gain + middle * k / quality + k * k) / norm, 2 * (k * k - gain) / norm,
        (gain - middle * k / quality + k * k) / norm, 1, 2 * (k * k - 1) / norm, (1 - k / quality + k * k) / norm,
    ]  # fmt: skip
    quality = 0.5003270373238773
    k = math.tan(math.pi * 38.13547087602444 / sample_rate)
    norm = 1 + k / quality + k * k
    high_pass = [1, -2, 1, 1, 2 * (k * k - 1) / norm, (1 - k / quality + k * k) / norm]
    return np.array([shelf, high_pass])


def channel_weight(name: str) -> float:
    """Return how much a loudspeaker counts (BS.1770-5, table 3); the low-frequency one does not."""
    return 0.0 if name.startswith("LFE") else SURROUND_WEIGHT if name in SURROUND else 1.0


def interpolator(factor: int) -> np.ndarray:
    """Return the taps `t p` that give the values between two samples: a sinc under a Kaiser window."""
    at = np.arange(PEAK_TAPS)[:, None] - (PEAK_TAPS // 2 - 1) - np.arange(1, factor)[None] / factor
    taps = np.sinc(at) * np.i0(8 * np.sqrt(np.maximum(1 - (at / (PEAK_TAPS / 2)) ** 2, 0))) / np.i0(8)
    return (taps / taps.sum(0)).astype(np.float32)


def count_clipped(block: np.ndarray) -> int:
    """Return how many samples, on the mean of the channels of `c n`, stand in rows of three or more at full scale."""
    is_hot = np.abs(block) >= CEILING
    if block.shape[1] < 3 or not is_hot.any():
        return 0
    three = is_hot[:, :-2] & is_hot[:, 1:-1] & is_hot[:, 2:]
    clipped = np.zeros_like(is_hot)
    for shift in range(3):
        clipped[:, shift : clipped.shape[1] - 2 + shift] |= three
    return int(clipped.sum() / len(block))


def longest_run(flags: np.ndarray) -> int:
    """Return the length of the longest row of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def decibels(amplitude: float) -> float | None:
    """Return an amplitude in dB of full scale; None for 0."""
    return 20 * math.log10(amplitude) if amplitude > 0 else None


def _lufs(power: np.ndarray) -> np.ndarray:
    return LOUDNESS_OFFSET + 10 * np.log10(np.maximum(power, 1e-20))
