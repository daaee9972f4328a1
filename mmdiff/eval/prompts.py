"""`mmdiff evaluate prompts`: do generations show and sound what their prompts say?

Classifiers trained on the real clips of a strikes benchmark (`mmdiff.eval.strikes`) read colour, kind, material and
count from its real test clips and from generations; the answers are compared with what captions and prompts say.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mmdiff.data.manifest import entry_path, read_manifest
from mmdiff.data.strikes import FACTS, facts_of, read_prompt
from mmdiff.eval import strikes
from mmdiff.eval.files import write_json
from mmdiff.eval.statistics import share_interval
from mmdiff.eval.suite import name_folders
from mmdiff.eval.windows import MAX_REAL_WINDOWS, evenly, find_media, protocol_spec
from mmdiff.media import Clip, ClipSpec, read_clip

RESULT_NAME = "prompts.json"
NUM_TRAINING = 400  # clips
REAL = "real clips"
TOGETHER = "all four"
FOUR = ("colour", "kind", "material, heard", "count, heard")  # what `TOGETHER` asks for
MAX_RECORD = 1_000_000  # bytes


@dataclass(frozen=True)
class Asked:
    """A file and what its prompt says, by the names of `Facts`."""

    path: Path
    prompt: str
    said: Mapping[str, Any]


@dataclass(frozen=True)
class Answered:
    """A file and what was read from it, by the names of `strikes.FACT_OF`."""

    asked: Asked
    found: Mapping[str, Any]


def run_prompts(options: argparse.Namespace) -> int:
    """Measure, print the table, and write `prompts.json`.

    Errors: `ValueError` where a folder is missing, has no prompts, or is no strikes benchmark.
    """
    result = evaluate_prompts(options.reference, options.generations, split=options.split, seed=options.seed)
    if options.output is not None:
        print(f"wrote {write_json(options.output / RESULT_NAME, result)}", file=sys.stderr)
    print(json.dumps(result, allow_nan=False) if options.json else format_table(result))
    return 0


def evaluate_prompts(
    reference: Path, generations: Sequence[Path], *, split: str = "test", seed: int = 0
) -> dict[str, Any]:
    """Return the result that `prompts.json` holds: rows of shares with intervals, and every clip's answers.

    Everything is read in the shape of the first generation, but no longer than the shortest real clip.
    """
    rejected: list[dict[str, str]] = []
    made = {name: find_prompts(folder, rejected) for name, folder in name_folders(generations).items()}
    training = evenly(find_real(Path(reference), "train"), NUM_TRAINING)
    real = evenly(find_real(Path(reference), split), MAX_REAL_WINDOWS)
    spec = protocol_spec([asked.path for folder in made.values() for asked in folder])
    spec = _no_longer(spec, min(entry.duration_seconds for entry in read_manifest(reference)))
    clips = tqdm(training, desc="training", unit="clip", file=sys.stderr, disable=None)
    reader = strikes.train_reader((read_clip(a.path, spec) for a in clips), [a.said for a in training], seed=seed)
    answered = {REAL: answer(REAL, real, reader, spec, rejected)}
    answered |= {name: answer(name, asked, reader, spec, rejected) for name, asked in made.items()}
    return {
        "protocol": {
            "reference": str(reference), "split": split, "training_clips": len(training), "seed": seed,
            "fps": str(spec.fps), "num_frames": spec.num_frames, "height": spec.height, "width": spec.width,
            "sample_rate": spec.sample_rate, "interval": "Wilson, 95 %", "chance": "every clip with all other prompts",
        },
        "rows": [row for name, found in answered.items() for row in make_rows(name, found)],
        "clips": [
            {"row": name, "file": str(one.asked.path), "prompt": one.asked.prompt, "said": one.asked.said,
             "found": one.found}
            for name, found in answered.items() for one in found
        ],
        "rejected": rejected,
    }  # fmt: skip


def find_prompts(folder: Path, rejected: list[dict[str, str]]) -> list[Asked]:
    """Return a folder's generations whose prompts name facts; the others are listed as rejected.

    Errors: `ValueError` where no prompt of the folder does.
    """
    found = []
    for path in find_media(folder):
        prompt = read_record(path)
        said = read_prompt(prompt)
        if said:
            found.append(Asked(path, prompt, said))
        else:
            reason = f"'{prompt}' names no {', '.join(FACTS)}" if prompt else "no JSON beside it has a prompt"
            rejected.append({"file": str(path), "reason": f"{path}: {reason}"})
    if not found:
        raise ValueError(
            f"{folder}: no file has a prompt that can be checked; put x.json beside x.mp4, with "
            '{"prompt": "a red ball bounces twice on wood"}'
        )
    return found


def read_record(path: Path) -> str:
    """Return the prompt in the JSON beside a generation; empty where there is none or it is malformed."""
    record = path.with_suffix(".json")
    if not record.is_file() or record.stat().st_size > MAX_RECORD:
        return ""
    try:
        values = json.loads(record.read_text(encoding="utf-8"))
    except ValueError:
        return ""
    prompt = values.get("prompt") if isinstance(values, dict) else None
    return " ".join(prompt.split()) if isinstance(prompt, str) else ""


def find_real(folder: Path, split: str) -> list[Asked]:
    """Return the real clips of a split with their facts.

    Errors: `ValueError` where the split is empty or the set is no strikes benchmark.
    """
    entries = read_manifest(folder)
    chosen = [entry for entry in entries if entry.split == split]
    if not chosen:
        there = ", ".join(sorted({entry.split for entry in entries})) or "none"
        raise ValueError(f"{folder}: no files in split '{split}'; there are: {there} (--split)")
    return [Asked(entry_path(folder, entry), entry.caption, vars(facts_of(entry))) for entry in chosen]


def answer(
    name: str, asked: Sequence[Asked], reader: strikes.Reader, spec: ClipSpec, rejected: list[dict[str, str]]
) -> list[Answered]:
    """Read the facts of all files; those that cannot be read are listed as rejected and left out."""
    return [Answered(one, reader.read(clip)) for one, clip in _read(name, asked, spec, rejected)]


def make_rows(name: str, answered: Sequence[Answered]) -> list[dict[str, Any]]:
    """Return for every question how often the answer is what the prompt says, and how often by chance.

    A prompt that does not name a fact is not asked for it. Chance is exact: every clip's answer against the prompts of
    all others.
    """
    rows = []
    for question in (*strikes.FACT_OF, TOGETHER):
        said, found = compare(question, answered)
        count = len(said)
        is_right = np.array([[a == b for b in said] for a in found], bool).reshape(count, count)
        hits, pairs = int(is_right.trace()), count * (count - 1)
        rows.append({
            "name": name, "question": question, "num_clips": count, "num_right": hits,
            "right": share_interval(hits, count).as_dict(),
            "chance": (int(is_right.sum()) - hits) / pairs if pairs else None,
        })  # fmt: skip
    return rows


def compare(question: str, answered: Sequence[Answered]) -> tuple[list[tuple], list[tuple]]:
    """Return what prompts say and what was found, of the clips whose prompt names what the question is about."""
    facts = {one: strikes.FACT_OF[one] for one in (FOUR if question == TOGETHER else (question,))}
    fit = [one for one in answered if set(facts.values()) <= set(one.asked.said)]
    said = [tuple(one.asked.said[fact] for fact in facts.values()) for one in fit]
    return said, [tuple(one.found[name] for name in facts) for one in fit]


def format_table(result: dict[str, Any]) -> str:
    """Return the result as text."""
    rows, protocol = result["rows"], result["protocol"]
    width = max(len(row["name"]) for row in rows)
    lines = [f"{'':{width}}  {'question':16}{'clips':>6}  {'answer is as the prompt':^23}  chance"]
    for row in rows:
        share = row["right"]
        told = "-" if share["value"] is None else f"{share['value']:.2f} [{share['low']:.2f}, {share['high']:.2f}]"
        chance = "-" if row["chance"] is None else f"{row['chance']:.2f}"
        lines.append(f"{row['name']:{width}}  {row['question']:16}{row['num_clips']:>6}  {told:^23}  {chance:>6}")
    lines.append(
        f"shares with 95 % Wilson intervals; chance: the same answers against all other prompts; "
        f"read in {protocol['num_frames']} frames at {protocol['fps']} fps"
    )
    lines.append(f"trained on {protocol['training_clips']} real clips; '{TOGETHER}' is {'; '.join(FOUR)}")
    lines += [f"left out: {item['reason']}" for item in result["rejected"]]
    return "\n".join(lines)


def _no_longer(spec: ClipSpec, seconds: Fraction) -> ClipSpec:
    """Return a spec that lasts no longer than so many seconds."""
    unit = (spec.sample_rate / spec.fps).denominator
    return replace(spec, num_frames=min(spec.num_frames, int(seconds * spec.fps) // unit * unit))


def _read(
    name: str, asked: Sequence[Asked], spec: ClipSpec, rejected: list[dict[str, str]]
) -> Iterator[tuple[Asked, Clip]]:
    for one in tqdm(asked, desc=name, unit="clip", file=sys.stderr, disable=None):
        try:
            yield one, read_clip(one.path, spec)
        except (ValueError, OSError) as error:
            rejected.append({"file": str(one.path), "reason": str(error)})
