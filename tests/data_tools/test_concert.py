"""The concert benchmark: every hit is heard and seen at the time the manifest says."""

from fractions import Fraction
from itertools import pairwise
from math import ceil

import numpy as np
import pytest

from data_tools.concert import render_concert, synthesize_concert
from data_tools.music import INSTRUMENTS, MIN_GAP_SECONDS, compose
from mmdiff.data.manifest import entry_path, read_manifest
from mmdiff.media import read_clip


def render(index=0, seed=3, seconds=8.0, fps=Fraction(30), size=(48, 64), sample_rate=16_000):
    """Render a small concert."""
    height, width = size
    return render_concert(
        seed, index, seconds=seconds, fps=fps, height=height, width=width, sample_rate=sample_rate
    )


def onset(wave: np.ndarray, at: int, sample_rate: int) -> float | None:
    """Return the seconds from sample `at` to where the waveform begins to jump more than just before, if it does."""
    before = np.abs(np.diff(wave[max(at - sample_rate // 100, 0) : at])).max(initial=0)
    jumps = np.abs(np.diff(wave[max(at - 1, 0) : at + sample_rate // 50])) > 1.5 * before + 0.004
    return np.argmax(jumps) / sample_rate if jumps.any() else None


@pytest.mark.parametrize(
    ("fps", "sample_rate"), [(Fraction(30), 16_000), (Fraction(24000, 1001), 44_100), (Fraction(10), 22_050)]
)
def test_every_hit_sounds_and_lights_at_its_time(fps, sample_rate):
    footage = render(fps=fps, sample_rate=sample_rate)
    clip, hits = footage.clip, [event for event in footage.events if event.time > 0.1]
    assert len(hits) >= 5
    brightness = clip.frames.mean((1, 2, 3))
    for hit in hits:
        assert abs(hit.time * sample_rate - round(hit.time * sample_rate)) < 0.01
        delay = onset(clip.waveform[0], round(hit.time * sample_rate), sample_rate)
        assert delay is not None, hit
        assert delay < 0.002, hit
        first_lit = ceil(hit.time * fps - 1e-6)
        if first_lit < clip.num_frames:
            assert brightness[first_lit] - brightness[first_lit - 1] > 0.5, hit


def test_nothing_lights_between_hits():
    footage = render(index=1)
    lit = {ceil(event.time * 30 - 1e-6) for event in footage.events}
    rises = np.flatnonzero(np.diff(footage.clip.frames.mean((1, 2, 3))) > 0.8) + 1
    assert set(rises.tolist()) <= lit


def test_scores_cannot_be_counted_out():
    scores = [compose(np.random.default_rng(seed), 34.0, 16_000) for seed in range(30)]
    gaps = [np.diff([hit.time for hit in score.hits]) for score in scores]
    assert min(gap.min() for gap in gaps) > MIN_GAP_SECONDS - 1e-4
    assert max(gap.max() for gap in gaps) > 2, "breaks are part of the music"
    assert np.median([gap.std() / gap.mean() for gap in gaps]) > 0.3, "the gaps within a piece differ"
    tempos = [score.tempo for score in scores]
    assert min(tempos) < 90
    assert max(tempos) > 140
    assert {hit.instrument for score in scores for hit in score.hits} == set(INSTRUMENTS)
    assert all(a < b for score in scores for a, b in pairwise(score.beats))


def test_hits_on_the_beat_lie_on_beats():
    score = compose(np.random.default_rng(5), 34.0, 16_000)
    on_beat = [hit.time for hit in score.hits if hit.is_beat]
    assert on_beat
    assert all(np.abs(score.beats - time).min() < 1 / 16_000 for time in on_beat)


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(tmp_path):
    size = {"count": 3, "seconds": 2, "height": 32, "width": 32, "seed": 9}
    first = synthesize_concert(tmp_path / "one", workers=1, **size)
    second = synthesize_concert(tmp_path / "two", workers=2, **size)
    assert [entry.sha256 for entry in first] == [entry.sha256 for entry in second]
    assert {entry.split for entry in first} == {"train", "validation", "test"}
    assert len({entry.sha256 for entry in first}) == 3


def test_a_written_concert_reads_back_with_its_events(tmp_path):
    synthesize_concert(tmp_path, count=1, seconds=6, fps="25", height=48, width=48, seed=1)
    entry = read_manifest(tmp_path)[0]
    clip = read_clip(entry_path(tmp_path, entry))
    assert (clip.num_frames, clip.num_samples) == (150, 96_000)
    assert clip.fps == 25
    brightness = clip.frames.mean((1, 2, 3))
    drums = [event for event in entry.events if event.kind != "hat" and 0.2 < event.time < 5.8]
    assert drums
    for event in drums:
        frame = ceil(event.time * 25 - 1e-6)
        assert brightness[frame] > brightness[frame - 1], event
