"""Music: copies of a concept are perfect; louder, faster and transposed ones fail just where they should."""

import numpy as np
import pytest

from mmdiff.eval.concept.run import evaluate_concept, format_table
from mmdiff.eval.features.clap import Clap
from mmdiff.eval.metrics.cosines import clap_a, paired_cosine
from tests.eval.concept.makers import number, record, save_tunes, tune
from tests.eval.features.sounds import sound_clip

BPM, OCTAVES, LOUD = "BPM within 5", "BPM within 5, octaves", "loudness within 2.5 LU"
SHARES = (BPM, OCTAVES, LOUD, "key", "scale", "key and scale")
CONCEPT = [tune(bpm, seed=seed) for seed, bpm in enumerate((99, 100, 101))]


def embed(extractor, waves):
    return np.concatenate([one["embedding"] for one in extractor.extract([sound_clip(w, 16_000) for w in waves])])


def test_copies_of_the_concept_are_perfect(tmp_path, tiny_clap):
    concept, copies = (save_tunes(tmp_path / name, CONCEPT) for name in ("oud", "copies"))
    result = evaluate_concept(concept, {"copies": copies}, {"clap": tiny_clap})
    known = embed(Clap.load(tiny_clap), CONCEPT)
    assert number(result, "CLAP-A", "copies")["value"] == pytest.approx(clap_a(known, known), abs=1e-3)
    assert number(result, "FAD (clap)", "copies")["value"] == pytest.approx(0, abs=1e-9)
    for metric in SHARES:
        row = number(result, metric, "copies")
        assert (row["value"], row["high"], row["num_generations"]) == (1, 1, 3) and 0.4 < row["low"] < 0.5  # Wilson
        assert number(result, metric, "the concept")["value"] == 1
    assert number(result, "key and scale", "any key")["value"] == pytest.approx(1 / 24)
    assert result["concept"]["mean_bpm"] == pytest.approx(100, abs=0.3)
    assert result["concept"]["keys"] == {"C major": 3}


def test_each_rule_is_broken_by_its_own_fault_alone(tmp_path):
    concept = save_tunes(tmp_path / "oud", CONCEPT)
    made = {
        "2 dB louder": {"decibels": 2}, "3 dB louder": {"decibels": 3}, "4 BPM faster": {"bpm": 104},
        "6 BPM faster": {"bpm": 106}, "twice as fast": {"bpm": 200, "decibels": -3}, "a fifth higher": {"tonic": 7},
        "in minor": {"third": 3},
    }  # fmt: skip
    folders = {name: save_tunes(tmp_path / name, [tune(**how)]) for name, how in made.items()}
    result = evaluate_concept(concept, folders, {})
    broken = {name: {m for m in SHARES if number(result, m, name)["value"] == 0} for name in made}
    assert broken == {
        "2 dB louder": set(), "3 dB louder": {LOUD}, "4 BPM faster": set(), "6 BPM faster": {BPM, OCTAVES},
        "twice as fast": {BPM}, "a fifth higher": {"key", "key and scale"}, "in minor": {"scale", "key and scale"},
    }  # fmt: skip
    told = format_table(result)
    assert "CLAP-A and CLAP-T: not measured; clap: its weights are not here; give --weights clap=PATH" in told
    assert "Distances by musicnn-mtt:repeat-pad: not measured" in told  # one tune of 4 s a system is one vector
    assert not any("FD" in row["metric"] or "FAD" in row["metric"] for row in result["rows"])


def test_text_is_compared_with_the_class_in_the_place_of_the_word(tmp_path, tiny_clap):
    concept = save_tunes(tmp_path / "oud", CONCEPT[:2])
    folder = save_tunes(tmp_path / "made", [tune(tonic=tonic, seed=tonic) for tonic in range(4)])
    lines = ["a recording of {}", "jazz music with {}", "{} under water", "jazz music with {}"]
    for file, line in zip(sorted(folder.glob("*.wav")), lines):
        record(file, line, "reconstruction" if file.stem == "00000" else "editability")
    result = evaluate_concept(concept, {"made": folder}, {"clap": tiny_clap})
    clap = Clap.load(tiny_clap)
    sounds = embed(clap, [tune(tonic=tonic, seed=tonic) for tonic in range(1, 4)])
    texts = clap.embed_text([line.replace("{}", "guitar") for line in lines[1:]])
    row = number(result, "CLAP-T", "made")
    assert row["value"] == pytest.approx(paired_cosine(texts, sounds), abs=1e-3)
    assert row["num_generations"] == 3 and row["low"] < row["value"] < row["high"]
    assert number(result, "CLAP-T, reconstruction", "made")["num_generations"] == 1
    assert number(result, "CLAP-A", "made")["num_generations"] == 1
    assert [point["system"] for point in result["pareto"]["points"]] == ["made", "the concept"]
    as_asked = clap.embed_text([line.replace("{}", "<oud>") for line in lines[1:]])
    assert paired_cosine(as_asked, sounds) != pytest.approx(row["value"], abs=1e-3)  # so that the test can fail


def test_what_has_no_tempo_and_no_sound_is_said_and_does_not_count(tmp_path):
    concept = save_tunes(tmp_path / "oud", CONCEPT)
    silent = save_tunes(tmp_path / "silent", [np.zeros_like(CONCEPT[0]), CONCEPT[0][:, :4800]])
    result = evaluate_concept(concept, {"silent": silent}, {})
    assert {number(result, metric, "silent")["value"] for metric in SHARES if metric != LOUD} == {0}
    faults = {item["by"]: item["reason"] for item in result["rejected"]}
    assert {"librosa-music", "loudness", "musicnn-mtt:repeat-pad"} == set(faults) and "0.30" in faults["loudness"]


def test_a_silent_concept_has_nothing_to_be_kept(tmp_path):
    concept = save_tunes(tmp_path / "oud", [np.zeros_like(CONCEPT[0])] * 2)
    result = evaluate_concept(concept, {"made": save_tunes(tmp_path / "made", CONCEPT)}, {})
    assert not {row["metric"] for row in result["rows"]} & set(SHARES)
    assert "no tempo, silent on average; keys: no key" in format_table(result)
