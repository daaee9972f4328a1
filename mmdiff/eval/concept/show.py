"""Photos, clips and generations for the page: small images, and sounds to be played beside their spectrograms."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from mmdiff.eval.concept.read import BLACK, RECONSTRUCTION
from mmdiff.eval.players import MAX_SECONDS, data_uri, jpeg, png, spectrogram_image
from mmdiff.eval.report import spaced
from mmdiff.media import Clip, read_audio
from mmdiff.media.image import load_image

MOST_SHOWN = 4  # of the concept, and of each system's generations of either sort
MAX_BYTES = 10_000_000  # of all that is shown
MAX_PIXELS = 224
SAMPLE_RATE, BIT_RATE = 32_000, 80_000  # of sounds on the page, in mono


@dataclass(frozen=True)
class Shown:
    """An image, or a sound with its spectrogram, as data URIs, and what was asked for."""

    name: str
    prompt: str
    image: str
    sound: str = ""

    @property
    def num_bytes(self) -> int:
        """How much of the page it takes."""
        return len(self.image) + len(self.sound)


@dataclass(frozen=True)
class Group:
    """What is shown of the concept or a system, and why some cannot be."""

    name: str
    kind: str
    text: str
    shown: tuple[Shown, ...]
    faults: tuple[str, ...]


def groups_of(result: Mapping[str, Any]) -> list[Group]:
    """Return a few pieces, spaced evenly through the files, of the concept and of every system."""
    systems, family = result["systems"], result["protocol"]["family"]
    allowance = MAX_BYTES / len(systems)
    return [_group(system, result["files"], family, allowance) for system in systems]


def _group(system: Mapping[str, Any], files: Sequence[Mapping[str, Any]], family: str, allowance: float) -> Group:
    own = [file for file in files if file["system"] == system["name"]]
    chosen, shown, faults, used = list(_choose(own, system["kind"])), [], [], 0
    for file in chosen:
        try:
            one = show(Path(file["file"]), family, file["prompt"])
        except (ValueError, OSError) as error:
            faults.append(f"{file['file']} cannot be shown: {error}")
            continue
        used += one.num_bytes
        if used > allowance:
            faults.append("The rest is left out to keep the page small.")
            break
        shown.append(one)
    text = f"Shown: {len(shown)} of {len(own)}, spaced evenly through the files, none picked by hand."
    return Group(system["name"], system["kind"], text, tuple(shown), tuple(faults))


def _choose(files: Sequence[Mapping[str, Any]], kind: str) -> Iterator[Mapping[str, Any]]:
    """Yield a few of those that ask for the concept alone, then of the others."""
    for is_plain in (True, False):
        own = [file for file in files if (file["prompt_set"] in ("", RECONSTRUCTION)) == is_plain]
        yield from spaced(own, MOST_SHOWN)


def show(path: Path, family: str, prompt: str) -> Shown:
    """Return a file as the page shows it; of a long sound the beginning.

    Errors: `ValueError` where it cannot be read.
    """
    if family == "image":
        image = load_image(path)
        image.thumbnail((MAX_PIXELS, MAX_PIXELS))
        return Shown(path.name, prompt, data_uri("image/jpeg", jpeg(image)))
    wave = read_audio(path, sample_rate=SAMPLE_RATE, channels=1).waveform[:, : MAX_SECONDS * SAMPLE_RATE]
    drawn = spectrogram_image(Clip(BLACK, wave, Fraction(SAMPLE_RATE, wave.shape[1]), SAMPLE_RATE))
    return Shown(path.name, prompt, data_uri("image/png", png(drawn)), data_uri("audio/mp4", aac(wave, SAMPLE_RATE)))


def aac(waveform: np.ndarray, sample_rate: int) -> bytes:
    """Return a mono waveform `1 n` as an MP4 file with AAC sound alone."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=sample_rate, layout="mono")
        stream.bit_rate = BIT_RATE
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = sample_rate, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()
