"""Footage: render clips in worker processes, write them as MP4 files, split them, and list them in a manifest."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmdiff.data.manifest import MANIFEST_NAME, SPLITS, Entry, Event, write_manifest
from mmdiff.media.clip import Clip
from mmdiff.media.spec import as_fps

SPLIT_FRACTIONS = (0.9, 0.05, 0.05)
JOURNAL_NAME = ".footage.jsonl"


@dataclass(frozen=True)
class Footage:
    """One rendered clip with the times of what happens in it (seconds), a caption, and its licence."""

    clip: Clip
    events: tuple[Event, ...]
    caption: str
    licence: str


Render = Callable[[], Footage]


def assign_splits(keys: Sequence[str], seed: int, fractions: Sequence[float] = SPLIT_FRACTIONS) -> dict[str, str]:
    """Give every key (a source of its own) a split, by a seeded draw.

    fractions: train, validation and test, adding up to 1. From three keys on, a split whose fraction is not 0 gets at
    least one; fewer keys all go to train. Errors: `ValueError` where the fractions are not three shares of a whole.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6 or fractions[0] <= 0:
        raise ValueError(
            f"split fractions: {tuple(fractions)}; give train, validation, test that add up to 1, with some train"
        )
    if len(keys) < 3:
        return dict.fromkeys(keys, "train")
    held_out = [max(1, round(len(keys) * share)) if share > 0 else 0 for share in fractions[1:]]
    if sum(held_out) >= len(keys):
        raise ValueError(f"split fractions: {tuple(fractions)} leave no train file out of {len(keys)}; make more files")
    names = [SPLITS[0]] * (len(keys) - sum(held_out)) + [SPLITS[1]] * held_out[0] + [SPLITS[2]] * held_out[1]
    order = np.random.default_rng(seed).permutation(len(keys))
    return {keys[index]: name for index, name in zip(order, names, strict=True)}


def write_footage(
    out: Path,
    renders: Sequence[tuple[str, Render]],
    *,
    seed: int,
    workers: int = 1,
    name: str = "footage",
    fractions: Sequence[float] = SPLIT_FRACTIONS,
) -> list[Entry]:
    """Render, write `out/files/<split>/<key>.mp4` and then `out/manifest.jsonl`; return the entries in the given order.

    renders: (key, picklable callable such as a `functools.partial` of a module's function) pairs; what is written does
    not depend on `workers`. An interrupted run goes on where it stopped when the same call is made again, and a
    finished one returns at once. Errors: `ValueError` where keys repeat or the folder holds other footage.
    """
    out, keys = Path(out), [key for key, _ in renders]
    if not keys or len(set(keys)) < len(keys):
        raise ValueError(f"{name}: {len(keys)} clips asked for, {len(set(keys))} keys; give each its own key")
    if workers < 1:
        raise ValueError(f"{name}: {workers} workers; give at least 1")
    splits = assign_splits(keys, seed, fractions)
    done = _open_journal(out, _fingerprint(name, renders, splits))
    todo = [
        partial(write_clip, out, f"files/{splits[key]}/{key}.mp4", render, key, f"{name}/{key}", splits[key])
        for key, render in renders
        if key not in done
    ]
    with (out / JOURNAL_NAME).open("a", encoding="utf-8") as journal:
        for entry in tqdm(
            _run_all(todo, workers), desc=name, unit="clip", total=len(keys), initial=len(done), disable=not todo
        ):
            done[entry.key] = entry
            journal.write(json.dumps({**asdict(entry), "fps": str(entry.fps)}) + "\n")
            journal.flush()
    entries = [done[key] for key in keys]
    write_manifest(out, entries)
    return entries


def synthesize(
    name: str,
    render: Callable[..., Footage],
    out: Path,
    *,
    count: int = 40,
    seconds: float = 34,
    fps: Fraction | str | float = 30,
    height: int = 64,
    width: int = 64,
    sample_rate: int = 16_000,
    seed: int = 0,
    workers: int = 1,
    fractions: Sequence[float] = SPLIT_FRACTIONS,
) -> list[Entry]:
    """Write `count` files that `render(seed, index, ...)` draws, and their manifest; one seed gives the same bytes.

    Errors: `ValueError` where a number is impossible.
    """
    if seconds < 1:
        raise ValueError(f"{name}: {seconds} seconds; give at least 1")
    size = {"seconds": seconds, "fps": as_fps(fps), "height": height, "width": width, "sample_rate": sample_rate}
    renders = [(f"{name}-{seed}-{index:04d}", partial(render, seed, index, **size)) for index in range(count)]
    return write_footage(out, renders, seed=seed, workers=workers, name=name, fractions=fractions)


def write_clip(out: Path, path: str, render: Render, key: str, source: str, split: str) -> Entry:
    """Render one clip, write it below `out` at the relative path, and return its manifest entry."""
    from mmdiff.media.mux import write_mp4

    footage = render()
    clip = footage.clip
    write_mp4(out / path, clip)
    return Entry(
        path=path,
        key=key,
        source=source,
        split=split,
        fps=clip.fps,
        num_frames=clip.num_frames,
        height=clip.frames.shape[1],
        width=clip.frames.shape[2],
        sample_rate=clip.sample_rate,
        channels=clip.waveform.shape[0],
        num_samples=clip.num_samples,
        caption=footage.caption,
        licence=footage.licence,
        sha256=hashlib.sha256((out / path).read_bytes()).hexdigest(),
        events=footage.events,
    )


def _run_all(tasks: Sequence[Callable[[], Entry]], workers: int) -> Iterator[Entry]:
    if workers == 1 or len(tasks) < 2:
        yield from (task() for task in tasks)
        return
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fingerprint(name: str, renders: Sequence[tuple[str, Render]], splits: dict[str, str]) -> str:
    def identify(render: Render) -> list:
        if isinstance(render, partial):
            return [*identify(render.func), repr(render.args), repr(sorted(render.keywords.items()))]
        return [getattr(render, "__module__", ""), getattr(render, "__qualname__", type(render).__name__)]

    text = json.dumps([name, [[key, splits[key], *identify(render)] for key, render in renders]])
    return hashlib.sha256(text.encode()).hexdigest()


def _open_journal(out: Path, plan: str) -> dict[str, Entry]:
    """Return the entries an earlier run of the same plan finished, by key; begin the journal where there is none."""
    journal = out / JOURNAL_NAME
    lines = journal.read_text(encoding="utf-8").split("\n")[:-1] if journal.is_file() else []
    if lines and json.loads(lines[0]) == {"plan": plan}:
        journal.write_text("\n".join(lines) + "\n", encoding="utf-8")  # drops a line cut off by a crash
        entries = [Entry(**json.loads(line)) for line in lines[1:]]
        return {entry.key: entry for entry in entries if (out / entry.path).is_file()}
    if lines or (out / MANIFEST_NAME).exists():
        raise ValueError(f"{out}: holds footage made with other settings; choose another folder or delete this one")
    out.mkdir(parents=True, exist_ok=True)
    journal.write_text(json.dumps({"plan": plan}) + "\n", encoding="utf-8")
    return {}
