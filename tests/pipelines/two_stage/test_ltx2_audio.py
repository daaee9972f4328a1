"""LTX-2 as video-to-audio: the whole clip is its condition."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from diffusers import LTX2ConditionPipeline

from mmdiff.pipelines.backends.ltx2_audio import LTX2VideoToAudio
from mmdiff.pipelines.two_stage import LoadOptions, Video, load_video_to_audio
from mmdiff.pipelines.two_stage.protocols import BackendInfo, check_sound

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 32, 40, 3), dtype=np.uint8)
VIDEO = Video(PICTURE, Fraction(12))


@pytest.fixture(scope="module")
def backend(tiny):
    pipe = LTX2ConditionPipeline(**tiny("ltx2").components)
    pipe.set_progress_bar_config(disable=True)
    return LTX2VideoToAudio(pipe, BackendInfo("LTX-2", sample_rate=16_000, channels=2, max_seconds=Fraction(20)))


def test_the_sound_is_the_seeds_and_the_pictures(backend):
    steps = []
    sound = backend(VIDEO, "rain", seed=1, num_inference_steps=2, callback=lambda *x: steps.append(x))
    assert check_sound(sound, backend.info, VIDEO).waveform.shape == (2, 8_000)
    assert steps == [(1, 2), (2, 2)]
    again, other = (backend(VIDEO, "rain", seed=seed, num_inference_steps=2).waveform for seed in (1, 2))
    assert (again == sound.waveform).all() and np.abs(other - again).max() > 1e-3
    dark = backend(Video(PICTURE // 8, VIDEO.fps), "rain", seed=1, num_inference_steps=2).waveform
    assert np.abs(dark - again).max() > 1e-6, "it must watch"


def test_every_frame_is_held_while_only_the_sound_is_made(backend):
    seen, run = [], backend.pipe.transformer.forward

    def watch(*arguments, **options):
        seen.append((options["hidden_states"][-1:], options["timestep"]))
        return run(*arguments, **options)

    backend.pipe.transformer.forward = watch
    try:
        for seed in (1, 2):
            backend(VIDEO, "rain", seed=seed, num_inference_steps=2)
    finally:
        del backend.pipe.transformer.forward
    assert len(seen) > 3 and not any(timestep.any() for _, timestep in seen), "at noise level 0 in every step"
    first = seen[0][0]
    assert all(torch.allclose(first, x, atol=1e-4) for x, _ in seen), "the picture depends on neither seed nor step"


def test_frames_are_brought_to_what_the_model_takes(backend):
    fitted = backend._fitted(PICTURE)
    factor = backend.pipe.vae_temporal_compression_ratio
    assert fitted.shape[1:] == (32, 32, 3) and (len(fitted) - 1) % factor == 0 and len(fitted) >= 6
    assert (fitted[-1] == fitted[5]).all()


def test_the_folder_of_the_joint_pipeline_is_enough(tiny_folder):
    loaded = load_video_to_audio(str(tiny_folder("ltx2")), LoadOptions(device="cpu"))
    assert isinstance(loaded.pipe, LTX2ConditionPipeline)
    assert loaded.info.sample_rate == 16_000 and loaded.info.max_seconds == 20 and loaded.info.needs_text
    with pytest.raises(ValueError, match="WanPipeline makes no sound for a video that is given"):
        load_video_to_audio(str(tiny_folder("wan")))
