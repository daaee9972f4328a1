"""Key: every recorded piece, its chroma and HPCP, and the rule of what stays in a key."""

import numpy as np
import pytest

from mmdiff.eval.metrics import key
from mmdiff.media import read_audio
from tests.eval.metrics.rhythm_vectors import METRICS, as_float, checked, each, synthesis

NEEDED = 34 / 36  # of the recorded pieces


def piece(case: dict) -> np.ndarray:
    return as_float(checked(synthesis().key_signal(case), case["audio_sha"]))


def name_of(case: dict) -> str:
    return f"{case['kind']}-{case['tonic']}-{case['mode']}-{case['mod']}"


def is_found(case: dict) -> bool:
    truth = key.parse_key(case["tonic"], case["mode"])
    found = key.estimate_key(piece(case), case["sr"])
    return (found.tonic, found.scale) == (truth.tonic, truth.scale)


@each("key/expected.json", lambda facts: [facts["cases"]], lambda cases: f"{len(cases)}-pieces")
def test_recorded_truth(case):
    missed = [name_of(one) for one in case if not is_found(one)]
    assert len(missed) <= len(case) * (1 - NEEDED) + 1e-9, missed


@each("key/expected.json", lambda facts: facts["cases"], name_of)
def test_recorded_librosa_columns(case):
    wave = piece(case)
    for kind in ("stft", "cqt"):
        recorded = case[f"librosa_chroma_{kind}+KrumhanslKessler"]
        chroma = key.mean_chroma(wave, case["sr"], kind)
        found = key.match_profiles(chroma)
        assert (found.name, found.scale) == (recorded["key"], recorded["scale"])
        assert found.correlation == pytest.approx(recorded["corr"], abs=1e-3)
        assert np.allclose(chroma, recorded["chroma_mean"], rtol=0, atol=1e-3)


@each("key/expected.json", lambda facts: facts["hpcp"], lambda case: f"{case['tonic']}-{case['mode']}")
def test_recorded_hpcp(case):
    make = synthesis()
    wave = make.progression(make.NAMES.index(case["tonic"]), case["mode"], key.HPCP_RATE)
    wave = as_float(make.to_i16(0.9 * wave / np.abs(wave).max()))
    assert np.allclose(key.mean_hpcp(wave, key.HPCP_RATE), case["hpcp_mean_starting_at_A"], rtol=0, atol=0.02)


def stored_pieces(facts: dict) -> list[dict]:
    """Return the pieces that are also stored as a file, `<kind>_<tonic>_<mode>.wav`."""
    plain = [case for case in facts["cases"] if case["mod"] == "none"]
    return [{**case, "file": f"{case['kind']}_{case['tonic']}_{case['mode']}.wav"} for case in plain]


@each(
    "key/expected.json",
    lambda facts: [case for case in stored_pieces(facts) if (METRICS / "key" / case["file"]).is_file()],
    lambda case: case["file"],
)
def test_recorded_files(case):
    sound = read_audio(METRICS / "key" / case["file"])
    found = key.estimate_key(sound.waveform, sound.sample_rate)
    assert (found.name, found.scale) == (case["tonic"], case["mode"])


@each("misc/expected.json", lambda facts: facts["key_rule"]["cases"])
def test_recorded_tolerances(case):
    train, generated = ([key.parse_key(*names) for names in case[side]] for side in ("train", "gen"))
    agreement = key.within_keys(train, generated)
    assert agreement.percent_key == pytest.approx(case["pct_key_in_train_keys"], abs=1e-9)
    assert agreement.percent_scale == pytest.approx(case["pct_scale_in_train_scales"], abs=1e-9)
    assert agreement.percent_both == pytest.approx(case["pct_key_and_scale_pair_in_train"], abs=1e-9)


def chord(tonic: int, third: int, cents: float = 0.0, rate: int = 16000) -> np.ndarray:
    """Return three seconds of a triad with a doubled root."""
    time = np.arange(3 * rate) / rate
    steps = np.array([-12, 0, third, 7, 12]) + tonic + cents / 100
    return sum(np.sin(2 * np.pi * 261.63 * 2 ** (step / 12) * time) for step in steps) / 10


@pytest.mark.parametrize("cents", [-40, 0, 35])
def test_every_triad_is_its_own_key_also_out_of_tune(cents):
    for tonic in range(12):
        for scale, third in (("major", 4), ("minor", 3)):
            found = key.estimate_key(np.stack([chord(tonic, third, cents)] * 2), 16000)
            assert (found.tonic, found.scale) == (tonic, scale)


def test_names_of_one_pitch_are_one_key():
    same = [("C#", "Db"), ("F#", "G♭"), ("B#", "C"), ("Cb", "B"), ("Ebb", "d")]
    assert all(key.parse_key(one, "minor") == key.parse_key(other, "minor") for one, other in same)
    assert key.parse_key("G#", "major").name == "Ab"
    agreement = key.within_keys([key.parse_key("Db", "major")], [key.parse_key("C#", "major"), None])
    assert agreement == key.KeyAgreement(50.0, 50.0, 50.0)


def test_silence_has_no_key_and_mistakes_are_named():
    assert key.estimate_key(np.zeros((2, 16000), np.float32), 16000) is None
    assert not key.mean_hpcp(np.zeros(44100), 44100).any()
    for names in (("H", "major"), ("C", "dorian"), ("", "major"), ("Cx", "minor")):
        with pytest.raises(ValueError, match="is no key"):
            key.parse_key(*names)
    with pytest.raises(ValueError, match="no training clip has a key"):
        key.within_keys([None], [key.parse_key("C", "major")])
