"""What happens in a clip, and a fingerprint of its sound: both minute by minute, so that memory stays bounded.

Onsets are those of `mmdiff.eval.sync`. The fingerprint is Wang (2003), "An industrial-strength audio search algorithm":
pairs of spectral peaks, each a hash of both frequencies and the time between them.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import soxr
from scipy.ndimage import maximum_filter
from scipy.stats import poisson

from mmdiff.eval.sync import audio_onsets, default_tolerance, match_events, video_onsets

SAMPLE_RATE = 16_000
STRETCH_SECONDS, OVERLAP_SECONDS = 60, 2
MAX_FRAMES = 16_000  # in a stretch
N_FFT, HOP = 1024, 512
PEAK_REACH = (5, 12)  # frames and bins around a peak that hold no higher one
PEAK_FLOOR_DB = 50.0  # below the loudest moment of a stretch there are no peaks
FAN_OUT, NEAREST, FURTHEST, WIDEST = 4, 2, 40, 96  # pairs of each peak; frames, frames, bins between the two
REACH_SECONDS = 2.0  # the largest offset between sound and picture that is looked for
MIN_MATCHED, NEARLY = 5, 0.9
MIN_CONFIDENCE, SURE = 3.0, 6.0  # at no offset, and at others: there are many


@dataclass(frozen=True)
class Fingerprint:
    """Landmarks of a sound: `times` float32 in seconds from presentation zero, `hashes` uint32."""

    times: np.ndarray
    hashes: np.ndarray


class SoundEvents:
    """Onsets and landmarks of a sound that comes in blocks `c n`; its sample 0 is heard at `start` seconds."""

    def __init__(self, sample_rate: int, start: float):
        self.start, self.resampler = start, None
        if sample_rate != SAMPLE_RATE:
            self.resampler = soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, dtype="float32", quality="MQ")
        self.pieces: list[np.ndarray] = []
        self.held, self.first, self.is_begun = 0, 0, False
        self.onsets: list[np.ndarray] = []
        self.landmarks: list[tuple[np.ndarray, np.ndarray]] = []

    def push(self, block: np.ndarray, is_last: bool = False) -> None:
        """Take the next samples."""
        mono = block.mean(0, dtype=np.float32) if block.shape[1] else np.zeros(0, np.float32)
        if self.resampler is not None:
            mono = self.resampler.resample_chunk(mono, last=is_last)
        self.pieces.append(mono)
        self.held += len(mono)
        if is_last or self.held >= (STRETCH_SECONDS + OVERLAP_SECONDS) * SAMPLE_RATE:
            self._look(is_last)

    def result(self) -> tuple[np.ndarray, Fingerprint]:
        """Return the onsets' times and the fingerprint; ends the measuring."""
        self.push(np.zeros((1, 0), np.float32), is_last=True)
        times = np.concatenate([np.zeros(0, np.float32), *(times for times, _ in self.landmarks)])
        hashes = np.concatenate([np.zeros(0, np.uint32), *(hashes for _, hashes in self.landmarks)])
        return np.concatenate([np.zeros(0), *self.onsets]), Fingerprint(times.astype(np.float32), hashes)

    def _look(self, is_last: bool) -> None:
        wave = np.concatenate(self.pieces)
        keep = 0 if is_last else OVERLAP_SECONDS * SAMPLE_RATE
        begin = self.start + self.first / SAMPLE_RATE
        margin = OVERLAP_SECONDS / 2
        low = margin if self.is_begun else -1.0
        high = np.inf if is_last else (len(wave) / SAMPLE_RATE - margin)
        times = audio_onsets(wave, SAMPLE_RATE) if len(wave) else np.zeros(0)
        self.onsets.append(begin + times[(times >= low) & (times < high)])
        marks, hashes = landmarks(wave)
        chosen = (marks >= low) & (marks < high)
        self.landmarks.append((marks[chosen] + begin, hashes[chosen]))
        self.first += len(wave) - keep
        self.pieces, self.held, self.is_begun = [wave[len(wave) - keep :]], keep, True


