"""Cosine scores between embeddings (CLAP-A, CLAP-T, CLIPScore, IB-score, AVHScore, JavisScore, CAVP), and DeSync."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mmdiff.eval.metrics.sets import feature_matrix, two_sets

JAVIS_WINDOW_SECONDS = 2.0  # the command line's defaults; the published functions' own are 0.5 s and no overlap
JAVIS_OVERLAP_SECONDS = 1.5
JAVIS_SHARE = 0.4  # of a window's frames: those that fit the sound least
CLIP_SCORE_VARIANTS = ("torchmetrics", "per-item", "javisbench")
DESYNC_GRID_SECONDS = np.linspace(-2, 2, 21)
DESYNC_VIDEO = (16, 8)  # frames of a segment and of a stride, at 25 fps
DESYNC_AUDIO = (10240, 5120)  # samples, at 16 kHz
DESYNC_SEGMENTS = 14  # of each end of the clip that are classified


@dataclass(frozen=True)
class Windows:
    """Frames [start, end) `w 2` and samples [start, end) `w 2` of windows that go together."""

    video: np.ndarray
    audio: np.ndarray


def normalised(embeddings: np.ndarray, name: str) -> np.ndarray:
    """Return embeddings `n d` as float64 of length 1.

    Errors: `ValueError` for no rows, NaN, infinity or a row of zeros, which has no direction.
    """
    rows = feature_matrix(embeddings, name, min_rows=1)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError(f"{name}: row {int(np.argmin(lengths))} is all zeros: no direction; leave that clip out")
    return rows / lengths


def paired_cosines(x: np.ndarray, y: np.ndarray, names: tuple[str, str] = ("x", "y")) -> np.ndarray:
    """Return the cosine of each pair of embeddings `n d`, `n`.

    Errors: `ValueError` for sets of different size or dimension, and as `normalised`.
    """
    x, y = two_sets(x, y, names, min_rows=1)
    if len(x) != len(y):
        raise ValueError(f"{len(x)} embeddings of {names[0]} and {len(y)} of {names[1]}; give pairs")
    return (normalised(x, names[0]) * normalised(y, names[1])).sum(1)


def paired_cosine(x: np.ndarray, y: np.ndarray, names: tuple[str, str] = ("x", "y")) -> float:
    """Return the mean of `paired_cosines`: CLAP-T (text, audio) and IB-score (video, audio)."""
    return float(paired_cosines(x, y, names).mean())


def clap_a(reference: np.ndarray, generated: np.ndarray) -> float:
    """Return the mean cosine of every reference with every generated clip, `n d` and `m d` (CLAP-A of DreamSound).

    DreamSound's released CLAP-T is this with one row of text, its first prompt.
    """
    reference, generated = two_sets(reference, generated, ("reference", "generated"), min_rows=1)
    return float(normalised(reference, "reference").mean(0) @ normalised(generated, "generated").mean(0))


def inter_similarity(embeddings: np.ndarray) -> float:
    """Return the mean cosine between different clips of one set `n d`: 1 where all are the same (DreamSound)."""
    rows = normalised(feature_matrix(embeddings, "generated"), "generated")
    return float(((rows.sum(0) ** 2).sum() - len(rows)) / (len(rows) * (len(rows) - 1)))


def clip_score(images: np.ndarray, texts: np.ndarray, *, variant: str = "per-item") -> float:
    """Return the CLIPScore of paired image and text embeddings `n d` (Hessel et al., 2021, with weight 100).

    "per-item": the mean of max(100 cos, 0); "torchmetrics": max(mean of 100 cos, 0), which is lower where some are
    negative; "javisbench": the mean cosine, neither clamped nor scaled.
    """
    if variant not in CLIP_SCORE_VARIANTS:
        raise ValueError(f"CLIPScore: variant {variant!r}; give one of {', '.join(CLIP_SCORE_VARIANTS)}")
    cosines = paired_cosines(images, texts, ("images", "texts"))
    if variant == "javisbench":
        return float(cosines.mean())
    return float(np.maximum(100 * cosines, 0).mean() if variant == "per-item" else max(100 * cosines.mean(), 0.0))


def avh_score(frames: np.ndarray, audio: np.ndarray) -> float:
    """Return the mean cosine of all frames `f d` of a clip with its whole sound `1 d` or `d` (AVHScore)."""
    audio = np.atleast_2d(audio)
    if len(audio) != 1:
        raise ValueError(f"AVHScore: {len(audio)} embeddings of one clip's sound; give that of the whole sound")
    return clap_a(frames, audio)


def javis_windows(
    num_frames: int,
    num_samples: int,
    fps: Fraction | float,
    sample_rate: int,
    *,
    window_seconds: float = JAVIS_WINDOW_SECONDS,
    overlap_seconds: float = JAVIS_OVERLAP_SECONDS,
) -> Windows:
    """Return the windows of JavisScore (JavisDiT, `segment_clip_transform`).

    Window and overlap are cut to whole frames and samples. The last window is moved back to end with the clip, and the
    longer list is cut to the shorter one's length. A clip whose picture or sound is no longer than a window is one
    window. Errors: `ValueError` for windows without a frame, or no longer than their overlap.
    """
    lengths = {"video": num_frames, "audio": num_samples}
    rates = {"video": float(fps), "audio": sample_rate}
    sizes = {name: int(window_seconds * rate) for name, rate in rates.items()}
    steps = {name: sizes[name] - int(overlap_seconds * rate) for name, rate in rates.items()}
    if min(lengths.values()) < 1 or min(sizes.values()) < 1 or min(steps.values()) < 1:
        raise ValueError(
            f"JavisScore: windows of {window_seconds} s, overlapping {overlap_seconds} s, in {num_frames} frames at "
            f"{float(fps):g} fps and {num_samples} samples at {sample_rate} Hz; a window must hold a frame and move on"
        )
    if any(lengths[name] <= sizes[name] for name in lengths):
        return Windows(*(np.array([[0, lengths[name]]]) for name in lengths))
    starts = {name: _starts(lengths[name], sizes[name], steps[name]) for name in lengths}
    count = min(len(found) for found in starts.values())
    return Windows(*(starts[name][:count, None] + np.array([0, sizes[name]]) for name in lengths))


def _starts(length: int, size: int, step: int) -> np.ndarray:
    """Return where windows begin: every step, until one reaches the end; that one is moved back to end there."""
    count = -(-(length - size) // step) + 1
    return np.minimum(np.arange(count) * step, length - size)


def javis_score(
    frames: np.ndarray, audio_windows: np.ndarray, video_windows: np.ndarray, *, share: float = JAVIS_SHARE
) -> float:
    """Return JavisScore of a clip: the mean over windows of the mean of the lowest cosines of frame and sound.

    Arrays: frame embeddings `f d`, sound embeddings `w d`, frames [start, end) `w 2`. Of the N frames of a window the
    int(share N) lowest count. Errors: `ValueError` where that is none (the published code gives NaN).
    """
    if len(audio_windows) != len(video_windows):
        raise ValueError(f"JavisScore: {len(audio_windows)} embeddings of sound for {len(video_windows)} windows")
    frames, sounds = two_sets(frames, audio_windows, ("frames", "audio windows"), min_rows=1)
    frames, sounds = normalised(frames, "frames"), normalised(sounds, "audio windows")
    scores = []
    for (start, end), sound in zip(np.asarray(video_windows), sounds, strict=True):
        lowest = int(share * (end - start))
        if lowest < 1:
            raise ValueError(
                f"JavisScore: {share:g} of a window's {end - start} frame(s) is none; use clips of a higher fps"
            )
        scores.append(np.sort(frames[start:end] @ sound)[:lowest].mean())
    return float(np.mean(scores))


def desync_segments(num_frames: int, num_samples: int) -> int:
    """Return how many segments both the picture at 25 fps and the sound at 16 kHz fill (24 of 8 s; 0: too short)."""
    pairs = ((num_frames, DESYNC_VIDEO), (num_samples, DESYNC_AUDIO))
    return min(max((length - size) // stride + 1, 0) for length, (size, stride) in pairs)


def desync_offsets(first_logits: np.ndarray, last_logits: np.ndarray) -> np.ndarray:
    """Return each clip's distance from synchrony in seconds, `n`, from Synchformer's logits `n 21` (av-benchmark).

    They classify the first and the last 14 segments on a grid of -2 to 2 s; the likeliest offsets' absolute values are
    averaged. A distance cannot exceed 2 s, nor be told apart within 0.2 s. Errors: `ValueError` for other shapes.
    """
    first, last = two_sets(first_logits, last_logits, ("first segments", "last segments"), min_rows=1)
    if len(first) != len(last) or first.shape[1] != len(DESYNC_GRID_SECONDS):
        raise ValueError(f"DeSync: logits {first.shape} and {last.shape}; give n 21 of both ends of every clip")
    return np.mean([np.abs(DESYNC_GRID_SECONDS[logits.argmax(1)]) for logits in (first, last)], axis=0)


def desync(first_logits: np.ndarray, last_logits: np.ndarray) -> float:
    """Return the mean over clips of `desync_offsets`."""
    return float(desync_offsets(first_logits, last_logits).mean())


def cavp_accuracy(probabilities: np.ndarray) -> float:
    """Return the share of clips whose probability `n` or `n 1` of being aligned rounds to 1 (Diff-Foley; 0.5 does not).

    Errors: `ValueError` where there are none, or values outside 0 to 1.
    """
    values = np.asarray(probabilities, np.float64).reshape(-1)
    if not len(values) or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"CAVP accuracy: {len(values)} value(s); give probabilities from 0 to 1, not logits")
    return float((np.round(values) == 1).mean())


def cavp_score(video: np.ndarray, audio: np.ndarray) -> float:
    """Return the mean cosine of a clip's CAVP features at 4 fps, step for step, `s d` (JavisBench).

    The longer side's last steps are left out.
    """
    steps = min(len(video), len(audio))
    return paired_cosine(video[:steps], audio[:steps], ("video", "audio"))
