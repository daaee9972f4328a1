"""Sound as long as its picture, to the sample, and windows that are joined without a click or a dip."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from mmdiff.media import Sound
from mmdiff.pipelines.two_stage.protocols import BackendInfo, Video
from mmdiff.pipelines.two_stage.sound import cross_fade, fit_sound, mix_sounds
from mmdiff.pipelines.two_stage.windows import Window, plan_windows, sound_of

RATE = 8_000


def noise(seed, num_samples, channels=1):
    return np.random.default_rng(seed).standard_normal((channels, num_samples)).astype(np.float32)


def tone(num_samples, phase=0.0, hertz=220):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(num_samples) / RATE + phase, dtype=np.float64)[None].astype("f4")


def test_a_cross_fade_keeps_the_power_of_noise():
    fade = 4_000
    powers = []
    for seed in range(20):
        joined = cross_fade(noise(2 * seed, 6_000), noise(2 * seed + 1, 6_000), fade)
        assert joined.shape == (1, 8_000)
        powers.append(joined[0, 2_000:6_000].reshape(8, -1) ** 2)
    power = np.mean(powers, axis=(0, 2))
    assert np.abs(power - 1).max() < 0.05, power


def test_a_cross_fade_leaves_the_rest_alone_and_clicks_nowhere():
    before, after = tone(5_000), tone(5_000, phase=2.0)
    joined = cross_fade(before, after, 800)
    assert (joined[:, :4_200] == before[:, :4_200]).all() and (joined[:, 5_000:] == after[:, 800:]).all()
    assert np.abs(np.diff(joined)).max() < 1.5 * np.abs(np.diff(before)).max()
    hard = np.concatenate([before[:, :4_200], after], axis=1)
    assert np.abs(np.diff(hard)).max() > 2 * np.abs(np.diff(before)).max(), "what a fade is for"
    assert (cross_fade(before, after, 0) == np.concatenate([before, after], axis=1)).all()


@pytest.mark.parametrize("num_frames, fps, limit, overlap", [
    (34 * 24, Fraction(24), 8, 1), (100, Fraction(30000, 1001), 1, Fraction(1, 5)), (17, Fraction(10), 1.6, 1),
])  # fmt: skip
def test_windows_cover_a_clip_and_overlap(num_frames, fps, limit, overlap):
    windows = plan_windows(num_frames, fps, Fraction(limit), Fraction(overlap))
    assert windows[0].start == 0 and windows[-1].stop == num_frames
    assert len({window.stop - window.start for window in windows}) == 1
    assert all((window.stop - window.start) / fps <= limit for window in windows)
    assert all(a.stop > b.start > a.start for a, b in pairwise(windows))


def test_a_clip_within_the_limit_is_one_window():
    assert plan_windows(80, Fraction(10), Fraction(8), Fraction(1)) == [Window(0, 80)]
    assert plan_windows(80, Fraction(10), None, Fraction(1)) == [Window(0, 80)]
    with pytest.raises(ValueError, match="less than two frames"):
        plan_windows(80, Fraction(10), Fraction(1, 10), Fraction(1))


class Singer:
    """Sounds that follow the picture: frames of brightness b sound at level b; at most two seconds, and a bit long."""

    info = BackendInfo("singer", sample_rate=RATE, channels=1, max_seconds=Fraction(2), needs_text=False)

    def __init__(self):
        self.seeds, self.durations = [], []

    def __call__(self, video, prompt, *, seed=0, callback=None, **_):
        self.seeds.append(seed)
        self.durations.append(video.duration_seconds)
        level = np.repeat(video.frames[:, 0, 0, 0] / 255, round(RATE / video.fps))
        wave = tone(len(level) + 100, phase=float(seed % 7)) * np.pad(level, (0, 100))
        if callback is not None:
            callback(1, 2)
            callback(2, 2)
        return Sound(wave.astype(np.float32), RATE)


def brightness(levels, fps):
    frames = np.zeros((len(levels), 4, 4, 3), np.uint8)
    frames += np.asarray(levels, np.uint8)[:, None, None, None]
    return Video(frames, Fraction(fps))


def test_a_long_clip_is_made_in_windows_without_seam_or_drift():
    video = brightness([200] * 340, 10)
    singer, steps = Singer(), []
    sound = sound_of(singer, video, "", overlap_seconds=Fraction(1, 4), seed=5, callback=lambda *x: steps.append(x))
    assert sound.waveform.shape == (1, 34 * RATE)
    assert singer.seeds[0] == 5 and len(set(singer.seeds)) == len(singer.seeds) > 15
    assert all(duration <= 2 for duration in singer.durations)
    assert np.abs(np.diff(sound.waveform)).max() < 1.5 * np.abs(np.diff(tone(RATE) * 200 / 255)).max(), "a click"
    assert steps[0] == (1, 2 * len(singer.seeds)) and steps[-1] == (2 * len(singer.seeds),) * 2
    again = sound_of(Singer(), video, "", overlap_seconds=Fraction(1, 4), seed=5)
    assert (again.waveform == sound.waveform).all()


def test_what_is_heard_in_a_late_window_is_heard_when_it_is_seen():
    levels = np.zeros(340, int)
    levels[[47, 251, 333]] = 255
    sound = sound_of(Singer(), brightness(levels, 10), "", seed=1)
    loud = np.abs(sound.waveform[0]).reshape(340, -1).max(1) > 0.05
    assert sorted(np.flatnonzero(loud)) == [47, 251, 333]


def test_sound_is_as_long_as_the_picture_to_the_sample():
    duration = 100 / Fraction(30000, 1001)
    for rate in (16_000, 44_100, 48_000):
        fitted = fit_sound(Sound(noise(0, 3 * RATE), RATE), duration, rate)
        assert fitted.waveform.shape == (1, round(duration * rate)) and fitted.sample_rate == rate
        assert fitted.waveform.dtype == np.float32
    longer = fit_sound(Sound(tone(RATE), RATE), Fraction(2), RATE, channels=2)
    assert longer.waveform.shape == (2, 2 * RATE) and not longer.waveform[:, RATE:].any()
    assert (longer.waveform[1, :RATE] == tone(RATE)[0]).all()


def test_resampling_keeps_a_tone_where_it_is():
    fitted = fit_sound(Sound(tone(RATE), RATE), Fraction(1), 16_000).waveform[0]
    assert np.corrcoef(fitted[::2], tone(RATE)[0])[0, 1] > 0.999


def test_a_mix_holds_both_and_never_clips():
    low, high = Sound(tone(RATE), RATE), Sound(np.repeat(tone(2 * RATE, hertz=500), 2, axis=0), 2 * RATE)
    mixed = mix_sounds(low, high, Fraction(1))
    assert mixed.sample_rate == 2 * RATE and mixed.waveform.shape == (2, 2 * RATE)
    for sound in (fit_sound(low, Fraction(1), 2 * RATE, 2), high):
        part = sound.waveform[0]
        assert abs(np.dot(mixed.waveform[0], part) / np.dot(part, part) - np.sqrt(0.5)) < 0.02
    loud = Sound(np.ones((1, RATE), np.float32), RATE)
    assert mix_sounds(loud, loud, Fraction(1)).waveform.max() == 1


def test_windows_of_different_rates_are_refused():
    class Fickle(Singer):
        info = replace(Singer.info, sample_rate=None)

        def __call__(self, video, prompt, **settings):
            sound = super().__call__(video, prompt, **settings)
            return Sound(sound.waveform, RATE + len(self.seeds))

    with pytest.raises(ValueError, match="windows of different rates"):
        sound_of(Fickle(), brightness([9] * 50, 10), "")
