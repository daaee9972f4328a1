"""PEAQ Basic: how much worse a coded sound is than its original (ITU-R BS.1387-1)."""

from dataclasses import dataclass

import numpy as np

from mmdiff.eval.metrics.peaq.averages import output_variables
from mmdiff.eval.metrics.peaq.ear import FULL_SCALE, HOP_LENGTH, N_FFT, SAMPLE_RATE
from mmdiff.eval.metrics.peaq.network import distortion_index, objective_difference_grade
from mmdiff.eval.metrics.peaq.variables import frame_variables

BOUNDARY_SAMPLES = 5
BOUNDARY_SUM = 200.0  # of magnitudes of 5 samples, in steps of 16 bits: -58 dB of full scale
BOUNDARY_BLOCK = 2048 - (BOUNDARY_SAMPLES - 1)


@dataclass(frozen=True)
class PeaqResult:
    """The grade (ODG), the distortion index (DI) and the 11 model output variables by the standard's names."""

    odg: float
    distortion_index: float
    movs: dict[str, float]


def peaq_basic(reference: np.ndarray, degraded: np.ndarray, sample_rate: int = SAMPLE_RATE) -> PeaqResult:
    """Return the objective difference grade of a degraded signal against its own reference, by PEAQ Basic.

    PEAQ compares a degraded signal with the very signal that it was made from, aligned in time: it is for codecs and
    vocoders. It says nothing about generated music, which has no such reference: unrelated sounds grade from about -3
    to -3.9, however good, and a change of gain alone counts as damage. Signals that are lost altogether are outside of
    what the network learnt: silence in place of music may grade as well as -1.

    Both are floating point waveforms `n` or `c n` in [-1, 1], one or two channels, at 48 kHz; full scale plays at
    92 dB SPL. Frames count from where the reference begins to where it ends, above -58 dB of full scale; of less than
    0.6 s the modulation and the noise loudness, which wait until the ear has settled, stay 0. Grades run from -3.98
    (very annoying) to 0.22; identical signals grade about +0.1 to +0.2, not 0.

    Raises ValueError for another sample rate, unequal shapes, values that are not finite floats, a clip of fewer than
    2048 samples, and a reference that is silent. The reading of the standard is that of P. Kabal, "An Examination and
    Interpretation of ITU-R BS.1387: Perceptual Evaluation of Audio Quality", McGill University, 2003.
    """
    reference, degraded = _check(reference, degraded, sample_rate)
    first, last = _data_frames(reference)
    channels = [frame_variables(*pair, last).since(first) for pair in zip(reference, degraded)]
    movs = output_variables(channels, num_skipped=first)
    index = distortion_index(movs)
    return PeaqResult(objective_difference_grade(index), index, movs)


def _check(reference: np.ndarray, degraded: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both waveforms `c n` in steps of 16 bits, or say what is wrong with them."""
    if sample_rate != SAMPLE_RATE:
        raise ValueError(f"PEAQ: is defined at {SAMPLE_RATE} Hz, not {sample_rate}; resample both signals")
    waves = {"reference": np.asarray(reference), "degraded": np.asarray(degraded)}
    for name, wave in waves.items():
        if not np.issubdtype(wave.dtype, np.floating):
            raise ValueError(f"PEAQ: {name} is {wave.dtype}; give floating point in [-1, 1] (16 bits: divide by 32768)")
        if wave.ndim not in (1, 2) or (wave.ndim == 2 and wave.shape[0] not in (1, 2)):
            raise ValueError(f"PEAQ: {name} has shape {wave.shape}; give samples, or 1 or 2 channels by samples")
        if not np.isfinite(wave).all():
            raise ValueError(f"PEAQ: {name} has values that are not finite; mend them first")
    shapes = {name: np.atleast_2d(wave).shape for name, wave in waves.items()}
    if shapes["reference"] != shapes["degraded"]:
        raise ValueError(
            f"PEAQ: reference (channels, samples) is {shapes['reference']}, degraded {shapes['degraded']}; "
            "align both in time and trim to the same length and channels"
        )
    if shapes["reference"][1] < N_FFT:
        raise ValueError(f"PEAQ: {shapes['reference'][1]} samples are too short; give at least a frame of {N_FFT}")
    scaled = [np.atleast_2d(wave).astype(np.float64) * FULL_SCALE for wave in waves.values()]
    return scaled[0], scaled[1]


def _data_frames(reference: np.ndarray) -> tuple[int, int]:
    """Return the first frame of data and the one after the last in samples `c n` as Kabal finds them.

    Where channels begin within one block of 2044 samples the later one counts; where they end, the last.
    """
    sums = np.lib.stride_tricks.sliding_window_view(np.abs(reference), BOUNDARY_SAMPLES, axis=-1).sum(-1)
    is_data = sums > BOUNDARY_SUM
    anywhere = np.flatnonzero(is_data.any(0))
    if not anywhere.size:
        raise ValueError("PEAQ: the reference is silent (below -58 dB of full scale); give one that sounds")
    block = anywhere[0] // BOUNDARY_BLOCK * BOUNDARY_BLOCK
    beginning = is_data[:, block : block + BOUNDARY_BLOCK]
    start = block + max(int(np.argmax(channel)) for channel in beginning if channel.any())
    end = int(anywhere[-1]) + BOUNDARY_SAMPLES - 1
    first, last = start // HOP_LENGTH, (end + 1 - N_FFT // 2) // HOP_LENGTH + 1
    if last <= first:
        raise ValueError(
            f"PEAQ: the reference sounds only from sample {start} to {end}, too short for a frame; give a longer one"
        )
    return first, last
