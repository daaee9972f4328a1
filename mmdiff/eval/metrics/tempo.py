"""Tempo: beats per minute of a sound, and whether a generated clip keeps the tempo it was trained on.

librosa's tempo is a whole number of hops between beats: at its defaults the values nearest to 120 are 117.45 and
123.05. Here the period is read from the whole clip, to a fraction of a hop.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmdiff.eval.metrics.sound import LIBROSA_RATE, load_librosa, mono_at

HOP_LENGTH = 128
N_FFT = 1024
SLOWEST, FASTEST = 30.0, 240.0  # BPM
PULSE_SHARE = 0.5  # of the strongest periodicity: the fastest pulse that has this much is the beat
PULSE_CLEAR, PULSE_FLOOR = 0.5, 0.15  # correlations: weaker than the first is a faint pulse, than the second none
USUAL_BPM, USUAL_OCTAVES = 120.0, 1.0  # what a faint pulse is likely to be: log-normal, as librosa has it
TOLERANCE = 5.0  # BPM
SILENCE = 1e-4
OCTAVES = (0.5, 1.0, 2.0)


def estimate_bpm(waveform: np.ndarray, sample_rate: int) -> float:
    """Return the tempo of a waveform `c n` or `n` in beats per minute, NaN where it is silent or has no pulse.

    The rises of loudness at hop 128 are compared with themselves later. Octave policy: of the periods between 30 and
    240 BPM the beat is the shortest whose correlation is at least half of the strongest, so that an alternation of
    unlike drums counts every one of them, and quiet off-beats count nothing. Where no correlation reaches one half the
    pulse is faint, and the more usual tempo (about 120) wins. It needs two periods: 1.6 s tell 75 BPM and more.

    Errors: `ValueError` where the waveform holds less than one second.
    """
    wave = mono_at(waveform, sample_rate)
    if len(wave) < LIBROSA_RATE:
        raise ValueError(f"tempo: {len(wave) / LIBROSA_RATE:.2f} s of sound are too short; give a second or more")
    if np.abs(wave).max() < SILENCE:
        return float("nan")
    for rises in (loudness_rises(wave), timbre_rises(wave)):
        bpm = pulse_of(rises)
        if np.isfinite(bpm):
            return bpm
    return float("nan")


def librosa_bpm(waveform: np.ndarray, sample_rate: int) -> float:
    """Return what `librosa.feature.tempo` says by its defaults at 22 050 Hz, to compare with other papers."""
    return float(load_librosa().feature.tempo(y=mono_at(waveform, sample_rate), sr=LIBROSA_RATE)[0])


def loudness_rises(wave: np.ndarray) -> np.ndarray:
    """Return how much the amplitude of a waveform `n` rises at every hop: loud drums count more than quiet ones."""
    power = np.square(np.abs(load_librosa().stft(wave, n_fft=N_FFT, hop_length=HOP_LENGTH))).sum(0, dtype=np.float64)
    return np.sqrt(np.maximum(np.diff(power, prepend=power[0]), 0))


def timbre_rises(wave: np.ndarray) -> np.ndarray:
    """Return librosa's onset strength of a waveform `n` at every hop: quiet changes count too."""
    strength = load_librosa().onset.onset_strength(y=wave, sr=LIBROSA_RATE, hop_length=HOP_LENGTH)
    return np.asarray(strength, np.float64)


def pulse_of(rises: np.ndarray) -> float:
    """Return the beats per minute at which rises `n`, one at every hop, repeat; NaN where they do not."""
    correlation = autocorrelation(rises)
    rate = LIBROSA_RATE / HOP_LENGTH * 60  # hops per minute
    last = min(int(np.ceil(rate / SLOWEST)), len(rises) // 2)
    inner = correlation[1:-1]
    peaks = np.flatnonzero((correlation[:-2] < inner) & (inner >= correlation[2:])) + 1
    # Half a hop: a pulse right at the end of the range may be found on either side of it.
    peaks = peaks[(peaks >= rate / FASTEST - 1) & (peaks <= last + 1)]
    if not len(peaks) or correlation[peaks].max() < PULSE_FLOOR:
        return float("nan")
    if correlation[peaks].max() >= PULSE_CLEAR:
        beat = peaks[correlation[peaks] >= PULSE_SHARE * correlation[peaks].max()][0]
    else:
        octaves = np.log2(rate / peaks / USUAL_BPM) / USUAL_OCTAVES
        beat = peaks[np.argmax(correlation[peaks] * np.exp(-0.5 * np.square(octaves)))]
    return rate / _refine(correlation, int(beat), len(rises) // 2)


def autocorrelation(rises: np.ndarray) -> np.ndarray:
    """Return the correlation of rises `n` with themselves at lags `n`, 1 at lag 0; blurred, so that a beat may sway."""
    from scipy.ndimage import gaussian_filter1d

    smooth = gaussian_filter1d(np.asarray(rises, np.float64), 2.0)
    centred = smooth - smooth.mean()
    spectrum = np.fft.rfft(centred, 2 * len(centred))
    lags = np.fft.irfft(np.square(np.abs(spectrum)))[: len(centred)]
    lags /= np.arange(len(lags), 0, -1)  # each lag is the mean of as many products as there are
    return lags / max(lags[0], 1e-30)


def _refine(correlation: np.ndarray, period: int, last: int) -> float:
    """Return a period to a fraction of a hop: from peak to peak at its multiples, further as it is known better."""
    best = _vertex(correlation, period)
    multiple = 2
    while best * multiple < last:
        reach = max(int(0.05 * period), 2)
        centre = round(best * multiple)
        near = correlation[centre - reach : centre + reach + 1]
        peak = centre - reach + int(np.argmax(near))
        if centre - reach < peak < centre + reach and correlation[peak] >= PULSE_SHARE * correlation[period]:
            best = _vertex(correlation, peak) / multiple
        multiple += 1
    return best


def _vertex(values: np.ndarray, peak: int) -> float:
    """Return where the parabola through a peak and its neighbours is highest."""
    before, here, after = values[peak - 1 : peak + 2]
    bend = before - 2 * here + after
    return peak + 0.5 * (before - after) / bend if bend < 0 else float(peak)


@dataclass(frozen=True)
class TempoAgreement:
    """Which generated clips keep the mean training tempo, and percentages: strictly, and at half or double it too."""

    mean_bpm: float
    is_within: np.ndarray
    percent: float
    percent_octave_tolerant: float


def within_tempo(
    train_bpm: Sequence[float], generated_bpm: Sequence[float], *, tolerance: float = TOLERANCE
) -> TempoAgreement:
    """Compare tempi with the mean of the training clips' tempi: |BPM - mean| <= tolerance, the bound included.

    Octave-tolerant: half or double of the generated tempo may be within the tolerance instead. A tempo that is NaN is
    not within it.

    Errors: `ValueError` where a side is empty, or no training clip has a tempo.
    """
    train, generated = np.asarray(train_bpm, np.float64), np.asarray(generated_bpm, np.float64)
    train = train[np.isfinite(train)]
    if not len(train) or not len(generated):
        raise ValueError("tempo: no training clip has a tempo, or nothing is generated; give one of each at least")
    mean = float(train.mean())
    bound = tolerance + 1e-9  # inclusive also where the mean is rounded
    is_within = np.abs(generated - mean) <= bound
    is_near = np.any([np.abs(factor * generated - mean) <= bound for factor in OCTAVES], axis=0)
    return TempoAgreement(mean, is_within, 100 * float(is_within.mean()), 100 * float(is_near.mean()))
