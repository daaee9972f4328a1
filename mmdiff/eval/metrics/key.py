"""Key and scale of a sound, and whether generated clips stay in the keys of the training clips."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmdiff.eval.metrics.sound import LIBROSA_RATE, load_librosa, mono_at

NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
ACCIDENTALS = {"#": 1, "♯": 1, "b": -1, "♭": -1}
# How well each pitch class fits a key on C: Krumhansl and Kessler, "Tracing the dynamic changes in perceived tonal
# organization", Psychological Review 89, 1982.
PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
SILENCE = 1e-4

# HPCP as essentia's KeyExtractor sets it.
HPCP_RATE, HPCP_SIZE = 44100, 4096
HPCP_LOWEST, HPCP_HIGHEST = 25.0, 3500.0
HPCP_PEAKS, HPCP_FLOOR = 60, 1e-7  # in effect every peak: the tail of a last note counts as any frame
HPCP_HARMONICS = 5  # the fundamental and four above it
CONCERT_PITCH = 440.0


@dataclass(frozen=True)
class Key:
    """A tonic, as pitch class 0 (C) to 11 (B), a scale "major" or "minor", and how well the sound fits (-1 to 1)."""

    tonic: int
    scale: str
    correlation: float = 1.0

    @property
    def name(self) -> str:
        """The tonic's name."""
        return NAMES[self.tonic]


def estimate_key(waveform: np.ndarray, sample_rate: int) -> Key | None:
    """Return the key of a waveform `c n` or `n`, None where it is silent or every pitch class sounds alike.

    The mean chroma is correlated with the 24 profiles of Krumhansl and Kessler. It is librosa's `chroma_stft`, which
    follows the tuning; in noise it finds more keys than `chroma_cqt`.
    """
    wave = mono_at(waveform, sample_rate)
    if not wave.size or np.abs(wave).max() < SILENCE:
        return None
    return match_profiles(mean_chroma(wave, LIBROSA_RATE))


def mean_chroma(waveform: np.ndarray, sample_rate: int, kind: str = "stft") -> np.ndarray:
    """Return how much each pitch class sounds `12`, from C, the most being 1: librosa's chroma "stft" or "cqt"."""
    librosa = load_librosa()
    make = {"stft": librosa.feature.chroma_stft, "cqt": librosa.feature.chroma_cqt}[kind]
    mean = make(y=mono_at(waveform, sample_rate), sr=LIBROSA_RATE).mean(1, dtype=np.float64)
    return mean / max(mean.max(), 1e-30)


def match_profiles(chroma: np.ndarray) -> Key | None:
    """Return the key whose profile a chroma `12` (from C) correlates with most, None where the chroma is flat."""
    chroma = np.asarray(chroma, np.float64)
    if not np.isfinite(chroma).all() or np.ptp(chroma) < 1e-9:
        return None
    return max(
        (
            Key(tonic, scale, float(np.corrcoef(np.roll(profile, tonic), chroma)[0, 1]))
            for scale, profile in PROFILES.items()
            for tonic in range(12)
        ),
        key=lambda key: key.correlation,
    )


