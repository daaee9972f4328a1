"""A folder of music as chunks with captions and codes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mmdiff.log import get_logger
from mmdiff.media import Sound, read_audio
from mmdiff.media.audio import AUDIO_SUFFIXES, to_channels
from mmdiff.personalize.audio_concepts import check_mix
from mmdiff.personalize.musicgen.codes import Cache, encode_sound, hash_codec
from mmdiff.personalize.musicgen.labels import TAGGER, Describer
from mmdiff.personalize.musicgen.model import MusicGen
from mmdiff.personalize.musicgen.separate import VocalRemover
from mmdiff.pretrained import hash_path

CHUNK_NAME = re.compile(r"(.+)_chunk\d+")  # of a file that was cut from another, as the public fine-tuner names it
SILENCE = 1e-4


@dataclass(frozen=True)
class Chunk:
    """A piece of a file: where it begins and how long it is, in samples of the model's rate, its caption and codes."""

    path: Path
    start: int
    num_samples: int
    caption: str
    codes: Tensor  # k t


@dataclass(frozen=True)
class ChunkSettings:
    """How a folder is cut and captioned; the longest chunk and the shortest that is kept, in seconds."""

    chunk_seconds: float
    min_seconds: float
    one_same_description: str | None
    auto_labeling: bool


def list_audio(folder: str) -> list[Path]:
    """Return the audio files of a folder and the folders in it, in order of their names.

    Errors: `ValueError` where there is no such folder, or nothing to hear in it.
    """
    path = Path(folder).expanduser()
    if not folder or not path.is_dir():
        raise ValueError(f"dataset_path is {folder!r}, which is no folder; give one with audio files")
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES and not p.name.startswith("."))
    if not found:
        raise ValueError(f"dataset_path: {folder} holds no audio file ({', '.join(AUDIO_SUFFIXES)})")
    return found


def caption_of(path: Path, index: int) -> str | None:
    """Return the text for a file's chunk: of `song_chunk2.txt`, else `song.txt`, else what the file was cut from.

    Errors: `ValueError` where the text is empty or not UTF-8.
    """
    parent = CHUNK_NAME.fullmatch(path.stem)
    for stem in (f"{path.stem}_chunk{index}", path.stem, *(parent.groups() if parent else ())):
        file = path.with_name(f"{stem}.txt")
        if file.is_file():
            try:
                text = " ".join(file.read_text(encoding="utf-8").split())
            except UnicodeDecodeError as error:
                raise ValueError(f"{file}: not readable as UTF-8 text ({error})") from error
            if not text:
                raise ValueError(f"{file}: an empty caption; describe the music, or remove the file")
            return text
    return None


def check_captions(paths: Sequence[Path], settings: ChunkSettings) -> None:
    """Refuse files that would have no caption, before anything is computed.

    Errors: `ValueError` that names the first of them.
    """
    if settings.one_same_description or settings.auto_labeling:
        return
    mute = [path for path in paths if caption_of(path, 0) is None]
    if mute:
        raise ValueError(f"{mute[0]}: no caption ({len(mute)} of {len(paths)} files have none); write "
                         f"{mute[0].with_suffix('.txt').name} beside it, or give one_same_description, or set "
                         f"auto_labeling=true")  # fmt: skip


def cut(num_samples: int, sample_rate: int, chunk_seconds: float, min_seconds: float) -> list[tuple[int, int]]:
    """Return start and length of every chunk of a sound, in samples; a last one that is too short is left out."""
    length, least = round(chunk_seconds * sample_rate), round(min_seconds * sample_rate)
    starts = range(0, num_samples, length)
    pieces = [(start, min(length, num_samples - start)) for start in starts]
    return [(start, count) for start, count in pieces if count >= least]


