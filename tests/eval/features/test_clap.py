"""CLAP from a folder on disk: a clip gives the same vector again, whatever its length and its batch."""

import json
import shutil

import numpy as np
import pytest
import torch

from mmdiff.eval.features.clap import Clap
from tests.eval.features.sounds import noise_clip, sound_clip

RATE = 48_000
SECONDS = 2  # that the tiny network hears at once


def save_tiny(folder, *, is_fused: bool) -> None:
    """Save a random CLAP of two small layers with its front end and a tokenizer of letters."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer

    letters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *"abcdefghijklmnopqrstuvwxyz"]
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    ClapFeatureExtractor(
        feature_size=16, max_length_s=SECONDS, truncation="fusion" if is_fused else "rand_trunc"
    ).save_pretrained(folder)
    text = {"vocab_size": len(letters), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"intermediate_size": 32, "max_position_embeddings": 90, "pad_token_id": 1}
    audio = {"num_mel_bins": 16, "spec_size": 64, "window_size": 4, "patch_size": 2, "patch_stride": [2, 2]}
    audio |= {"hidden_size": 32, "patch_embeds_hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2]}
    audio |= {"num_hidden_layers": 2, "enable_fusion": is_fused, "aff_block_r": 1}
    torch.manual_seed(0)
    ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=24)).save_pretrained(folder)


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def folder(request, tmp_path_factory):
    """A folder in the layout of transformers."""
    path = tmp_path_factory.mktemp("clap") / "tiny-clap"
    path.mkdir()
    save_tiny(path, is_fused=request.param)
    return path


def test_clips_and_prompts_share_a_space(folder):
    """Unit vectors of one size, the same again, the same in a batch as alone; the name says the checkpoint."""
    extractor = Clap.load(str(folder))
    clips = [noise_clip(1.6, RATE), noise_clip(0.3, 44_100, seed=1, channels=2), noise_clip(3.0, RATE, seed=2)]
    together = [out["embedding"] for out in extractor.extract(clips)]
    for clip, embedding in zip(clips, together, strict=True):
        assert embedding.shape == (1, 24) and np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(extractor.extract([clip])[0]["embedding"], embedding, atol=1e-5)
    prompts = extractor.embed_text(["a dog", "rain on a tin roof " * 30])
    assert prompts.shape == (2, 24) and extractor.embed_text([]).shape == (0, 24)
    np.testing.assert_allclose(extractor.embed_text(["a dog"]), prompts[:1], atol=1e-5)
    assert extractor.name == "clap:tiny-clap" and len(extractor.weights.sha256) == 64


def test_middle_of_a_long_clip_is_heard(folder):
    """What lies outside the middle of a long clip changes nothing; a short clip sounds like its repetition."""
    extractor = Clap.load(str(folder))
    middle = noise_clip(SECONDS, RATE).waveform[0]
    around = noise_clip(1.0, RATE, seed=5).waveform[0]
    long, half = np.concatenate([around, middle, around]), middle[:RATE]
    clips = [sound_clip(x, RATE) for x in (middle, long, half, np.tile(half, 2))]
    heard = [out["embedding"] for out in extractor.extract(clips)]
    np.testing.assert_allclose(heard[0], heard[1], atol=1e-6)
    np.testing.assert_allclose(heard[2], heard[3], atol=1e-6)
    assert not np.allclose(heard[0], heard[2], atol=1e-6)


def test_a_checkpoint_in_half_precision_is_computed_in_float(folder, tmp_path):
    from transformers import ClapModel

    half = tmp_path / "half"
    shutil.copytree(folder, half)
    ClapModel.from_pretrained(folder, dtype=torch.float16).save_pretrained(half)
    clips = [noise_clip(1.0, RATE)]
    ours, exact = (Clap.load(str(path)).extract(clips)[0]["embedding"] for path in (half, folder))
    np.testing.assert_allclose(ours, exact, atol=5e-3)


def test_incomplete_folders_are_refused(folder, tmp_path):
    """No source, a file, no tokenizer, weights that lack a tensor, and a clip without sound."""
    import shutil

    from safetensors.torch import load_file, save_file

    with pytest.raises(ValueError, match="ship in no package"):
        Clap.load(None)
    with pytest.raises(ValueError, match=r"LAION's own \.pt files"):
        Clap.load(str(folder / "model.safetensors"))
    broken = shutil.copytree(folder, tmp_path / "broken")
    state = load_file(broken / "model.safetensors")
    del state["audio_projection.linear1.weight"]
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 do not fit, such as audio_projection\.linear1\.weight"):
        Clap.load(str(broken))
    (broken / "config.json").unlink()
    with pytest.raises(ValueError, match="cannot be read as a CLAP"):
        Clap.load(str(broken))
    with pytest.raises(ValueError, match="has no sound"):
        Clap.load(str(folder)).extract([sound_clip(np.zeros(0), RATE)])
