"""The impacts benchmark: things that move and strike, every visible blow and its sound at one known time."""

from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np

from data_tools.blows import SPACING_SECONDS, Target, draw_background, draw_target
from data_tools.drawing import disc, paint
from data_tools.footage import Footage, synthesize
from data_tools.modal import MATERIALS, mix_strikes, strike
from mmdiff.data.manifest import Event
from mmdiff.media.clip import Clip

LICENCE = "CC0-1.0 (procedural)"
ACTIONS = {
    "ball": "a ball bounces on a {material} floor",
    "pendulum": "a pendulum swings against a {material} block",
    "mallet": "a mallet strikes a {material} bar",
    "drop": "drops fall on a {material} plate",
}


@dataclass(frozen=True)
class Passer:
    """A silent thing that only passes by: it tells that motion alone makes no sound."""

    y: float
    speed: float
    phase: float


def render_impacts(
    seed: int, index: int, *, seconds: float, fps: Fraction, height: int, width: int, sample_rate: int
) -> Footage:
    """Render scene `index` of a seed: one or two targets, each with its own mover, and perhaps a silent passer-by."""
    rng = np.random.default_rng((seed, index))
    targets, passer = _compose(rng, seconds, sample_rate)
    num_frames = round(seconds * fps)
    num_samples = round(num_frames / fps * sample_rate)
    background = draw_background(rng, height, width)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for number in range(num_frames):
        frames[number] = _draw(background, targets, passer, float(number / fps))
    blows = sorted((time, hit, t) for t in targets for time, hit in zip(t.times, t.strengths) if time < seconds)
    times = [float(time) for time, _, _ in blows]
    sounds = [strike(t.material, t.pitch, hit, sample_rate, rng) for _, hit, t in blows]
    wave = mix_strikes(times, sounds, num_samples, sample_rate, rng)
    events = tuple(
        Event(time, "impact", f"{t.kind} on {t.material_name}")
        for time, (_, _, t) in zip(times, blows, strict=True)
    )
    caption = " and ".join(ACTIONS[t.kind].format(material=t.material_name) for t in targets)
    return Footage(Clip(frames, wave, fps, sample_rate), events, caption, LICENCE)


synthesize_impacts = partial(synthesize, "impacts", render_impacts)


def _compose(rng: np.random.Generator, seconds: float, sample_rate: int) -> tuple[list[Target], Passer | None]:
    """Choose who strikes what, and when: blows of different targets keep their distance, and no rhythm returns."""
    num_targets = int(rng.choice([1, 2], p=[0.55, 0.45]))
    times = _irregular_times(rng, seconds, rate=rng.uniform(0.8, 2.6))
    times = np.round(times * sample_rate) / sample_rate  # seen and heard at one sample, to the last bit
    owner = rng.integers(num_targets, size=len(times))
    names = rng.choice(list(MATERIALS), size=num_targets, replace=False)
    targets = []
    for number in range(num_targets):
        material = MATERIALS[names[number]]
        mine = times[owner == number]
        targets.append(
            Target(
                kind=str(rng.choice(list(ACTIONS))),
                x=float((0.5 if num_targets == 1 else 0.27 + 0.46 * number) + rng.uniform(-0.04, 0.04)),
                y=float(rng.uniform(0.72, 0.80)),
                material_name=str(names[number]),
                pitch=float(rng.uniform(*material.pitch)),
                times=mine,
                strengths=rng.uniform(0.35, 1.0, len(mine)),
                ending=seconds + 0.2,
            )
        )
    passer = None
    if rng.random() < 0.5:
        passer = Passer(float(rng.uniform(0.08, 0.3)), float(rng.uniform(0.05, 0.2)), float(rng.random()))
    return targets, passer


def _irregular_times(rng: np.random.Generator, seconds: float, rate: float) -> np.ndarray:
    """Draw times at least `SPACING_SECONDS` apart, otherwise without memory, about `rate` a second."""
    gaps = SPACING_SECONDS + rng.exponential(max(1 / rate - SPACING_SECONDS, 0.02), int(3 * seconds * rate) + 8)
    times = rng.uniform(0, 1 / rate) + np.cumsum(gaps) - gaps[0]
    return times[times < seconds - 0.05]


def _draw(background: np.ndarray, targets: list[Target], passer: Passer | None, time: float) -> np.ndarray:
    image = background.copy()
    shape = image.shape[:2]
    if passer is not None:
        x = (passer.phase + passer.speed * time) % 1.3 - 0.15
        paint(image, 0.5 * disc(shape, x, passer.y, 0.05), (0.5, 0.5, 0.55))
    for target in targets:
        draw_target(image, target, time)
    return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)
