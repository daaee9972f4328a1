"""Does the sound belong to the picture? Scores of single clips, of shuffled ones, and of ones whose sound was moved."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmdiff.eval import statistics, sync
from mmdiff.eval.metrics import avalign, cosines
from mmdiff.eval.quality.columns import Column
from mmdiff.eval.quality.estimate import Estimate, median, ratio
from mmdiff.eval.quality.measures import Events
from mmdiff.eval.quality.sets import Row

NUM_SHUFFLES = 4
REACH_PER_TOLERANCE = 3
VIEWS = {"video": "5 pieces of 2 s by 3 crops", "video_half_fps": "frames 2 s apart by 3 crops"}
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Score:
    """A metric of one clip: `parts(sound, picture)` are numerator and denominator, pooled over clips.

    `is_joint` says that its features see picture and sound at once: a shuffled pair has to be looked at anew.
    """

    metric: str
    extractor: str  # key of the extractor
    better: str
    how: str
    parts: Callable[[Arrays, Arrays], tuple[float, float]]
    is_joint: bool = False


def scores(fps: float, variant: str, views: str) -> list[Score]:
    """Return the agreement metrics at a frame rate, with a variant of AV-Align and ImageBind's views of a video."""
    tolerance = sync.default_tolerance(fps)
    found = [
        Score("sync F1", "events", "higher", f"events of both within {1000 * tolerance:.0f} ms, pooled over clips",
              lambda sound, picture: _sync_parts(sound, picture, tolerance)),
        Score("AV-Align", "av-align", "higher", f"{variant}: onsets and peaks of flow less than a frame apart",
              lambda sound, picture: (_av_align(sound, picture, variant), 1.0)),
        Score("IB-score", "imagebind", "higher", f"cosine of {VIEWS[views]} and the whole sound, mean over clips",
              lambda sound, picture: (cosines.paired_cosine(picture[views], sound["audio"]), 1.0)),
        Score("AVHScore", "imagebind", "higher", "cosine of every frame with the whole sound, mean over clips",
              lambda sound, picture: (cosines.avh_score(picture["frames"], sound["audio"]), 1.0)),
        Score("DeSync s", "synchformer", "lower", "|offset| on a grid of 0.2 s, mean of the first and last 14 segments",
              lambda sound, _: (_desync(sound["offset_logits"]), 1.0), is_joint=True),
    ]  # fmt: skip
    if int(cosines.JAVIS_SHARE * int(cosines.JAVIS_WINDOW_SECONDS * fps)):  # else no frame of a window counts
        how = "windows of 2 s every 0.5 s, of each the 40 % of frames that fit the sound least"
        found.insert(4, Score("JavisScore", "imagebind", "higher", how, _javis_score))
    return found


def _desync(logits: np.ndarray) -> float:
    return cosines.desync(logits[:1], logits[1:])


def _sync_parts(sound: Arrays, picture: Arrays, tolerance: float) -> tuple[float, float]:
    found = _compare(sound, picture, tolerance)
    return 2.0 * found.num_matched, float(found.num_audio + found.num_video)


def _compare(sound: Arrays, picture: Arrays, tolerance: float) -> sync.Agreement:
    return sync.compare_events(
        sound["audio"], picture["video"], tolerance_seconds=tolerance,
        reach_seconds=REACH_PER_TOLERANCE * tolerance, end_seconds=float(picture["end"][0]),
    )  # fmt: skip


def _av_align(sound: Arrays, picture: Arrays, variant: str) -> float:
    fps = float(picture["fps"][0])
    peaks = avalign.video_peaks(picture["flow"], fps, avalign.find_variant(variant).min_flow)
    return avalign.intersection_over_union(sound["onsets"], peaks, fps, variant)


def _javis_score(sound: Arrays, picture: Arrays) -> tuple[float, float]:
    windows = picture["windows"].astype(int)
    return cosines.javis_score(picture["frames"], sound["audio_windows"], windows), 1.0


def agreement_rows(
    score: Score, extractor: str, own: Sequence[Column], shuffled: Mapping[str, Column], seed: int
) -> Iterator[Row]:
    """Yield a score of every column's own pairs, and after each that of its shuffled pairs."""
    for column in own:
        arrays = [reading.arrays.get(extractor) for reading in column.readings]
        if not any(arrays):
            continue
        pairs = [(i, i) for i in range(len(arrays))]
        yield _row(score, extractor, column.name, column.kind, arrays, pairs, seed)
        if column.kind in ("real", "generated") and len(arrays) > 1:
            name = f"{column.name}, shuffled"
            if not score.is_joint:
                yield _row(score, extractor, name, "shuffled", arrays, shuffles(len(arrays), seed), seed)
            elif column.name in shuffled:
                others = [reading.arrays.get(extractor) for reading in shuffled[column.name].readings]
                yield _row(score, extractor, name, "shuffled", others, pairs[: len(others)], seed)


def _row(
    score: Score, extractor: str, of: str, kind: str, arrays: Sequence[Arrays | None],
    pairs: Sequence[tuple[int, int]], seed: int,
) -> Row:  # fmt: skip
    kept = [(sound, picture) for sound, picture in pairs if arrays[sound] and arrays[picture]]
    parts = [score.parts(arrays[sound], arrays[picture]) for sound, picture in kept]
    drawn = [(clip,) if clip == other else (clip, other) for clip, other in kept]
    estimate = ratio(parts, drawn, len(arrays), seed) if parts else Estimate(float("nan"), np.zeros(0), 0)
    return Row(score.metric, extractor, "agreement", score.better, of, kind, estimate, score.how)


def shuffles(num_clips: int, seed: int) -> list[tuple[int, int]]:
    """Pair every clip with another, a few times over."""
    rng = np.random.default_rng(seed)
    orders = [statistics.derangement(num_clips, rng) for _ in range(NUM_SHUFFLES)]
    return [(int(sound), picture) for order in orders for picture, sound in enumerate(order)]


def offset_rows(own: Sequence[Column], fps: float, seed: int) -> Iterator[Row]:
    """Yield the median |offset| of matched events in ms, of every column that has such."""
    tolerance = sync.default_tolerance(fps)
    how = f"sound minus picture, of events matched within {1000 * REACH_PER_TOLERANCE * tolerance:.0f} ms"
    for column in own:
        arrays = [r.arrays[Events.name] for r in column.readings if Events.name in r.arrays]
        offsets = [1000 * np.abs(_compare(found, found, tolerance).offsets) for found in arrays]
        if any(len(found) for found in offsets):
            estimate = median(offsets, seed)
            yield Row("median offset ms", Events.name, "agreement", "lower", column.name, column.kind, estimate, how)
