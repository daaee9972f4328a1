"""Do beats fall together: two musics' (D2M, LORIS, mir_eval), or a dance's and its music's (AIST++, Bailando).

The scores of D2M and LORIS count seconds in which both musics have an onset: drums at 97 and at 127 BPM agree fully.
`beat_f_measure` belongs beside them. Where a side has no beats every score here is 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mmdiff.eval.metrics.sound import LIBROSA_RATE, load_librosa, mono_at

# Peak picking in frames of 512 samples at 22 050 Hz, from the published programs.
ONSETS = {
    "d2m": {"pre_avg": 1, "post_avg": 1, "post_max": 1},
    "loris": {"pre_avg": 3, "post_avg": 3, "pre_max": 3, "post_max": 3},
}
SIGMA_FRAMES = 3.0  # of both dance scores, at the 60 frames per second of AIST++
REACH_FRAMES = 10
SMOOTH_FRAMES = 5.0
AIST_FPS = 60
F_WINDOW_SECONDS = 0.07


@dataclass(frozen=True)
class BeatScore:
    """Beat coverage and hit rate of one generated music against its reference."""

    coverage: float
    hit: float


@dataclass(frozen=True)
class BeatMeans:
    """Means over clips (BCS, BHS), their standard deviations with ddof 1 (CSD, HSD), and F1 of the two means."""

    coverage: float
    hit: float
    coverage_deviation: float
    hit_deviation: float
    f1: float


def beat_score(
    reference: np.ndarray, generated: np.ndarray, sample_rate: int, *, version: str, generated_rate: int | None = None
) -> BeatScore:
    """Score a generated waveform `c n` or `n` against its reference, by the version "loris" or "d2m".

    `generated_rate` is the generated music's sample rate where it is another.
    """
    cells = [
        onset_cells(onset_times(wave, rate, version), wave.shape[-1] / rate)
        for wave, rate in ((reference, sample_rate), (generated, generated_rate or sample_rate))
    ]
    return compare_cells(*cells, version=version)


def onset_times(waveform: np.ndarray, sample_rate: int, version: str) -> np.ndarray:
    """Return onset times in seconds of a waveform `c n` or `n`, picked as a version does.

    Errors: `ValueError` where the version is not known.
    """
    check_version(version)
    wave, librosa = mono_at(waveform, sample_rate), load_librosa()
    if not wave.size:
        return np.zeros(0)
    return librosa.onset.onset_detect(y=wave, sr=LIBROSA_RATE, wait=1, delta=0.2, units="time", **ONSETS[version])


def check_version(version: str) -> None:
    """Refuse a version that is not known, with a `ValueError`."""
    if version not in ONSETS:
        raise ValueError(f"beats: no version is called {version!r}; choose one of {', '.join(ONSETS)}")


def onset_cells(times: np.ndarray, duration_seconds: float) -> np.ndarray:
    """Return which seconds of a sound hold an onset; the last second may be a part of one."""
    cells = np.zeros(int(np.ceil(duration_seconds)), bool)
    cells[np.minimum(np.asarray(times, np.float64).astype(int), len(cells) - 1)] = True
    return cells


def compare_cells(reference: np.ndarray, generated: np.ndarray, *, version: str) -> BeatScore:
    """Score seconds with onsets. Both: hit = common / reference.

    LORIS: coverage = common / generated (a precision), the reference cut to the generated length. D2M: coverage =
    generated / reference, which may exceed 1, for equal lengths only. What would be divided by 0 is 0.

    Source: Yu et al. (LORIS), 2023, and Zhu et al. (D2M-GAN), 2022, as released.

    Errors: `ValueError` where the lengths do not suit.
    """
    check_version(version)
    if len(generated) > len(reference) or (version == "d2m" and len(generated) != len(reference)):
        raise ValueError(
            f"beats: {len(generated)} s are generated for {len(reference)} s of reference; "
            f"{version} takes {'equal lengths' if version == 'd2m' else 'no longer ones'}: cut both to the shorter"
        )
    reference = np.asarray(reference[: len(generated)], bool)
    known, made, common = (int(np.sum(x)) for x in (reference, generated, reference & np.asarray(generated, bool)))
    coverage = _ratio(common, made) if version == "loris" else _ratio(made, known)
    return BeatScore(coverage, _ratio(common, known))


def average_scores(scores: Sequence[BeatScore]) -> BeatMeans:
    """Average clips' scores as LORIS does; the deviations of a single clip are NaN.

    Errors: `ValueError` where there are none.
    """
    if not scores:
        raise ValueError("beats: there are no scores to average; give one clip at least")
    coverage, hit = np.array([[score.coverage, score.hit] for score in scores], np.float64).T
    deviations = [float(np.std(x, ddof=1)) if len(x) > 1 else float("nan") for x in (coverage, hit)]
    means = float(coverage.mean()), float(hit.mean())
    return BeatMeans(*means, *deviations, f1=_ratio(2 * means[0] * means[1], sum(means)))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def music_beats(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return beat times in seconds of a waveform `c n` or `n`, by librosa's tracker at its defaults."""
    wave, librosa = mono_at(waveform, sample_rate), load_librosa()
    if not wave.any():
        return np.zeros(0)
    return librosa.beat.beat_track(y=wave, sr=LIBROSA_RATE, units="time")[1]