class PictureEvents:
    """Onsets of a picture that comes in small frames, each with the time at which it is shown."""

    def __init__(self):
        self.frames: list[np.ndarray] = []
        self.times: list[float] = []
        self.onsets: list[np.ndarray] = []
        self.is_begun = False

    def push(self, frame: np.ndarray, time: float) -> None:
        """Take the next frame `h w 3`."""
        self.frames.append(frame)
        self.times.append(time)
        is_long = time - self.times[0] >= STRETCH_SECONDS + OVERLAP_SECONDS
        if is_long or len(self.frames) >= MAX_FRAMES:
            self._look(is_last=False)

    def result(self) -> np.ndarray:
        """Return the onsets' times; ends the measuring."""
        if self.frames:
            self._look(is_last=True)
        return np.concatenate([np.zeros(0), *self.onsets])

    def _look(self, is_last: bool) -> None:
        shown = np.array(self.times)
        middle = shown[0] + OVERLAP_SECONDS / 2 if self.is_begun else shown[0]
        until = np.inf if is_last else shown[-1] - OVERLAP_SECONDS / 2
        if len(shown) > 1 and shown[-1] > shown[0]:
            fps = (len(shown) - 1) / (shown[-1] - shown[0])  # what headers state is not always so
            index = np.round(video_onsets(np.stack(self.frames), fps) * fps + 0.5).astype(int)
            times = (shown[np.maximum(index - 1, 0)] + shown[index]) / 2  # between two frames, whatever the rate
            self.onsets.append(times[(times >= middle) & (times < until)])
        keep = 0 if is_last else int((shown >= shown[-1] - OVERLAP_SECONDS).sum())
        keep = min(keep, len(shown) // 2)
        self.frames, self.times = self.frames[len(shown) - keep :], self.times[len(shown) - keep :]
        self.is_begun = True


def landmarks(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return times in seconds and hashes of the peak pairs in a waveform `n` at 16 kHz."""
    if len(wave) < 4 * N_FFT or np.abs(wave).max() < 1e-4:
        return np.zeros(0), np.zeros(0, np.uint32)
    pieces = np.lib.stride_tricks.sliding_window_view(wave, N_FFT)[::HOP]
    level = 20 * np.log10(np.abs(np.fft.rfft(pieces * np.hanning(N_FFT).astype(np.float32), axis=1)) + 1e-6)
    around = maximum_filter(level, (2 * PEAK_REACH[0] + 1, 2 * PEAK_REACH[1] + 1))
    is_peak = (level == around) & (level > level.max() - PEAK_FLOOR_DB)
    is_peak[:, :3] = False  # below 47 Hz is hum
    frame, pitch = np.nonzero(is_peak)
    times, hashes = [], []
    for step in range(1, 4 * FAN_OUT):
        if step >= len(frame):
            break
        apart, rise = frame[step:] - frame[:-step], pitch[step:] - pitch[:-step]
        fits = (apart >= NEAREST) & (apart <= FURTHEST) & (np.abs(rise) <= WIDEST)
        code = (pitch[:-step] << 15) | ((rise + WIDEST) << 6) | np.minimum(apart, 63)
        times.append(frame[:-step][fits])
        hashes.append(code[fits])
    if not times:
        return np.zeros(0), np.zeros(0, np.uint32)
    return np.concatenate(times) * (HOP / SAMPLE_RATE), np.concatenate(hashes).astype(np.uint32)


def compare_onsets(heard: np.ndarray, seen: np.ndarray, fps: Fraction) -> dict[str, Any]:
    """Return the columns on agreement: events of both sides, F1 at no offset, and the offset at which most agree.

    The offset is sound minus picture: positive where the sound comes late. All differences within two seconds are
    counted in a window of twice the tolerance that slides over them; of the places nearly as full as the fullest it is
    the one nearest to 0 (a beat agrees with itself one beat later, too). The confidence is how improbable so full a
    place is by chance: -log10 of the Poisson tail times the number of places. An offset is told only where at least
    five events agree, with a confidence of 3, or of 6 away from 0; music, cuts and camera moves often allow none.
    """
    tolerance = default_tolerance(fps)
    columns: dict[str, Any] = {
        "onsets_heard": len(heard), "onsets_seen": len(seen), "sync_f1": None, "sync_offset_ms": None,
        "sync_confidence": None,
    }  # fmt: skip
    if not len(heard) or not len(seen):
        return columns
    heard, seen = np.sort(heard), np.sort(seen)
    columns["sync_f1"] = 2 * _count_matched(heard, seen, tolerance) / (len(heard) + len(seen))
    low, high = np.searchsorted(seen, heard - REACH_SECONDS), np.searchsorted(seen, heard + REACH_SECONDS)
    apart = np.sort(np.concatenate([time - seen[a:b] for time, a, b in zip(heard, low, high, strict=True)]))
    if not len(apart):
        return columns
    first = np.arange(len(apart))
    counts = np.searchsorted(apart, apart + 2 * tolerance, side="right") - first
    places = REACH_SECONDS / tolerance
    confidence = -float(poisson.logsf(counts.max() - 1, len(apart) / places)) / np.log(10) - np.log10(places)
    columns["sync_confidence"] = max(float(confidence), 0.0)
    if counts.max() >= MIN_MATCHED and confidence >= MIN_CONFIDENCE:
        full = np.flatnonzero(counts >= NEARLY * counts.max())
        offsets = [float(np.median(apart[at : at + counts[at]])) for at in full]
        nearest = min(offsets, key=abs)
        if abs(nearest) <= tolerance or confidence >= SURE:
            columns["sync_offset_ms"] = 1000 * nearest
    return columns


def _count_matched(heard: np.ndarray, seen: np.ndarray, tolerance: float) -> int:
    """Return how many events agree, minute by minute: the assignment's matrix stays small."""
    edges = np.arange(0, max(heard[-1], seen[-1]) + STRETCH_SECONDS, STRETCH_SECONDS)
    pairs = zip(np.split(heard, np.searchsorted(heard, edges)), np.split(seen, np.searchsorted(seen, edges)))
    return sum(len(match_events(a, b, tolerance).offsets) for a, b in pairs if len(a) and len(b))
