"""What strikes what, how often: small classifiers that read the facts of a strikes clip from its picture and sound.

They are trained on real clips: softmax regressions on fixed features, so they are the same on every run. The count is
not learnt: it is how many sounds and how many flashes the detectors of `mmdiff.eval.sync` find.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from mmdiff.data.strikes import COLOURS, KINDS, MATERIALS
from mmdiff.eval import sync
from mmdiff.media import Clip

# Sound: the power of bands in a few stretches after each onset, in dB below the loudest band of the first.
NUM_BANDS = 24
LOWEST_HZ = 60.0
STRETCHES = (0.0, 0.03, 0.09, 0.24)  # their ends, in seconds after the onset
FLOOR_DB = 60.0
# Picture.
COLOUR_LEVELS = 6  # of red, green and blue
BLOCKS = 16
MOVING = 0.12  # a pixel that differs this much (0 .. 1) from what is usual at its place belongs to something moving
PENALTY = 0.01  # on squared weights, per clip
# Degraded clips.
BLUR = 1 / 64  # of the picture
NOISE = 0.04


@dataclass(frozen=True)
class Question:
    """A fact to be read from a clip: which one of `Facts`, its possible answers, and the features that tell it."""

    fact: str
    answers: tuple[Any, ...]
    features: str


QUESTIONS = {
    "colour": Question("colour", COLOURS, "colour"),
    "kind": Question("kind", KINDS, "motion"),
    "material, heard": Question("material", MATERIALS, "sound"),
    "material, seen": Question("material", MATERIALS, "colour"),
}  # that are learnt
COUNTED = {"count, heard": "count", "count, seen": "count"}
FACT_OF = {name: question.fact for name, question in QUESTIONS.items()} | COUNTED


@dataclass(frozen=True)
class Softmax:
    """A softmax regression on standardised features."""

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray  # features answers
    bias: np.ndarray

    def predict(self, features: np.ndarray) -> int:
        """Return the likeliest answer's number for features `n`."""
        return int(np.argmax((features - self.mean) / self.scale @ self.weights + self.bias))


@dataclass(frozen=True)
class Reader:
    """Reads all facts from a clip: a softmax regression for each of `QUESTIONS`, and the events for the count."""

    models: dict[str, Softmax]

    def read(self, clip: Clip) -> dict[str, Any]:
        """Return an answer by every name of `FACT_OF`; None where there is nothing to tell it from."""
        features = read_features(clip)
        found: dict[str, Any] = {}
        for name, question in QUESTIONS.items():
            seen = features[question.features]
            found[name] = None if seen is None else question.answers[self.models[name].predict(seen)]
        return found | count_blows(clip)


def count_blows(clip: Clip) -> dict[str, int]:
    """Return how many blows are heard and how many are seen."""
    return {
        "count, heard": len(sync.audio_onsets(clip.waveform, clip.sample_rate)),
        "count, seen": len(sync.video_onsets(clip.frames, clip.fps)),
    }


def read_features(clip: Clip) -> dict[str, np.ndarray | None]:
    """Return what the regressions see of a clip; None where no sound begins."""
    return {"colour": colour_features(clip), "motion": motion_features(clip), "sound": sound_features(clip)}


def train_reader(clips: Iterable[Clip], facts: Sequence[Mapping[str, Any]], *, seed: int = 0) -> Reader:
    """Train on real clips and their facts, each twice: as it is, and mirrored, blurred and noisy.

    Generations may be all of these. Errors: `ValueError` where no clip shows one of the answers.
    """
    rng = np.random.default_rng(seed)
    seen, shown = [], []
    for clip, told in zip(clips, facts):
        seen += [read_features(clip), read_features(degrade(mirror(clip), rng))]
        shown += [told, told]
    models = {}
    for name, question in QUESTIONS.items():
        rows = [(one[question.features], told[question.fact]) for one, told in zip(seen, shown)]
        rows = [(features, question.answers.index(answer)) for features, answer in rows if features is not None]
        missing = [str(answer) for n, answer in enumerate(question.answers) if n not in {number for _, number in rows}]
        if missing:
            raise ValueError(f"no training clip has {question.fact} {', '.join(missing)}; give a larger train split")
        features, answers = np.stack([row[0] for row in rows]), np.array([row[1] for row in rows])
        models[name] = fit_softmax(features, answers, len(question.answers))
    return Reader(models)


def mirror(clip: Clip) -> Clip:
    """Return a clip with left and right exchanged."""
    return replace(clip, frames=np.ascontiguousarray(clip.frames[:, :, ::-1]))


