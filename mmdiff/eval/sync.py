"""When things happen in sound and in picture, and how far apart: pure functions on arrays."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy.ndimage import maximum_filter1d, median_filter
from scipy.optimize import linear_sum_assignment

# Sound. Times in seconds, rises in dB.
HOP_SECONDS = 0.002
WINDOW_SECONDS = 0.016
LAG_SECONDS = 0.012
NUM_BANDS = 20
LOWEST_HZ = 60.0
FLOOR_DB = 45.0  # below a clip's loudest moment nothing counts
AUDIO_RISE_DB = 3.0
AUDIO_BACKGROUND_SECONDS = 0.3
SILENCE = 1e-4  # peak of a waveform that counts as silent
STEP_SECONDS = 0.006  # the sound before and after an onset that are compared to place it
SEARCH_SECONDS = 0.024
# Picture. Brightness is 0 .. 1.
BLOCKS = 16
LIT_SHARE = 0.06
VIDEO_RISE = 0.012
VIDEO_SHARE_OF_STRONGEST = 0.15
VIDEO_BACKGROUND_SECONDS = 1.0
# Both.
MERGE_SECONDS = 0.1


@dataclass(frozen=True)
class Matching:
    """Indices of matched events, pair for pair, and their offsets in seconds (sound minus picture)."""

    audio: np.ndarray
    video: np.ndarray
    offsets: np.ndarray


@dataclass(frozen=True)
class Agreement:
    """What one clip adds to the score: matched pairs, events of each side that count, and offsets in seconds."""

    num_matched: int
    num_audio: int
    num_video: int
    offsets: np.ndarray

    @property
    def f1(self) -> float:
        """Twice the matched pairs over the events of both sides; NaN where there are none."""
        events = self.num_audio + self.num_video
        return 2 * self.num_matched / events if events else float("nan")


def audio_onsets(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the times in seconds at which sounds begin in a waveform `c n` or `n`.

    An onset is where the log power of many frequency bands rises together within a few milliseconds, above what it does
    in the 0.3 s around; its time is then placed where the power just after exceeds the power just before the most.
    Sounds that begin before sample 0 are not onsets. A silent waveform has none.
    """
    wave = np.asarray(waveform, np.float64)
    wave = wave.mean(0) if wave.ndim == 2 else wave
    wave = wave - wave.mean() if wave.size else wave
    if wave.size < sample_rate * 2 * WINDOW_SECONDS or np.abs(wave).max() < SILENCE:
        return np.zeros(0)
    hop = max(round(HOP_SECONDS * sample_rate), 1)
    rise = audio_rise(wave, sample_rate)
    peaks = _peaks(rise, round(MERGE_SECONDS / 2 * sample_rate / hop), AUDIO_RISE_DB)
    times = np.array([_place_onset(wave, int(peak) * hop, sample_rate) for peak in peaks])
    return merge_times(times, rise[peaks], MERGE_SECONDS / 2)


def match_events(audio_times: np.ndarray, video_times: np.ndarray, tolerance_seconds: float) -> Matching:
    """Pair events one to one, none further apart than the tolerance: as many pairs as can be, and of those the nearest.

    Nearest means the smallest sum of |offset|; it is found by linear assignment, so no order of visiting decides.
    """
    audio, video = (np.asarray(times, np.float64).reshape(-1) for times in (audio_times, video_times))
    distance = np.abs(audio[:, None] - video[None])
    too_far = 1.0 + tolerance_seconds * (min(distance.shape, default=0) + 1)  # more than all pairs together
    rows, columns = linear_sum_assignment(np.where(distance <= tolerance_seconds + 1e-9, distance, too_far))
    is_near = distance[rows, columns] <= tolerance_seconds + 1e-9
    rows, columns = rows[is_near], columns[is_near]
    return Matching(rows, columns, audio[rows] - video[columns])


def compare_events(
    audio_times: np.ndarray,
    video_times: np.ndarray,
    *,
    tolerance_seconds: float,
    reach_seconds: float,
    end_seconds: float,
) -> Agreement:
    """Score one clip, observed from 0 to `end_seconds` (when its last frame appears).

    Events count where they are matched, and where they are unmatched but far enough from both ends (the tolerance) that
    their partner would have been seen. Offsets are those of the matched pairs, and of what is left over matched again
    within `reach_seconds`, so that their size is not bounded by the tolerance.
    """
    audio, video = np.asarray(audio_times, np.float64), np.asarray(video_times, np.float64)
    near = match_events(audio, video, tolerance_seconds)
    left = {
        "audio": np.delete(audio, near.audio),
        "video": np.delete(video, near.video),
    }
    inside = {
        name: int(((times >= tolerance_seconds) & (times <= end_seconds - tolerance_seconds)).sum())
        for name, times in left.items()
    }
    far = match_events(left["audio"], left["video"], reach_seconds)
    matched = len(near.offsets)
    return Agreement(
        matched, matched + inside["audio"], matched + inside["video"], np.concatenate([near.offsets, far.offsets])
    )


def default_tolerance(fps: Fraction | float) -> float:
    """Return one frame period, but at least 50 ms: closer than that a picture cannot say when something happened."""
    return max(1 / float(fps), 0.05)


