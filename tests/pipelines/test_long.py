"""Clips longer than their model's: windows, each of which goes on from the one before."""

import numpy as np
import pytest
import torch

from mmdiff.media import ClipSpec
from mmdiff.models import PatchCodec, WaveformCodec
from mmdiff.models.codecs.video import VIDEO_CODECS
from mmdiff.pipelines import JointPipeline
from mmdiff.pipelines.canvas import plan_windows
from tests.models.codecs.tiny_video import tiny

CLIP = ClipSpec(num_frames=4, height=16, width=16)
CODECS = {"video": PatchCodec(), "audio": WaveformCodec()}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pipe(continuing_folder):
    """A random network that is told what it is given."""
    pipe = JointPipeline.from_pretrained(continuing_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_windows_cover_the_clip_and_begin_together_in_both_modalities():
    windows = plan_windows(CLIP, 11, 1, CODECS)
    assert [(w["video"].start, w["video"].stop) for w in windows] == [(0, 4), (3, 7), (6, 10), (7, 11)]
    assert all(w["audio"].start == 1_600 * w["video"].start for w in windows)
    assert plan_windows(CLIP, 4, 3, CODECS) == [{"video": slice(0, 4), "audio": slice(0, 6_400)}]


def test_a_window_is_shown_what_was_made_before_it_and_gives_it_back(pipe, monkeypatch):
    seen, run = [], type(pipe.denoiser).forward

    def spy(self, noisy, timesteps, *arguments, given=None, **options):
        seen.append((noisy, given))
        return run(self, noisy, timesteps, *arguments, given=given, **options)

    monkeypatch.setattr(type(pipe.denoiser), "forward", spy)
    output = pipe(2, 2, generator=seeded(0), num_frames=10, overlap=1)
    assert output.frames.shape == (2, 10, 16, 16, 3) and output.audio.shape == (2, 1, 16_000)
    assert not seen[0][1], "the first window is given nothing"
    (early, given), (late, _) = seen[2:4]
    assert given["video"].tolist() == [True, False, False, False] and given["audio"].sum() == 1_600
    assert torch.equal(early["video"][:, :, :1], late["video"][:, :, :1]), "clean at every noise level"
    assert not torch.equal(early["video"][:, :, 1:], late["video"][:, :, 1:])
    first = pipe(2, 2, generator=seeded(0))
    assert np.abs(first.audio - output.audio[..., :6_400]).max() < 1e-5, "what is made is never touched again"


def test_sound_for_a_long_picture_goes_on_from_itself(pipe):
    picture = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), dtype=np.uint8)
    output = pipe(1, 2, generator=seeded(0), num_frames=10, overlap=1, video=picture)
    assert (output.frames[0] == picture).all() and output.audio.shape == (1, 1, 16_000)
    other = picture.copy()
    other[8:] = 0
    changed = pipe(1, 2, generator=seeded(0), num_frames=10, overlap=1, video=other)
    differs = np.abs(changed.audio - output.audio)[0, 0]
    assert differs[: 7 * 1_600].max() == 0 and differs[8 * 1_600 :].max() > 1e-4


def test_a_beginning_of_any_length_is_continued(pipe):
    picture = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    sound = np.random.default_rng(1).uniform(-1, 1, (1, 8_000)).astype(np.float32)
    output = pipe(1, 2, generator=seeded(0), num_frames=10, overlap=2, video=picture, audio=sound)
    assert (output.frames[0, :5] == picture).all() and (output.audio[0, :, :8_000] == sound).all()
    assert output.frames[0, 5:].std() > 1


def test_a_model_that_was_not_trained_for_it_goes_on_by_replacement(pipe, model_folder):
    plain = JointPipeline.from_pretrained(model_folder)
    plain.set_progress_bar_config(disable=True)
    assert plain(1, 2, generator=seeded(0), num_frames=6, overlap=2).frames.shape[1] == 6
    with pytest.raises(ValueError, match="only a part of video and audio"):
        plain(1, 2, num_frames=6, overlap=2, conditioning="native")


@pytest.mark.parametrize("overlap", [0, 4, -1])
def test_an_overlap_that_leaves_nothing_to_make_is_refused(pipe, overlap):
    with pytest.raises(ValueError, match="must be from 1 to 3"):
        pipe(1, 2, num_frames=8, overlap=overlap)


def test_a_causal_codec_has_no_windows():
    codecs = CODECS | {"video": VIDEO_CODECS["AutoencoderKLWan"].from_network(tiny("AutoencoderKLWan"))}
    with pytest.raises(ValueError, match="a step of its own"):
        plan_windows(ClipSpec(num_frames=9, height=16, width=16), 18, 1, codecs)
