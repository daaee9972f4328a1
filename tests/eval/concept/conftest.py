"""Features of tests go into a folder of their own, and small random CLIP and CLAP are made once."""

import pytest

from tests.eval.features import test_clap, test_clip


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory):
    """A folder with a random CLIP."""
    path = tmp_path_factory.mktemp("clip") / "tiny-clip"
    test_clip.save_tiny(path)
    return str(path)


@pytest.fixture(scope="session")
def tiny_clap(tmp_path_factory):
    """A folder with a random CLAP."""
    path = tmp_path_factory.mktemp("clap") / "tiny-clap"
    path.mkdir()
    test_clap.save_tiny(path, is_fused=False)
    return str(path)