def audio_rise(wave: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return how many dB the bands of a waveform `n` rise on average, at every 2 ms, less what is usual around."""
    hop = max(round(HOP_SECONDS * sample_rate), 1)
    level = _band_levels(wave, sample_rate, hop)
    lag = round(LAG_SECONDS * sample_rate / hop)
    before = maximum_filter1d(maximum_filter1d(level, 3, axis=0), 2 * (lag // 2) + 1, axis=1, mode="nearest")
    past = np.concatenate([np.repeat(before[:, :1], lag, 1), before[:, :-lag]], 1)
    rise = np.maximum(level - past, 0).mean(0)
    rise = np.roll(rise, -(lag // 2))
    rise[-(lag // 2 + round(WINDOW_SECONDS / 2 * sample_rate / hop) + 1) :] = 0  # there the windows see past the end
    usual = median_filter(rise, round(AUDIO_BACKGROUND_SECONDS * sample_rate / hop) | 1, mode="mirror")
    return np.maximum(rise - usual, 0)


def _band_levels(wave: np.ndarray, sample_rate: int, hop: int) -> np.ndarray:
    """Return log power in dB of frequency bands `m l`, column i centred on sample i hop, with a floor to each band."""
    size = round(WINDOW_SECONDS * sample_rate)
    padded = np.pad(wave, (size // 2, size - size // 2), mode="reflect")
    pieces = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    power = np.abs(np.fft.rfft(pieces * np.hanning(size), axis=1)) ** 2
    hertz = np.fft.rfftfreq(size, 1 / sample_rate)
    edges = np.geomspace(LOWEST_HZ, sample_rate / 2, NUM_BANDS + 1)
    starts = np.unique(np.searchsorted(hertz[:-1], edges[:-1]))
    bands = np.add.reduceat(power[:, :-1], starts, axis=1).T
    floor = bands.max() * 10 ** (-FLOOR_DB / 10) / len(bands) + 1e-12
    noise = np.quantile(bands, 0.1, axis=1, keepdims=True)
    return 10 * np.log10(bands + np.maximum(noise, floor))


def _place_onset(wave: np.ndarray, sample: int, sample_rate: int) -> float:
    """Return the time near a sample at which the power after exceeds the power before the most."""
    step, search = round(STEP_SECONDS * sample_rate), round(SEARCH_SECONDS * sample_rate)
    low, high = max(sample - search, 0), min(sample + search, len(wave))
    first = max(low - step - 1, 0)
    piece = np.diff(wave[first : high + step], prepend=wave[first])
    total = np.concatenate([[0], np.cumsum(piece**2)])
    at = np.arange(low, high) - first
    after = total[np.minimum(at + step, len(piece))] - total[at]
    before = total[at] - total[np.maximum(at - step, 0)]
    small = 0.01 * after.max() + 1e-12
    return (low + int(np.argmax((after + small) / (before + small)))) / sample_rate


def video_onsets(frames: np.ndarray, fps: Fraction | float) -> np.ndarray:
    """Return the times in seconds at which something lights up or changes at once in frames uint8 `f h w 3`.

    A change first seen in frame k happened after frame k - 1 was shown: its unbiased time is (k - 1/2) / fps, and for
    an event at a random moment the error is uniform within half a frame period. What happened before frame 0 or after
    the last one cannot be seen.
    """
    rise = video_rise(frames, fps)
    if not rise.size or rise.max() < VIDEO_RISE:
        return np.zeros(0)
    threshold = max(VIDEO_RISE, VIDEO_SHARE_OF_STRONGEST * float(rise.max()))
    peaks = _peaks(rise, max(round(MERGE_SECONDS * float(fps)), 1), threshold)
    starts = np.array([_foot(rise, int(peak)) for peak in peaks])
    return (starts - 0.5) / float(fps)


def video_rise(frames: np.ndarray, fps: Fraction | float) -> np.ndarray:
    """Return how much brighter each frame of `f h w 3` became than the one before, less what is usual around.

    The picture is taken in 16 x 16 blocks; of all blocks' rises it is the 94th percentile that counts, so a flash must
    cover 6 % of the picture, and small things may move about as they like.
    """
    if len(frames) < 2:
        return np.zeros(len(frames))
    blocks = _blocks(frames)
    change = np.maximum(np.diff(blocks, axis=0), 0).max(-1).reshape(len(frames) - 1, -1)
    rise = np.concatenate([[0], np.quantile(change, 1 - LIT_SHARE, axis=1)])
    usual = median_filter(rise[1:], round(VIDEO_BACKGROUND_SECONDS * float(fps)) | 1, mode="mirror")
    rise[1:] = np.maximum(rise[1:] - usual, 0)
    return rise


def _blocks(frames: np.ndarray) -> np.ndarray:
    """Return mean colours 0 .. 1 of about 16 x 16 blocks, `f h w 3`."""
    rows, columns = (np.linspace(0, size, min(BLOCKS, size) + 1).astype(int) for size in frames.shape[1:3])
    sums = np.add.reduceat(np.add.reduceat(frames.astype(np.float32), rows[:-1], 1), columns[:-1], 2)
    return sums / (255 * np.diff(rows)[:, None, None] * np.diff(columns)[:, None])


def _foot(rise: np.ndarray, peak: int) -> int:
    """Return the first frame of the rise that a peak belongs to."""
    while peak > 1 and rise[peak - 1] >= 0.5 * rise[peak]:
        peak -= 1
    return peak


def _peaks(strength: np.ndarray, reach: int, threshold: float) -> np.ndarray:
    """Return the indices that exceed a threshold and everything within `reach` of them (the first of equals)."""
    top = maximum_filter1d(strength, 2 * reach + 1, mode="constant", cval=0.0)
    found = np.flatnonzero((strength >= top) & (strength > threshold))
    return found[np.diff(found, prepend=-reach - 1) > reach] if len(found) else found


def merge_times(times: np.ndarray, strengths: np.ndarray, interval: float) -> np.ndarray:
    """Return times in order, without the weaker (the later of equals) of any two that are closer than an interval."""
    kept: list[int] = []
    for index in np.argsort(times, kind="stable"):
        if kept and times[index] - times[kept[-1]] < interval:
            if strengths[index] > strengths[kept[-1]]:
                kept[-1] = index
        else:
            kept.append(index)
    return times[kept]
