"""The strikes benchmark: captions tell what is shown, and the test shows what nothing else does."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest

from data_tools.cli import main
from data_tools.dataset import open_set
from data_tools.modal import MATERIALS as SOUNDS
from data_tools.strikes import COLOURS as PAINTS
from data_tools.strikes import render_strikes, synthesize_strikes
from mmdiff.data.manifest import MANIFEST_NAME, read_manifest
from mmdiff.data.strikes import (
    COLOURS,
    COUNTS,
    FACTS,
    KINDS,
    MATERIALS,
    all_facts,
    facts_of,
    facts_of_split,
    read_prompt,
    tell,
)  # fmt: skip
from mmdiff.eval.sync import audio_onsets, match_events, video_onsets

SMALL = {"fps": 10, "height": 32, "width": 32}


def footage(index: int, split: str = "train", fps: str = "10"):
    size = {"height": 64, "width": 64, "sample_rate": 16_000}
    return render_strikes(3, index, split=split, seconds=1.6, fps=Fraction(fps), **size)


def values(facts, names):
    return tuple(getattr(facts, name) for name in names)


def test_train_and_test_share_no_combination_but_every_word_pair_and_three_of_test_are_in_train():
    train, test = facts_of_split("train"), facts_of_split("test")
    assert not set(train) & set(test)
    assert set(train) | set(test) == set(all_facts()) and facts_of_split("validation") == train
    assert 0.10 < len(test) / len(all_facts()) < 0.14
    for names in (*combinations(FACTS, 2), *combinations(FACTS, 3)):
        assert {values(facts, names) for facts in test} <= {values(facts, names) for facts in train}
    rng = np.random.default_rng(0)
    told = [{word for facts in part for _ in range(20) for word in tell(facts, rng).split()} for part in (train, test)]
    assert told[1] <= told[0]


def test_a_set_shows_held_out_combinations_in_its_test_split_only(tmp_path):
    synthesize_strikes(tmp_path, count=12, fractions=(0.5, 0.25, 0.25), **SMALL)
    entries = read_manifest(tmp_path)
    assert [entry.split for entry in entries].count("test") == 3
    for entry in entries:
        facts = facts_of(entry)
        assert facts.is_held_out == (entry.split == "test")
        assert read_prompt(entry.caption) == vars(facts)
        assert len(entry.events) == facts.count


def test_every_phrasing_is_read_back():
    rng = np.random.default_rng(0)
    for facts in all_facts():
        told = {tell(facts, rng) for _ in range(8)}
        assert len(told) > 1
        assert all(read_prompt(text) == vars(facts) for text in told)


def test_what_a_prompt_leaves_open_or_says_twice_is_no_fact():
    assert read_prompt("A RED ball, on wood or glass!") == {"colour": "red", "kind": "ball"}
    assert read_prompt("something happens") == {}


def test_the_words_are_those_that_can_be_drawn_and_heard():
    assert set(COLOURS) == set(PAINTS)
    assert set(MATERIALS) == set(SOUNDS)
    far = [np.abs(np.subtract(PAINTS[a], PAINTS[b])).max() for a, b in combinations(PAINTS, 2)]
    assert min(far) > 0.35


@pytest.mark.parametrize("index", range(6))
def test_every_blow_is_seen_and_heard_at_its_time(index):
    made = footage(index, fps="30")
    times = np.array([event.time for event in made.events])
    heard = match_events(audio_onsets(made.clip.waveform, 16_000), times, 0.05)
    seen = match_events(video_onsets(made.clip.frames, 30), times, 0.05)
    assert len(heard.offsets) == len(seen.offsets) == len(times)
    assert np.abs(heard.offsets).max() < 0.005 and np.abs(seen.offsets).max() < 0.018


def test_blows_keep_apart_and_away_from_both_ends_without_a_rhythm():
    drawn = [[event.time for event in footage(index, split="test").events] for index in range(40)]
    assert {len(times) for times in drawn} == set(COUNTS)
    gaps = np.concatenate([np.diff(times) for times in drawn])
    assert gaps.min() > 0.2498 and gaps.std() > 0.05
    assert min(min(times) for times in drawn) >= 0.3
    assert max(max(times) for times in drawn) <= 1.35 + 1e-4


def test_each_kind_and_colour_is_seen_before_the_first_blow():
    seen = {}
    for index in range(60):
        made = footage(index)
        colour, kind = made.events[0].detail.split()[:2]
        away = np.abs(made.clip.frames[1].astype(float) / 255 - np.array(PAINTS[colour])).max(-1)
        seen.setdefault(kind, []).append((away < 0.06).sum())
    assert set(seen) == set(KINDS)
    assert all(min(counts) >= 12 for counts in seen.values()), seen


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers_and_after_a_stop(tmp_path):
    for folder, workers in (("one", 1), ("two", 2), ("three", 1)):
        synthesize_strikes(tmp_path / folder, count=4, workers=workers, seed=9, **SMALL)
    journal = tmp_path / "three" / ".footage.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:2]) + lines[2][:30])  # as a kill leaves it
    (tmp_path / "three" / MANIFEST_NAME).unlink()
    synthesize_strikes(tmp_path / "three", count=4, seed=9, **SMALL)
    for name in (MANIFEST_NAME, *(entry.path for entry in read_manifest(tmp_path / "one"))):
        assert len({(tmp_path / folder / name).read_bytes() for folder in ("one", "two", "three")}) == 1


@pytest.mark.slow
def test_the_tools_take_the_set(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    out = tmp_path / "set"
    assert main(["synthesize", "strikes", str(out), "-n", "3", "--size", "32x32", "--fps", "10"]) == 0
    captions = [entry.caption for entry in read_manifest(out)]
    assert main(["verify", str(out)]) == 0
    assert main(["preview", str(out)]) == 0
    assert main(["audit", str(out), "-o", str(tmp_path / "audit")]) == 0
    assert main(["caption", str(out), "--captioner", "benchmark"]) == 0
    assert [row.values["caption"] for row in open_set(out).rows] == captions
    assert [facts_of(entry).is_held_out for entry in read_manifest(out)].count(True) == 1


def test_a_dry_run_says_what_would_be_written(tmp_path, capsys):
    assert main(["synthesize", "strikes", str(tmp_path / "out"), "-n", "40", "--dry-run"]) == 0
    assert "would write 40 files of 1.6 s (36 train, 2 validation, 2 test)" in capsys.readouterr().out
    assert main(["synthesize", "strikes", str(tmp_path / "out"), "--seconds", "1.2", "--dry-run"]) == 2
    assert "four blows" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_clips_too_short_for_four_blows_and_other_footage_are_refused(tmp_path):
    with pytest.raises(ValueError, match="four blows"):
        synthesize_strikes(tmp_path, count=1, seconds=1.2)
    from data_tools.impacts import synthesize_impacts

    synthesize_impacts(tmp_path, count=1, seconds=1, fps=10, height=16, width=16)
    with pytest.raises(ValueError, match="not of the strikes benchmark"):
        facts_of(read_manifest(tmp_path)[0])
