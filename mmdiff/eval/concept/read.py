"""Folders of photos or of music: which files there are, what the records beside them say, and each file as a clip."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mmdiff.eval.quality.pairs import read_record
from mmdiff.media import Clip, read_audio
from mmdiff.media.audio import AUDIO_SUFFIXES
from mmdiff.media.image import IMAGE_SUFFIXES, as_clip, load_image

SUFFIXES = {"image": IMAGE_SUFFIXES, "music": AUDIO_SUFFIXES}  # by the family of a concept
RECONSTRUCTION = "reconstruction"
BLACK = np.zeros((1, 2, 2, 3), np.uint8)


@dataclass(frozen=True)
class Told:
    """What the record beside a generation says, "" for what it does not say."""

    prompt: str = ""
    prompt_set: str = ""
    template: str = ""
    concept: str = ""  # what the prompt calls it: "<oud>", "sks guitar"
    object_class: str = ""  # "guitar"

    @property
    def text(self) -> str:
        """The prompt that anybody understands: its concept is called by the name of its class, where that is known."""
        if self.template and self.object_class:
            return self.template.replace("{}", self.object_class)
        return self.prompt.replace(self.concept, self.object_class) if self._can_replace else self.prompt

    @property
    def is_translated(self) -> bool:
        """Whether `text` calls the concept by its class."""
        return bool(self.template and self.object_class) or self._can_replace

    @property
    def is_reconstruction(self) -> bool:
        """Whether no more than the concept was asked for, as far as the record says."""
        return self.prompt_set in ("", RECONSTRUCTION)

    @property
    def _can_replace(self) -> bool:
        return bool(self.concept and self.object_class and self.concept in self.prompt)


def read_told(path: Path) -> Told:
    """Return what the JSON beside a generation says; nothing where there is none, or what it holds is no text."""
    record = read_record(path)
    return Told(**{name: _words(record.get(name)) for name in Told.__dataclass_fields__})


def find_files(folder: Path, *, is_deep: bool = False) -> tuple[str, list[Path]]:
    """Return the family of a folder, "image" or "music", and its files by name; `is_deep`: those of inner folders too.

    Errors: `ValueError` where there is no such folder, neither images nor sounds are in it, or both.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give one with images ({', '.join(IMAGE_SUFFIXES)}) or sounds "
                         f"({', '.join(AUDIO_SUFFIXES)})")  # fmt: skip
    paths = sorted(p for p in (folder.rglob("*") if is_deep else folder.iterdir()) if not p.name.startswith("."))
    found = {family: [p for p in paths if p.suffix.lower() in endings] for family, endings in SUFFIXES.items()}
    families = [family for family, files in found.items() if files]
    if not families:
        raise ValueError(f"{folder}: no image ({', '.join(IMAGE_SUFFIXES)}) and no sound ({', '.join(AUDIO_SUFFIXES)}) "
                         "is here")  # fmt: skip
    if len(families) > 1:
        raise ValueError(f"{folder}: images ({found['image'][0].name}) and sounds ({found['music'][0].name}) lie "
                         "together; a concept is one or the other: move what does not belong")  # fmt: skip
    return families[0], found[families[0]]


def read_as_clip(path: Path, family: str) -> Clip:
    """Return an image as one frame, or a sound in mono under a black frame that lasts as long.

    Errors: `ValueError` that names the file where it cannot be read.
    """
    if family == "image":
        return as_clip(load_image(path))
    sound = read_audio(path, channels=1)
    return Clip(BLACK, sound.waveform, Fraction(sound.sample_rate, sound.waveform.shape[1]), sound.sample_rate)


def _words(value: Any) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""
