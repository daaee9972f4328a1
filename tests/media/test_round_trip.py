"""What is written is read back: times, colours, sound, ends."""

from fractions import Fraction

import av
import numpy as np
import pytest

from mmdiff.media import Clip, ClipSpec, as_fps, probe, read_audio, read_clip, write_mp4
from tests.media.foreign import click_times, clip_of, flash_times

RATES = ["23.976", "24", "25", "29.97", "30", "59.94", "60"]


@pytest.mark.parametrize("fps", RATES)
def test_flashes_and_clicks_keep_their_times_over_34_seconds(tmp_path, fps):
    fps = as_fps(fps)
    clip, times = clip_of(fps, 34, 16_000)
    path = write_mp4(tmp_path / "a.mp4", clip)
    back = read_clip(path)
    assert back.fps == fps and back.frames.shape == clip.frames.shape and back.waveform.shape == clip.waveform.shape
    truth = np.array([float(time) for time in times])
    np.testing.assert_allclose(flash_times(back.frames, fps), truth, atol=1e-9)
    errors = click_times(back.waveform, 16_000, times) - truth
    assert np.abs(errors).max() < 0.001
    assert abs(np.polyfit(truth, errors, 1)[0]) * 34 < 0.0005, "the clicks drift"


@pytest.mark.parametrize("fps", ["30000/1001", "60"])
def test_both_streams_start_at_0_and_end_together(tmp_path, fps):
    clip, _ = clip_of(Fraction(fps), 5, 16_000)
    path = write_mp4(tmp_path / "a.mp4", clip)
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.start_time == 0 and audio.start_time == 0
        assert video.duration * video.time_base == clip.duration_seconds
        assert abs(audio.duration * audio.time_base - clip.duration_seconds) <= Fraction(1024, 16_000)
        stamps = sorted(packet.pts for packet in container.demux(video) if packet.pts is not None)
        assert [stamp * video.time_base for stamp in stamps] == [n / clip.fps for n in range(clip.num_frames)]
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index comes first"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("side", [16, 64])
def test_colours_survive(tmp_path, side):
    colours = np.random.default_rng(0).integers(0, 256, (40, 3)).astype(np.uint8)
    frames = np.broadcast_to(colours[:, None, None], (40, side, side, 3)).copy()
    back = read_clip(write_mp4(tmp_path / "a.mp4", Clip(frames, np.zeros((1, 64_000), np.float32), 10, 16_000)))
    errors = back.frames.astype(float) - frames
    assert np.abs(errors).mean() < 1 and np.abs(errors).max() <= 4 and np.abs(errors.mean((0, 1, 2))).max() < 0.4


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (16_000, 1), (22_050, 2), (30_720, 1), (48_000, 2)])
def test_sound_of_any_rate_comes_back_in_phase(tmp_path, rate, channels):
    time = np.arange(rate * 2) / rate
    wave = (0.3 * np.sin(880 * np.pi * time) + 0.1 * np.sin(3400 * np.pi * time)).astype(np.float32)
    clip = Clip(np.zeros((20, 16, 16, 3), np.uint8), np.repeat(wave[None], channels, 0), 10, rate)
    path = write_mp4(tmp_path / "a.mp4", clip)
    sound = read_audio(path, sample_rate=rate, num_samples=2 * rate)
    middle = slice(rate // 4, -rate // 4)
    error = sound.waveform[:, middle] - wave[middle]
    assert 10 * np.log10((wave[middle] ** 2).mean() / (error**2).mean()) > 40


def test_windows_equal_slices_of_the_whole(tmp_path):
    random = np.random.default_rng(3)
    fps, rate = Fraction(30), 16_000
    clip, _ = clip_of(fps, 34, rate)
    noise = (0.2 * random.standard_normal(clip.waveform.shape)).clip(-1, 1).astype(np.float32)
    ramp = clip.frames // 2 + np.arange(clip.num_frames, dtype=np.uint8)[:, None, None, None] % 100
    path = write_mp4(tmp_path / "a.mp4", Clip(ramp, noise, fps, rate))
    whole, spec = read_clip(path), ClipSpec(16, 10, 32, 48, rate, 1)
    for first in random.integers(0, int((34 - 1.6) * 30), 12):
        window = read_clip(path, spec, start=first / fps)
        begin = round(first / fps * rate)
        np.testing.assert_array_equal(window.frames, whole.frames[first : first + 48 : 3])
        np.testing.assert_allclose(window.waveform, whole.waveform[:, begin : begin + 25_600], atol=1e-5)


def test_a_window_decodes_little_of_a_long_file(tmp_path, monkeypatch):
    clip, _ = clip_of(Fraction(30), 34, 16_000)
    path = write_mp4(tmp_path / "a.mp4", clip)
    from mmdiff.media import video

    seen = []
    original = video.frames_from
    monkeypatch.setattr(video, "frames_from", lambda *a: (seen.append(frame) or frame for frame in original(*a)))
    read_clip(path, ClipSpec(16, 10, 32, 48), start=Fraction(301, 10))
    assert len(seen) <= 30 + 48 + 1, "one group of pictures, the window, and the frame after it"


def test_loud_sound_is_clipped_with_a_warning(tmp_path, caplog, monkeypatch):
    from mmdiff.log import get_logger

    monkeypatch.setattr(get_logger(), "propagate", True)
    wave = np.full((1, 16_000), 1.5, np.float32)
    path = write_mp4(tmp_path / "a.mp4", Clip(np.zeros((10, 16, 16, 3), np.uint8), wave, 10, 16_000))
    assert "clipped" in caplog.text
    assert np.abs(read_clip(path).waveform).max() <= 1


def test_what_cannot_be_written_says_why(tmp_path):
    frames, wave = np.zeros((10, 16, 16, 3), np.uint8), np.zeros((1, 16_000), np.float32)
    for clip, reason in [
        (Clip(frames[:, :15], wave, 10, 16_000), "even"),
        (Clip(frames[:0], wave, 10, 16_000), "no frames"),
        (Clip(frames, np.zeros((6, 16_000), np.float32), 10, 16_000), "6 audio channels"),
        (Clip(frames, np.full_like(wave, np.nan), 10, 16_000), "not numbers"),
    ]:
        with pytest.raises(ValueError, match=reason):
            write_mp4(tmp_path / "bad.mp4", clip)
    with pytest.raises(ValueError, match="folder"):
        write_mp4(tmp_path, Clip(frames, wave, 10, 16_000))
    assert not list(tmp_path.iterdir())


def test_probe_states_what_was_written(tmp_path):
    clip, _ = clip_of(Fraction(30000, 1001), 5, 16_000)
    info = probe(write_mp4(tmp_path / "deep" / "a.mp4", clip))
    assert (info.fps, info.num_frames, info.height, info.width) == (clip.fps, clip.num_frames, 32, 48)
    assert (info.sample_rate, info.channels, info.video_codec, info.audio_codec) == (16_000, 1, "h264", "aac")
    assert (info.video_start, info.audio_start, info.is_variable_frame_rate, info.rotation) == (0, 0, False, 0)
    assert abs(info.duration_seconds - clip.duration_seconds) <= Fraction(1024, 16_000)
