"""Beats: every recorded pair of musics, dance and list of beats, and the silent and uneven ones."""

from functools import partial

import numpy as np
import pytest

from mmdiff.eval.metrics import avalign, beats
from mmdiff.media import read_audio
from tests.eval.metrics.rhythm_vectors import METRICS, as_float, checked, each, raises, synthesis

SCORES = {"loris": "(cover=hit/|syn|,hit=hit/|ref|)", "d2m": "(cover=|syn|/|ref|,hit=hit/|ref|)"}


def waves(case: dict) -> dict[str, np.ndarray]:
    return {
        side: as_float(checked(synthesis().beats_signal(case[side]), case[f"{side}_sha"])) for side in ("ref", "syn")
    }


def check_score(case: dict, version: str, score) -> None:
    """Compare a score with the recorded one; a length that the reference refuses we refuse; silence is 0."""
    wanted = case[version][SCORES[version]]
    if raises(wanted) and not wanted.startswith("ZeroDivision"):
        with pytest.raises(ValueError, match="cut both to the shorter"):
            score()
        return
    wanted = [0.0, 0.0] if raises(wanted) else wanted
    got = score()
    assert (got.coverage, got.hit) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("version", beats.ONSETS)
@each("beats/beats_expected.json", lambda facts: facts["pairs"], lambda case: case["name"])
def test_recorded_pairs(case, version):
    recorded, rate, cells = case[version], case["sr"], {}
    for side, wave in waves(case).items():
        onsets = beats.onset_times(wave, rate, version)
        assert len(onsets) == len(recorded[f"onsets_{side}"])
        assert np.allclose(onsets, recorded[f"onsets_{side}"], rtol=0, atol=1e-6)
        cells[side] = beats.onset_cells(onsets, len(wave) / rate)
        assert cells[side].astype(int).tolist() == recorded[f"beats_{side}"]
    check_score(case, version, partial(beats.compare_cells, cells["ref"], cells["syn"], version=version))


@each("beats/beats_expected.json", lambda facts: [facts])
def test_recorded_means(case):
    numeric = [pair for pair in case["pairs"] if not raises(pair["loris"][SCORES["loris"]])]
    made = [
        beats.compare_cells(np.array(pair["loris"]["beats_ref"]), np.array(pair["loris"]["beats_syn"]), version="loris")
        for pair in numeric
    ]
    means, recorded = beats.average_scores(made), case["aggregate"]
    assert len(made) == recorded["n"]
    assert means.coverage == pytest.approx(recorded["loris_cover"], abs=1e-9)
    assert means.hit == pytest.approx(recorded["loris_hit"], abs=1e-9)
    assert means.coverage_deviation == pytest.approx(recorded["loris_cover_std_ddof1"], abs=1e-9)
    assert means.hit_deviation == pytest.approx(recorded["loris_hit_std_ddof1"], abs=1e-9)
    assert means.f1 == pytest.approx(recorded["loris_f1_of_means"], abs=1e-9)


def stored_pairs(facts: dict) -> list[dict]:
    return [pair for pair in facts["pairs"] if (METRICS / "beats" / f"{pair['name']}__ref.wav").is_file()]


@each("beats/beats_expected.json", stored_pairs, lambda case: case["name"])
def test_recorded_pairs_from_files(case):
    ref, syn = (read_audio(METRICS / "beats" / f"{case['name']}__{side}.wav") for side in ("ref", "syn"))
    for version in beats.ONSETS:
        score = partial(beats.beat_score, ref.waveform, syn.waveform, ref.sample_rate, version=version)
        check_score(case, version, partial(score, generated_rate=syn.sample_rate))


@each(
    "beats/beats_expected.json",
    lambda facts: [case for case in facts["dance_alignment"] if "i" in case],
    lambda case: str(case["i"]),
)
def test_recorded_dances(case):
    with np.load(METRICS / "beats" / "joints.npz") as stored:
        joints = checked(stored[f"joints_{case['i']}"], case["joints_sha256_f32"])
    music = np.array(case["music_beats"])
    aist, bailando = beats.aist_motion_beats(joints), beats.bailando_motion_beats(joints)
    assert aist.tolist() == case["aist_motion_beats"]
    assert bailando.tolist() == case["bailando_motion_beats"]
    assert beats.aist_alignment(music, aist) == pytest.approx(case["aist_alignment_score_sigma3"], abs=1e-5)
    assert beats.bailando_alignment(music, bailando) == pytest.approx(case["bailando_BA"], abs=1e-5)


@each("beats/beats_expected.json", lambda facts: facts["mir_eval"])
def test_recorded_beat_lists(case):
    score = beats.beat_f_measure(case["ref"], case["est"], skip_seconds=5.0)
    assert score == pytest.approx(case["mir_eval"]["F-measure"], abs=1e-9)


def test_no_beats_on_a_side_is_no_alignment():
    none, some = np.zeros(0), np.array([10.0, 40.0])
    for score in (beats.aist_alignment, beats.bailando_alignment, beats.flow_beat_alignment):
        assert score(none, some) == score(some, none) == score(none, none) == 0.0
    assert beats.beat_f_measure(none, some, skip_seconds=0.0) == 0.0
    for version in beats.ONSETS:
        assert beats.beat_score(np.zeros(8000), np.zeros(8000), 8000, version=version) == beats.BeatScore(0.0, 0.0)
    assert not len(beats.music_beats(np.zeros((2, 44100), np.float32), 44100))


def test_a_last_sample_on_the_second_is_in_the_last_cell():
    assert beats.onset_cells(np.array([0.2, 2.0]), 2.0).tolist() == [True, True]


def test_f_measure_tells_tempi_apart_that_coverage_does_not():
    def kicks(bpm: float) -> np.ndarray:
        time = np.arange(22050 * 8) / 22050
        since = time % (60 / bpm)
        return np.sin(2 * np.pi * 80 * since) * np.exp(-since / 0.03)

    slow, fast = kicks(97), kicks(127)
    assert beats.beat_score(slow, fast, 22050, version="loris") == beats.BeatScore(1.0, 1.0)
    tracked = [beats.music_beats(wave, 22050) for wave in (slow, fast)]
    assert beats.beat_f_measure(*tracked, skip_seconds=0.0) < 0.5
    assert beats.beat_f_measure(tracked[0], tracked[0], skip_seconds=0.0) == 1.0


def test_a_picture_that_halts_on_the_beat_is_aligned():
    fps, period = 30, 15
    place = 6 * np.cumsum(np.sin(np.pi * np.arange(150) / period) ** 2)
    texture = np.random.default_rng(0).integers(0, 255, (64, 8), dtype=np.uint8).repeat(8, 1)
    frames = np.stack([np.roll(texture, round(shift), axis=1) for shift in place])
    motion = beats.flow_motion_beats(avalign.flow_trajectory(frames), fps)
    on_beat, off_beat = np.arange(1, 10) * period / fps, (np.arange(1, 10) + 0.5) * period / fps
    assert beats.flow_beat_alignment(on_beat, motion) > 0.7
    assert beats.flow_beat_alignment(off_beat, motion) < 0.3


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="choose one of d2m, loris"):
        beats.onset_times(np.zeros(8000), 8000, "LORIS")
    with pytest.raises(ValueError, match="joints with 3 coordinates"):
        beats.aist_motion_beats(np.zeros((60, 72)))
    with pytest.raises(ValueError, match="no scores to average"):
        beats.average_scores([])
    assert np.isnan(beats.average_scores([beats.BeatScore(1.0, 0.5)]).hit_deviation)
