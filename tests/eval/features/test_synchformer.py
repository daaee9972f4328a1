"""Synchformer from a file with the published names: what it refuses, what it gives, and what it is fed."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from mmdiff.eval.features.synchformer import Synchformer, SynchformerConfig, SynchformerNetwork
from mmdiff.eval.features.synchformer.extractor import audio_segments, log_mel, video_segments
from mmdiff.eval.metrics.sound import load_librosa
from mmdiff.media import Clip

TINY = SynchformerConfig(width=8, depth=1, num_heads=2, compare_depth=1, num_compare_heads=2)


def make_clip(num_frames: int, num_samples: int, fps: int = 25, sample_rate: int = 16_000) -> Clip:
    random = np.random.default_rng(num_frames)
    frames = random.integers(0, 256, (num_frames, 20, 28, 3), dtype=np.uint8)
    waveform = (0.1 * random.standard_normal((2, num_samples))).astype(np.float32)
    return Clip(frames, waveform, Fraction(fps), sample_rate)


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return SynchformerNetwork(TINY).state_dict()


@pytest.fixture(scope="module")
def extractor(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("synchformer") / "synchformer_state_dict.pth"
    torch.save(state, path)
    return Synchformer.load(str(path), config=TINY)


def test_the_full_network_has_the_published_names_and_sizes():
    with torch.device("meta"):
        state = SynchformerNetwork(SynchformerConfig()).state_dict()
    shapes = {
        "vfeat_extractor.patch_embed.proj.weight": (768, 3, 16, 16),
        "vfeat_extractor.patch_embed_3d.proj.weight": (768, 3, 2, 16, 16),
        "vfeat_extractor.pos_embed": (1, 197, 768),
        "vfeat_extractor.temp_embed": (1, 8, 768),
        "vfeat_extractor.blocks.11.timeattn.qkv.weight": (2304, 768),
        "vfeat_extractor.spatial_attn_agg.self_attn.in_proj_bias": (2304,),
        "afeat_extractor.ast.embeddings.position_embeddings": (1, 74, 768),
        "afeat_extractor.ast.embeddings.patch_embeddings.projection.weight": (768, 1, 16, 16),
        "afeat_extractor.ast.encoder.layer.11.attention.attention.query.bias": (768,),
        "afeat_extractor.ast.encoder.layer.0.intermediate.dense.weight": (3072, 768),
        "afeat_extractor.freq_attn_agg.cls_token": (1, 1, 768),
        "transformer.pos_emb_cfg.pos_emb": (1, 198, 768),
        "transformer.blocks.2.mlp.2.weight": (768, 3072),
        "transformer.off_head.weight": (21, 768),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    # counted in the published code, which loads its file without a tensor too many or too few
    assert len(state) == 513 and sum(x.numel() for x in state.values()) == 237_460_245


def test_eight_seconds_and_more_give_two_rows_of_logits(extractor):
    long, exact = make_clip(130, 420_000, 15, 48_000), make_clip(200, 128_000)
    found = extractor.extract([long, exact])
    assert [arrays["offset_logits"].shape for arrays in found] == [(2, 21), (2, 21)]
    assert found[0]["offset_logits"].dtype == np.float32
    beyond = Clip(long.frames, np.pad(long.waveform, ((0, 0), (0, 9000))), long.fps, long.sample_rate)
    assert np.array_equal(extractor.extract([beyond])[0]["offset_logits"], found[0]["offset_logits"])
    assert not np.array_equal(found[1]["offset_logits"][0], found[1]["offset_logits"][1])


@pytest.mark.parametrize("clip", [make_clip(199, 128_000), make_clip(200, 127_999)], ids=["picture", "sound"])
def test_shorter_clips_are_refused(extractor, clip, request):
    side = request.node.callspec.id
    with pytest.raises(ValueError, match=f"of {side}; it judges 8 s"):
        extractor.extract([clip])


def test_files_that_do_not_fit_are_refused(state, tmp_path):
    bad = {name: x for name, x in state.items() if name != "transformer.OFF_tok"}
    torch.save(bad, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"transformer\.OFF_tok missing"):
        Synchformer.load(str(tmp_path / "bad.pth"), config=TINY)
    torch.save(state | {"afeat_extractor.global_attn_agg.cls_token": torch.zeros(1)}, tmp_path / "more.pth")
    with pytest.raises(ValueError, match=r"global_attn_agg\.cls_token unknown"):
        Synchformer.load(str(tmp_path / "more.pth"), config=TINY)


def test_segments_overlap_by_half():
    frames = np.repeat(np.arange(200, dtype=np.uint8), 224 * 224 * 3).reshape(200, 224, 224, 3)
    wave = np.random.default_rng(0).standard_normal((1, 128_000)).astype(np.float32)
    clip = Clip(frames, wave, Fraction(25), 16_000)
    video = video_segments(clip)
    assert video.shape == (24, 3, 16, 224, 224)
    shown = (video[:, 0, :, 0, 0] + 1) * 127.5
    assert shown[3].tolist() == pytest.approx(range(24, 40), abs=1e-3)
    assert shown[23, -1] == pytest.approx(199, abs=1e-3)
    audio = audio_segments(clip)
    assert audio.shape == (24, 1, 128, 66)
    assert audio[5, 0, :, 65].tolist() == pytest.approx([4.2677393 / 9.1379948] * 128, abs=1e-6)
    # away from the mirrored ends a segment's second half is the next one's first
    assert audio[3, 0, :, 40:60].numpy() == pytest.approx(audio[4, 0, :, 8:28].numpy(), abs=1e-4)


def test_log_mel_is_librosas_with_htk_filters():
    librosa = load_librosa()
    wave = np.random.default_rng(1).standard_normal(10_240).astype(np.float32)
    theirs = librosa.feature.melspectrogram(
        y=wave,
        sr=16_000,
        n_fft=1024,
        win_length=400,
        hop_length=160,
        n_mels=128,
        htk=True,
        norm=None,
        pad_mode="reflect",
    )
    ours = log_mel(torch.from_numpy(wave)[None])[0]
    assert ours.shape == (128, 65)
    assert ours.numpy() == pytest.approx(np.log(theirs + 1e-6), abs=2e-4)
