"""The impacts benchmark: things that move and strike, every visible blow and its sound at one known time."""

from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np

from data_tools.drawing import bar, disc, glow, paint
from data_tools.footage import Footage, synthesize
from data_tools.modal import MATERIALS, Material, mix_strikes, strike
from mmdiff.data.manifest import Event
from mmdiff.media.clip import Clip

LICENCE = "CC0-1.0 (procedural)"
LIGHT_SECONDS = 0.15  # a struck thing's light falls to 1/e in this time
SPACING_SECONDS = 0.25
BACKGROUNDS = ((0.13, 0.14, 0.20), (0.18, 0.13, 0.15), (0.11, 0.17, 0.16), (0.16, 0.16, 0.17))
ACTIONS = {
    "ball": "a ball bounces on a {material} floor",
    "pendulum": "a pendulum swings against a {material} block",
    "mallet": "a mallet strikes a {material} bar",
    "drop": "drops fall on a {material} plate",
}


@dataclass(frozen=True)
class Target:
    """A thing that is struck: where, what it is made of, and when (seconds) how hard (0 .. 1)."""

    kind: str
    x: float
    y: float
    material_name: str
    pitch: float
    times: np.ndarray
    strengths: np.ndarray
    ending: float  # when it would be struck next, after the last frame

    @property
    def material(self) -> Material:
        """How it sounds and looks."""
        return MATERIALS[self.material_name]


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
    image = np.asarray(BACKGROUNDS[rng.integers(len(BACKGROUNDS))])
    background = image * (0.8 + 0.4 * (np.arange(height) / height)[:, None, None]) * np.ones((height, width, 3))
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
        _draw_target(image, target, time)
    return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _draw_target(image: np.ndarray, target: Target, time: float) -> None:
    """Draw the struck thing, its light after a blow, and what strikes it."""
    shape, colour = image.shape[:2], np.asarray(target.material.colour)
    before = int(np.searchsorted(target.times, time, side="right"))
    light = 0.0
    if before:
        age = time - target.times[before - 1]
        light = (0.55 + 0.45 * target.strengths[before - 1]) * np.exp(-age / LIGHT_SECONDS)
    paint(image, light * glow(shape, target.x, target.y, 0.24), 0.25 + 0.75 * colour)
    half = {"ball": 0.19, "pendulum": 0.07, "mallet": 0.15, "drop": 0.13}[target.kind]
    body = bar(shape, (target.x - half, target.y + 0.05, target.x + half, target.y + 0.05), 0.035)
    paint(image, body, tuple(0.55 * colour + 0.45 * light * (1 - 0.4 * (1 - colour))))
    _draw_mover(image, target, _approach(target, before, time))


def _approach(target: Target, before: int, time: float) -> float:
    """Return the striker's distance from contact, 0 .. 1: thrown up by the last blow, or falling (drops)."""
    times = target.times
    last = times[before - 1] if before else -1.0
    following = times[before] if before < len(times) else target.ending
    gap = following - last
    place = (time - last) / gap
    if target.kind == "drop":
        return float(1 - place**2)
    return float(4 * place * (1 - place) * min(1.0, 0.35 + gap / 1.6))


def _draw_mover(image: np.ndarray, target: Target, distance: float) -> None:
    shape, x, y = image.shape[:2], target.x, target.y
    if target.kind == "ball":
        paint(image, disc(shape, x, y - 0.055 - 0.5 * distance, 0.055), (0.85, 0.85, 0.88))
    elif target.kind == "drop":
        paint(image, bar(shape, (x, y - 0.03 - 0.6 * distance, x, y - 0.05 - 0.6 * distance), 0.028), (0.6, 0.75, 0.95))
    elif target.kind == "mallet":
        angle = 0.9 * distance
        head = (x + 0.02 - 0.28 * (1 - np.cos(angle)), y - 0.045 - 0.30 * np.sin(angle))
        paint(image, bar(shape, (x + 0.30, y - 0.05, *head), 0.012), (0.55, 0.5, 0.45))
        paint(image, disc(shape, *head, 0.045), (0.85, 0.80, 0.75))
    else:
        angle = 1.1 * distance
        bob = (x - 0.105 - 0.45 * np.sin(angle) * 0.6, y - 0.02 - 0.45 * (1 - np.cos(angle)))
        paint(image, bar(shape, (x - 0.105, y - 0.52, *bob), 0.008), (0.5, 0.5, 0.55))
        paint(image, disc(shape, *bob, 0.05), (0.85, 0.82, 0.78))

