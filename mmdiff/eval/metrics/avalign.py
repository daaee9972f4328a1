"""AV-Align: do sounds begin when the picture moves most? Three published versions, which do not agree.

Yariv et al., "Diverse and Aligned Audio-to-Video Generation via Text-to-Video Model Adaptation" (TempoTokens), 2023:
peaks of sound are onsets, peaks of picture are local maxima of the mean optical flow, and the score is the
intersection of both sets over their union. The paper's 2023 release, its 2025 release and JavisBench count differently;
the variant's name belongs beside every score.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mmdiff.eval.metrics.sound import LIBROSA_RATE, load_librosa, mono_at
from mmdiff.media import Clip

SHORT_SIDE = 64  # the flow's threshold is in pixels: pictures are compared at one size, that of MM-Diffusion's videos


@dataclass(frozen=True)
class Variant:
    """How a published version counts: least flow of a peak in pixels, one-to-one or not, what is added to the union."""

    min_flow: float | None
    is_one_to_one: bool
    epsilon: float = 0.0


VARIANTS = {
    "tempotokens-2025": Variant(min_flow=0.1, is_one_to_one=True),
    "tempotokens-2023": Variant(min_flow=None, is_one_to_one=False),
    "javisbench": Variant(min_flow=None, is_one_to_one=False, epsilon=1e-6),
}
DEFAULT_VARIANT = "tempotokens-2025"


def av_align(clip: Clip, *, variant: str = DEFAULT_VARIANT, size: int | None = SHORT_SIDE) -> float:
    """Return the AV-Align score of a clip, whose frames are resized to a short side of `size` pixels (None: as it is).

    Errors: `ValueError` where the clip has fewer than two frames, or the variant is not known.
    """
    find_variant(variant)
    return score_arrays(clip.frames, clip.waveform, clip.fps, clip.sample_rate, variant=variant, size=size)


def score_arrays(
    frames: np.ndarray,
    waveform: np.ndarray,
    fps: Fraction | float,
    sample_rate: int,
    *,
    variant: str = DEFAULT_VARIANT,
    size: int | None = None,
) -> float:
    """Return the AV-Align score of frames uint8 `f h w 3` (RGB) or `f h w` (gray) and a waveform `c n` or `n`."""
    motion = video_peaks(flow_trajectory(frames, size), fps, find_variant(variant).min_flow)
    return intersection_over_union(audio_peaks(waveform, sample_rate), motion, fps, variant)


def find_variant(name: str) -> Variant:
    """Return a variant by its name.

    Errors: `ValueError` with the names there are.
    """
    if name not in VARIANTS:
        raise ValueError(f"AV-Align: no variant is called {name!r}; choose one of {', '.join(VARIANTS)}")
    return VARIANTS[name]


def audio_peaks(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return onset times in seconds of a waveform `c n` or `n`, by librosa's defaults at 22 050 Hz (hop 512)."""
    librosa = load_librosa()
    wave = mono_at(waveform, sample_rate)
    if not wave.size:
        return np.zeros(0)
    strength = librosa.onset.onset_strength(y=wave, sr=LIBROSA_RATE)
    onsets = librosa.onset.onset_detect(onset_envelope=strength, sr=LIBROSA_RATE)
    return librosa.frames_to_time(onsets, sr=LIBROSA_RATE)


def flow_trajectory(frames: np.ndarray, size: int | None = None) -> np.ndarray:
    """Return the mean magnitude `f` of the optical flow into each frame, in pixels; the first repeats the second.

    Frames are uint8 `f h w 3` (RGB) or `f h w` (gray), resized to a short side of `size` pixels where it is given.
    Source: Farneback's flow as OpenCV has it, with TempoTokens' settings.

    Errors: `ValueError` where there are fewer than two frames, or they are no uint8 pictures.
    """
    import cv2

    is_gray = frames.ndim == 3
    if frames.dtype != np.uint8 or not (is_gray or (frames.ndim == 4 and frames.shape[-1] == 3)):
        raise ValueError(f"AV-Align: frames are {frames.dtype} {frames.shape}; give uint8 RGB or gray frames")
    if len(frames) < 2:
        raise ValueError(f"AV-Align: {len(frames)} frames have no motion; give a clip of two frames or more")
    previous, trajectory = None, []
    for frame in frames:
        gray = _resize(frame if is_gray else cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY), size)
        if previous is not None:
            flow = cv2.calcOpticalFlowFarneback(previous, gray, None, 0.5, 3, 15, 3, 5, 1.2, 0)
            # Not cv2.magnitude: its last bit depends on where in memory the array lies, and still scenes had peaks.
            trajectory.append(float(np.sqrt(np.square(flow, dtype=np.float64).sum(-1)).mean()))
        previous = gray
    return np.array([trajectory[0], *trajectory], np.float64)


def video_peaks(trajectory: np.ndarray, fps: Fraction | float, min_flow: float | None) -> np.ndarray:
    """Return the times i / fps of strict local maxima of a trajectory, those below `min_flow` left out."""
    values = np.asarray(trajectory, np.float64)
    inner = values[1:-1]
    is_peak = (values[:-2] < inner) & (inner > values[2:])
    if min_flow is not None:
        is_peak &= inner >= min_flow
    return (np.flatnonzero(is_peak) + 1) / float(fps)


def intersection_over_union(
    audio: np.ndarray, video: np.ndarray, fps: Fraction | float, variant: str = DEFAULT_VARIANT
) -> float:
    """Return matched peaks over all peaks; a pair matches where it is less than one frame period apart.

    One-to-one variants give every onset, in order, the first free video peak within reach. The others let one video
    peak answer many onsets, so their score may exceed 1. It is 0 where both lists are empty.
    """
    rule, period = find_variant(variant), 1 / float(fps)
    free = [float(time) for time in video]
    matched = 0
    for onset in audio:
        found = next((time for time in free if time - period < onset < time + period), None)
        if found is not None:
            matched += 1
            if rule.is_one_to_one:
                free.remove(found)
    union = len(audio) + len(video) - matched
    # Many-to-one: as many matched onsets as there are, so `union` is at least the number of video peaks.
    return matched / (union + rule.epsilon) if len(audio) + len(video) else 0.0


def _resize(gray: np.ndarray, size: int | None) -> np.ndarray:
    """Return a gray picture with a short side of `size` pixels, its shape kept."""
    import cv2

    height, width = gray.shape
    if size is None or min(height, width) == size:
        return np.ascontiguousarray(gray)
    scale = size / min(height, width)
    shape = (max(round(width * scale), size), max(round(height * scale), size))
    return cv2.resize(gray, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
