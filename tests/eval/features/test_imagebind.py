"""ImageBind from a file with the published names: what it refuses, what it gives, and what it is fed."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from mmdiff.eval.features.imagebind import ImageBind, ImageBindConfig, ImageBindNetwork, TowerConfig
from mmdiff.eval.features.imagebind.preprocess import half_fps_views, kaldi_fbank, mel_views, still, video_views
from mmdiff.eval.metrics import cosines
from mmdiff.media import Clip

TINY = ImageBindConfig(TowerConfig(16, 2, 2), TowerConfig(16, 2, 2), 8)


def published(config: ImageBindConfig) -> dict[str, torch.Tensor]:
    """Return a random state with the checkpoint's names, other modalities among them."""
    torch.manual_seed(0)
    others = {
        "modality_preprocessors.text.mask": torch.zeros(77, 77),
        "modality_trunks.depth.blocks.0.attn.bias_k": torch.zeros(1, 1, 384),
        "modality_heads.imu.3.weight": torch.zeros(1024, 512),
        "modality_postprocessors.thermal.1.log_logit_scale": torch.tensor(2.3),
    }
    return ImageBindNetwork(config).state_dict() | others


def make_clip(num_frames: int, num_samples: int, fps: int = 5, size: tuple[int, int] = (36, 48)) -> Clip:
    random = np.random.default_rng(num_frames)
    frames = random.integers(0, 256, (num_frames, *size, 3), dtype=np.uint8)
    waveform = (0.1 * random.standard_normal((2, num_samples))).astype(np.float32)
    return Clip(frames, waveform, Fraction(fps), 16_000)


@pytest.fixture(scope="module")
def extractor(tmp_path_factory):
    path = tmp_path_factory.mktemp("imagebind") / "imagebind_huge.pth"
    torch.save(published(TINY), path)
    return ImageBind.load(str(path), config=TINY)


def test_the_published_names_are_those_of_the_full_network_and_so_are_the_sizes():
    with torch.device("meta"):
        state = ImageBindNetwork(ImageBindConfig()).state_dict()
    shapes = {
        "modality_preprocessors.vision.cls_token": (1, 1, 1280),
        "modality_preprocessors.vision.rgbt_stem.proj.1.weight": (1280, 3, 2, 14, 14),
        "modality_preprocessors.vision.pos_embedding_helper.pos_embed": (1, 257, 1280),
        "modality_preprocessors.audio.rgbt_stem.proj.weight": (768, 1, 16, 16),
        "modality_preprocessors.audio.rgbt_stem.norm_layer.bias": (768,),
        "modality_preprocessors.audio.pos_embedding_helper.pos_embed": (1, 229, 768),
        "modality_trunks.vision.pre_transformer_layer.0.weight": (1280,),
        "modality_trunks.vision.blocks.31.attn.in_proj_weight": (3840, 1280),
        "modality_trunks.audio.blocks.11.attn.bias_v": (1, 1, 768),
        "modality_trunks.audio.blocks.0.mlp.fc1.weight": (3072, 768),
        "modality_heads.vision.2.weight": (1024, 1280),
        "modality_heads.audio.0.bias": (768,),
        "modality_postprocessors.audio.1.log_logit_scale": (),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    # counted in the published code: these are its tensors for vision and audio, of 1311 tensors in all
    assert len(state) == 569 and sum(x.numel() for x in state.values()) == 719_065_089


def test_clips_of_different_lengths_give_what_is_promised(extractor):
    found = extractor.extract([make_clip(13, 41_600), make_clip(4, 12_800), make_clip(1, 400)])
    for arrays, frames, windows in zip(found, (13, 4, 1), (2, 1, 1), strict=True):
        assert arrays.keys() == extractor.outputs.keys()
        shapes = {name: array.shape for name, array in arrays.items()}
        assert shapes == {
            "frames": (frames, 8),
            "video": (1, 8),
            "video_half_fps": (1, 8),
            "audio": (1, 8),
            "audio_windows": (windows, 8),
            "windows": (windows, 2),
        }
        assert all(array.dtype == np.float32 for array in arrays.values())
        assert np.linalg.norm(arrays["frames"], axis=1) == pytest.approx(1, abs=1e-5)
    assert found[0]["windows"].tolist() == [[0, 10], [3, 13]]
    assert np.array_equal(found[1]["audio"], found[1]["audio_windows"])
    assert np.linalg.norm(found[1]["audio"]) == pytest.approx(20, rel=1e-4)


def test_the_first_channel_is_what_is_heard(extractor):
    clip = make_clip(3, 9_600)
    deaf = Clip(clip.frames, clip.waveform * np.float32([[1], [0]]), clip.fps, clip.sample_rate)
    assert np.array_equal(extractor.extract([clip])[0]["audio"], extractor.extract([deaf])[0]["audio"])


def test_no_sound_and_no_frames_are_said(extractor):
    with pytest.raises(ValueError, match="25 ms"):
        extractor.extract([make_clip(3, 399)])
    with pytest.raises(ValueError, match="no frames"):
        extractor.extract([make_clip(0, 16_000)])


@pytest.mark.parametrize("lost", ["modality_trunks.audio.blocks.1.attn.bias_k", "modality_heads.vision.2.weight"])
def test_a_file_that_lacks_a_tensor_is_refused(tmp_path, lost):
    state = published(TINY)
    del state[lost]
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=f"{lost} missing"):
        ImageBind.load(str(tmp_path / "bad.pth"), config=TINY)


