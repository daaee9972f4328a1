"""`mmdiff evaluate REF GEN`: clips are gathered and measured, and every number gets its controls and its interval."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from mmdiff.data.manifest import MANIFEST_NAME, read_manifest
from mmdiff.eval.features.base import Extractor
from mmdiff.eval.features.registry import load_extractors, parse_weights
from mmdiff.eval.files import write_json
from mmdiff.eval.quality import agreement, memory, sets
from mmdiff.eval.quality.card import describe
from mmdiff.eval.quality.collect import Item, Reading, collect
from mmdiff.eval.quality.columns import SHIFTS_MS, Column, floor_sets, shifted_items, shuffled_items
from mmdiff.eval.quality.facts import cost_rows, fact_rows
from mmdiff.eval.quality.measures import Events, Loudness, OnsetsAndFlow
from mmdiff.eval.quality.music import Music, music_rows
from mmdiff.eval.quality.pairs import given_sides, pair_rows, partners
from mmdiff.eval.quality.presets import Preset, find_preset
from mmdiff.eval.quality.ranks import Ranks
from mmdiff.eval.quality.sets import Row
from mmdiff.eval.quality.store import FeatureStore, default_folder
from mmdiff.eval.quality.table import differences, format_result, to_numbers
from mmdiff.eval.quality.text import read_prompts, text_rows
from mmdiff.eval.suite import name_folders
from mmdiff.eval.windows import Window, evenly, find_media, protocol_spec, real_windows
from mmdiff.media import ClipSpec

RESULT_NAME = "evaluation.json"
MEASURES = {"events": Events, "av-align": OnsetsAndFlow, "loudness": Loudness, "music": Music}
ALIGNED = ("events", "av-align", "imagebind", "synchformer")  # extractors that hear and see: for the moved sound
JOINT = ("synchformer",)
TRAINING = "train"


@dataclass(frozen=True)
class Request:
    """What a user asks for: folders, protocol, weights by extractor, and how much of it."""

    reference: Path
    generations: tuple[Path, ...]
    preset: Preset
    weights: dict[str, str]
    split: str
    training: Path | None = None
    num_clips: int | None = None
    num_training: int = 512
    prompts: Mapping[str, str] = field(default_factory=dict)  # by the generation's file name
    cache: Path | None = None
    device: str = "cpu"
    seed: int = 0


@dataclass
class Study:
    """A request with what it found out: the clips' shape, the extractors, and where features are kept."""

    request: Request
    spec: ClipSpec
    extractors: dict[str, Extractor]
    missing: dict[str, str]
    store: FeatureStore
    ranks: Ranks
    rejected: list[dict[str, str]]

    def measure(self, label: str, items: Sequence[Item], keys: Sequence[str] | None = None) -> tuple[Reading, ...]:
        """Return what the extractors (all, or those of some keys) make of items; files that fail are noted.

        Under torchrun every rank computes its share into the store, and then reads all of it.
        """
        chosen = [self.extractors[key] for key in (self.extractors if keys is None else keys)]
        self.ranks.share(lambda part: collect(part, chosen, self.store, self.spec, label), items)
        readings = collect(items, chosen, self.store, self.spec, label)
        for reading in readings:
            where = {"row": label, "file": reading.item.picture.shown}
            if reading.fault:
                self.rejected.append({**where, "by": "reader", "reason": reading.fault})
            for name, reason in reading.reasons.items():
                self.rejected.append({**where, "by": name, "reason": reason})
        return tuple(reading for reading in readings if not reading.fault)

    def find_windows(self, label: str, folder: Path, split: str, most: int = sys.maxsize) -> list[Window]:
        """Return windows of real clips, evenly spread where there are more; unreadable files are noted."""
        lost: list[dict[str, str]] = []
        windows = real_windows(folder, self.spec, split, lost, most)
        self.rejected += [{"row": label, "by": "reader", **item} for item in lost]
        return windows


