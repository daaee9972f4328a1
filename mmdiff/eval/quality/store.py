"""Features that were computed before: one small file for each clip and extractor, found by what went in."""

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mmdiff.eval.features.base import RESAMPLER, Extractor
from mmdiff.media import ClipSpec
from mmdiff.pretrained import hash_path


def default_folder() -> Path:
    """Return where features are kept when the user names no folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "mmdiff" / "features"


class FeatureStore:
    """A folder of features; a damaged or missing file is only a feature that has to be computed again."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, extractor: Extractor, facts: dict[str, Any]) -> Path:
        """Return where an extractor's arrays of a clip lie; `facts` are what its contents depend on."""
        facts = facts | {
            "extractor": extractor.name,
            "version": extractor.version,
            "weights": extractor.weights.sha256,
            "resampler": RESAMPLER,
        }
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in extractor.name)
        return self.folder / safe / key[:2] / f"{key}.npz"

    def read(self, path: Path, extractor: Extractor) -> dict[str, np.ndarray] | None:
        """Return the arrays, or None where there are none that can be read."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except Exception:  # whatever a truncated or foreign file raises: it is then made anew
            return None
        return arrays if set(arrays) == set(extractor.outputs) else None

    def write(self, path: Path, arrays: dict[str, np.ndarray]) -> None:
        """Write arrays aside, then rename, so that ranks and runs may share the folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.stem}.{os.getpid()}.partial.npz")
        with aside.open("wb") as file:
            np.savez(file, **arrays)
        aside.replace(path)


@lru_cache(maxsize=65536)
def hash_file(path: Path, size: int, changed_at: int) -> str:
    """Return a file's SHA-256; size and time of change make a changed file another question."""
    return hash_path(path)


def content_of(path: Path) -> str:
    """Return the SHA-256 of a file, read once a run."""
    stat = path.stat()
    return hash_file(path, stat.st_size, stat.st_mtime_ns)


def describe_spec(spec: ClipSpec) -> list[str]:
    """Return a clip's shape as text, for a key."""
    shape = (spec.num_frames, spec.fps, spec.height, spec.width, spec.sample_rate, spec.channels)
    return [str(number) for number in shape]
