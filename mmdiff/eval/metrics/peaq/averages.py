"""The 11 model output variables: PEAQ's averages over time and channels (ITU-R BS.1387-1, Annex 2, sections 4 and 5).

Shapes: frames `f`, critical bands `z`. Channels are averaged, but for detection, where the worse ear decides each band.
Frames counted are those between the data boundaries of the reference.
"""

import math

import numpy as np

from mmdiff.eval.metrics.peaq.ear import FRAMES_PER_SECOND
from mmdiff.eval.metrics.peaq.variables import FrameVariables

SETTLING_FRAMES = math.ceil(0.5 * FRAMES_PER_SECOND)  # patterns settle for half a second before they count
ATTACK_FRAMES = math.ceil(0.050 * FRAMES_PER_SECOND)  # noise loudness waits 50 ms after both signals are heard
WINDOW_FRAMES = math.floor(0.1 * FRAMES_PER_SECOND)
AUDIBLE_SONE = 0.1
DISTORTED_NOISE_TO_MASK = 10 ** (1.5 / 10)
DETECTION_MEMORY = 0.9


def output_variables(channels: list[FrameVariables], num_skipped: int) -> dict[str, float]:
    """Return the 11 variables of channels whose first `num_skipped` frames, before the data, are already left out."""
    settling = max(SETTLING_FRAMES - num_skipped, 0)
    heard = min(_first_heard(channel) for channel in channels)
    loud = max(heard + ATTACK_FRAMES, settling)
    detected, distance = _detection(channels)

    def mean(average) -> float:
        return float(np.mean([average(channel) for channel in channels]))

    return {
        "BandwidthRefB": mean(lambda c: _mean_of_valid(c.reference_bandwidth)),
        "BandwidthTestB": mean(lambda c: _mean_of_valid(c.degraded_bandwidth)),
        "TotalNMRB": mean(lambda c: 10 * np.log10(c.mean_noise_to_mask.mean())),
        "WinModDiff1B": mean(lambda c: _windowed(c.modulation_difference_1[settling:])),
        "ADBB": distance,
        "EHSB": mean(lambda c: 1000 * _mean_of_valid(c.harmonic_structure)),
        "AvgModDiff1B": mean(lambda c: _weighted(c.modulation_difference_1[settling:], c.modulation_weight[settling:])),
        "AvgModDiff2B": mean(lambda c: _weighted(c.modulation_difference_2[settling:], c.modulation_weight[settling:])),
        "RmsNoiseLoudB": mean(lambda c: _root_mean_square(c.noise_loudness[loud:])),
        "MFPDB": detected,
        "RelDistFramesB": mean(lambda c: (c.largest_noise_to_mask > DISTORTED_NOISE_TO_MASK).mean()),
    }


def _first_heard(channel: FrameVariables) -> int:
    """Return the first frame in which both signals are louder than 0.1 sone, the number of frames where none is."""
    is_heard = (channel.reference_loudness > AUDIBLE_SONE) & (channel.degraded_loudness > AUDIBLE_SONE)
    return int(np.argmax(is_heard)) if is_heard.any() else len(is_heard)


def _detection(channels: list[FrameVariables]) -> tuple[float, float]:
    """Return the largest smoothed probability of detection, and the average distorted block (section 4.7).

    The factor by which the standard lets the maximum be forgotten is 1 in Basic: it is kept for good.
    """
    probability = np.maximum.reduce([channel.detection_probability for channel in channels])
    steps = np.maximum.reduce([channel.detection_steps for channel in channels]).sum(-1)
    any_band = 1 - np.prod(1 - probability, axis=-1)
    smoothed, largest = 0.0, 0.0
    for value in any_band:
        smoothed = DETECTION_MEMORY * smoothed + (1 - DETECTION_MEMORY) * value
        largest = max(largest, smoothed)
    is_distorted = any_band > 0.5
    if not is_distorted.any():
        return float(largest), 0.0
    mean_steps = steps[is_distorted].mean()
    return float(largest), float(np.log10(mean_steps)) if mean_steps > 0 else -0.5


def _mean_of_valid(values: np.ndarray) -> float:
    """Return the mean of the values that are not negative, 0 where all are."""
    valid = values[values >= 0]
    return float(valid.mean()) if valid.size else 0.0


def _weighted(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted mean, 0 of no values."""
    return float((values * weights).sum() / weights.sum()) if values.size else 0.0


def _root_mean_square(values: np.ndarray) -> float:
    """Return the root of the mean square, 0 of no values."""
    return float(np.sqrt((values**2).mean())) if values.size else 0.0


def _windowed(values: np.ndarray) -> float:
    """Return the windowed average over 0.1 s (section 5), 0 where there are fewer values than a window holds."""
    if len(values) < WINDOW_FRAMES:
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(np.sqrt(values), WINDOW_FRAMES)
    return float(np.sqrt((windows.mean(-1) ** 4).mean()))
