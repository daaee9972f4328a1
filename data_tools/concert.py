"""The concert benchmark: stage lights and figures driven by music whose every drum hit is known."""

import colorsys
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np

from data_tools.drawing import bar, disc, glow, grid, paint
from data_tools.footage import Footage, synthesize
from data_tools.music import INSTRUMENTS, Score, compose, perform
from mmdiff.data.manifest import Event
from mmdiff.media.clip import Clip

LICENCE = "CC0-1.0 (procedural)"
LIGHT_SECONDS = 0.17  # a light rises at once with its hit and falls to 1/e in this time
FLOOR = 0.84  # where the stage begins, from the top
EPSILON = 1e-9  # a hit exactly at a frame's time is seen in that frame
SILHOUETTE = (0.015, 0.015, 0.03)


@dataclass(frozen=True)
class Lamp:
    """A stage light: what it answers to, its place at the top, where it shines on the stage, and its colour."""

    instrument: str
    x: float
    aim: float
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class Figure:
    """Somebody on stage: a dancer or the drummer, where, how tall, and how they move."""

    role: str
    x: float
    height: float
    phase: float


@dataclass(frozen=True)
class Stage:
    """What a concert looks like: its lamps, its people, the backdrop's hue, and a spotlight that obeys nobody."""

    lamps: tuple[Lamp, ...]
    figures: tuple[Figure, ...]
    hue: float
    sweep: float


def render_concert(
    seed: int, index: int, *, seconds: float, fps: Fraction, height: int, width: int, sample_rate: int
) -> Footage:
    """Render concert `index` of a seed; the events are its drum hits, `detail` tells which fall on a beat.

    Frame k shows the stage at k / fps: a light is at its brightest in the first frame at or after its hit.
    """
    rng = np.random.default_rng((seed, index))
    num_frames = round(seconds * fps)
    duration = num_frames / fps
    score = compose(rng, float(duration), sample_rate)
    stage = _set_stage(rng)
    wave = perform(score, rng, round(duration * sample_rate), sample_rate)
    beams = np.stack([_beam((height, width), lamp) for lamp in stage.lamps])
    levels = light_levels(score, np.arange(num_frames) / float(fps))
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for number in range(num_frames):
        frames[number] = _draw(stage, score, beams, levels[number], float(number / fps))
    events = tuple(
        Event(round(hit.time, 7), hit.instrument, "on the beat" if hit.is_beat else "off the beat")
        for hit in score.hits
    )
    dancers = sum(figure.role == "dancer" for figure in stage.figures)
    people = "a drummer" + (f" and {dancers} dancer{'s' * (dancers > 1)}" if dancers else "")
    caption = f"{people} on a stage, lights flash to {score.style} music at about {round(score.tempo)} beats a minute"
    return Footage(Clip(frames, wave, fps, sample_rate), events, caption, LICENCE)


synthesize_concert = partial(synthesize, "concert", render_concert)


def light_levels(score: Score, times: np.ndarray) -> np.ndarray:
    """Return how bright each instrument's lights are, `times instruments`, in 0 .. 1."""
    levels = np.zeros((len(times), len(INSTRUMENTS)))
    for hit in score.hits:
        column = INSTRUMENTS.index(hit.instrument)
        age = times + EPSILON - hit.time
        light = np.where(age >= 0, hit.strength * np.exp(-np.maximum(age, 0) / LIGHT_SECONDS), 0)
        levels[:, column] = np.maximum(levels[:, column], light)
    return levels


def _set_stage(rng: np.random.Generator) -> Stage:
    """Choose colours, lamps and people."""
    hue = float(rng.random())
    places = np.linspace(0.14, 0.86, 6)
    owners = rng.permutation(["kick", "kick", "snare", "snare", "hat", "hat"])
    hues = dict(zip(INSTRUMENTS, (hue + rng.permutation([0.0, 0.33, 0.6])) % 1))
    lamps = tuple(
        Lamp(str(owner), float(x), float(x + rng.uniform(-0.2, 0.2)), colorsys.hsv_to_rgb(hues[str(owner)], 0.65, 1.0))
        for x, owner in zip(places, owners)
    )
    spots = rng.permutation([0.2, 0.5, 0.8])
    num_dancers = int(rng.integers(0, 3))
    figures = [Figure("drummer", float(spots[0]), float(rng.uniform(0.30, 0.36)), 0.0)]
    for spot in spots[1 : 1 + num_dancers]:
        figures.append(Figure("dancer", float(spot), float(rng.uniform(0.34, 0.44)), float(rng.random())))
    return Stage(lamps, tuple(figures), hue, float(rng.uniform(0.03, 0.12)))


