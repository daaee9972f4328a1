"""`mmdiff-data cut`: recordings in, exactly paired clips out, in splits by source; restartable at any point."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from os import cpu_count
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from data_tools.card import write_card
from data_tools.cut_config import CutConfig, tool_version
from data_tools.cut_source import (
    STAGING,
    CutTask,
    as_settings,
    cut_source,
    find_clip,
    finish_state,
    load_state,
    new_state,
    plan_source,
    reject,
)  # fmt: skip
from data_tools.dataset import STATS_NAME, summarize, write_rejects, write_set, write_text
from data_tools.engine import ENGINES, Crash, run_pool, run_ray
from data_tools.footage import assign_splits
from data_tools.sources import Source, fetch, is_remote, list_sources

CONFIG_NAME = "config.yaml"


@dataclass(frozen=True)
class CutReport:
    """What a run left in the set: statistics, rejects, and how many recordings were cut by this very run."""

    output: Path
    stats: dict[str, Any]
    rejects: list[dict[str, str]]
    num_sources: int
    num_cut_now: int


def cut(place: str, out: Path, config: CutConfig, *, workers: int = 2, engine: str = "pool") -> CutReport:
    """Cut all recordings of a folder or URL, and write the set.

    The same recordings and settings give the same set, however often the run is interrupted, with any number of workers
    and any engine. Errors: `ValueError` where there is nothing to cut, or `out` holds clips cut with other settings.
    """
    sources = list_sources(place)
    _open_output(out, config)
    tasks = _tasks(sources, out, config, workers)
    states = {index: state for index, task in enumerate(tasks) if (state := load_state(task)) and state["is_done"]}
    todo = [index for index in range(len(tasks)) if index not in states]
    with _Progress(sources, states) as progress:
        for place_in_todo, result in _run(cut_source, [tasks[index] for index in todo], workers, engine, progress.hear):
            index = todo[place_in_todo]
            states[index] = _crashed(tasks[index], result) if isinstance(result, Crash) else result
            progress.finish(index)
    return _publish(out, config, [states[index] for index in range(len(tasks))], sources, len(todo))


def plan(place: str, out: Path, config: CutConfig, *, workers: int = 2, engine: str = "pool") -> dict[str, Any]:
    """Return what `cut` would do, from the recordings' packets alone: nothing is written."""
    sources = list_sources(place)
    tasks = _tasks(sources, out, config, workers)
    found = {}
    for index, result in _run(plan_source, tasks, workers, engine, lambda message: None):
        found[index] = {**new_state(tasks[index]), "rejects": [reject(sources[index], "crash", result.reason)]} \
            if isinstance(result, Crash) else result  # fmt: skip
    usable = [source for index, source in enumerate(sources) if found[index]["planned"]]
    splits = _splits([source.group for source in usable], config)
    shares = dict.fromkeys(("train", "validation", "test"), 0)
    for index, source in enumerate(sources):
        if found[index]["planned"]:
            shares[splits[source.group]] += found[index]["planned"]
    return {
        "input": place, "output": str(out), "sources": len(sources), "usable_sources": len(usable),
        "clips": sum(shares.values()), "is_upper_bound": config.mode == "scene", "splits": shares,
        "rejects": [line for index in sorted(found) for line in found[index]["rejects"]],
        "settings": as_settings(config), "dry_run": True,
    }  # fmt: skip