def degrade(clip: Clip, rng: np.random.Generator) -> Clip:
    """Return a clip with a blurred, noisy picture and a noisy sound."""
    widths = (0, BLUR * clip.frames.shape[1], BLUR * clip.frames.shape[2], 0)
    blurred = gaussian_filter(clip.frames.astype(np.float32), widths)
    frames = (blurred + 255 * NOISE * rng.standard_normal(blurred.shape)).clip(0, 255).astype(np.uint8)
    hiss = NOISE / 10 * np.abs(clip.waveform).max(initial=0) * rng.standard_normal(clip.waveform.shape)
    return replace(clip, frames=frames, waveform=(clip.waveform + hiss).astype(np.float32))


def fit_softmax(features: np.ndarray, answers: np.ndarray, num_answers: int) -> Softmax:
    """Fit features `n d` to answers 0 .. num_answers - 1: least cross-entropy with a penalty on the weights."""
    mean, scale = features.mean(0), features.std(0) + 1e-3
    x = np.concatenate([(features - mean) / scale, np.ones((len(features), 1))], 1)
    target = np.eye(num_answers)[answers]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(x.shape[1], num_answers)
        logits = x @ weights
        free = np.concatenate([weights[:-1], np.zeros((1, num_answers))])
        value = -(target * log_softmax(logits, 1)).sum() / len(x) + PENALTY / 2 * (free**2).sum()
        return value, (x.T @ (softmax(logits, 1) - target) / len(x) + PENALTY * free).ravel()

    found = minimize(loss, np.zeros(x.shape[1] * num_answers), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    weights = found.x.reshape(x.shape[1], num_answers)
    return Softmax(mean, scale, weights[:-1], weights[-1])


def sound_features(clip: Clip) -> np.ndarray | None:
    """Return how the sound rings after its onsets, on average, in dB: stretches times bands; None where none begins."""
    wave, rate = clip.waveform.mean(0).astype(np.float64), clip.sample_rate
    onsets = sync.audio_onsets(clip.waveform, rate)
    size = 2 ** int(np.ceil(np.log2(STRETCHES[-1] * rate)))
    hertz = np.fft.rfftfreq(size, 1 / rate)
    edges = np.searchsorted(hertz, np.geomspace(LOWEST_HZ, rate / 2, NUM_BANDS + 1))
    rings = []
    for number, onset in enumerate(onsets):
        end = round(onsets[number + 1] * rate) if number + 1 < len(onsets) else len(wave)
        ends = [min(round((onset + seconds) * rate), end) for seconds in STRETCHES]
        powers = [np.abs(np.fft.rfft(wave[a:b], size)) ** 2 / max(b - a, 1) for a, b in pairwise(ends)]
        bands = np.array([[power[a : max(b, a + 1)].mean() for a, b in pairwise(edges)] for power in powers])
        rings.append(10 * np.log10(np.maximum(bands / max(bands[0].max(), 1e-12), 10 ** (-FLOOR_DB / 10))))
    return np.mean(rings, axis=0).ravel() if rings else None


def colour_features(clip: Clip) -> np.ndarray:
    """Return how much of the picture has which colour, at rest and moving: square roots of two histograms."""
    usual = np.median(clip.frames, axis=0)
    is_moving = np.abs(clip.frames - usual).max(-1) > 255 * MOVING
    return np.sqrt(np.concatenate([colour_histogram(clip.frames), colour_histogram(clip.frames, is_moving)]))


def colour_histogram(frames: np.ndarray, is_counted: np.ndarray | None = None) -> np.ndarray:
    """Return the shares of colours of uint8 `f h w 3`; bins have soft edges: a colour counts in the eight around it."""
    fine = (frames >> 3).astype(np.int64) @ (1024, 32, 1)
    counts = np.bincount((fine if is_counted is None else fine[is_counted]).ravel(), minlength=32**3)
    place = np.linspace(0, COLOUR_LEVELS - 1, 32)[:, None]
    soft = np.maximum(1 - np.abs(place - np.arange(COLOUR_LEVELS)), 0)  # 32 levels
    counts = counts.reshape(32, 32, 32) / fine.size
    return np.einsum("rgb,ri,gj,bk->ijk", counts, soft, soft, soft, optimize=True).ravel()


def motion_features(clip: Clip) -> np.ndarray:
    """Return where the picture changes and how much, in 16 x 16 blocks: mean change, and mean and largest departure."""
    rows, columns = (np.linspace(0, size, min(BLOCKS, size) + 1).astype(int)[:-1] for size in clip.frames.shape[1:3])
    frames = clip.frames.max(-1).astype(np.float32) / 255
    away = np.abs(frames - np.median(frames, axis=0))
    maps = (np.abs(np.diff(frames, axis=0)).mean(0), away.mean(0), away.max(0))
    area = np.add.reduceat(np.add.reduceat(np.ones(frames.shape[1:]), rows, 0), columns, 1)
    blocks = [np.add.reduceat(np.add.reduceat(one, rows, 0), columns, 1) / area for one in maps]
    return np.concatenate([np.sqrt(block).ravel() for block in blocks])
