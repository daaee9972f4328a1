"""Descriptions of music that nobody wrote: musicnn's tags, tempo and key."""

from fractions import Fraction

import numpy as np

from mmdiff.eval.features.musicnn import REPEATED, Musicnn
from mmdiff.eval.metrics.key import estimate_key
from mmdiff.eval.metrics.tempo import estimate_bpm
from mmdiff.media import Clip, Sound

TAGGER = f"musicnn-mtt{REPEATED}"  # tags of instruments, tempo and voices; sounds of a second and more
LEAST_TAG = 0.1  # the mean of a tag's sigmoids over 3 s patches; as the public fine-tuner has it
MOST_TAGS = 5


class Describer:
    """Describes sounds as "guitar, slow, 92 bpm, key of A minor"; the tagger is read when it is first needed.

    Errors: `ValueError` with the pip line where the package with musicnn's weights is not installed.
    """

    def __init__(self) -> None:
        self.tagger: Musicnn | None = None

    def __call__(self, sound: Sound) -> str:
        """Return the description of a sound of a second or more; "music" where nothing can be told of it."""
        self.tagger = self.tagger or Musicnn.load(name=TAGGER)
        picture = np.zeros((1, 1, 1, 3), np.uint8)  # which a tagger does not look at
        found = self.tagger.extract([Clip(picture, sound.waveform, Fraction(1), sound.sample_rate)])[0]["tags"].mean(0)
        order = [i for i in np.argsort(-found, kind="stable")[:MOST_TAGS] if found[i] > LEAST_TAG]
        words = [self.tagger.tag_names[i] for i in order]
        bpm = estimate_bpm(sound.waveform, sound.sample_rate)
        key = estimate_key(sound.waveform, sound.sample_rate)
        words += [f"{bpm:.0f} bpm"] if np.isfinite(bpm) else []
        words += [f"key of {key.name} {key.scale}"] if key else []
        return ", ".join(words) or "music"
