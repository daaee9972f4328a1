"""The detectors find flashes and clicks where they are, and the numbers made of them are what they claim to be."""

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mmdiff.eval.statistics import (
    common_offset,
    derangement,
    interval,
    resample_counts,
    summarize,
    weighted_quantile,
)
from mmdiff.eval.sync import (
    Agreement,
    audio_onsets,
    compare_events,
    default_tolerance,
    match_events,
    merge_times,
    video_onsets,
)

RATE = 16_000
DURATION = 1.6


def draw_times(rng: np.random.Generator, count: int = 3) -> np.ndarray:
    """Event times at least 0.25 s apart, away from the very first frames."""
    gaps = rng.uniform(0.25, 0.45, count)
    return 0.02 + rng.uniform(0, 0.2) + np.cumsum(gaps) - gaps[0]


def draw_sound(times, rng: np.random.Generator, *, rate: int = RATE, decay: float = 0.1) -> np.ndarray:
    """Rings of random pitch that overlap, over a faint noise."""
    clock = np.arange(round(DURATION * rate)) / rate
    wave = 1e-3 * rng.standard_normal(len(clock))
    for time in times:
        age = np.maximum(clock - time, 0)
        ring = np.exp(-age / decay) * np.sin(2 * np.pi * rng.uniform(300, 2500) * age)
        burst = np.exp(-age / 0.005) * rng.standard_normal(len(clock))
        wave += rng.uniform(0.2, 0.5) * (clock >= time) * (ring + 0.5 * burst)
    return wave[None].astype(np.float32)


