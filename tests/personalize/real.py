"""Real photos and real music that lie in packages of PyPI; what the packages are written for is not used."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

PHOTOS, MUSIC = "scikit-image==0.26.0", "immich-memories-music==0.1.0"  # photos are public domain or CC0; music is MIT


def folder_of(package: str, path: str) -> Path:
    """Return a folder in an installed package, which is not imported; the test is left out where it is not there."""
    try:
        return Path(distribution(package.partition("==")[0]).locate_file(path))
    except PackageNotFoundError:
        pytest.skip(f"needs files of a package: pip install --no-deps {package}")


def photos() -> Path:
    """Return the folder of scikit-image's pictures."""
    return folder_of(PHOTOS, "skimage/data")


def tracks(mood: str) -> list[Path]:
    """Return tracks of 32 s, stereo, Opus: made by a machine for a mood; `acoustic` or `electronic` by their names."""
    return sorted((folder_of(MUSIC, "immich_memories_music/tracks") / mood).glob("*.opus"))
