"""A thing that strikes another: what impacts and strikes draw alike, at one time, with its light after each blow."""

from dataclasses import dataclass

import numpy as np

from data_tools.drawing import bar, disc, glow, paint
from data_tools.modal import MATERIALS, Material

LIGHT_SECONDS = 0.15  # a struck thing's light falls to 1/e in this time
SPACING_SECONDS = 0.25
BACKGROUNDS = ((0.13, 0.14, 0.20), (0.18, 0.13, 0.15), (0.11, 0.17, 0.16), (0.16, 0.16, 0.17))
HALF_WIDTHS = {"ball": 0.19, "pendulum": 0.07, "mallet": 0.15, "drop": 0.13}  # of what each kind strikes
COLOURS = {
    "ball": (0.85, 0.85, 0.88), "pendulum": (0.85, 0.82, 0.78), "mallet": (0.85, 0.80, 0.75), "drop": (0.6, 0.75, 0.95),
}  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A thing that is struck: where, what it is made of, when (seconds) how hard (0 .. 1), and by what.

    ending: when it would be struck next, after the last frame; None where what struck it is gone after the last blow.
    colour: of what strikes it (none: its kind's own); size: how many times as large as usual that is.
    """

    kind: str
    x: float
    y: float
    material_name: str
    pitch: float
    times: np.ndarray
    strengths: np.ndarray
    ending: float | None
    colour: tuple[float, float, float] | None = None
    size: float = 1.0

    @property
    def material(self) -> Material:
        """How it sounds and looks."""
        return MATERIALS[self.material_name]


def draw_background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a wall `h w 3` of a random colour, a little brighter below."""
    image = np.asarray(BACKGROUNDS[rng.integers(len(BACKGROUNDS))])
    return image * (0.8 + 0.4 * (np.arange(height) / height)[:, None, None]) * np.ones((height, width, 3))


def draw_target(image: np.ndarray, target: Target, time: float) -> None:
    """Draw the struck thing, its light after a blow, and what strikes it."""
    shape, colour = image.shape[:2], np.asarray(target.material.colour)
    before = int(np.searchsorted(target.times, time, side="right"))
    light = 0.0
    if before:
        age = time - target.times[before - 1]
        light = (0.55 + 0.45 * target.strengths[before - 1]) * np.exp(-age / LIGHT_SECONDS)
    paint(image, light * glow(shape, target.x, target.y, 0.24), 0.25 + 0.75 * colour)
    half = HALF_WIDTHS[target.kind]
    body = bar(shape, (target.x - half, target.y + 0.05, target.x + half, target.y + 0.05), 0.035)
    paint(image, body, tuple(0.55 * colour + 0.45 * light * (1 - 0.4 * (1 - colour))))
    if before < len(target.times) or target.ending is not None:
        _draw_mover(image, target, approach(target, before, time))


def approach(target: Target, before: int, time: float) -> float:
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
    shape, x, y, size = image.shape[:2], target.x, target.y, target.size
    colour = target.colour or COLOURS[target.kind]
    if target.kind == "ball":
        radius = 0.055 * size
        paint(image, disc(shape, x, y - radius - 0.5 * distance, radius), colour)
    elif target.kind == "drop":
        low, high = y - 0.03 * size - 0.6 * distance, y - 0.05 * size - 0.6 * distance
        paint(image, bar(shape, (x, low, x, high), 0.028 * size), colour)
    elif target.kind == "mallet":
        radius, angle = 0.045 * size, 0.9 * distance
        head = (x + 0.02 - 0.28 * (1 - np.cos(angle)), y - radius - 0.30 * np.sin(angle))
        paint(image, bar(shape, (x + 0.30, y - 0.05, *head), 0.012), (0.55, 0.5, 0.45))
        paint(image, disc(shape, *head, radius), colour)
    else:
        angle, side = 1.1 * distance, 0.105 + 0.05 * (size - 1)
        bob = (x - side - 0.45 * np.sin(angle) * 0.6, y - 0.02 - 0.45 * (1 - np.cos(angle)))
        paint(image, bar(shape, (x - side, y - 0.52, *bob), 0.008), (0.5, 0.5, 0.55))
        paint(image, disc(shape, *bob, 0.05 * size), colour)
