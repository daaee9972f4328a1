"""The impacts benchmark: each blow is seen and heard at its time, and no rhythm gives it away."""

from fractions import Fraction

import numpy as np
import pytest

from data_tools.blows import approach
from data_tools.impacts import _compose, render_impacts, synthesize_impacts
from mmdiff.data.manifest import MANIFEST_NAME, read_manifest
from mmdiff.eval.sync import audio_onsets, match_events, video_rise

SIZE = {"height": 32, "width": 32, "sample_rate": 16_000}


def footage(index: int, seconds: float = 8, fps: str = "30", **changes):
    return render_impacts(3, index, seconds=seconds, fps=Fraction(fps), **(SIZE | changes))


@pytest.mark.parametrize("index", range(6))
def test_every_blow_sounds_at_its_time(index):
    clip = footage(index)
    times = np.array([event.time for event in clip.events])
    heard = audio_onsets(clip.clip.waveform, clip.clip.sample_rate)
    matched = match_events(heard, times, 0.05)
    assert len(matched.offsets) >= 0.95 * len(times)
    assert np.median(np.abs(matched.offsets)) < 0.002


@pytest.mark.parametrize("fps", ["10", "24000/1001", "30"])
def test_every_blow_lights_up_in_the_first_frame_after_it(fps):
    for index in range(4):
        clip = footage(index, fps=fps, seconds=6)
        rise = video_rise(clip.clip.frames, clip.clip.fps)
        firsts = [int(np.ceil(event.time * clip.clip.fps)) for event in clip.events if event.time > 0.3]
        firsts = [number for number in firsts if number < len(rise)]
        others = np.delete(rise, sorted(set(firsts)))
        assert np.median(rise[firsts]) > 5 * np.quantile(others, 0.9)
        assert np.mean(rise[firsts] > 0.02) > 0.95


def test_the_times_have_no_rhythm_and_keep_apart():
    render = {"height": 16, "width": 16}
    gaps = np.concatenate([np.diff([e.time for e in footage(i, 34, "5", **render).events]) for i in range(5)])
    assert gaps.min() > 0.249
    assert gaps.std() / gaps.mean() > 0.4
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.3


def test_other_sizes_and_rates():
    clip = footage(1, seconds=2, fps="30000/1001", height=48, width=80, sample_rate=44_100).clip
    assert clip.frames.shape == (60, 48, 80, 3)
    assert clip.num_samples == round(60 / Fraction(30000, 1001) * 44_100)


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(tmp_path):
    settings = {"count": 3, "seconds": 1, "fps": 10, "height": 16, "width": 16, "seed": 9}
    for folder, workers in (("one", 1), ("two", 2)):
        synthesize_impacts(tmp_path / folder, workers=workers, **settings)
    entries = read_manifest(tmp_path / "one")
    assert sorted(entry.split for entry in entries) == ["test", "train", "validation"]
    for name in (MANIFEST_NAME, *(entry.path for entry in entries)):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_footage_made_with_other_settings_is_not_touched(tmp_path):
    synthesize_impacts(tmp_path, count=1, seconds=1, fps=10, height=16, width=16)
    with pytest.raises(ValueError, match="other settings"):
        synthesize_impacts(tmp_path, count=1, seconds=1, fps=10, height=16, width=16, seed=1)


def test_nothing_strikes_without_a_sound():
    for index in range(30):
        targets, _ = _compose(np.random.default_rng((0, index)), 34, 16_000)
        for target in targets:
            before = [int(np.searchsorted(target.times, time, side="right")) for time in np.arange(0.25, 34, 0.5)]
            assert min(approach(target, n, time) for n, time in zip(before, np.arange(0.25, 34, 0.5))) >= 0


def test_an_event_and_its_light_share_one_time_exactly():
    for index in range(30):
        targets, _ = _compose(np.random.default_rng((0, index)), 34, 16_000)
        for target in targets:
            assert np.array_equal(target.times, np.round(target.times * 16_000) / 16_000)