class Folder:
    """Makes chunks of files, with what was computed before taken from a cache.

    Codes are known by the file's content, the codec and how it is cut; labels by the same without the codec.
    """

    def __init__(
        self, music: MusicGen, settings: ChunkSettings, cache: Cache, remover: VocalRemover | None = None
    ) -> None:
        self.music, self.settings, self.cache, self.remover = music, settings, cache, remover
        self.describe = Describer()
        self.cutting = (music.sample_rate, settings.chunk_seconds, settings.min_seconds,
                        remover.sha256 if remover else None)  # fmt: skip

    @cached_property
    def codec(self) -> str:
        """The codec's hash."""
        return hash_codec(self.music.network.audio_encoder)

    def chunks(self, paths: Sequence[Path]) -> list[Chunk]:
        """Return the chunks of all files; a file under the shortest length is left out with a warning.

        Errors: `ValueError` where a file cannot be read or is silent, no chunk is left, or all codes are one.
        """
        self._check(paths)
        with tqdm(paths, unit="file", leave=False) as bar:
            found = [chunk for path in bar for chunk in self._chunks(path)]
        if not found:
            raise self._too_short(paths)
        if all(chunk.codes.unique().numel() == 1 for chunk in found):
            raise ValueError(f"{self.music.source}: its codec gives one and the same code for all {len(found)} chunks; "
                             f"its codebooks were never trained")  # fmt: skip
        return found

    def _check(self, paths: Sequence[Path]) -> None:
        """Read what was not coded before, so that what is wrong with the last file is told before the first is coded.

        Vocals are not removed for it, which would take long.
        """
        new = [path for path in paths if self.cache.read(self._key(hash_path(path))) is None]
        with tqdm(new, unit="file", leave=False) as bar:
            sounds = (read_audio(path) if self.remover else self.read(path) for path in bar)
            seconds = [sound.waveform.shape[1] / sound.sample_rate for sound in sounds]
        if len(new) == len(paths) and max(seconds) < self.settings.min_seconds:
            raise self._too_short(paths)

    def _too_short(self, paths: Sequence[Path]) -> ValueError:
        return ValueError(f"dataset_path: none of {len(paths)} files is {self.settings.min_seconds:g} s long or "
                          f"longer; add longer ones, or lower min_seconds")  # fmt: skip

    def _key(self, content: str) -> str:
        return self.cache.key("codes", content, self.codec, self.music.channels, *self.cutting)

    def _chunks(self, path: Path) -> list[Chunk]:
        content, sound = hash_path(path), _Once(self, path)
        key = self._key(content)
        kept = self.cache.read(key)
        if kept is None:
            kept = self._encode(path, sound.value)
            self.cache.write(key, kept)
        spans = [tuple(span) for span in kept["spans"].tolist()]
        if not spans:
            get_logger().warning("%s: shorter than %g s; it is left out", path, self.settings.min_seconds)
        captions = self._captions(path, content, spans, sound)
        return [
            Chunk(path, start, count, caption, kept[f"codes.{start}"].long())
            for (start, count), caption in zip(spans, captions, strict=True)
        ]

    def read(self, path: Path) -> Sound:
        """Return a file's sound at the model's rate, without vocals where these are dropped.

        Errors: `ValueError` where it cannot be read, nothing is to be heard, or its channels cancel each other.
        """
        rate, channels = self.music.sample_rate, self.music.channels
        if self.remover:
            sound = self.remover.read(path, sample_rate=rate, channels=channels)
        else:
            whole = read_audio(path, sample_rate=rate).waveform
            sound = Sound(np.ascontiguousarray(to_channels(whole, channels)), rate)
            check_mix(path, whole, sound.waveform)
        if not np.abs(sound.waveform).max() >= SILENCE:
            what = "silent without its vocals" if self.remover else "silent"
            raise ValueError(f"{path}: {what}; a model would learn to be silent: remove the file")
        return sound

    def _encode(self, path: Path, sound: Sound) -> dict[str, Tensor]:
        """Return the codes of a sound's chunks, `codes.START`, and where these are; silent chunks are left out."""
        spans = cut(sound.waveform.shape[1], sound.sample_rate, self.settings.chunk_seconds, self.settings.min_seconds)
        heard = [(a, n) for a, n in spans if np.abs(sound.waveform[:, a : a + n]).max() >= SILENCE]
        if len(heard) < len(spans):
            get_logger().warning("%s: %d silent chunks are left out", path, len(spans) - len(heard))
        codes = {f"codes.{a}": encode_sound(self.music, sound.waveform[:, a : a + n]).int() for a, n in heard}
        return {"spans": torch.tensor(heard, dtype=torch.int64).reshape(-1, 2), **codes}

    def _captions(self, path: Path, content: str, spans: list[tuple[int, int]], sound: "_Once") -> list[str]:
        length = round(self.settings.chunk_seconds * self.music.sample_rate)
        captions = [caption_of(path, start // length) or self.settings.one_same_description for start, _ in spans]
        if None not in captions:
            return captions
        if not self.settings.auto_labeling:
            raise ValueError(f"{path}: no caption for chunk {captions.index(None)}; write {path.stem}.txt beside it, "
                             f"or set auto_labeling=true")  # fmt: skip
        key = self.cache.key("labels", content, TAGGER, *self.cutting)
        kept = self.cache.read(key)
        if kept is None:
            kept = {str(a): _as_bytes(self.describe(Sound(sound.value.waveform[:, a : a + n], sound.value.sample_rate)))
                    for a, n in spans}  # fmt: skip
            self.cache.write(key, kept)
        return [told or bytes(kept[str(start)].tolist()).decode() for told, (start, _) in zip(captions, spans)]


class _Once:
    """A file's sound, read when it is first asked for."""

    def __init__(self, folder: Folder, path: Path) -> None:
        self.folder, self.path = folder, path

    @cached_property
    def value(self) -> Sound:
        return self.folder.read(self.path)


def _as_bytes(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)