def _open_output(out: Path, config: CutConfig) -> None:
    """Write the settings into a new folder, or compare them with those of an earlier run."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: a file, not a folder; name a folder to write to")
    text = yaml.safe_dump(
        {"tool": tool_version(), "fingerprint": config.fingerprint(), "cut": as_settings(config)}, sort_keys=False
    )
    path = out / CONFIG_NAME
    if path.is_file():
        if path.read_text(encoding="utf-8") != text:
            raise ValueError(f"{out}: holds clips cut with other settings ({path}); choose another folder or delete it")
        return
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out}: is not empty and no earlier cut; name a new folder")
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def _tasks(sources: list[Source], out: Path, config: CutConfig, workers: int) -> list[CutTask]:
    threads = max((cpu_count() or 1) // max(min(workers, len(sources)), 1), 1)
    return [CutTask(source, out, config, threads=threads) for source in sources]


def _run(stage, tasks: list[CutTask], workers: int, engine: str, on_message) -> Iterator[tuple[int, Any]]:
    if engine not in ENGINES or workers < 1:
        raise ValueError(
            f"--engine {engine}, --workers {workers}: choose {' or '.join(ENGINES)}, and at least 1 worker"
        )
    if not tasks:
        return
    if engine == "ray":
        yield from run_ray(stage, tasks, workers, on_message=on_message)
        return
    scratch = tasks[0].out / "state" / "copies"
    try:
        for index, result in run_pool(stage, tasks, workers, on_message=on_message, prepare=partial(_prepare, scratch)):
            if is_remote(tasks[index].source):
                _copy_of(tasks[index].source, scratch).unlink(missing_ok=True)
            yield index, result
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _prepare(scratch: Path, task: CutTask) -> CutTask:
    """Copy a remote recording here, a few ahead of the workers."""
    return replace(task, local=fetch(task.source, scratch)) if is_remote(task.source) else task


def _copy_of(source: Source, scratch: Path) -> Path:
    return scratch / (source.state_name + Path(source.name).suffix)


def _crashed(task: CutTask, crash: Crash) -> dict[str, Any]:
    state = load_state(task) or new_state(task)
    state["rejects"] = [reject(task.source, "crash", crash.reason)]
    return finish_state(task, state)


def _publish(out: Path, config: CutConfig, states: list[dict], sources: list[Source], num_cut_now: int) -> CutReport:
    """Give every source its split, put its clips there, and write the lists; done again it changes nothing."""
    rejects, rows, first = [], [], {}
    for source, state in zip(sources, states, strict=True):
        rejects += state["rejects"]
        twin = first.setdefault(state["sha256"], source.name) if state["sha256"] else source.name
        if twin != source.name and state["rows"]:
            rejects.append(reject(source, "duplicate", f"the same contents as {twin}"))
        elif twin == source.name:
            rows += state["rows"]
    splits = _splits(list(dict.fromkeys(row["source"] for row in rows)), config)
    rows = [_place(out, row, splits[row["source"]]) for row in rows]
    shutil.rmtree(out / STAGING, ignore_errors=True)
    for path in [*out.glob(".*.partial"), *out.glob("*/.*.partial"), *out.glob("files/*/.*.partial*")]:
        path.unlink()  # what a killed run was writing
    write_set(out, rows)
    write_rejects(out, rejects)
    stats = {**summarize(rows, rejects), "sources": len(sources)}
    write_text(out / STATS_NAME, json.dumps(stats, indent=2, sort_keys=True) + "\n")
    write_card(out, config, stats)
    return CutReport(out, stats, rejects, len(sources), num_cut_now)


def _splits(groups: list[str], config: CutConfig) -> dict[str, str]:
    return assign_splits(sorted(set(groups)), config.seed, config.split_fractions)


def _place(out: Path, row: dict[str, Any], split: str) -> dict[str, Any]:
    """Move a clip to its split's folder, and return its row with path and split."""
    path = f"files/{split}/{row['key']}.mp4"
    there = find_clip(out, row["key"])
    if there != out / path:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        there.replace(out / path)
    return {"path": path, "split": split, **row}


class _Progress:
    """A bar of clips: how many there will be is known of recordings scanned, and estimated by size of others."""

    def __init__(self, sources: list[Source], states: dict[int, dict]):
        self.sources, self.num_done = sources, len(states)
        done = sum(len(state["rows"]) for state in states.values())
        self.scanned = [source.num_bytes for index, source in enumerate(sources) if index in states]
        self.known = sum(state["planned"] for state in states.values())
        self.bar = tqdm(desc="cut", unit="clip", initial=done, disable=len(states) == len(sources))

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def hear(self, message: dict) -> None:
        """Take what a stage tells."""
        self.known += message.get("planned", 0)
        self.bar.update(message.get("clips", 0))

    def finish(self, index: int) -> None:
        """Count a recording as done."""
        self.num_done += 1
        self.scanned.append(self.sources[index].num_bytes)
        share = sum(self.scanned) / max(sum(source.num_bytes for source in self.sources), 1)
        self.bar.total = max(round(self.known / share) if share else self.known, self.bar.n)
        self.bar.set_postfix_str(f"{self.num_done}/{len(self.sources)} recordings")