def run_evaluation(options: argparse.Namespace) -> int:
    """Measure generations against real clips; print the table, and write `evaluation.json` and `evaluation.html`.

    Errors: `ValueError` where a folder, protocol, prompt file or weights are missing or wrong.
    """
    request = request_from(options)
    ranks = Ranks.start()
    study = prepare(request, ranks)
    if options.dry_run:
        if ranks.is_first:
            print(json.dumps(describe(study), indent=1))
        return 0
    result = evaluate(study)
    if not ranks.is_first:
        return 0
    if options.output is not None:
        from mmdiff.eval.quality.page import write_page

        path = write_json(options.output / RESULT_NAME, result)
        print(f"wrote {path} and {write_page(options.output, result)}", file=sys.stderr)
    print(json.dumps(result, allow_nan=False) if options.json else format_result(result))
    return 0


def request_from(options: argparse.Namespace) -> Request:
    """Make a request from the command line's options."""
    preset = find_preset(options.preset)
    if options.num_clips is not None and options.num_clips < 2:
        raise ValueError(f"--num-clips {options.num_clips}: give at least 2")
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Request(
        options.reference, tuple(options.generations), preset, parse_weights(options.weights),
        options.split or preset.reference_split, training=options.training, num_clips=options.num_clips,
        num_training=options.num_training, prompts=read_prompts(options.prompts), cache=options.cache,
        device=device, seed=options.seed,
    )  # fmt: skip


def prepare(request: Request, ranks: Ranks) -> Study:
    """Find the files, fix the clips' shape and load the extractors."""
    files = [path for folder in request.generations for path in find_media(folder)]
    spec = request.preset.spec or protocol_spec(files)
    loaded, missing = load_extractors(request.preset.extractors, request.weights, ranks.place(request.device))
    own = {name: MEASURES[name]() for name in request.preset.measures}
    store = FeatureStore(request.cache or default_folder())
    return Study(request, spec, {**own, **loaded}, missing, store, ranks, [])


def evaluate(study: Study) -> dict[str, Any]:
    """Return the result that `evaluation.json` holds (its keys are described in docs/evaluation.md).

    Errors: `ValueError` where not one generation or fewer than two real clips can be read.
    """
    request = study.request
    # first, so that a wrong folder or split is told before hours of work
    windows = study.find_windows("real pairs", request.reference, request.split)
    made = measure_generations(study)
    count = min(len(column.readings) for column in made)
    if not count:
        reason = next(item["reason"] for item in study.rejected if item["row"] != "real pairs")
        raise ValueError(f"not one generation of a folder can be read; the first fault is: {reason}")
    pool = study.measure("real pairs", [Item(window) for window in evenly(windows, 2 * count)])
    used = min(count, len(pool))
    if used < 2:
        raise ValueError(
            f"{request.reference}: {len(pool)} real clips can be read, {count} generations; give 2 or more"
        )
    real = Column("real pairs", "real", tuple(evenly(pool, used)))
    made = [replace(column, readings=tuple(evenly(column.readings, used))) for column in made]
    controls = measure_controls(study, real, made)
    training = measure_training(study)
    together = partners(study, made)
    rows = make_rows(study, real, made, pool, controls, training, together)
    return {
        "protocol": describe(study, used, len(training.readings) if training else 0),
        "columns": [summarize(column) for column in (*made, real)],
        "rows": to_numbers(rows),
        "differences": differences(rows),
        "nearest": nearest(study, made, training) if training else [],
        "missing": study.missing,
        "rejected": study.rejected,
    }


def measure_generations(study: Study) -> list[Column]:
    """Measure every folder of generations: the first window of each file."""
    columns = []
    most = study.request.num_clips or study.request.preset.num_clips
    for name, folder in name_folders(study.request.generations).items():
        windows = [Window(path, str(path), Fraction(0)) for path in evenly(find_media(folder), most)]
        readings = study.measure(name, [Item(window) for window in windows])
        given = given_sides([reading.item.picture.path for reading in readings])
        columns.append(Column(name, "generated", readings, given))
    return columns


