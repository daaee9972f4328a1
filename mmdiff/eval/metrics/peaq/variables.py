"""What PEAQ computes of each frame and channel, before any average over time (ITU-R BS.1387-1, Annex 2, section 4).

Shapes: frames `f`, critical bands `z` (109).
"""

from dataclasses import dataclass

import numpy as np

from mmdiff.eval.metrics.peaq import patterns
from mmdiff.eval.metrics.peaq.ear import (
    BAND_BARK,
    critical_bands,
    ear_weights,
    excite,
    frame,
    group,
    internal_noise,
    power_spectrum,
)
from mmdiff.eval.metrics.peaq.spectral import bandwidths, harmonic_structure

FRAMES_AT_ONCE = 512  # spectra of 11 s: memory does not grow with the clip but by bands


@dataclass(frozen=True)
class Spectral:
    """What is left of the spectra: power of bands `f z`, and the variables `f` that need single bins."""

    reference: np.ndarray
    degraded: np.ndarray
    error: np.ndarray
    reference_bandwidth: np.ndarray
    degraded_bandwidth: np.ndarray
    harmonic_structure: np.ndarray


@dataclass(frozen=True)
class FrameVariables:
    """One channel's variables `f`, and the probability and steps of detection `f z`."""

    reference_bandwidth: np.ndarray
    degraded_bandwidth: np.ndarray
    harmonic_structure: np.ndarray
    mean_noise_to_mask: np.ndarray
    largest_noise_to_mask: np.ndarray
    modulation_difference_1: np.ndarray
    modulation_difference_2: np.ndarray
    modulation_weight: np.ndarray
    noise_loudness: np.ndarray
    reference_loudness: np.ndarray
    degraded_loudness: np.ndarray
    detection_probability: np.ndarray
    detection_steps: np.ndarray

    def since(self, first: int) -> "FrameVariables":
        """Return the variables from a frame on."""
        return FrameVariables(**{name: values[first:] for name, values in vars(self).items()})


def frame_variables(reference: np.ndarray, degraded: np.ndarray, num_frames: int) -> FrameVariables:
    """Return the variables of the first frames of one channel, samples `n` in steps of 16 bits."""
    spectral = analyse(reference, degraded, num_frames)
    reference_ear, degraded_ear = excite(spectral.reference), excite(spectral.degraded)
    adapted = patterns.adapt(reference_ear.smeared, degraded_ear.smeared)
    modulations = patterns.modulate(reference_ear.unsmeared), patterns.modulate(degraded_ear.unsmeared)
    ratio = noise_to_mask(spectral.error, reference_ear.smeared)
    difference_1, difference_2 = modulation_differences(*modulations)
    probability, steps = detect(reference_ear.smeared, degraded_ear.smeared)
    return FrameVariables(
        reference_bandwidth=spectral.reference_bandwidth,
        degraded_bandwidth=spectral.degraded_bandwidth,
        harmonic_structure=spectral.harmonic_structure,
        mean_noise_to_mask=ratio.mean(-1),
        largest_noise_to_mask=ratio.max(-1),
        modulation_difference_1=difference_1,
        modulation_difference_2=difference_2,
        modulation_weight=modulation_weight(modulations[0]),
        noise_loudness=noise_loudness(*modulations, *adapted),
        reference_loudness=patterns.loudness(reference_ear.smeared),
        degraded_loudness=patterns.loudness(degraded_ear.smeared),
        detection_probability=probability,
        detection_steps=steps,
    )


def analyse(reference: np.ndarray, degraded: np.ndarray, num_frames: int) -> Spectral:
    """Return what the spectra of the first frames of samples `n` leave, some frames at a time."""
    parts = []
    for first in range(0, num_frames, FRAMES_AT_ONCE):
        last = min(first + FRAMES_AT_ONCE, num_frames)
        frames = frame(reference, first, last), frame(degraded, first, last)
        powers = power_spectrum(frames[0]), power_spectrum(frames[1])
        heard = [ear_weights() * power for power in powers]
        error = (np.sqrt(heard[0]) - np.sqrt(heard[1])) ** 2
        bands = [group(power) for power in (*heard, error)]
        parts.append((*bands, *bandwidths(*powers), harmonic_structure(*frames, *powers)))
    return Spectral(*(np.concatenate(part) for part in zip(*parts)))


def noise_to_mask(error: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the error's power over the power `f z` that the reference masks (section 4.5)."""
    bark = np.arange(reference.shape[-1]) * BAND_BARK
    offset_db = np.where(bark <= 12, 3.0, 0.25 * bark)
    return error / (reference * 10 ** (-offset_db / 10))


def modulation_differences(
    reference: patterns.Modulation, degraded: patterns.Modulation
) -> tuple[np.ndarray, np.ndarray]:
    """Return by how many per cent modulation differs `f`, and the same with lost modulation counting a tenth (4.2)."""
    change = degraded.depth - reference.depth
    first = np.abs(change) / (1 + reference.depth)
    second = np.where(change >= 0, change, -0.1 * change) / (0.01 + reference.depth)
    return 100 * first.mean(-1), 100 * second.mean(-1)


def modulation_weight(reference: patterns.Modulation) -> np.ndarray:
    """Return how far the reference is above the noise inside the ear `f`: faint frames count little (section 4.2)."""
    noise = 100 * internal_noise() ** patterns.MODULATION_EXPONENT
    return (reference.mean_loudness / (reference.mean_loudness + noise)).sum(-1)


def noise_loudness(
    reference_modulation: patterns.Modulation,
    degraded_modulation: patterns.Modulation,
    reference: np.ndarray,
    degraded: np.ndarray,
) -> np.ndarray:
    """Return the loudness `f` of what the degraded signal adds, partly masked, from adapted patterns `f z` (4.3)."""
    noise, exponent = internal_noise(), patterns.LOUDNESS_EXPONENT
    of_reference, of_degraded = (0.15 * x.depth + 0.5 for x in (reference_modulation, degraded_modulation))
    masking = np.exp(-1.5 * (degraded - reference) / reference)
    added = np.maximum(of_degraded * degraded - of_reference * reference, 0)
    ratio = added / (noise + of_reference * reference * masking)
    specific = (noise / of_degraded) ** exponent * ((1 + ratio) ** exponent - 1)
    return 24 / len(critical_bands().centre) * specific.sum(-1)


def detect(reference: np.ndarray, degraded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability that a band's difference is heard, and by how many steps it exceeds (4.7), both `f z`."""
    reference_db, degraded_db = 10 * np.log10(reference), 10 * np.log10(degraded)
    excess = reference_db - degraded_db
    level = np.where(excess > 0, 0.3 * reference_db + 0.7 * degraded_db, degraded_db)
    audible = np.where(level > 0, level, 1.0)
    curve = np.polynomial.polynomial.polyval(audible, (-0.198719, 0.0550197, -0.00102438, 5.05622e-6, 9.01033e-11))
    step = np.where(level > 0, 5.95072 * (6.39468 / audible) ** 1.71332 + curve, 1e30)
    exponent = np.where(excess > 0, 4, 6)  # a loss is heard more gradually than an addition
    return 1 - 0.5 ** ((excess / step) ** exponent), np.abs(np.trunc(excess)) / step
