"""The patterns that PEAQ compares: levels adapted, modulation and loudness (ITU-R BS.1387-1, Annex 2, section 3).

Shapes: frames `f`, critical bands `z` (109).
"""

from dataclasses import dataclass

import numpy as np

from mmdiff.eval.metrics.peaq.ear import FRAMES_PER_SECOND, critical_bands, decay, remember

BANDS_BELOW, BANDS_ABOVE = 3, 4  # neighbours over which pattern correction is averaged
LOUDNESS_EXPONENT = 0.23
LOUDNESS_SCALE = 1.07664
LOUDNESS_POWER = 1e4  # E0 of the standard
MODULATION_EXPONENT = 0.3
MEMORY_SECONDS = 0.050  # at 100 Hz


@dataclass(frozen=True)
class Modulation:
    """How much the bands' envelopes move, and their mean loudness, both `f z`."""

    depth: np.ndarray
    mean_loudness: np.ndarray


def adapt(reference: np.ndarray, degraded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both smeared excitations `f z` with slow differences of level and colour taken out (section 3.1)."""
    kept = decay(MEMORY_SECONDS)
    slow_reference, slow_degraded = (remember((1 - kept) * x, kept) for x in (reference, degraded))
    level = (np.sqrt(slow_reference * slow_degraded).sum(-1) / slow_degraded.sum(-1)) ** 2
    reference = reference / np.maximum(level, 1)[:, None]
    degraded = degraded * np.minimum(level, 1)[:, None]

    ratio = remember(degraded * reference, kept) / remember(reference * reference, kept)
    corrections = (np.minimum(ratio, 1), np.minimum(1 / ratio, 1))
    smooth = [remember((1 - kept) * _mean_of_neighbours(correction), kept) for correction in corrections]
    return reference * smooth[0], degraded * smooth[1]


def _mean_of_neighbours(values: np.ndarray) -> np.ndarray:
    """Return each band's mean `f z` over 3 bands below, itself and 4 above, as far as there are any."""
    num_bands = values.shape[-1]
    band = np.arange(num_bands)
    first, last = np.maximum(band - BANDS_BELOW, 0), np.minimum(band + BANDS_ABOVE, num_bands - 1)
    near = (band[:, None] >= first) & (band[:, None] <= last)
    return values @ (near / near.sum(0))


def modulate(unsmeared: np.ndarray) -> Modulation:
    """Return the modulation of an unsmeared excitation `f z` (section 3.2)."""
    kept = decay(MEMORY_SECONDS)
    loudness = unsmeared**MODULATION_EXPONENT
    change = np.abs(np.diff(loudness, axis=0, prepend=0)) * FRAMES_PER_SECOND
    mean_change, mean_loudness = (remember((1 - kept) * x, kept) for x in (change, loudness))
    return Modulation(mean_change / (1 + mean_loudness / 0.3), mean_loudness)


def loudness(smeared: np.ndarray) -> np.ndarray:
    """Return the total loudness `f` in sone of a smeared excitation `f z` (section 3.3)."""
    centre = critical_bands().centre
    threshold = 10 ** (0.364 * (centre / 1000) ** -0.8)
    index = 10 ** ((-2 - 2.05 * np.arctan(centre / 4000) - 0.75 * np.arctan((centre / 1600) ** 2)) / 10)
    scale = LOUDNESS_SCALE * (threshold / (index * LOUDNESS_POWER)) ** LOUDNESS_EXPONENT
    specific = scale * ((1 - index + index * smeared / threshold) ** LOUDNESS_EXPONENT - 1)
    return 24 / len(centre) * np.maximum(specific, 0).sum(-1)