def measure_controls(study: Study, real: Column, made: Sequence[Column]) -> dict[str, list[Column]]:
    """Measure real pairs whose sound was moved, and shuffled pairs for extractors that look at both sides at once."""
    shifted, shuffled = [], []
    windows = [reading.item.picture for reading in real.readings]
    keys = [key for key in ALIGNED if key in study.extractors]
    for ms in SHIFTS_MS if keys else ():
        name = f"sound {abs(ms)} ms {'late' if ms > 0 else 'early'}"
        if abs(ms) <= 250 * study.spec.duration_seconds:
            shifted.append(Column(name, "shifted", study.measure(name, shifted_items(windows, ms), keys)))
    keys = [key for key in JOINT if key in study.extractors]
    for column in (real, *made) if keys and len(windows) > 1 else ():
        items = shuffled_items([reading.item.picture for reading in column.readings], study.request.seed)
        shuffled.append(Column(column.name, "shuffled", study.measure(f"{column.name}, shuffled", items, keys)))
    return {"shifted": shifted, "shuffled": shuffled}


def measure_training(study: Study) -> Column | None:
    """Measure training clips, in which copies are looked for: the folder given, else the reference's own split."""
    request = study.request
    folder, keys = request.training or request.reference, [key for key in study.extractors if key in sets.USES]
    has_split = (folder / MANIFEST_NAME).is_file() and any(e.split == TRAINING for e in read_manifest(folder))
    if not keys or not request.num_training or request.split == TRAINING or not (has_split or request.training):
        return None
    windows = study.find_windows("training clips", folder, TRAINING, request.num_training)
    readings = study.measure("training clips", [Item(window) for window in windows], keys)
    return Column("training clips", "training", readings)


def make_rows(
    study: Study, real: Column, made: Sequence[Column], pool: Sequence[Reading], controls: dict[str, list[Column]],
    training: Column | None, together: dict[str, tuple[Reading, ...]],
) -> list[Row]:  # fmt: skip
    """Return every number: distances between sets, agreement with its controls, text, pairs, memorisation."""
    rows: list[Row] = []
    seed, fps, preset = study.request.seed, float(study.spec.fps), study.request.preset
    floor = floor_sets(pool, len(real.readings), seed)
    used = {key: extractor.name for key, extractor in study.extractors.items() if key in sets.USES}
    for key, name in used.items():
        rows += sets.distance_rows(key, name, real, own_work(made, key), floor, seed)
    own = [*made, real, *controls["shifted"]]
    shuffled = {column.name: column for column in controls["shuffled"]}
    for score in agreement.scores(fps, preset.av_align, preset.imagebind_views):
        if score.extractor in study.extractors:
            name = study.extractors[score.extractor].name
            rows += agreement.agreement_rows(score, name, own, shuffled, seed)
    rows += agreement.offset_rows(own, fps, seed)
    with_own_sound = [column for column in made if "sound" not in column.given]
    for column in with_own_sound:
        rows += music_rows(column, together.get(column.name, ()), seed)
    rows += text_rows(study.extractors, made, study.request.prompts, seed)
    rows += fact_rows(study, real, made)
    rows += cost_rows(made, seed)
    rows += pair_rows(study.extractors, with_own_sound, together, seed)
    for key, name in used.items():
        if training is not None:
            rows += memory.memorisation_rows(key, name, training, [*own_work(made, key), real], seed)
    return [row for row in rows if not preset.metrics or row.metric in preset.metrics]


def own_work(made: Sequence[Column], key: str) -> list[Column]:
    """Return the columns whose side that an extractor looks at was generated, not given."""
    return [column for column in made if sets.USES[key].side not in column.given]


def nearest(study: Study, made: Sequence[Column], training: Column) -> list[dict[str, Any]]:
    """Return for every extractor and system the generations that are most like a training clip."""
    return [
        pair
        for key, extractor in study.extractors.items()
        if key in sets.USES
        for column in own_work(made, key)
        for pair in memory.nearest_pairs(key, extractor.name, training, column)
    ]


def summarize(column: Column) -> dict[str, Any]:
    """Return what a column holds: its clips' files, and how many of them are silent."""
    loud = [reading.arrays.get(Loudness.name) for reading in column.readings]
    silent = [r for r, found in zip(column.readings, loud) if found is not None and found["peak"][0] < 1e-4]
    return {
        "name": column.name,
        "kind": column.kind,
        "num_clips": len(column.readings),
        "given": sorted(column.given),
        "num_silent": len(silent),
        "silent": [reading.item.picture.shown for reading in silent],
        "clips": [
            {"file": r.item.picture.shown, "start": float(r.item.picture.start)} for r in column.readings
        ],
    }  # fmt: skip
