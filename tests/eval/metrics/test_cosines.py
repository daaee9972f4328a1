"""Cosine scores, JavisScore's windows and DeSync: recorded numbers, and the rules where they end."""

from fractions import Fraction

import numpy as np
import pytest

from mmdiff.eval.metrics.cosines import (
    DESYNC_GRID_SECONDS,
    avh_score,
    cavp_accuracy,
    cavp_score,
    clap_a,
    clip_score,
    desync,
    desync_offsets,
    desync_segments,
    inter_similarity,
    javis_score,
    javis_windows,
    paired_cosine,
    paired_cosines,
)
from tests.eval.metrics.distance_vectors import arrays, cases, entries, facts, number

FILE = "embeddings/expected.json"
RECORDED = facts(FILE)
SAMPLE_RATE = 16000  # of ImageBind and Synchformer
SCORES = {
    "clap_a_dreamsound": lambda z: clap_a(z["clap_src"], z["clap_gen"]),
    "clap_t_dreamsound_code(text=first prompt only)": lambda z: clap_a(z["clap_txt"][:1], z["clap_gen"]),
    "clap_t_paired_mean(cos(text_i,audio_i))": lambda z: paired_cosine(z["clap_txt"], z["clap_gen"]),
    "inter_audio_similarity_dreamsound": lambda z: inter_similarity(z["clap_gen"]),
    "ib_score_av_benchmark(mean paired cosine)": lambda z: paired_cosine(
        z["clap_src"], z["clap_gen"][: len(z["clap_src"])]
    ),
    "torchmetrics_clip_score_rule(max(mean(100*cos),0))": lambda z: clip_score(
        z["clap_gen"], z["clap_txt"], variant="torchmetrics"
    ),
    "desync_av_benchmark": lambda z: desync(z["desync_logits_first14"], z["desync_logits_last14"]),
    "desync_per_sample": lambda z: desync_offsets(z["desync_logits_first14"], z["desync_logits_last14"]),
    "desync_grid": lambda z: DESYNC_GRID_SECONDS,
    "cavp_align_acc_diff_foley(round(prob)==1)": lambda z: cavp_accuracy(z["cavp_prob"]),
}
ELSEWHERE = {  # below, and in the tests of the extractors that prepare pictures
    "javis_windows",
    "javisscore",
    "javisscore_trap",
    "desync_segments",
    "i3d_preprocess",
    "clean_fid_resize_299",
}


@pytest.mark.parametrize(("key", "expected"), entries(RECORDED, [k for k in RECORDED if k not in ELSEWHERE], FILE))
def test_recorded_score(key, expected):
    scale = 100 if "100*cos" in key else 1
    assert SCORES[key](arrays("embeddings/inputs.npz")) == pytest.approx(expected, rel=1e-5, abs=scale * 1e-7)


@pytest.mark.parametrize("case", cases(FILE, "javis_windows"))
def test_recorded_windows(case):
    windows = javis_windows(
        case["n_frames"],
        case["n_samples"],
        case["fps"],
        case["sr"],
        window_seconds=case["window_s"],
        overlap_seconds=case["overlap_s"],
    )
    assert windows.video.tolist() == case["video_windows"]
    assert [[start, end - start] for start, end in windows.audio.tolist()] == case["audio_clip_start_len"]


@pytest.mark.parametrize("case", cases(FILE, "javisscore"))
def test_recorded_javis_score(case):
    stored, stem = arrays("embeddings/inputs.npz"), f"js{case['case']}"
    frames, sounds = stored[f"{stem}_frame_emb"], stored[f"{stem}_audio_window_emb"]
    assert avh_score(frames, stored[f"{stem}_audio_emb"]) == pytest.approx(case["avhscore"], abs=1e-5)
    windows = javis_windows(case["n_frames"], case["n_samples"], case["fps"], SAMPLE_RATE).video
    if number(case["javisscore"]) is None:
        with pytest.raises(ValueError, match="higher fps"):
            javis_score(frames, sounds, windows)
        return
    assert int(0.4 * (windows[0, 1] - windows[0, 0])) == case["k"]
    assert javis_score(frames, sounds, windows) == pytest.approx(case["javisscore"], abs=1e-5)