def test_another_networks_file_is_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="not weights of ImageBindNetwork"):
        ImageBind.load(str(tmp_path / "other.pth"), config=TINY)


def fbank_by_hand(wave: np.ndarray) -> np.ndarray:
    """Return Kaldi's log-mel energies of the first frame, one sum at a time."""
    frame = [float(x) for x in wave[:400]]
    mean = sum(frame) / 400
    frame = [x - mean for x in frame]
    frame = [x - 0.97 * frame[max(n - 1, 0)] for n, x in enumerate(frame)]
    frame = np.array([x * (0.5 - 0.5 * math.cos(2 * math.pi * n / 399)) for n, x in enumerate(frame)])
    n = np.arange(400)
    power = [abs(np.sum(frame * np.exp(-2j * math.pi * k * n / 512))) ** 2 for k in range(257)]

    def mel(hertz):
        return 1127 * math.log(1 + hertz / 700)

    width = (mel(8000) - mel(20)) / 129
    energies = np.zeros(128)
    for band in range(128):
        centre = mel(20) + (band + 1) * width
        for k in range(257):
            energies[band] += max(1 - abs(mel(k * 16_000 / 512) - centre) / width, 0) * power[k]
    return np.log(np.maximum(energies, np.finfo(np.float32).eps))


def test_filter_banks_follow_kaldis_definition():
    wave = (0.3 * np.random.default_rng(0).standard_normal(720) + 0.2).astype(np.float32)
    fbank = kaldi_fbank(torch.from_numpy(wave))
    assert fbank.shape == (128, 3)
    assert fbank[:, 0].numpy() == pytest.approx(fbank_by_hand(wave), abs=1e-4)
    assert fbank[:, 2].numpy() == pytest.approx(fbank_by_hand(wave[320:]), abs=1e-4)


def test_sound_is_seen_in_three_views_of_two_seconds():
    wave = np.random.default_rng(0).standard_normal(16_000 * 5).astype(np.float32)
    views = mel_views(wave)
    assert views.shape == (3, 1, 128, 204)
    assert torch.equal(views[1], mel_views(wave[24_000:56_000])[0])
    assert views[0, 0, :, 198:].unique().tolist() == pytest.approx([4.268 / 9.138])  # 198 frames fit into two seconds
    assert len(mel_views(wave[:32_000])) == 1


def test_pictures_are_cut_as_published():
    frames = np.zeros((100, 48, 90, 3), np.uint8)
    frames[:, :, :45] = 255
    frames[-1] = 128
    views = video_views(frames, Fraction(25))
    assert views.shape == (15, 3, 2, 224, 224)
    left, _, right = views[0], views[1], views[2]
    assert left[0, 0, 0, 0] > 1.5 > -1.5 > right[0, 0, -1, -1]
    assert views[-1][:, 1].std(dim=(1, 2)).max() < 1e-3  # the last piece ends with the last frame, all grey
    assert len(video_views(frames[:50], Fraction(25))) == 3  # five times the same two seconds
    assert len(video_views(frames[:50, :, :48], Fraction(25))) == 1  # and three times the same square
    assert still(frames[0]).shape == (3, 224, 224)
    assert still(np.zeros((300, 224, 3), np.uint8)).shape == (3, 224, 224)


def test_half_a_frame_a_second_gives_pairs_of_neighbours():
    frames = np.repeat(np.arange(200, dtype=np.uint8), 224 * 256 * 3).reshape(200, 224, 256, 3)

    def shown(views):  # one crop of each pair, as the numbers of its frames
        return ((views[::3, 0, :, 0, 0] * 0.26862954 + 0.48145466) * 255).round().int().tolist()

    views = half_fps_views(frames, Fraction(25))
    assert views.shape == (9, 3, 2, 224, 224)
    assert shown(views) == [[24, 74], [74, 124], [124, 174]]
    assert shown(half_fps_views(frames[:100], Fraction(25))) == [[24, 74]]
    assert shown(half_fps_views(frames[:16], Fraction(10))) == [[9, 9]]


def test_the_scores_take_what_it_gives(extractor):
    found = extractor.extract([make_clip(22, 70_000)])[0]
    assert cosines.avh_score(found["frames"], found["audio"]) == pytest.approx(
        float(np.mean(found["frames"] @ found["audio"][0]) / np.linalg.norm(found["audio"])), abs=1e-6
    )
    score = cosines.javis_score(found["frames"], found["audio_windows"], found["windows"].astype(int))
    assert -1 <= score <= 1
