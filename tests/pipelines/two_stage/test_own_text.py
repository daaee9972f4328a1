"""Our own models that were trained with text: a video of a prompt, and the sound of a video for a prompt."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from mmdiff.checkpoint import JointComponents, TextSource, VideoToAudioComponents, save_components, save_video_to_audio
from mmdiff.cli import main
from mmdiff.diffusion.schedule import DiffusionConfig, make_scheduler
from mmdiff.media import ClipSpec, read_clip
from mmdiff.models import JointTransformer, PixelCodec, WaveformCodec
from mmdiff.models.v2a import VideoToAudioTransformer
from mmdiff.pipelines.two_stage import LoadOptions, Video, load_text_to_video, load_video_to_audio
from mmdiff.pipelines.two_stage.windows import sound_of
from mmdiff.pretrained import load_text_encoder
from tests.models.tiny_text import write_bert

SPEC = ClipSpec(num_frames=4, height=8, width=8, sample_rate=8000)
FLOW = make_scheduler(DiffusionConfig(prediction_type="flow", clip_sample=False))
CPU = LoadOptions(device="cpu")
SETTINGS = {"seed": 1, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    encoder = load_text_encoder(str(write_bert(tmp_path_factory.mktemp("bert"))))
    return TextSource(encoder.name, encoder.sha256)


def opened(network):
    """Layers that start at zero would make a network deaf and blind."""
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network


def joint(folder, text, modalities):
    torch.manual_seed(0)
    network = opened(JointTransformer(
        video_channels=3, audio_channels=1, video_patch=4, audio_patch=400, width=32, depth=2, num_heads=2,
        time_grid=("1/10", "1/10", "1/8000", "1/8000"), text_channels=32, given_channel=True, modalities=modalities,
        timestep_per_modality=len(modalities) > 1,
    ))  # fmt: skip
    audio = WaveformCodec() if "audio" in modalities else None
    return save_components(folder, JointComponents(network, PixelCodec(), audio, FLOW, SPEC, text))


@pytest.fixture(scope="module")
def folders(text, tmp_path_factory):
    """Folders of a joint model, one of pictures alone and one of sound for pictures."""
    folder = tmp_path_factory.mktemp("own")
    torch.manual_seed(0)
    network = opened(VideoToAudioTransformer(
        width=32, depth_joint=1, depth_audio=1, num_heads=2, picture_channels=(8, 16), audio_channels=1,
        time_grid=("1/10", "1/10", "1/80", "1/80"), text_channels=32,
    ))  # fmt: skip
    spec = ClipSpec(num_frames=4, height=16, width=16, sample_rate=80)
    sound = VideoToAudioComponents(network, WaveformCodec(), FLOW, spec, text)
    return {
        "joint": joint(folder / "joint", text, ("video", "audio")),
        "pictures": joint(folder / "pictures", text, ("video",)),
        "sound": save_video_to_audio(folder / "sound", sound),
    }


@pytest.mark.parametrize("name", ["joint", "pictures"])
def test_a_prompt_becomes_a_video_and_a_joint_model_keeps_its_sound(folders, name):
    backend, steps = load_text_to_video(str(folders[name]), CPU), []
    video = backend("ball on wood", seconds=Fraction(1), callback=lambda *x: steps.append(x), **SETTINGS)
    assert video.frames.shape == (10, 8, 8, 3) and video.fps == 10 and steps[-1] == (6, 6)
    assert (video.sound is not None) == (name == "joint")
    if video.sound is not None:
        assert video.sound.waveform.shape == (1, 8_000)
    other = backend("two bell on glass", seconds=Fraction(1), **SETTINGS)
    assert (other.frames != video.frames).any(), "it must read the prompt"


def test_sound_follows_picture_prompt_and_guidance(folders):
    backend, steps = load_video_to_audio(str(folders["sound"]), CPU), []
    assert not backend.info.needs_text and backend.info.sample_rate == 80 and backend.info.max_seconds is None
    frames = np.random.default_rng(0).integers(0, 256, (30, 20, 24, 3), dtype=np.uint8)
    video = Video(frames, Fraction(24))
    sound = sound_of(backend, video, "ball on wood", callback=lambda *x: steps.append(x), **SETTINGS)
    assert sound.waveform.shape == (1, 100) and steps[-1][0] == steps[-1][1]
    same = sound_of(backend, video, "ball on wood", **SETTINGS)
    others = [
        sound_of(backend, video, "two bell on glass", **SETTINGS),
        sound_of(backend, Video(255 - frames, Fraction(24)), "ball on wood", **SETTINGS),
        sound_of(backend, video, "ball on wood", guidance_scale=9.0, **SETTINGS),
        sound_of(backend, video, "ball on wood", negative_prompt="two bell", **SETTINGS),
    ]
    assert (same.waveform == sound.waveform).all()
    assert all(np.abs(other.waveform - sound.waveform).max() > 1e-5 for other in others)


def test_pictures_and_sound_of_our_own_make_a_clip(folders, tmp_path):
    words = ["generate", "ball on wood", "-o", str(tmp_path / "a.mp4"), "--video-model", str(folders["pictures"])]
    words += ["--audio-model", str(folders["sound"]), "--steps", "1", "--audio-steps", "1", "--sample-rate", "8000"]
    assert main([*words, "--device", "cpu", "--seconds", "0.8"]) == 0
    clip = read_clip(tmp_path / "a.mp4")
    assert clip.num_frames == 8 and clip.num_samples == 6_400


def test_a_model_of_the_other_stage_is_refused(folders):
    with pytest.raises(ValueError, match="makes sound for videos; it is one for --audio-model"):
        load_text_to_video(str(folders["sound"]), CPU)
    with pytest.raises(ValueError, match="makes pictures alone; it is one for --video-model"):
        load_video_to_audio(str(folders["pictures"]), CPU)
