"""Latents that `mmdiff-data encode` has written, as a stream of batches: windows aligned in picture and sound."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torchdata.stateful_dataloader import StatefulDataLoader

from mmdiff.data.clips import DataConfig, WindowStream
from mmdiff.data.loader import as_loader
from mmdiff.data.windows import name_some
from mmdiff.media import ClipSpec
from mmdiff.models.codec import Codec

INDEX_FILE = "index.jsonl"
MODALITIES = ("video", "audio")


@dataclass(frozen=True)
class LatentEntry:
    """One clip's latents: the file (relative to the index), its tensors' shapes, and what is told of the clip."""

    key: str
    source: str
    split: str
    latents: str
    shapes: Mapping[str, tuple[int, ...]]
    codecs_sha256: str
    caption: str = ""

    def __post_init__(self) -> None:
        if Path(self.latents).is_absolute() or ".." in Path(self.latents).parts:
            raise ValueError(f"'{self.latents}' leads out of the folder")
        shapes = {name: tuple(int(size) for size in self.shapes[name]) for name in MODALITIES}
        if len(shapes["video"]) != 4 or len(shapes["audio"]) != 2:
            raise ValueError(f"shapes are {shapes}, and not video c f h w and audio c l")
        object.__setattr__(self, "shapes", shapes)


@dataclass(frozen=True)
class LatentWindow:
    """Where an example comes from: an entry, and the frame, at the clip's rate, at which it starts."""

    entry: LatentEntry
    start: int
    starts: tuple[int, ...] = ()  # where else it may start instead


class LatentDataset(WindowStream):
    """An endless stream of batches of latents; order, ranks, workers and state are those of `WindowStream`.

    A window starts where a step of the picture and one of the sound begin together, so that the steps of every window
    lie on one time grid; where a codec gives the first frame a step of its own, only at the clip's beginning. Within a
    clip the codecs have seen and heard what lies around a window. Nothing is mirrored: mirrored latents are not those
    of the mirrored picture.

    Errors: `ValueError` where the latents are of other codecs or sizes, or too short.
    """

    def __init__(self, config: DataConfig, spec: ClipSpec, codecs: Mapping[str, Codec], sha256: str, *, split: str,
                 **settings: Any):  # fmt: skip
        self.folder, self.spec, self.codecs = Path(str(config.latents)), spec, codecs
        self.steps = {"video": codecs["video"].num_steps(spec.num_frames),
                      "audio": codecs["audio"].num_steps(spec.num_samples)}  # fmt: skip
        chosen = select_latents(self.folder, split, sha256)
        windows, short = [], []
        for entry in chosen:
            own = self._cut(entry)
            windows += own
            short += [] if own else [entry.key]
        if short:
            raise ValueError(
                f"{self.folder}: shorter than a window of {float(spec.duration_seconds):.3f} s: {name_some(short)}; "
                "lower clip.num_frames, or encode a set without them"
            )
        super().__init__(windows, split=split, **settings)

    def _cut(self, entry: LatentEntry) -> list[LatentWindow]:
        """Return an entry's windows side by side; the possible starts are divided among them in equal parts."""
        starts = self._starts(num_frames(entry, self.spec, self.codecs))
        firsts: list[int] = []
        for start in starts:
            if not firsts or start >= firsts[-1] + self.spec.num_frames:
                firsts.append(start)
        parts = [number * len(starts) // len(firsts) for number in range(len(firsts) + 1)] if firsts else []
        return [
            LatentWindow(entry, first, tuple(starts[begin:end])) for first, begin, end in zip(firsts, parts, parts[1:])
        ]

    def _starts(self, length: int) -> list[int]:
        """Return the frames of a clip of `length` at which steps of both modalities begin, and a window fits."""
        fits = range(length - self.spec.num_frames + 1)
        if any(codec.starts_with_one for codec in self.codecs.values()):
            return list(fits[:1])
        return [start for start in fits if all(step.denominator == 1 for step in self._first_steps(start).values())]

    def _first_steps(self, start: int) -> dict[str, Fraction]:
        spec = self.spec
        samples = start / spec.fps * spec.sample_rate
        return {"video": Fraction(start) / Fraction(self.codecs["video"].temporal_factor),
                "audio": samples / Fraction(self.codecs["audio"].temporal_factor)}  # fmt: skip

    def varied(self, window: LatentWindow, chances: tuple[float, float]) -> LatentWindow:
        """Return the window at another of its possible starts, for a chance in [0, 1)."""
        return LatentWindow(window.entry, window.starts[int(chances[0] * len(window.starts))])

    def read(self, windows: list[LatentWindow]) -> dict[str, Any]:
        """Return latents video `b c f h w` and audio `b c l` in float32, keys, starts in seconds, and captions."""
        latents = [self._read(window) for window in windows]
        return {
            **{name: torch.stack([each[name] for each in latents]) for name in MODALITIES},
            "key": [window.entry.key for window in windows],
            "start": [float(window.start / self.spec.fps) for window in windows],
            "caption": [str(window.entry.caption or "") for window in windows],
        }

    def _read(self, window: LatentWindow) -> dict[str, Tensor]:
        path, first = self.folder / window.entry.latents, self._first_steps(window.start)
        spans = {name: slice(int(first[name]), int(first[name]) + self.steps[name]) for name in MODALITIES}
        try:
            with safe_open(path, framework="pt") as file:
                parts = {name: file.get_slice(name) for name in MODALITIES}
                for name, part in parts.items():
                    if tuple(part.get_shape()) != window.entry.shapes[name]:
                        raise ValueError(f"{name} is {part.get_shape()}, the index says {window.entry.shapes[name]}")
                return {name: part[:, spans[name]].float() for name, part in parts.items()}
        except (OSError, SafetensorError, ValueError) as error:
            raise ValueError(f"{path}: not the latents that the index lists ({error}); run `mmdiff-data encode` again "
                             "on the same folder")  from error  # fmt: skip


def read_latent_index(folder: Path) -> list[LatentEntry]:
    """Return what an index of latents lists; a set without splits is all for training.

    Errors: `ValueError` that names the file and line.
    """
    path = Path(folder) / INDEX_FILE
    if not path.is_file():
        raise ValueError(f"{path}: no latents here; write them with `mmdiff-data encode SET {folder} --codecs FOLDER`")
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            values = json.loads(line)
            known = LatentEntry.__dataclass_fields__
            entries.append(LatentEntry(**{name: value for name, value in values.items() if name in known}))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}:{number}: not a line of an index of latents ({error}); run `mmdiff-data encode` "
                             "again") from error  # fmt: skip
    return entries


