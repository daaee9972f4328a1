"""A small data set of MP4 files whose frames and sounds tell where in the file they are."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from mmdiff.data.manifest import Entry, write_manifest
from mmdiff.media import Clip, ClipSpec, write_mp4

SPEC = ClipSpec(num_frames=4, fps=Fraction(10), height=32, width=32, sample_rate=16_000)


def make_clip(seed: int, seconds: float = 3, fps: int = 30) -> Clip:
    """Blocks of random brightness for every frame, brighter on the left; sound that never repeats."""
    rng = np.random.default_rng(seed)
    count = round(seconds * fps)
    blocks = rng.integers(0, 200, (count, 2, 2, 1)).repeat(16, 1).repeat(16, 2)
    blocks[:, :, :16] += 50
    wave = rng.uniform(-0.3, 0.3, (1, round(seconds * 16_000)))
    return Clip(np.broadcast_to(blocks, (count, 32, 32, 3)).astype(np.uint8), wave.astype(np.float32), fps, 16_000)


def add_file(folder, key: str, clip: Clip, split: str) -> Entry:
    """Write a clip and return its entry."""
    write_mp4(folder / "files" / f"{key}.mp4", clip)
    return Entry(
        path=f"files/{key}.mp4", key=key, source=key, split=split, fps=clip.fps, num_frames=clip.num_frames,
        height=32, width=32, sample_rate=16_000, channels=1, num_samples=clip.num_samples,
        caption="" if key == "clip-2" else f"caption of {key}",
    )  # fmt: skip


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Three training files and one for validation, in a folder with a manifest."""
    folder = tmp_path_factory.mktemp("clips")
    entries = [add_file(folder, f"clip-{n}", make_clip(n, fps=(30, 25, 24)[n % 3]), "train") for n in range(3)]
    entries.append(add_file(folder, "clip-3", make_clip(3), "validation"))
    write_manifest(folder, entries)
    return folder


@pytest.fixture
def faulty(tmp_path):
    """Make a data set of a good file and one that a change of its clip, or of its entry, has spoilt."""

    def make(change=lambda clip: clip, **entry_changes):
        entries = [add_file(tmp_path, "good", make_clip(0), "train")]
        bad = add_file(tmp_path, "bad", change(make_clip(1)), "train")
        write_manifest(tmp_path, [*entries, replace(bad, **entry_changes)])
        return tmp_path

    return make
