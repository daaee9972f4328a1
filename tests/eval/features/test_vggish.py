"""VGGish hears the recorded log-mels, keeps clips apart, and refuses what is too short or not its weights."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdiff.eval.features.base import sound_at
from mmdiff.eval.features.vggish import SAMPLE_RATE, Vggish, VggishConfig, VggishNetwork, log_mel_examples
from mmdiff.pretrained import Weights
from tests.eval.features.sounds import noise_clip, sound_clip
from tests.vectors import FOLDER

VECTORS = FOLDER / "metrics"
RECORDED = VECTORS / "vggish_frontend" / "expected.json"
CASES = json.loads(RECORDED.read_text(encoding="utf-8"))["cases"] if RECORDED.is_file() else []
TINY = VggishConfig(channels=(2, 3, 4, 5), hidden=16)


@pytest.fixture(scope="module")
def signals():
    """The module that makes the recorded inputs."""
    spec = importlib.util.spec_from_file_location("vector_signals", VECTORS / "signals.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stored():
    """Log-mels stored as arrays, by `<kind>_<rate>`."""
    return np.load(VECTORS / "vggish_frontend" / "examples.npz")


def make_signal(case: dict, signals) -> np.ndarray:
    """Make a case's waveform as it was recorded: 16-bit, chords of 0.3 s, pink noise at half scale."""
    kind, rate = case["kind"], case["sr"]
    if kind == "drums":
        made = signals.drums(case["bpm"], case["dur"], rate, seed=case["seed"])[0]
    elif kind == "progression":
        made = signals.progression(case["tonic"], case["mode"], rate, chord_dur=case.get("chord_dur", 0.3))
    elif kind == "silence":
        made = np.zeros(int(case["dur"] * rate))
    elif kind == "pink" or kind.startswith("short"):
        made = 0.5 * signals.pink(int(case["dur"] * rate), np.random.RandomState(case["seed"]))
    else:
        pytest.fail(f"{kind}: how this input is made is not known here; add it")
    return signals.i16_to_f32(signals.to_i16(made))


@pytest.mark.skipif(not CASES, reason="no recorded VGGish front end in MMDIFF_VECTORS")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}-{case.get('seed', '')}-{case['sr']}")
def test_log_mel_matches_recorded(case, signals, stored):
    """At 16 kHz within 1e-4; from other rates within the recorded effect of soxr HQ, our resampler."""
    examples = log_mel_examples(sound_at(sound_clip(make_signal(case, signals), case["sr"]), SAMPLE_RATE)).numpy()
    assert list(examples.shape) == case["examples_shape"]
    if not len(examples):
        return
    effect = case.get("resampler_effect_on_logmel", {}).get("soxr_hq")
    assert effect or case["sr"] == SAMPLE_RATE, "the effect of soxr HQ is not recorded for this rate"
    mean_bound = 1e-4 + (effect["mean_abs_diff_vs_reference"] if effect else 0)
    max_bound = 1e-4 + (effect["max_abs_diff"] if effect else 0)
    assert abs(examples.mean() - case["mean"]) < mean_bound
    for name in ("std", "min", "max"):
        assert abs(getattr(examples, name)() - case[name]) < max_bound
    key = f"{case['kind']}_{case['sr']}"
    is_only_one = sum(key == f"{other['kind']}_{other['sr']}" for other in CASES) == 1
    if key in stored and is_only_one:
        expected = stored[key]
        assert np.abs(examples[: len(expected)] - expected).max() < max_bound


def make_extractor(name: str = "vggish") -> Vggish:
    """Build a tiny random VGGish, as only a test may."""
    torch.manual_seed(0)
    return Vggish(VggishNetwork(TINY).eval(), Weights(Path("tiny"), "random", "0" * 64), name=name)


def test_batch_keeps_clips_apart():
    """Clips of three lengths and rates give in one call what each gives alone."""
    extractor = make_extractor()
    clips = [noise_clip(1.0), noise_clip(3.2, 44_100, seed=1, channels=2), noise_clip(2.0, 48_000, seed=2)]
    together = extractor.extract(clips)
    assert [out["embedding"].shape for out in together] == [(1, 128), (3, 128), (2, 128)]
    for clip, out in zip(clips, together, strict=True):
        np.testing.assert_allclose(extractor.extract([clip])[0]["embedding"], out["embedding"], atol=1e-6)
        assert out["embedding"].dtype == np.float32
    assert min(out["embedding"].min() for out in together) < 0  # no ReLU at the end


def test_half_second_hop_interleaves():
    """The variant with a hop of 0.5 s embeds the example that starts at 0.5 s like a clip that is cut there."""
    clip = noise_clip(2.0)
    extractor = make_extractor("vggish-hop0.5s")
    embedding = extractor.extract([clip])[0]["embedding"]
    later = sound_clip(clip.waveform[:, 8000:], 16_000)
    assert extractor.name == "vggish-hop0.5s" and embedding.shape == (3, 128)
    np.testing.assert_allclose(embedding[1:], extractor.extract([later])[0]["embedding"], atol=1e-6)


def test_short_clip_is_refused():
    """0.975 s is just enough for one example, one sample less is not."""
    extractor = make_extractor()
    assert extractor.extract([sound_clip(np.zeros(15_600), 16_000)])[0]["embedding"].shape == (1, 128)
    with pytest.raises(ValueError, match=r"0.9749 s of sound, but one example takes 0.975 s"):
        extractor.extract([noise_clip(2.0), sound_clip(np.zeros(15_599), 16_000)])


def test_published_names_are_read_back(tmp_path):
    """A state dict with torchvggish's names is read back to the same embeddings; another's tensors are refused."""
    extractor = make_extractor()
    state = extractor.network.state_dict()
    numbers = (0, 3, 6, 8, 11, 13)
    names = [f"features.{i}.{x}" for i in numbers for x in ("weight", "bias")]
    names += [f"embeddings.{i}.{x}" for i in (0, 2, 4) for x in ("weight", "bias")]
    assert list(state) == names
    torch.save(state, tmp_path / "vggish.pth")
    loaded = Vggish.load(str(tmp_path / "vggish.pth"), config=TINY)
    clip = noise_clip(1.5)
    np.testing.assert_array_equal(loaded.extract([clip])[0]["embedding"], extractor.extract([clip])[0]["embedding"])
    with pytest.raises(ValueError, match="not weights of VggishNetwork"):
        Vggish.load(str(tmp_path / "vggish.pth"))
    with pytest.raises(ValueError, match="no variant of VGGish"):
        Vggish.load(str(tmp_path / "vggish.pth"), name="vggish-hop0.1s", config=TINY)
    with pytest.raises(ValueError, match="ship in no package"):
        Vggish.load(None)
