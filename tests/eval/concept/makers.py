"""Small concepts: tunes of a tempo, key and loudness, pictures of a colour, and records beside them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from mmdiff.personalize.musicgen.sample import write_wav

RATE = 16_000
SECONDS = 4


def tune(bpm: float = 100.0, tonic: int = 0, third: int = 4, decibels: float = 0.0, seed: int = 0) -> np.ndarray:
    """Return a triad struck on every beat, `1 n`: 0 is C, a third of 4 major and of 3 minor."""
    time = np.arange(SECONDS * RATE) / RATE
    steps = np.array([-12, 0, third, 7, 12]) + tonic
    chord = sum(np.sin(2 * np.pi * 261.63 * 2 ** (step / 12) * time) for step in steps)
    struck = np.exp(-6 * (time % (60 / bpm)))
    noise = 0.003 * np.random.default_rng(seed).standard_normal(len(time))
    return (10 ** (decibels / 20) * (0.04 * chord * struck + noise))[None].astype(np.float32)


def save_tunes(folder: Path, waves: list[np.ndarray]) -> Path:
    """Write tunes as WAV files of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, wave in enumerate(waves):
        write_wav(folder / f"{number:05d}.wav", wave, RATE)
    return folder


def picture(colour: tuple[int, int, int], seed: int) -> Image.Image:
    """Return a picture of coarse noise around a colour."""
    noise = np.random.default_rng(seed).integers(-60, 60, (8, 8, 3))
    return Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).resize((48, 48), 0)


def save_pictures(folder: Path, colour: tuple[int, int, int], count: int, first_seed: int = 0) -> Path:
    """Write pictures as PNG files of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(colour, first_seed + number).save(folder / f"{number:05d}.png")
    return folder


def record(path: Path, template: str, prompt_set: str = "editability", word="<oud>", name="guitar") -> None:
    """Write what `mmdiff personalize sample` writes beside a generation."""
    path.with_suffix(".json").write_text(json.dumps({
        "prompt": template.replace("{}", word), "seed": 3, "prompt_set": prompt_set, "template": template,
        "concept": word, "object_class": name,
    }))  # fmt: skip


def number(result, metric: str, system: str) -> dict:
    """Return one row of a result."""
    (row,) = [row for row in result["rows"] if (row["metric"], row["system"]) == (metric, system)]
    return row