def mean_hpcp(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the mean harmonic pitch class profile `12`, from A, each frame's strongest class being 1.

    At 44 100 Hz, in Hann frames of 4096 centred at every 4096 samples. Each spectral peak adds its power to the pitch
    class nearest to it, weighed by the cosine of its distance, and to those whose harmonic it may be.

    Source: Gómez, "Tonal description of polyphonic audio for music content processing", 2006; settings of essentia.
    """
    wave = mono_at(waveform, sample_rate, HPCP_RATE).astype(np.float64)
    num_frames = -(-(len(wave) + HPCP_SIZE // 2) // HPCP_SIZE)
    padded = np.pad(wave, (HPCP_SIZE // 2, num_frames * HPCP_SIZE - len(wave) - HPCP_SIZE // 2))
    window = np.hanning(HPCP_SIZE)
    spectra = np.abs(np.fft.rfft(padded.reshape(num_frames, HPCP_SIZE) * (2 * window / window.sum()), axis=1))
    return np.mean([profile_of_peaks(*spectral_peaks(spectrum)) for spectrum in spectra], axis=0)


def spectral_peaks(spectrum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies in Hz and magnitudes of a spectrum's 60 strongest peaks, placed by the parabola's vertex."""
    before, here, after = spectrum[:-2], spectrum[1:-1], spectrum[2:]
    at = np.flatnonzero((before < here) & (here >= after) & (here > HPCP_FLOOR))
    before, here, after = before[at], here[at], after[at]
    shift = 0.5 * (before - after) / (before - 2 * here + after)
    frequencies = (at + 1 + shift) * HPCP_RATE / HPCP_SIZE
    magnitudes = here - 0.25 * (before - after) * shift
    is_inside = (frequencies >= HPCP_LOWEST) & (frequencies <= HPCP_HIGHEST)
    frequencies, magnitudes = frequencies[is_inside], magnitudes[is_inside]
    strongest = np.argsort(-magnitudes, kind="stable")[:HPCP_PEAKS]
    return frequencies[strongest], magnitudes[strongest]


def profile_of_peaks(frequencies: np.ndarray, magnitudes: np.ndarray) -> np.ndarray:
    """Return the pitch class profile `12` of peaks, from A, the strongest class being 1; zeros where there are none."""
    profile = np.zeros(12)
    for semitones, weight in harmonic_weights().items():
        place = 12 * np.log2(frequencies / CONCERT_PITCH) - semitones
        nearest = np.round(place)
        power = np.square(weight * magnitudes) * np.cos(np.pi * (place - nearest))
        np.add.at(profile, nearest.astype(int) % 12, power)
    return profile / profile.max() if profile.max() > 0 else profile


def harmonic_weights() -> dict[float, float]:
    """Return how far above a pitch class its first five harmonics lie, in semitones below 12, and their weights.

    Harmonics an octave apart are one class: their weights add up. Beyond two octaves a harmonic weighs less.
    """
    weights: dict[float, float] = {}
    for harmonic in range(1, HPCP_HARMONICS + 1):
        octaves = np.log2(harmonic)
        place = round(float(12 * octaves % 12), 6)
        weights[place] = weights.get(place, 0.0) + 1 / max(1.0, 0.5 * octaves)
    return weights


def parse_key(tonic: str, scale: str) -> Key:
    """Return the key of names such as "F#" or "Gb" (which are one key) and "major" or "minor".

    Errors: `ValueError` where a name is not one of those.
    """
    letter, accidentals = tonic[:1].upper(), tonic[1:]
    if letter not in LETTERS or any(mark not in ACCIDENTALS for mark in accidentals) or scale not in PROFILES:
        raise ValueError(f"key: {tonic!r} {scale!r} is no key; give a letter A to G with # or b, and major or minor")
    return Key((LETTERS[letter] + sum(ACCIDENTALS[mark] for mark in accidentals)) % 12, scale)


@dataclass(frozen=True)
class KeyAgreement:
    """Percentages of generated clips whose tonic, scale, or both together occur among the training clips."""

    percent_key: float
    percent_scale: float
    percent_both: float


def within_keys(train: Sequence[Key | None], generated: Sequence[Key | None]) -> KeyAgreement:
    """Compare keys; clips without a key (None) are in no key.

    Errors: `ValueError` where a side is empty, or no training clip has a key.
    """
    known = [key for key in train if key is not None]
    if not known or not generated:
        raise ValueError("key: no training clip has a key, or nothing is generated; give one of each at least")
    tonics, scales = {key.tonic for key in known}, {key.scale for key in known}
    both = {(key.tonic, key.scale) for key in known}
    found = [key for key in generated if key is not None]
    shares = [
        sum(key.tonic in tonics for key in found),
        sum(key.scale in scales for key in found),
        sum((key.tonic, key.scale) in both for key in found),
    ]
    return KeyAgreement(*(100 * share / len(generated) for share in shares))
