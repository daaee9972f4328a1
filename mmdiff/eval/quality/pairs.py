"""Generations against the very clips that they were made for: found by the records beside them, or by their names."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmdiff.data.manifest import MANIFEST_NAME, entry_path, read_manifest
from mmdiff.eval.features.base import Extractor
from mmdiff.eval.metrics import classes
from mmdiff.eval.quality.collect import Item, Reading
from mmdiff.eval.quality.columns import Column
from mmdiff.eval.quality.estimate import ratio
from mmdiff.eval.quality.measures import Loudness
from mmdiff.eval.quality.sets import Row
from mmdiff.eval.windows import Window, find_media

if TYPE_CHECKING:
    from mmdiff.eval.quality.run import Study

LOUDNESS_TOLERANCE_LU = 2.5
SIDES = {"video": "picture", "audio": "sound"}


def partners(study: "Study", columns: Sequence[Column]) -> dict[str, tuple[Reading, ...]]:
    """Return for every column whose generations all have a real partner the partners' readings, in the same order."""
    known = _reference_files(study.request.reference)
    found = {}
    for column in columns:
        windows = [find_partner(reading.item.picture.path, known) for reading in column.readings]
        if windows and all(windows):
            readings = study.measure(f"partners of {column.name}", [Item(window) for window in windows])
            if len(readings) == len(windows):
                found[column.name] = readings
    return found


def _reference_files(folder: Path) -> dict[str, Path]:
    """Return a reference's files by name, stem and key; names that several files share are left out."""
    keys: dict[str, Path] = {}
    if (folder / MANIFEST_NAME).is_file():
        keys = {entry.key: entry_path(folder, entry) for entry in read_manifest(folder)}
    paths = list(keys.values()) or find_media(folder)
    shared = Counter(name for path in paths for name in {path.name, path.stem})
    return {name: path for path in paths for name in (path.stem, path.name) if shared[name] == 1} | keys


def find_partner(generation: Path, known: Mapping[str, Path]) -> Window | None:
    """Return the real window that a generation was made for, else the file of the same name, else None.

    Only files of the reference are ever opened, whatever the record beside the generation says.
    """
    record = read_record(generation)
    if not record.get("conditions"):
        path, start = known.get(generation.stem), Fraction(0)
    else:
        first = record["conditions"][0]
        path, start = known.get(Path(first["file"]).name), Fraction(first["start"])
    return Window(path, str(path), start) if path is not None else None


def given_sides(generations: Sequence[Path]) -> frozenset[str]:
    """Return the sides (picture, sound) that all of these generations were given whole, by the records beside them."""
    sides = []
    for record in map(read_record, generations):
        is_whole = not record.get("keep") and not record.get("regenerate")
        found = {SIDES[one["modality"]] for one in record.get("conditions", ())} if is_whole else set()
        sides.append(found)
    return frozenset(set.intersection(*sides)) if sides else frozenset()


def read_record(generation: Path) -> dict[str, Any]:
    """Return the JSON beside a generation; a stranger's file: anything wrong in it is as its absence."""
    try:
        record = json.loads(generation.with_suffix(".json").read_text(encoding="utf-8"))
        for one in record.get("conditions", ()):
            if one["modality"] not in SIDES or Fraction(one["start"]) < 0 or not isinstance(one["file"], str):
                return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return {}
    return record


def pair_rows(
    extractors: Mapping[str, Extractor], columns: Sequence[Column], together: Mapping[str, Sequence[Reading]], seed: int
) -> Iterator[Row]:
    """Yield what compares a generation with its partner: KL divergence of PANN's classes, and loudness."""
    for column in columns:
        pairs = list(zip(together.get(column.name, ()), column.readings))
        if "pann" in extractors:
            name = extractors["pann"].name
            how = "KL(real || generated) of softmax over classes, mean over pairs"
            yield from _pair_row("KL", name, "lower", how, column, pairs, seed, _divergence)
        how = f"share of sounds within {LOUDNESS_TOLERANCE_LU} LU of their partner's integrated loudness"
        yield from _pair_row("same loudness", Loudness.name, "higher", how, column, pairs, seed, _is_as_loud)


def _pair_row(metric, extractor, better, how, column, pairs, seed, score) -> Iterator[Row]:
    both = [(real.arrays[extractor], made.arrays[extractor]) for real, made in pairs
            if extractor in real.arrays and extractor in made.arrays]  # fmt: skip
    if both:
        parts = [(score(real, made), 1.0) for real, made in both]
        estimate = ratio(parts, [(i,) for i in range(len(parts))], len(parts), seed)
        yield Row(metric, extractor, "pairs", better, column.name, column.kind, estimate, how)


def _divergence(real: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray]) -> float:
    return classes.kl_divergence(real["logits"], made["logits"])


def _is_as_loud(real: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray]) -> float:
    return float(abs(real["lufs"][0] - made["lufs"][0]) <= LOUDNESS_TOLERANCE_LU)
