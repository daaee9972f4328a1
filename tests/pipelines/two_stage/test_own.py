"""Our own models as either stage."""

from fractions import Fraction

import numpy as np
import pytest

from mmdiff.pipelines.backends.frames import frames_at
from mmdiff.pipelines.backends.own import plan_length
from mmdiff.pipelines.two_stage import LoadOptions, Video, load_text_to_video, load_video_to_audio
from mmdiff.pipelines.two_stage.windows import sound_of

CPU = LoadOptions(device="cpu")


def picture(num_frames, fps, size=(24, 20)):
    frames = np.random.default_rng(0).integers(0, 256, (num_frames, *size, 3), dtype=np.uint8)
    return Video(frames, Fraction(fps))


def test_frames_are_those_on_screen_at_the_models_own_times():
    frames = np.repeat(np.arange(30, dtype=np.uint8), 4 * 4 * 3).reshape(30, 4, 4, 3)
    shown = frames_at(Video(frames, Fraction(25)), Fraction(10), (4, 4))
    assert shown[:, 0, 0, 0].tolist() == [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27]
    assert len(frames_at(Video(frames, Fraction(30000, 1001)), Fraction(60), (4, 4))) == 61


@pytest.mark.parametrize("num_frames, fps", [(4, 10), (3, 24), (25, 24), (13, Fraction(30000, 1001))])
def test_a_model_that_was_not_trained_to_go_on_makes_windows(model_folder, num_frames, fps):
    backend, steps = load_video_to_audio(str(model_folder), CPU), []
    assert backend.info.max_seconds == Fraction(2, 5) and not backend.info.needs_text and backend.info.sha256
    video = picture(num_frames, fps)
    sound = sound_of(backend, video, "", overlap_seconds=Fraction(1, 10), seed=1, num_inference_steps=2,
                     callback=lambda *x: steps.append(x))  # fmt: skip
    assert sound.waveform.shape == (1, round(video.duration_seconds * 16_000)) and sound.waveform.std() > 0.01
    assert steps[-1][0] == steps[-1][1]
    again, other = (sound_of(backend, video, "", overlap_seconds=Fraction(1, 10), seed=seed, num_inference_steps=2)
                    for seed in (1, 2))  # fmt: skip
    assert (sound.waveform == again.waveform).all() and np.abs(other.waveform - sound.waveform).max() > 0.01


def test_a_model_that_was_trained_to_go_on_does_so_by_itself(continuing_folder):
    backend, steps = load_video_to_audio(str(continuing_folder), CPU), []
    assert backend.info.max_seconds is None
    assert plan_length(backend.pipe, 3) == (4, None) and plan_length(backend.pipe, 10) == (10, 1)
    video = picture(24, 24)
    sound = sound_of(backend, video, "", seed=1, num_inference_steps=2, callback=lambda *x: steps.append(x))
    assert sound.waveform.shape == (1, 16_000)
    assert steps[-1] == (6, 6), "two steps in each of three windows"
    dark = Video(np.concatenate([video.frames[:18], 0 * video.frames[18:]]), video.fps)
    differs = np.abs(sound_of(backend, dark, "", seed=1, num_inference_steps=2).waveform - sound.waveform)[0]
    assert differs[: 6 * 1_600].max() == 0 and differs[6 * 1_600 :].max() > 1e-4, "windows hear their own picture"


def test_a_model_without_text_makes_no_video_of_a_prompt(model_folder):
    with pytest.raises(ValueError, match="trained without text, and would not hear a prompt"):
        load_text_to_video(str(model_folder), CPU)


def test_offload_and_lora_are_for_pipelines_of_diffusers(model_folder):
    with pytest.raises(ValueError, match="take neither --offload nor --lora"):
        load_video_to_audio(str(model_folder), LoadOptions(loras=("owner/name",)))