def beat_f_measure(reference: np.ndarray, estimated: np.ndarray, *, skip_seconds: float) -> float:
    """Return mir_eval's F-measure of beat times: a beat counts where it is at most 70 ms from one of the other side.

    Beats before `skip_seconds` do not count: mir_eval's own evaluation skips 5 s, which leaves nothing of a short clip.
    """
    import mir_eval

    sides = [np.sort(np.asarray(times, np.float64).reshape(-1)) for times in (reference, estimated)]
    known, found = (mir_eval.beat.trim_beats(times, min_beat_time=skip_seconds) for times in sides)
    if not len(known) or not len(found):
        return 0.0
    return float(mir_eval.beat.f_measure(known, found, f_measure_threshold=F_WINDOW_SECONDS))


def joint_speed(joints: np.ndarray) -> np.ndarray:
    """Return how far each joint moves from frame to frame `f-1 j`, of positions `f j 3`.

    Errors: `ValueError` where the positions have another shape.
    """
    if joints.ndim != 3 or joints.shape[-1] != 3 or len(joints) < 2:
        raise ValueError(f"beats: joints are {joints.shape}; give two frames or more of joints with 3 coordinates")
    return np.linalg.norm(np.diff(joints.astype(np.float32), axis=0), axis=-1)


def aist_motion_beats(joints: np.ndarray) -> np.ndarray:
    """Return the frames in which a dance `f j 3` halts: least summed speed within 10 frames on either side.

    Source: Li et al., "AI Choreographer" (AIST++), 2021, as released.
    """
    return local_minima(np.concatenate([[0.0], joint_speed(joints).sum(-1)]), REACH_FRAMES)


def bailando_motion_beats(joints: np.ndarray) -> np.ndarray:
    """Return the frames in which a dance `f j 3` halts: any minimum of the mean speed, smoothed over 5 frames.

    Source: Siyao et al., "Bailando", 2022, as released.
    """
    from scipy.ndimage import gaussian_filter1d

    return local_minima(gaussian_filter1d(joint_speed(joints).mean(-1), SMOOTH_FRAMES), 1)


def local_minima(values: np.ndarray, reach: int) -> np.ndarray:
    """Return the indices of values less than all within `reach` of them; one at an end, beside itself, is not less."""
    from scipy.signal import argrelmin

    return argrelmin(values, order=reach)[0]


def aist_alignment(music: np.ndarray, motion: np.ndarray, sigma: float = SIGMA_FRAMES) -> float:
    """Return the mean over motion beats of exp(-d^2 / (2 sigma^2)), d the way to the nearest music beat.

    Beats and sigma are in one unit: AIST++ counts frames at 60 per second. Source: Li et al., 2021.
    """
    return nearness(motion, music, sigma)


def bailando_alignment(music: np.ndarray, motion: np.ndarray, sigma: float = SIGMA_FRAMES) -> float:
    """Return the mean over music beats of exp(-d^2 / (2 sigma^2)), d the way to the nearest motion beat, in frames.

    Source: Siyao et al., 2022.
    """
    return nearness(music, motion, sigma)


def nearness(beats: np.ndarray, others: np.ndarray, sigma: float) -> float:
    """Return how near the other side's nearest beats are on average: 1 on the beat, 0 far off or where none are."""
    beats, others = (np.asarray(times, np.float64).reshape(-1) for times in (beats, others))
    if not len(beats) or not len(others):
        return 0.0
    distance = np.abs(beats[:, None] - others[None]).min(1)
    return float(np.exp(-np.square(distance) / (2 * sigma**2)).mean())


def flow_motion_beats(trajectory: np.ndarray, fps: Fraction | float) -> np.ndarray:
    """Return the times in seconds at which a picture's motion halts, from its optical flow `f` (`flow_trajectory`).

    Our own, for dances without joints: Bailando's smoothing and minima, in seconds instead of frames. A score made of
    it is called flow-beat alignment, and is no AIST++ or Bailando score.
    """
    from scipy.ndimage import gaussian_filter1d

    smooth = gaussian_filter1d(np.asarray(trajectory, np.float64), SMOOTH_FRAMES / AIST_FPS * float(fps))
    return local_minima(smooth, 1) / float(fps)


def flow_beat_alignment(music: np.ndarray, motion: np.ndarray) -> float:
    """Return the mean over motion beats of exp(-d^2 / (2 sigma^2)) of times in seconds, sigma 50 ms (our own)."""
    return nearness(motion, music, SIGMA_FRAMES / AIST_FPS)
