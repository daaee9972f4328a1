"""Files of other encoders: containers, offsets, delays, variable rates, turned pictures, loudspeakers."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mmdiff.media import ClipSpec, probe, read_audio, read_clip, read_video
from tests.media.foreign import SECONDS, TIMES, click_times, clicks, flash_times, flashes, turn, write_foreign

FPS = Fraction(25)
FRAMES = flashes(TIMES, SECONDS * 25, FPS)
STAMPS = [number / FPS for number in range(len(FRAMES))]
MEDIA = Path(os.environ.get("MMDIFF_MEDIA", Path(__file__).resolve().parents[3] / "shared" / "media"))
MILLISECOND = Fraction(1, 1000)
CASES = {
    "b_frames.mov": {}, "aac.mkv": {}, "mp3.mp4": {"audio": "libmp3lame"}, "pcm.mov": {"audio": "pcm_s16le"},
    "opus.mkv": {"audio": "libopus"}, "flac.mkv": {"audio": "flac"}, "ac3.mkv": {"audio": "ac3"}, "clock.ts": {},
    "mp3.mkv": {"audio": "libmp3lame"}, "flash.flv": {"tick": MILLISECOND},
    "program.mpg": {"video": "mpeg2video", "audio": "mp2", "tick": Fraction(1, 25)},
}  # fmt: skip


@pytest.mark.parametrize("rate", [44_100, 48_000])
@pytest.mark.parametrize("name", CASES)
def test_other_encoders_files_keep_their_times(tmp_path, name, rate):
    if CASES[name].get("audio") == "libopus" or name.endswith("flv"):
        rate = {"opus.mkv": 48_000}.get(name, 44_100)
    wave = clicks(TIMES, SECONDS * rate, rate)
    path = write_foreign(tmp_path / name, FRAMES, STAMPS, wave, rate, **CASES[name])
    whole = read_clip(path)
    assert whole.fps == FPS
    np.testing.assert_allclose(flash_times(whole.frames, FPS), TIMES, atol=1e-9)
    np.testing.assert_allclose(click_times(whole.waveform, rate, TIMES), TIMES, atol=0.0006)
    spec = ClipSpec(16, 10, 32, 48, rate, 1)
    for start in (Fraction(3, 10), Fraction(19, 10), Fraction(22, 5)):
        window, begin = read_clip(path, spec, start=start), round(start * rate)
        np.testing.assert_allclose(window.waveform, whole.waveform[:, begin : begin + spec.num_samples], atol=1e-4)
        frames = [int((start + time) * FPS) for time in spec.frame_times()]
        np.testing.assert_array_equal(window.frames, whole.frames[frames])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_sound_that_begins_later_is_preceded_by_silence(tmp_path, name):
    wave = clicks([0.5], 48_000 * 4, 48_000)
    path = write_foreign(tmp_path / name, FRAMES, STAMPS, wave, audio_start=Fraction(1))
    clip = read_clip(path)
    assert abs(click_times(clip.waveform, 48_000, [1.5])[0] - 1.5) < 0.001
    assert np.abs(clip.waveform[:, : 48_000 * 9 // 10]).max() < 1e-3
    np.testing.assert_allclose(flash_times(clip.frames, FPS), TIMES, atol=1e-9)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_picture_that_begins_later_is_preceded_by_its_first_frame(tmp_path, name):
    late = [stamp + Fraction(2, 5) for stamp in STAMPS]
    path = write_foreign(tmp_path / name, FRAMES, late, clicks(TIMES, 48_000 * 6, 48_000))
    info, clip = probe(path), read_clip(path)
    assert abs(info.video_start - Fraction(2, 5)) <= MILLISECOND and info.audio_start == 0
    np.testing.assert_allclose(flash_times(clip.frames, FPS), np.array(TIMES) + 0.4, atol=1e-9)
    assert np.abs(click_times(clip.waveform, 48_000, TIMES) - TIMES).max() < 0.001
    first = read_clip(path, ClipSpec(4, 10, 32, 48)).frames
    np.testing.assert_array_equal(first, np.repeat(clip.frames[:1], 4, 0))


def test_frames_of_a_variable_rate_are_chosen_by_time(tmp_path):
    random = np.random.default_rng(5)
    stamps = [Fraction(0)]
    while stamps[-1] < 6:
        stamps.append(stamps[-1] + Fraction(int(random.integers(10, 90)), 1000))
    levels = (np.arange(len(stamps)) * 5 % 200 + 20).astype(np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (len(stamps), 32, 32, 3))
    path = write_foreign(tmp_path / "v.mp4", np.ascontiguousarray(frames), stamps, np.zeros((1, 48_000 * 6), "f4"))
    assert probe(path).is_variable_frame_rate
    for start in (Fraction(0), Fraction(1, 2), Fraction(157, 100), Fraction(4)):
        spec = ClipSpec(16, 10, 32, 32)
        shown = read_clip(path, spec, start=start).frames.mean((1, 2, 3))
        for time, level in zip(spec.frame_times(), shown):
            on_screen = max(n for n, stamp in enumerate(stamps) if stamp <= start + time)
            assert abs(levels[on_screen] - level) < 2.4, "this frame was not on the screen then"


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_turned_pictures_stand_upright(tmp_path, degrees):
    upright = np.zeros((32, 64, 3), np.uint8)
    upright[:16, :32] = (250, 20, 20)
    upright[16:, 32:] = (20, 20, 250)
    stored = np.rot90(upright, degrees // 90)  # what a camera held askew stores
    frames = np.ascontiguousarray(np.broadcast_to(stored, (10, *stored.shape)))
    path = write_foreign(tmp_path / "t.mp4", frames, STAMPS[:10], np.zeros((1, 19_200), "f4"))
    info = probe(turn(path, degrees))
    assert (info.height, info.width) == (32, 64) and info.rotation == (360 - degrees) % 360
    error = np.abs(read_video(path).frames[5].astype(float) - upright)
    assert error[4:12, 4:28].mean() < 12 and error[20:28, 36:60].mean() < 12 and error[4:12, 40:60].mean() < 12


@pytest.mark.parametrize(
    ("speaker", "left", "right"), [(0, 1, 0), (1, 0, 1), (2, 0.7071, 0.7071), (3, 0, 0), (4, 0.7071, 0), (5, 0, 0.7071)]
)
def test_each_loudspeaker_of_5_1_is_heard_where_it_stands(tmp_path, speaker, left, right):
    wave = np.zeros((6, 48_000), np.float32)
    wave[speaker] = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    path = write_foreign(tmp_path / "s.mkv", wave=wave, audio="flac", layout="5.1")
    stereo = read_audio(path).waveform
    loudness = np.sqrt((stereo**2).mean(1) * 2) / 0.5 * (1 + 2 * 0.7071)
    np.testing.assert_allclose(loudness, [left, right], atol=0.01)
    np.testing.assert_allclose(read_audio(path, channels=1).waveform, stereo.mean(0, keepdims=True), atol=1e-6)


@pytest.mark.skipif(not MEDIA.is_dir(), reason=f"no media at {MEDIA}; set MMDIFF_MEDIA to their folder")
def test_real_films_read_in_windows():
    for name, fps, channels in [("bbb_020s.mp4", 24, 2), ("bigbuckbunny_5s.mp4", 25, 6),
                                ("mmdiffusion_aistpp_generated.mp4", 10, 2),
                                ("vizdoom_freedoom2_map01.mp4", 35, 2)]:  # fmt: skip
        path = MEDIA / name
        info = probe(path)
        assert (info.fps, info.channels, info.is_variable_frame_rate) == (fps, channels, False)
        clip = read_clip(path, ClipSpec(), start=Fraction(3, 2))
        assert clip.frames.shape == (16, 64, 64, 3) and clip.waveform.shape == (1, 25_600)
        longer = read_audio(path, sample_rate=16_000, channels=1, num_samples=60_000).waveform
        error = clip.waveform - longer[:, 24_000:49_600]  # some encoders leave noise to the decoder to invent
        assert (error**2).mean() < 1e-2 * (clip.waveform**2).mean(), name
    with pytest.raises(ValueError, match="no sound"):
        read_clip(MEDIA / "sintel_trailer_30s_noaudio.mp4", ClipSpec())