@pytest.mark.parametrize("case", cases(FILE, "desync_segments"))
def test_recorded_segments(case):
    assert case["sr"] == SAMPLE_RATE
    frames, samples = case["video_frames@25fps"], case["audio_len"]
    assert desync_segments(frames, 10**9) == case["n_video_segments"]
    assert desync_segments(10**6, samples) == case["n_segments"]
    assert desync_segments(frames, samples) == min(case["n_segments"], case["n_video_segments"])


def plane(*degrees: float) -> np.ndarray:
    """Make embeddings `n 2` at angles, of differing length."""
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1) * np.arange(1, len(degrees) + 1)[:, None]


def test_cosines_of_known_angles():
    assert paired_cosines(plane(0, 0, 0), plane(60, 90, 180)) == pytest.approx([0.5, 0, -1])
    assert clap_a(plane(0, 90), plane(0, 90, 45)) == pytest.approx((1 + 1 + 0 + 0 + 2 * 0.5**0.5) / 6)
    assert inter_similarity(plane(0, 60, 120)) == pytest.approx((0.5 + 0.5 - 0.5) / 3)
    assert cavp_score(plane(0, 10, 20, 30), plane(60, 70, 80)) == pytest.approx(0.5)


def test_clip_score_variants_clamp_before_or_after_or_not_at_all():
    images, texts = plane(0, 0), plane(60, 180)
    scores = {name: clip_score(images, texts, variant=name) for name in ("per-item", "torchmetrics", "javisbench")}
    assert scores == pytest.approx({"per-item": 25, "torchmetrics": 0, "javisbench": -0.25}, abs=1e-9)


def test_javis_score_takes_the_frames_that_fit_least():
    frames, sounds = plane(0, 60, 90, 120, 180), plane(0, 180)
    windows = np.array([[0, 5], [0, 5]])  # int(0.4 x 5) = 2 lowest: 120 and 180 degrees; then 0 and 60
    assert javis_score(frames, sounds, windows) == pytest.approx((-0.75 - 0.75) / 2)
    with pytest.raises(ValueError, match="2 embeddings of sound for 1 windows"):
        javis_score(frames, sounds, windows[:1])


def test_one_frame_per_second_has_no_javis_score():
    windows = javis_windows(5, 5 * SAMPLE_RATE, 1, SAMPLE_RATE).video
    with pytest.raises(ValueError, match="is none; use clips of a higher fps"):
        javis_score(plane(0, 10, 20, 30, 40), plane(*range(len(windows))), windows)


def test_windows_of_exact_rates_and_of_short_clips():
    ntsc = javis_windows(120, 64064, Fraction(30000, 1001), SAMPLE_RATE)
    assert (np.diff(ntsc.video) == 59).all()
    assert ntsc.audio[-1, 1] == 64064
    short = javis_windows(16, 100_000, 10, SAMPLE_RATE)
    assert short.video.tolist() == [[0, 16]]
    assert short.audio.tolist() == [[0, 100_000]]
    with pytest.raises(ValueError, match="a window must hold a frame and move on"):
        javis_windows(10, 100_000, 0.4, SAMPLE_RATE)


def test_desync_reads_the_grid():
    first, last = np.zeros((2, 21)), np.zeros((2, 21))
    first[[0, 1], [10, 0]] = 1  # in step; 2 s early
    last[[0, 1], [12, 20]] = 1  # 0.4 s late; 2 s late
    assert desync_offsets(first, last) == pytest.approx([0.2, 2])
    assert desync(first, last) == pytest.approx(1.1)
    assert desync_segments(10, 20000) == 0


def test_one_half_rounds_to_not_aligned():
    assert cavp_accuracy([0.5, 0.51, 0.2, 1.0]) == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_cosine(plane(0, 1), plane(0)), "2 embeddings of x and 1 of y"),
        (lambda: paired_cosine(plane(0, 1), np.zeros((2, 2))), "y: row 0 is all zeros"),
        (lambda: clip_score(plane(0), plane(0), variant="best"), "per-item, torchmetrics, javisbench|torchmetrics"),
        (lambda: avh_score(plane(0, 1), plane(0, 1)), "2 embeddings of one clip's sound"),
        (lambda: desync(np.zeros((2, 20)), np.zeros((2, 20))), "n 21 of both ends"),
        (lambda: cavp_accuracy([3.0]), "not logits"),
        (lambda: cavp_accuracy([]), "0 value"),
        (lambda: inter_similarity(plane(0)), "at least 2"),
    ],
)
def test_a_persons_mistake_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