def draw_picture(times, *, fps: int = 10, size: int = 64, seed: int = 0) -> np.ndarray:
    """Flashes that cover a tenth of the picture and die away, and a disc that moves all the time."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    frames = np.full((round(DURATION * fps), size, size, 3), 40.0)
    for number, frame in enumerate(frames):
        now = number / fps
        frame[np.hypot(x - (0.2 + 0.4 * now) % 1, y - 0.2) < 0.07] = 220
        light = sum(np.exp(-(now - time) / 0.15) for time in times if now >= time)
        frame[(abs(x - 0.5) < 0.16) & (abs(y - 0.7) < 0.16)] += 170 * min(light, 1.2)
    return (frames + rng.normal(0, 1, frames.shape)).clip(0, 255).round().astype(np.uint8)


def found_share(true, found, tolerance: float) -> float:
    matched = len(match_events(np.asarray(true), found, tolerance).offsets)
    return 2 * matched / (len(true) + len(found))


def brute_force(audio, video, tolerance):
    """Largest number of pairs, then the smallest sum of distances, by trying everything."""
    short, long = sorted((list(audio), list(video)), key=len)
    best = (0, 0.0)
    for order in permutations(range(len(long)), len(short)):
        distances = [abs(short[i] - long[j]) for i, j in enumerate(order)]
        near = [d for d in distances if d <= tolerance]
        best = min(best, (-len(near), sum(near)))
    return best


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_sounds_are_found_to_the_millisecond(rate):
    rng = np.random.default_rng(1)
    for _ in range(5):
        times = draw_times(rng)
        found = audio_onsets(draw_sound(times, rng, rate=rate), rate)
        assert found_share(times, found, 0.05) == 1
        assert np.median(np.abs(found - times)) < 0.003


def test_level_and_length_do_not_matter_to_the_ear():
    rng = np.random.default_rng(2)
    times = draw_times(rng)
    wave = draw_sound(times, rng)
    assert audio_onsets(0.01 * wave, RATE) == pytest.approx(audio_onsets(wave, RATE), abs=1e-4)
    assert audio_onsets(np.concatenate([wave, wave]), RATE) == pytest.approx(audio_onsets(wave, RATE), abs=1e-4)
    later = audio_onsets(np.pad(wave, ((0, 0), (RATE, 0)), mode="reflect"), RATE)
    assert found_share(times + 1, later[later > 1.005], 0.01) == 1


def test_silence_hum_noise_and_what_already_rings_have_no_onsets():
    rng = np.random.default_rng(3)
    clock = np.arange(25_600) / RATE
    assert len(audio_onsets(np.zeros((1, 25_600), np.float32), RATE)) == 0
    assert len(audio_onsets(np.zeros((1, 10), np.float32), RATE)) == 0
    assert len(audio_onsets(np.zeros((1, 0), np.float32), RATE)) == 0
    assert len(audio_onsets(0.3 * np.sin(2 * np.pi * 100 * clock), RATE)) == 0
    assert len(audio_onsets(0.2 * rng.standard_normal(25_600), RATE)) == 0
    ringing = np.exp(-clock / 0.2) * np.sin(2 * np.pi * 900 * clock + 1) + 1e-4 * rng.standard_normal(25_600)
    assert len(audio_onsets(ringing, RATE)) == 0


def test_smeared_attacks_are_found_within_a_few_milliseconds():
    rng = np.random.default_rng(4)
    for _ in range(5):
        times = draw_times(rng)
        wave = draw_sound(times, rng)[0]
        smeared = np.convolve(wave, np.hanning(160) * rng.standard_normal(160), mode="same")  # 10 ms, before and after
        found = audio_onsets(smeared, RATE)
        assert found_share(times, found, 0.05) == 1
        assert np.median(np.abs(found - times)) < 0.008


@pytest.mark.parametrize("fps", [8, 10, 25, 30])
def test_flashes_are_placed_without_bias_within_half_a_frame(fps):
    rng = np.random.default_rng(5)
    errors = []
    for number in range(20):
        times = draw_times(rng)
        found = video_onsets(draw_picture(times, fps=fps, seed=number), Fraction(fps))
        assert len(found) == len(times)
        errors += list(found - times)
    assert np.abs(errors).max() <= 0.5 / fps + 1e-9
    assert abs(np.mean(errors)) < 0.12 / fps


def test_blur_noise_and_low_contrast_do_not_blind_the_eye():
    rng = np.random.default_rng(6)
    for number in range(5):
        times = draw_times(rng)
        frames = draw_picture(times, seed=number).astype(np.float64)
        dull = 0.5 * gaussian_filter(frames, (0, 1.5, 1.5, 0)) + 50 + rng.normal(0, 8, frames.shape)
        found = video_onsets(dull.clip(0, 255).astype(np.uint8), 10)
        assert found_share(times, found, 0.0501) == 1


def test_still_pictures_and_small_moving_things_are_no_events():
    assert len(video_onsets(draw_picture([]), 10)) == 0
    assert len(video_onsets(np.full((16, 8, 8, 3), 90, np.uint8), 10)) == 0
    assert len(video_onsets(np.zeros((1, 8, 8, 3), np.uint8), 10)) == 0
    assert len(video_onsets(np.zeros((0, 8, 8, 3), np.uint8), 10)) == 0


def test_a_flash_in_frame_k_happened_half_a_period_before_it():
    frames = np.zeros((16, 32, 32, 3), np.uint8)
    frames[7, 4:20, 4:20] = 200
    assert video_onsets(frames, Fraction(10)) == pytest.approx([0.65])


def test_matching_is_the_best_there_is():
    rng = np.random.default_rng(7)
    for _ in range(60):
        audio, video = (rng.uniform(0, 1, rng.integers(0, 6)) for _ in range(2))
        matching = match_events(audio, video, 0.15)
        count, total = brute_force(audio, video, 0.15)
        assert len(matching.offsets) == -count
        assert np.abs(matching.offsets).sum() == pytest.approx(total)
        assert len(set(matching.audio)) == len(set(matching.video)) == len(matching.offsets)
        back = match_events(video, audio, 0.15)
        assert len(back.offsets) == len(matching.offsets)
    assert len(match_events([0.5], [0.6], 0.1).offsets) == 1  # the tolerance itself is near enough


def test_perfect_pairs_score_one_and_events_that_could_not_have_partners_do_not_count():
    times = np.array([0.3, 0.7, 1.1])
    score = {"tolerance_seconds": 0.1, "reach_seconds": 0.3, "end_seconds": 1.5}
    assert compare_events(times, times, **score).f1 == 1
    assert compare_events([0.04, *times, 1.55], times, **score).f1 == 1
    assert compare_events([*times, 1.3], times, **score).f1 == pytest.approx(6 / 7)
    assert np.isnan(compare_events([], [], **score).f1)
    assert compare_events(times, [], **score).f1 == 0
    late = compare_events(times + 0.2, times, **score)
    assert late.num_matched == 0 and late.offsets == pytest.approx([0.2] * 3)


def test_one_frame_is_the_tolerance_but_never_less_than_50_ms():
    assert default_tolerance(Fraction(10)) == 0.1
    assert default_tolerance(Fraction(30)) == 0.05


def test_times_close_together_become_one():
    assert merge_times(np.array([0.5, 0.1, 0.11]), np.array([1, 1, 2]), 0.05) == pytest.approx([0.11, 0.5])
    assert len(merge_times(np.zeros(0), np.zeros(0), 0.05)) == 0


def test_a_derangement_leaves_nothing_in_its_place():
    rng = np.random.default_rng(8)
    for size in range(2, 30):
        order = derangement(size, rng)
        assert sorted(order) == list(range(size)) and (order != np.arange(size)).all()
    with pytest.raises(ValueError, match="cannot be shuffled"):
        derangement(1, rng)


def test_quantiles_with_weights_are_quantiles_of_repeated_values():
    rng = np.random.default_rng(9)
    values, weights = rng.normal(size=30), rng.integers(0, 4, (5, 30))
    for row, median in zip(weights, weighted_quantile(values, weights, 0.5)):
        assert median == np.quantile(np.repeat(values, row), 0.5, method="inverted_cdf")
    assert np.isnan(weighted_quantile(values, np.zeros((1, 30)), 0.5)).all()


def test_the_bootstrap_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(10)
    covered = 0
    for trial in range(200):
        hits = rng.binomial(4, 0.7, 40)
        agreements = [Agreement(int(h), 4, 4, np.full(int(h), 0.02)) for h in hits]
        f1 = summarize(agreements, [(i,) for i in range(40)], 40, seed=trial, num_resamples=300).f1
        covered += f1.low <= 0.7 <= f1.high
    assert 0.89 <= covered / 200 <= 0.99
    assert (resample_counts(7, 11, rng).sum(1) == 7).all()


def test_a_summary_is_the_same_for_the_same_seed_and_says_where_there_is_nothing():
    agreements = [Agreement(2, 3, 2, np.array([0.01, -0.03])), Agreement(0, 0, 0, np.zeros(0))]
    first, again = (summarize(agreements, [(0,), (1,)], 2, seed=5) for _ in range(2))
    assert first == again and first.f1.value == 0.8 and first.median_offset_ms.value == pytest.approx(10)
    assert summarize(agreements[1:], [(0,)], 1, seed=0).f1.value is None
    assert summarize([], [], 0, seed=0).f1.value is None
    assert interval(np.array([1.0])).low is None


@pytest.mark.parametrize("shift", [-0.3, -0.12, 0.0, 0.04, 0.3])
def test_the_common_offset_is_what_was_put_in(shift):
    rng = np.random.default_rng(11)
    differences = []
    for _ in range(40):
        times = draw_times(rng, 4)
        seen = (np.ceil(times * 10) - 0.5) / 10
        differences.append(((times + shift)[:, None] - seen[None]).ravel())
    found = common_offset(differences, width_seconds=0.1, seed=0)
    assert found.value == pytest.approx(1000 * shift, abs=12)
    assert found.low - 1 <= found.value <= found.high + 1
    assert common_offset([np.zeros(0)], width_seconds=0.1, seed=0).value is None
