"""From files to arrays: every file is read once for all extractors that have not seen it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from tqdm import tqdm

from mmdiff.eval.concept.read import Told, read_as_clip, read_told
from mmdiff.eval.features.base import Extractor
from mmdiff.eval.quality.collect import Item, Reading
from mmdiff.eval.quality.store import FeatureStore, content_of
from mmdiff.eval.windows import Window


@dataclass(frozen=True)
class Piece:
    """A photo, a clip of music or a generation: its file, what its record says, and what extractors made of it."""

    path: Path
    told: Told
    reading: Reading = field(repr=False)


@dataclass(frozen=True)
class System:
    """Files that are judged together. `kind` is concept, reference or generated."""

    name: str
    kind: str
    pieces: tuple[Piece, ...] = field(repr=False)

    def measured(self, extractor: str) -> list[Piece]:
        """Return the pieces that an extractor could measure."""
        return [piece for piece in self.pieces if extractor in piece.reading.arrays]


@dataclass(frozen=True)
class Roles:
    """Which generations tell how like the concept they are, and which how well they follow their prompts."""

    everything: list[System]
    faithful: list[System]
    asked: list[System]
    has_reconstruction: bool  # else `faithful` are all generations
    has_editability: bool  # else `asked` are all


def share_out(systems: Sequence[System]) -> Roles:
    """Say which generations are judged by which numbers, alike for every system.

    Those that ask for the concept alone tell how like it they are; those that ask for more, how well that is followed.
    Where a system has none of a sort, all generations of every system are taken.
    """
    plain = [replace(s, pieces=tuple(p for p in s.pieces if p.told.is_reconstruction)) for s in systems]
    edited = [replace(s, pieces=tuple(p for p in s.pieces if not p.told.is_reconstruction)) for s in systems]
    has_plain, has_edited = (all(system.pieces for system in some) for some in (plain, edited))
    return Roles(list(systems), plain if has_plain else list(systems), edited if has_edited else list(systems),
                 has_plain, has_edited)  # fmt: skip


def measure(
    name: str, kind: str, paths: Sequence[Path], family: str, extractors: Sequence[Extractor], store: FeatureStore,
    rejected: list[dict[str, str]],
) -> System:  # fmt: skip
    """Return what extractors make of files, one after another; what cannot be read or measured is noted.

    Errors: `ValueError` with the first fault where not one file can be read.
    """
    pieces, faults = [], []
    for path in tqdm(paths, desc=name, unit="file", file=sys.stderr, disable=None):
        reading = Reading(Item(Window(path, str(path), Fraction(0))))
        try:
            _fill(reading, path, family, extractors, store)
        except (ValueError, OSError) as error:
            faults.append({"system": name, "file": str(path), "by": "reader", "reason": str(error)})
            continue
        pieces.append(Piece(path, read_told(path), reading))
        faults += [{"system": name, "file": str(path), "by": by, "reason": why} for by, why in reading.reasons.items()]
    rejected += faults
    if not pieces:
        raise ValueError(f"{name}: not one of {len(paths)} files can be read; the first fault is: "
                         f"{faults[0]['reason']}")  # fmt: skip
    return System(name, kind, tuple(pieces))


def _fill(
    reading: Reading, path: Path, family: str, extractors: Sequence[Extractor], store: FeatureStore
) -> None:  # fmt: skip
    """Put each extractor's arrays, or the reason why there are none, into a reading."""
    facts, clip = {"file": content_of(path), "as": f"whole {family}"}, None
    for extractor in extractors:
        place = store.path(extractor, facts)
        arrays = store.read(place, extractor)
        if arrays is None:
            clip = clip or read_as_clip(path, family)
            try:
                arrays = extractor.extract([clip])[0]
            except ValueError as error:
                reading.reasons[extractor.name] = str(error)
                continue
            store.write(place, arrays)
        reading.arrays[extractor.name] = arrays
