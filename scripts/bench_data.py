"""Speed of the readers and of the loader on one core, on 34-second clips of the impacts benchmark.

Windows are read from files with PyAV, which keeps sound and picture on one clock, and, where it is installed, with
decord; the loader runs without workers. Rates are per second of processor time. Called by scripts/bench.py, or alone.
"""

import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_tools.impacts import synthesize_impacts
from mmdiff.data.clips import DataConfig
from mmdiff.data.loader import build_loader
from mmdiff.media import ClipSpec, read_audio, read_clip, read_video

NUM_FILES = 4
BATCH_SIZE = 16
SPEC = ClipSpec()


def bench_data(folder: Path) -> list[dict]:
    """Make a few clips in the folder, read them every way, and return rows of `name`, `value` and `unit`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    synthesize_impacts(folder, count=NUM_FILES, fractions=(1.0, 0.0, 0.0))
    paths = sorted(folder.rglob("*.mp4"))
    rows = [
        rate("PyAV: windows, picture and sound", lambda n: read_clip(paths[n % NUM_FILES], SPEC, start=at(n)), 60),
        rate("PyAV: windows, picture", lambda n: read_video(paths[n % NUM_FILES], SPEC, start=at(n)), 60),
        rate("PyAV: windows, sound", lambda n: read_sound(paths[n % NUM_FILES], at(n)), 60),
        rate("PyAV: whole files, picture", lambda n: read_video(paths[n]), NUM_FILES, unit="files/s"),
    ]
    if importlib.util.find_spec("decord"):
        rows += bench_decord(paths)
    rows += [bench_loader(folder, 0, "nothing kept in memory"), bench_loader(folder, 2048, "files kept in memory")]
    torch.set_num_threads(threads)
    return rows


def at(number: int) -> Fraction:
    """Return the start of the n-th window, anywhere in a file."""
    return Fraction(number * 37 % 970, 30)


def read_sound(path: Path, start: Fraction) -> None:
    """Read one window's sound."""
    read_audio(path, sample_rate=SPEC.sample_rate, channels=1, start=start, num_samples=SPEC.num_samples)


def bench_decord(paths: list[Path]) -> list[dict]:
    """Read pictures and sounds with decord, by frame number as it works."""
    from decord import AudioReader, VideoReader

    def picture(number: int) -> None:
        first = round(at(number) * 30)
        reader = VideoReader(str(paths[number % NUM_FILES]), num_threads=1)
        reader.get_batch(range(first, first + 3 * SPEC.num_frames, 3)).asnumpy()

    def sound(number: int) -> None:
        first = round(at(number) * SPEC.sample_rate)
        reader = AudioReader(str(paths[number % NUM_FILES]), sample_rate=SPEC.sample_rate, mono=True)
        reader[first : first + SPEC.num_samples].asnumpy()

    def whole(number: int) -> None:
        reader = VideoReader(str(paths[number]), num_threads=1)
        reader.get_batch(range(len(reader))).asnumpy()

    return [
        rate("decord: windows, picture", picture, 60),
        rate("decord: windows, sound", sound, 60),
        rate("decord: whole files, picture", whole, NUM_FILES, unit="files/s"),
    ]


def bench_loader(folder: Path, cache_megabytes: int, name: str) -> dict:
    """Measure the loader after every file has been met."""
    config = DataConfig(path=str(folder), cache_megabytes=cache_megabytes)
    batches = iter(build_loader(config, SPEC, split="train", batch_size=BATCH_SIZE, seed=0))
    for _ in range(2):
        next(batches)
    row = rate(f"loader: batches of {BATCH_SIZE}, {name}", lambda n: next(batches), 10 if cache_megabytes else 4)
    return {**row, "value": row["value"] * BATCH_SIZE}


def rate(name: str, work: Callable[[int], object], count: int, unit: str = "examples/s") -> dict:
    """Return how often `work` is done in a second of processor time, which other programs do not change."""
    started = time.process_time()
    for number in range(count):
        work(number)
    return {"name": name, "value": count / (time.process_time() - started), "unit": unit}


def main() -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        for row in bench_data(Path(folder)):
            print(f"{row['name']:<58}{row['value']:>12.1f}  {row['unit']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
