"""AV-Align: every recorded clip, list of peaks and file, and what a person may give it that is odd."""

import numpy as np
import pytest

from mmdiff.eval.metrics import avalign
from mmdiff.media import Clip, read_audio, read_clip, read_video, write_mp4
from tests.eval.metrics.rhythm_vectors import METRICS, as_float, checked, each, load, raises, synthesis

PREFIXES = {
    "tempotokens-2025": "tempotokens_2025",
    "tempotokens-2023": "tempotokens_2023",
    "javisbench": "javisbench",
}


def expected_score(recorded: dict, variant: str) -> float | None:
    """Return a variant's recorded score, 0 where both sides are empty, None where there is none."""
    for key, value in recorded.items():
        if key.startswith(PREFIXES[variant]):
            return 0.0 if raises(value) else value
    return None


def same_times(ours: np.ndarray, recorded: list[float], tolerance: float = 1e-6) -> None:
    assert len(ours) == len(recorded)
    assert np.allclose(ours, recorded, rtol=0, atol=tolerance)


def check_peaks_and_scores(recorded: dict, scores: dict, heard: np.ndarray, flow: np.ndarray, fps: float) -> None:
    same_times(heard, recorded["audio_peaks"])
    for variant, rule in avalign.VARIANTS.items():
        seen = avalign.video_peaks(flow, fps, rule.min_flow)
        same_times(seen, recorded["video_peaks_no_thr" if rule.min_flow is None else "video_peaks_thr0p1"])
        wanted = expected_score(scores, variant)
        if wanted is not None:
            got = avalign.intersection_over_union(heard, seen, fps, variant)
            assert got == pytest.approx(wanted, abs=1e-6), variant


@each("avalign/clips_expected.json", lambda facts: facts["clips"], lambda case: case["name"])
def test_recorded_clips(case):
    frames, sound = synthesis().clip(case)
    checked(frames, case["video_sha256"])
    checked(sound, case["audio_i16_sha256"])
    flow = avalign.flow_trajectory(frames)
    assert np.allclose(flow, case["flow"], rtol=0, atol=1e-4)
    heard = avalign.audio_peaks(as_float(sound), case["sr"])
    check_peaks_and_scores(case, case["score"], heard, flow, case["fps"])

    colour = np.repeat(frames[..., None], 3, axis=-1)
    assert np.array_equal(avalign.flow_trajectory(colour), flow)
    clip = Clip(colour, as_float(sound)[None], case["fps"], case["sr"])
    for variant in avalign.VARIANTS:
        score = avalign.av_align(clip, variant=variant, size=min(frames.shape[1:]))
        assert score == pytest.approx(expected_score(case["score"], variant), abs=1e-6), variant


def stored_names(facts: dict) -> list[str]:
    with np.load(METRICS / "avalign" / "stored_clips.npz") as stored:
        return sorted({name.rsplit("__", 1)[0] for name in stored})


@each("avalign/clips_expected.json", stored_names)
def test_stored_arrays_are_the_rebuilt_ones(case):
    facts = next(clip for clip in load("avalign/clips_expected.json")["clips"] if clip["name"] == case)
    frames, sound = synthesis().clip(facts)
    with np.load(METRICS / "avalign" / "stored_clips.npz") as stored:
        frames_stored, sound_stored = stored[f"{case}__frames"], stored[f"{case}__audio_i16"]
    assert np.array_equal(frames, frames_stored)
    assert np.array_equal(sound, sound_stored)
    score = avalign.score_arrays(frames_stored, as_float(sound_stored), facts["fps"], facts["sr"])
    assert score == pytest.approx(expected_score(facts["score"], avalign.DEFAULT_VARIANT), abs=1e-6)


@each("avalign/pure_functions_expected.json", lambda facts: facts["iou"])
def test_recorded_peak_lists(case):
    for variant in avalign.VARIANTS:
        wanted = expected_score(case["iou"], variant)
        got = avalign.intersection_over_union(case["audio_peaks"], case["video_peaks"], case["fps"], variant)
        assert got == pytest.approx(wanted, abs=1e-9), variant


@each("avalign/pure_functions_expected.json", lambda facts: facts["local_max"])
def test_recorded_local_maxima(case):
    same_times(avalign.video_peaks(case["arr"], case["fps"], 0.1), case["thr0.1"], 1e-9)
    same_times(avalign.video_peaks(case["arr"], case["fps"], None), case["no_thr"], 1e-9)


