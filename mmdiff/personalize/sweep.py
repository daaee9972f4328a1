"""`mmdiff personalize sweep`: train recipes that differ, ask each for the same prompts and seeds, and compare them."""

import argparse
import hashlib
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from mmdiff.eval.concept.read import find_files
from mmdiff.eval.concept.run import evaluate_concept
from mmdiff.eval.features.registry import load_extractor
from mmdiff.eval.files import write_json
from mmdiff.log import get_logger
from mmdiff.personalize.exports import RECORD, read_record
from mmdiff.personalize.sweep_commands import Ended, StoppedError, alone_in, run_command
from mmdiff.personalize.sweep_plan import Row, Sweep, read_sweep
from mmdiff.personalize.sweep_report import write_report
from mmdiff.train.stop import STOPPED_STATUS, StopRequest

STATE, RESULT = "row.json", "sweep.json"


@dataclass
class Outcome:
    """What became of a row: its generations and seconds of training, or why there are none."""

    name: str
    changes: dict[str, Any]
    seconds_trained: float | None = None
    generations: str | None = None  # their folder
    fault: str | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)  # its numbers, as `evaluate_concept` returns them


def run_sweep(options: argparse.Namespace) -> int:
    """Run the rows that are not finished, print the table, and write `sweep.json`, `sweep.html` and a picture.

    Return 0, 1 where a row failed, or 75 where a signal stopped it; the same command goes on.

    Errors: `ValueError` where the sweep, a row's recipe, the concept's folder or weights cannot be used.
    """
    sweep = read_sweep(options.sweep, options.overrides, options.output)
    unknown = set(options.only) - {row.name for row in sweep.rows}
    if unknown:
        raise ValueError(f"--only {sorted(unknown)[0]}: no such row; there are {', '.join(r.name for r in sweep.rows)}")
    if options.dry_run:
        for row in sweep.rows:
            print(f"{row.name}\n  mmdiff train {shlex.join([str(row.base), *row.words])}")
            print(f"  mmdiff {shlex.join(sampling_words(sweep, row, options.device))}")
        return 0
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    _check(sweep)
    outcomes = []
    try:
        with alone_in(options.output) as lock, StopRequest() as stop:
            for row in sweep.rows:
                is_wanted = not options.only or row.name in options.only
                if is_wanted or is_finished(sweep, row):
                    outcomes.append(run_row(sweep, row, options.device, lambda words: run_command(words, stop, lock)))
    except StoppedError:
        print("stopped by a signal; the same command goes on where it stopped", file=sys.stderr)
        return STOPPED_STATUS
    result = compare(sweep, outcomes, device)
    write_json(options.output / RESULT, result)
    table = write_report(options.output, result, sweep.recipe.generations_per_prompt)
    print(json.dumps(result, ensure_ascii=False) if options.json else table)
    return 1 if result["faults"] else 0


def run_row(sweep: Sweep, row: Row, device: str | None, run: Callable[[list[str]], Ended]) -> Outcome:
    """Train a row and make its generations, as far as that is not done; `run` runs a command of mmdiff."""
    outcome = Outcome(row.name, row.changes)
    state = _read_state(row)
    if state.get("settings") != row.settings or not (row.run / "export").is_dir():
        get_logger().info("row %s: training", row.name)
        ended = run(["train", str(row.base), *row.words])
        if ended.status:
            outcome.fault = f"training ended with status {ended.status}: {ended.last_line}"
            return outcome
        state = {"settings": row.settings}
        write_json(row.folder / STATE, state)
    words = sampling_words(sweep, row, device)
    if state.get("sampled") != words:
        get_logger().info("row %s: making generations", row.name)
        ended = run(words)
        if ended.status:
            outcome.fault = f"sampling ended with status {ended.status}: {ended.last_line}"
            return outcome
        write_json(row.folder / STATE, {**state, "sampled": words})
    outcome.seconds_trained, outcome.generations = _seconds_trained(row), str(_generations(sweep, row))
    return outcome


def is_finished(sweep: Sweep, row: Row) -> bool:
    """Say whether a row was trained with these settings and has made its generations."""
    state = _read_state(row)
    return state.get("settings") == row.settings and "sampled" in state and _generations(sweep, row).is_dir()


def sampling_words(sweep: Sweep, row: Row, device: str | None) -> list[str]:
    """Return the command that makes a row's generations: the same prompts and seeds for all."""
    words = ["personalize", "sample", str(row.run / "export"), "--prompts", *sweep.prompts, "-n",
             str(sweep.recipe.generations_per_prompt), "-o", str(_generations(sweep, row))]  # fmt: skip
    export = row.run / "export"
    knows = not (export / RECORD).is_file() or read_record(export).get("concept")
    more = {**sweep.recipe.sample, "concept": None if knows else sweep.recipe.concept, "device": device}
    return words + [f"--{key.replace('_', '-')}={value}" for key, value in more.items() if value is not None]


def compare(sweep: Sweep, outcomes: Sequence[Outcome], device: str) -> dict[str, Any]:
    """Return the result: every row with its numbers, those of the concept itself, notes and faults."""
    notes, controls = [], []
    folders = {row.name: row.concept_folder for row in sweep.rows}
    faults = {each.name: each.fault for each in outcomes if each.fault}
    for concept in dict.fromkeys(folders[each.name] for each in outcomes if each.generations):
        own = {each.name: each for each in outcomes if each.generations and folders[each.name] == concept}
        made = {name: Path(each.generations) for name, each in own.items()}
        try:
            found = evaluate_concept(
                Path(concept), made, sweep.recipe.weights, device=device,
                reference=Path(sweep.recipe.reference) if sweep.recipe.reference else None,
            )  # fmt: skip
        except (ValueError, RuntimeError) as error:  # what was trained is not lost by it, and the others go on
            faults |= dict.fromkeys(own, f"not measured: {error}")
            continue
        for number in found["rows"]:
            own[number["system"]].rows.append(number) if number["system"] in own else controls.append(number)
        notes += [*found["notes"], *(f"{what}: not measured; {why}" for what, why in found["missing"].items())]
    return {"rows": [asdict(each) for each in outcomes], "controls": controls, "faults": faults,
            "concepts": list(dict.fromkeys(folders.values())),
            "notes": list(dict.fromkeys(notes)), "prompts": list(sweep.prompts), "sample": sweep.recipe.sample,
            "left_out": [name for name in folders if name not in {each.name for each in outcomes}]}  # fmt: skip


def _check(sweep: Sweep) -> None:
    """Refuse before training what would only be found after it."""
    for row in sweep.rows:
        find_files(Path(row.concept_folder))
    if sweep.recipe.reference:
        find_files(Path(sweep.recipe.reference))
    for name, source in sweep.recipe.weights.items():
        load_extractor(name, str(source))


def _generations(sweep: Sweep, row: Row) -> Path:
    """Return where a row's generations lie: a folder for all that decides them, so that none is taken for another."""
    facts = [row.settings, sweep.prompts, sweep.recipe.generations_per_prompt, sweep.recipe.sample,
             sweep.recipe.concept]  # fmt: skip
    return row.folder / f"generations-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]}"


def _read_state(row: Row) -> dict[str, Any]:
    try:
        state = json.loads((row.folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _seconds_trained(row: Row) -> float | None:
    """Return the seconds of all training steps, interruptions left out; None where none was taken."""
    path = row.run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    told = [values["elapsed_seconds"] for values in map(json.loads, lines) if "elapsed_seconds" in values]
    return round(told[-1], 1) if told else None
