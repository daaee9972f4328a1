"""The strikes benchmark: one coloured thing strikes another a few times, and the caption says what can be checked.

Every clip shows one combination of colour, kind, material and count (`mmdiff.data.strikes`). Clips of split `test` show
combinations that no other split does: those whose sentence's hash, modulo 100, is below 12. Picture and sound are those
of the impacts benchmark, with a larger, coloured striker and nothing else that moves.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from data_tools.blows import SPACING_SECONDS, Target, draw_background, draw_target
from data_tools.footage import SPLIT_FRACTIONS, Footage, assign_splits, write_footage
from data_tools.modal import MATERIALS, mix_strikes, strike
from mmdiff.data.manifest import Entry, Event
from mmdiff.data.strikes import COUNTS, Facts, facts_of_split, tell
from mmdiff.media.clip import Clip
from mmdiff.media.spec import as_fps

NAME = "strikes"
LICENCE = "CC0-1.0 (procedural)"
FIRST_SECONDS = 0.3  # no blow before: what strikes is seen coming
LAST_SECONDS = 0.25  # and none in the last quarter of a second: its light and sound are told in full
SECONDS = 1.6
LEAST_SECONDS = FIRST_SECONDS + (max(COUNTS) - 1) * SPACING_SECONDS + LAST_SECONDS + 0.1
COLOURS = {
    "red": (0.93, 0.08, 0.08), "orange": (1.0, 0.52, 0.0), "yellow": (1.0, 0.95, 0.10), "green": (0.08, 0.78, 0.12),
    "blue": (0.10, 0.22, 1.0), "purple": (0.66, 0.12, 0.92), "white": (1.0, 1.0, 1.0),
}  # fmt: skip
SIZES = {"ball": 1.6, "mallet": 1.9, "pendulum": 1.7, "drop": 2.0}  # a colour must be seen in 64 x 64 pixels


def render_strikes(
    seed: int, index: int, *, split: str, seconds: float, fps: Fraction, height: int, width: int, sample_rate: int
) -> Footage:
    """Render clip `index` of a seed, which shows a combination that its split may show.

    Each blow is one event; its detail is for example `red ball on wood`.
    """
    rng = np.random.default_rng((seed, index))
    allowed = facts_of_split(split)
    facts = allowed[rng.integers(len(allowed))]
    target = _compose(rng, facts, seconds, sample_rate)
    num_frames = round(seconds * fps)
    num_samples = round(num_frames / fps * sample_rate)
    background = draw_background(rng, height, width)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for number in range(num_frames):
        image = background.copy()
        draw_target(image, target, float(number / fps))
        frames[number] = (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    times = [float(time) for time in target.times]
    sounds = [strike(target.material, target.pitch, hit, sample_rate, rng) for hit in target.strengths]
    wave = mix_strikes(times, sounds, num_samples, sample_rate, rng)
    events = tuple(Event(time, "impact", facts.detail) for time in times)
    return Footage(Clip(frames, wave, fps, sample_rate), events, tell(facts, rng), LICENCE)


def synthesize_strikes(
    out: Path,
    *,
    count: int = 1000,
    seconds: float = SECONDS,
    fps: Fraction | str | float = 30,
    height: int = 64,
    width: int = 64,
    sample_rate: int = 16_000,
    seed: int = 0,
    workers: int = 1,
    fractions: Sequence[float] = SPLIT_FRACTIONS,
) -> list[Entry]:
    """Write `count` clips and their manifest; one seed gives the same bytes.

    Errors: `ValueError` where a number is impossible.
    """
    check_seconds(seconds)
    size = {"seconds": seconds, "fps": as_fps(fps), "height": height, "width": width, "sample_rate": sample_rate}

    keys = [f"{NAME}-{seed}-{index:05d}" for index in range(count)]
    splits = assign_splits(keys, seed, fractions)
    renders = [(key, partial(render_strikes, seed, n, split=splits[key], **size)) for n, key in enumerate(keys)]
    return write_footage(out, renders, seed=seed, workers=workers, name=NAME, fractions=fractions)


def check_seconds(seconds: float) -> None:
    """Refuse clips in which four blows cannot keep apart."""
    if seconds < LEAST_SECONDS:
        raise ValueError(f"{NAME}: {seconds:g} seconds; give at least {LEAST_SECONDS:g}, for four blows")


def _compose(rng: np.random.Generator, facts: Facts, seconds: float, sample_rate: int) -> Target:
    """Choose where, when, how high and how hard it strikes."""
    material = MATERIALS[facts.material]
    times = np.round(_irregular_times(rng, facts.count, seconds) * sample_rate) / sample_rate
    return Target(
        kind=facts.kind,
        x=float(0.5 + rng.uniform(-0.04, 0.04)),
        y=float(rng.uniform(0.72, 0.80)),
        material_name=facts.material,
        pitch=float(rng.uniform(*material.pitch)),
        times=times,
        strengths=rng.uniform(0.5, 1.0, facts.count),
        ending=None if facts.kind == "drop" else seconds + 0.6,
        colour=COLOURS[facts.colour],
        size=SIZES[facts.kind],
    )


def _irregular_times(rng: np.random.Generator, count: int, seconds: float) -> np.ndarray:
    """Draw so many times at least `SPACING_SECONDS` apart, every such choice as likely as any other."""
    spacing = SPACING_SECONDS * np.arange(count)
    room = seconds - LAST_SECONDS - FIRST_SECONDS - spacing[-1]
    return FIRST_SECONDS + np.sort(rng.uniform(0, room, count)) + spacing