@each("avalign/files_expected.json", list, lambda case: case["video"])
def test_recorded_files(case):
    picture = read_video(METRICS / "avalign" / case["video"])
    sound = read_audio(METRICS / "avalign" / case["audio"])
    assert float(picture.fps) == pytest.approx(case["fps_read"], abs=1e-6)
    assert len(picture.frames) == case["n_frames"]
    if case["frames_bit_exact_vs_formula"]:
        facts = next(clip for clip in load("avalign/clips_expected.json")["clips"] if clip["name"] == case["clip"])
        frames, _ = synthesis().clip(facts)
        assert np.array_equal(picture.frames, np.repeat(frames[..., None], 3, axis=-1))
    heard = avalign.audio_peaks(sound.waveform, sound.sample_rate)
    check_peaks_and_scores(case, case, heard, avalign.flow_trajectory(picture.frames), picture.fps)

    whole = Clip(picture.frames, sound.waveform, picture.fps, sound.sample_rate)
    for variant in avalign.VARIANTS:
        wanted = expected_score(case, variant)
        if wanted is not None:
            assert avalign.av_align(whole, variant=variant, size=None) == pytest.approx(wanted, abs=1e-6)


@each("avalign/files_expected.json", lambda cases: [case for case in cases if case["video"].endswith(".avi")])
def test_a_clip_written_as_mp4_and_read_back_scores_as_before(case, tmp_path):
    picture = read_video(METRICS / "avalign" / case["video"])
    sound = read_audio(METRICS / "avalign" / case["audio"])
    clip = Clip(picture.frames, sound.waveform, picture.fps, sound.sample_rate)
    again = read_clip(write_mp4(tmp_path / "clip.mp4", clip))
    assert avalign.av_align(again, size=None) == pytest.approx(case["tempotokens_2025"], abs=1e-6)


def moving_square(num_frames: int = 30, side: int = 64) -> np.ndarray:
    """Return gray frames in which a bright square jumps at frames 10 and 20 and is still otherwise."""
    frames = np.full((num_frames, side, side), 40, np.uint8)
    texture = np.random.default_rng(0).integers(60, 250, (side // 4, side // 4), dtype=np.uint8)
    for i, frame in enumerate(frames):
        left = side // 8 + side // 16 * (i // 10)
        frame[side // 4 : side // 4 + side // 4, left : left + side // 4] = texture
    return frames


def test_resizing_brings_one_scene_at_two_sizes_to_one_flow():
    import cv2

    small = moving_square(side=128)
    large = np.stack([cv2.resize(frame, (256, 256), interpolation=cv2.INTER_CUBIC) for frame in small])
    native = avalign.flow_trajectory(large)[10] / avalign.flow_trajectory(small)[10]
    fixed = avalign.flow_trajectory(large, 64)[10] / avalign.flow_trajectory(small, 64)[10]
    assert abs(np.log(fixed)) < 0.1 < abs(np.log(native))


def test_gray_is_the_weighted_mean_of_red_green_and_blue():
    """A red scene is darker in gray than a green one: channels in the wrong order would show in the flow."""
    import cv2

    gray = moving_square()
    colour = np.zeros((*gray.shape, 3), np.uint8)
    colour[..., 0] = gray
    as_bgr = np.stack([cv2.cvtColor(np.ascontiguousarray(frame[..., ::-1]), cv2.COLOR_BGR2GRAY) for frame in colour])
    assert np.array_equal(avalign.flow_trajectory(colour), avalign.flow_trajectory(as_bgr))


def test_silent_and_still_clips_score_zero():
    still = Clip(np.full((10, 32, 32, 3), 90, np.uint8), np.zeros((2, 16000), np.float32), 10, 16000)
    assert [avalign.av_align(still, variant=name) for name in avalign.VARIANTS] == [0.0, 0.0, 0.0]
    soundless = Clip(still.frames, np.zeros((1, 0), np.float32), 10, 16000)
    assert avalign.av_align(soundless) == 0.0


def test_mistakes_are_named():
    frames, wave = np.zeros((2, 16, 16, 3), np.uint8), np.zeros((1, 800), np.float32)
    with pytest.raises(ValueError, match="two frames or more"):
        avalign.av_align(Clip(frames[:1], wave, 10, 8000))
    with pytest.raises(ValueError, match="choose one of tempotokens-2025"):
        avalign.av_align(Clip(frames, wave, 10, 8000), variant="2025")
    with pytest.raises(ValueError, match="uint8 RGB or gray"):
        avalign.flow_trajectory(frames.astype(np.float32))
    with pytest.raises(ValueError, match="NaN or infinite"):
        avalign.audio_peaks(wave * np.nan, 8000)