def _beam(shape: tuple[int, int], lamp: Lamp) -> np.ndarray:
    """Return the light that a lamp throws at full power, `h w 3`."""
    xs, ys = grid(*shape)
    along = ((ys - 0.04) / (FLOOR + 0.04)).clip(0, 1)
    across = np.abs(xs - lamp.x - (lamp.aim - lamp.x) * along) / (0.02 + 0.10 * along)
    cone = np.clip(1.3 - across, 0, 1) * (1 - 0.55 * along) * (ys > 0.04)
    pool = glow(shape, lamp.aim, FLOOR + 0.05, 0.16)
    light = 0.75 * cone + 0.6 * pool + glow(shape, lamp.x, 0.05, 0.09)
    return light[..., None] * np.asarray(lamp.colour)


def _draw(stage: Stage, score: Score, beams: np.ndarray, levels: np.ndarray, time: float) -> np.ndarray:
    """Return the stage at one time, uint8 `h w 3`."""
    shape = beams.shape[1:3]
    ys = grid(*shape)[1]
    backdrop = np.asarray(colorsys.hsv_to_rgb((stage.hue + 0.5 + 0.01 * time) % 1, 0.5, 0.20))
    image = (0.7 + 0.5 * ys)[..., None] * backdrop
    image[ys > FLOOR] *= 0.6
    sweep = 0.5 + 0.45 * np.sin(2 * np.pi * stage.sweep * time)
    image += 0.10 * glow(shape, sweep, 0.45, 0.2)[..., None]
    powers = [levels[INSTRUMENTS.index(lamp.instrument)] for lamp in stage.lamps]
    image += np.tensordot(powers, beams, axes=1)
    for figure in stage.figures:
        if figure.role == "drummer":
            _draw_drummer(image, figure, score, time)
        else:
            _draw_dancer(image, figure, _beat_phase(score, time) + figure.phase)
    return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _beat_phase(score: Score, time: float) -> float:
    """Return the time counted in beats."""
    return float(np.interp(time, score.beats, np.arange(len(score.beats))))


def _draw_dancer(image: np.ndarray, figure: Figure, phase: float) -> None:
    """Draw a silhouette that bounces once a beat and sways over two."""
    shape, tall = image.shape[:2], figure.height
    bounce, sway = abs(np.sin(np.pi * phase)), np.sin(np.pi * phase)
    x, hip = figure.x + 0.03 * sway, FLOOR + 0.06 - 0.48 * tall - 0.04 * bounce
    chest = (x + 0.02 * sway, hip - 0.34 * tall)
    for side in (-1, 1):
        knee = (x + side * (0.03 + 0.03 * (1 - bounce)), hip + 0.25 * tall)
        paint(image, bar(shape, (x, hip, *knee), 0.016), SILHOUETTE)
        paint(image, bar(shape, (*knee, figure.x + side * 0.035, FLOOR + 0.06), 0.014), SILHOUETTE)
        hand = (chest[0] + side * 0.09, chest[1] - (0.11 * np.sin(np.pi * phase + side) + 0.02))
        paint(image, bar(shape, (*chest, *hand), 0.012), SILHOUETTE)
    paint(image, bar(shape, (x, hip, *chest), 0.028), SILHOUETTE)
    paint(image, disc(shape, chest[0], chest[1] - 0.13 * tall, 0.034), SILHOUETTE)


def _draw_drummer(image: np.ndarray, figure: Figure, score: Score, time: float) -> None:
    """Draw a seated silhouette whose sticks touch the drums at the time of a hit."""
    shape, x, tall = image.shape[:2], figure.x, figure.height
    seat = FLOOR + 0.02
    chest = (x, seat - 0.55 * tall)
    paint(image, bar(shape, (x, seat, *chest), 0.034), SILHOUETTE)
    paint(image, disc(shape, x, chest[1] - 0.16 * tall, 0.036), SILHOUETTE)
    for side, owned in ((-1, ("snare",)), (1, ("kick", "hat"))):
        lift = _lift([hit.time for hit in score.hits if hit.instrument in owned], time)
        hand = (x + side * 0.10, seat - 0.20 * tall - 0.13 * lift)
        paint(image, bar(shape, (*chest, *hand), 0.013), SILHOUETTE)
    paint(image, disc(shape, x, seat + 0.03, 0.075), (0.05, 0.05, 0.07))
    for side in (-1, 1):
        drum = (x + side * 0.07, seat - 0.05 * tall, x + side * 0.13, seat - 0.05 * tall)
        paint(image, bar(shape, drum, 0.022), (0.05, 0.05, 0.07))


def _lift(times: list[float], time: float) -> float:
    """Return how high a stick is, 0 at a hit .. 1 halfway between two far apart."""
    before = int(np.searchsorted(times, time + EPSILON, side="right"))
    last = times[before - 1] if before else time - 1.0
    following = times[before] if before < len(times) else last + 2.0
    place = (time - last) / max(following - last, EPSILON)
    return float(4 * place * (1 - place) * min(1.0, 0.4 + (following - last)))
