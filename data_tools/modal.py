"""Modal synthesis: a struck thing rings with a few decaying sinusoids that tell its material."""

from dataclasses import dataclass

import numpy as np

NOISE_FLOOR = 10 ** (-60 / 20)
ATTACK_SECONDS = 0.001


@dataclass(frozen=True)
class Material:
    """How a material sounds and looks.

    `pitch` is the range of the lowest mode in Hz, `ratios` the modes above it, `decay` the seconds in which the lowest
    falls by 60 dB, `noise` the share of the blow's own noise, `colour` RGB in 0 .. 1.
    """

    pitch: tuple[float, float]
    ratios: tuple[float, ...]
    decay: float
    noise: float
    colour: tuple[float, float, float]


MATERIALS = {
    "wood": Material((380, 650), (1.0, 2.57, 4.95), 0.16, 0.35, (0.95, 0.66, 0.30)),
    "metal": Material((800, 1300), (1.0, 2.76, 5.40, 8.93), 0.45, 0.15, (0.60, 0.80, 1.00)),
    "glass": Material((1500, 2400), (1.0, 2.32, 4.25), 0.30, 0.20, (0.55, 1.00, 0.85)),
    "stone": Material((220, 380), (1.0, 1.93, 3.12, 4.40), 0.12, 0.70, (0.92, 0.90, 0.86)),
    "drum": Material((80, 150), (1.0, 1.59, 2.14, 2.65), 0.35, 0.30, (1.00, 0.45, 0.40)),
}


def strike(material: Material, pitch: float, strength: float, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return one blow's sound `n`, beginning at its first sample; a harder blow is louder and brighter."""
    length = int(1.2 * material.decay * sample_rate)
    time = np.arange(length) / sample_rate
    sound = np.zeros(length)
    for number, ratio in enumerate(material.ratios):
        if pitch * ratio < 0.45 * sample_rate:
            rate = 6.9 * (1 + 0.6 * number) / material.decay
            loudness = (0.35 + 0.4 * strength) ** number
            sound += loudness * np.exp(-rate * time) * np.sin(2 * np.pi * pitch * ratio * time)
    sound += material.noise * np.exp(-time / 0.006) * rng.standard_normal(length)
    sound *= np.minimum(time / ATTACK_SECONDS, 1)
    return (0.25 + 0.75 * strength) * sound / np.abs(sound).max()


def mix_strikes(
    times: list[float], sounds: list[np.ndarray], num_samples: int, sample_rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Place every sound at its time over a faint noise floor; return float32 `1 n` with a peak of 0.8."""
    wave = np.zeros(num_samples)
    for time, sound in zip(times, sounds, strict=True):
        at = round(time * sample_rate)
        piece = sound[: max(num_samples - at, 0)]
        wave[at : at + len(piece)] += piece
    wave *= 0.8 / max(np.abs(wave).max(), 1e-9)
    wave += NOISE_FLOOR * rng.standard_normal(num_samples)
    return wave.astype(np.float32)[None]
