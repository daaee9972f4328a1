"""Generated music against the music it was made for: seconds with onsets, beats, tempo and key."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np

from mmdiff.eval.features.base import InputRate
from mmdiff.eval.metrics import beats, key, tempo
from mmdiff.eval.metrics.sound import LIBROSA_RATE
from mmdiff.eval.quality.collect import Reading
from mmdiff.eval.quality.columns import Column
from mmdiff.eval.quality.estimate import Estimate, ratio
from mmdiff.eval.quality.measures import Measure
from mmdiff.eval.quality.sets import Row
from mmdiff.media import Clip

NO_KEY = -1.0


class Music(Measure):
    """A sound's seconds with onsets by two published rules, its beats, tempo and key."""

    name = "librosa-music"
    inputs = frozenset({"audio"})
    outputs: ClassVar = {"loris": "s", "d2m": "s", "beats": "k", "bpm": "1", "key": "2"}
    rate = InputRate(sample_rate=LIBROSA_RATE)

    def extract(self, clips: Sequence[Clip]) -> list[dict[str, np.ndarray]]:
        """Return what is heard in each clip; a clip under a second is refused."""
        return [_listen(clip) for clip in clips]


def _listen(clip: Clip) -> dict[str, np.ndarray]:
    sound = (clip.waveform, clip.sample_rate)
    seconds = clip.num_samples / clip.sample_rate
    found = key.estimate_key(*sound)
    return {
        **{rule: beats.onset_cells(beats.onset_times(*sound, rule), seconds) for rule in ("loris", "d2m")},
        "beats": beats.music_beats(*sound),
        "bpm": np.array([tempo.estimate_bpm(*sound)]),
        "key": np.array([found.tonic, found.scale == "major"], np.float64) if found else np.full(2, NO_KEY),
    }


def music_rows(column: Column, partners: Sequence[Reading], seed: int) -> Iterator[Row]:
    """Yield beat coverage, hit and F1, beat F-measure, tempo and key of a column against its partners."""
    pairs = [
        (real.arrays[Music.name], made.arrays[Music.name])
        for real, made in zip(partners, column.readings)
        if Music.name in real.arrays and Music.name in made.arrays
    ]
    if not pairs:
        return

    def row(metric: str, estimate: Estimate, how: str) -> Row:
        return Row(metric, Music.name, "pairs", "higher", column.name, column.kind, estimate, how)

    for rule, coverage in (("loris", "common / generated"), ("d2m", "generated / real, which can exceed 1")):
        scores = [beats.compare_cells(real[rule], made[rule], version=rule) for real, made in pairs]
        covered, hit = (_mean([getattr(score, name) for score in scores], seed) for name in ("coverage", "hit"))
        yield row(f"beat coverage {rule}", covered, f"seconds with onsets: {coverage}, mean over pairs")
        yield row(f"beat hit {rule}", hit, "seconds with onsets: common / real, mean over pairs")
        yield row(f"beat F1 {rule}", _harmonic(covered, hit), "harmonic mean of the two means above")
    for metric, score, how in SCORES:
        yield row(metric, _mean([score(real, made) for real, made in pairs], seed), how)


def _mean(values: Sequence[float], seed: int) -> Estimate:
    return ratio([(value, 1.0) for value in values], [(i,) for i in range(len(values))], len(values), seed)


def _harmonic(a: Estimate, b: Estimate) -> Estimate:
    both = np.stack([np.append(a.value, a.replicates), np.append(b.value, b.replicates)])
    total = both.sum(0)
    values = np.divide(2 * both.prod(0), total, out=np.zeros_like(total), where=total > 0)
    return Estimate(float(values[0]), values[1:], a.num_clips)


def _beat_f(real: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray]) -> float:
    return beats.beat_f_measure(real["beats"], made["beats"], skip_seconds=0.0)


def _same_tempo(real: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray], factors: Sequence[float]) -> float:
    return float(any(abs(factor * made["bpm"][0] - real["bpm"][0]) <= tempo.TOLERANCE for factor in factors))


def _same_key(real: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray]) -> float:
    return float(made["key"][0] != NO_KEY and bool((real["key"] == made["key"]).all()))


SCORES = (
    ("beat F", _beat_f, "mir_eval F-measure of beats within 70 ms, mean over pairs"),
    ("same tempo", lambda real, made: _same_tempo(real, made, (1.0,)), "share within 5 BPM of the partner"),
    ("same tempo, octaves", lambda real, made: _same_tempo(real, made, tempo.OCTAVES),
     "share whose tempo, half or double it is within 5 BPM of the partner's"),
    ("same key", _same_key, "share with the partner's tonic and scale"),
)  # fmt: skip