def select_latents(folder: Path, split: str, sha256: str) -> list[LatentEntry]:
    """Return a split's entries, all of which must be of the codecs of that hash.

    Errors: `ValueError` where they are not, the split is empty, or a source is in two.
    """
    entries = read_latent_index(folder)
    splits: dict[str, str] = {}
    for entry in entries:
        if splits.setdefault(entry.source, entry.split) != entry.split:
            raise ValueError(f"{folder}: source '{entry.source}' is in two splits, {splits[entry.source]} and "
                             f"{entry.split}; give each source one split in the set, and encode it again")  # fmt: skip
    foreign = [entry for entry in entries if entry.codecs_sha256 != sha256]
    if foreign:
        raise ValueError(
            f"{folder}: made with codecs, or at a size and rates, of hash {foreign[0].codecs_sha256[:12]}, and not "
            f"with codecs.folder at the recipe's clip, {sha256[:12]}: {name_some([entry.key for entry in foreign])}; "
            "encode the set again with `mmdiff-data encode --codecs` of that folder, or name the codecs that were used"
        )
    chosen = [entry for entry in entries if (entry.split or "train") == split]
    if not chosen:
        held = ", ".join(sorted({entry.split or "train" for entry in entries})) or "nothing"
        raise ValueError(f"{folder}: no latents in split '{split}'; the index holds {held}")
    return chosen


def codecs_sha256(folder: str | Path, spec: ClipSpec) -> str:
    """Return the hash of a folder's codecs for clips of a size and rates, whatever their length: the index's."""
    parts = [str(asdict(spec) | {"num_frames": None})]
    for name in ("video_codec", "audio_codec"):
        files = sorted(path for path in (Path(folder) / name).iterdir() if path.suffix in (".json", ".safetensors"))
        for path in files:
            with path.open("rb") as file:
                parts.append(f"{name}/{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def num_frames(entry: LatentEntry, spec: ClipSpec, codecs: Mapping[str, Codec]) -> int:
    """Return the fewest frames whose latents have an entry's length: what is surely not an encoder's filling.

    Errors: `ValueError` where no number of frames has.
    """
    steps = {"video": entry.shapes["video"][1], "audio": entry.shapes["audio"][1]}
    unit = (spec.sample_rate / spec.fps).denominator  # the fewest frames that last a whole number of samples
    most = codecs["video"].num_held(steps["video"])
    fewest = codecs["video"].num_held(steps["video"] - 1) if steps["video"] > 1 else 0
    for count in range((fewest // unit + 1) * unit, most + 1, unit):
        samples = int(count / spec.fps * spec.sample_rate)
        if codecs["audio"].num_steps(samples) == steps["audio"]:
            return count
    raise ValueError(f"{entry.latents}: {steps['video']} steps of picture and {steps['audio']} of sound do not last "
                     "equally long with these codecs; encode the set again")  # fmt: skip


def build_latent_loader(
    config: DataConfig, spec: ClipSpec, codecs: Mapping[str, Codec], sha256: str, **settings: Any
) -> StatefulDataLoader:
    """Return an endless loader of this rank's batches of latents; its settings are those of `build_loader`."""
    return as_loader(LatentDataset(config, spec, codecs, sha256, **settings), config.num_workers)


def latent_table(config: DataConfig, spec: ClipSpec, codecs: Mapping[str, Codec], sha256: str) -> str:
    """Return what a folder of latents gives to train on, for people.

    Errors: `ValueError` where a file is missing, or whatever `LatentDataset` refuses.
    """
    data = LatentDataset(config, spec, codecs, sha256, split="train", batch_size=1, seed=0)
    entries = {window.entry.latents: window.entry for window in data.windows}
    missing = [entry.key for entry in entries.values() if not (data.folder / entry.latents).is_file()]
    if missing:
        raise ValueError(f"{data.folder}: listed, but not there: {name_some(missing)}; run `mmdiff-data encode` again")
    starts = sum(len(window.starts) for window in data.windows)
    return (f"latents of {len(entries)} clips: {len(data.windows)} windows, {starts} possible starts; steps a window: "
            f"{data.steps['video']} of picture, {data.steps['audio']} of sound; nothing is mirrored")  # fmt: skip
