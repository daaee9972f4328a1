"""`mmdiff evaluate prompts`: real clips are read almost without error, and other clips' prompts are met by chance."""

import json
from fractions import Fraction

import numpy as np
import pytest

from data_tools.impacts import synthesize_impacts
from data_tools.strikes import render_strikes, synthesize_strikes
from mmdiff.cli import main
from mmdiff.data.manifest import entry_path, read_manifest
from mmdiff.data.strikes import facts_of_split, read_prompt
from mmdiff.eval import strikes
from mmdiff.eval.prompts import REAL, TOGETHER, Answered, Asked, evaluate_prompts, format_table, make_rows
from mmdiff.eval.statistics import share_interval

SIZE = {"fps": Fraction(10), "height": 32, "width": 32, "sample_rate": 16_000}


def make(count: int, split: str, seed: int = 0):
    made = [render_strikes(seed, index, split=split, seconds=1.6, **SIZE) for index in range(count)]
    return [one.clip for one in made], [read_prompt(one.caption) for one in made]


@pytest.fixture(scope="module")
def reader():
    return strikes.train_reader(*make(110, "train"))


@pytest.fixture(scope="module")
def answered(reader):
    clips, said = make(40, "test", seed=1)
    return [Answered(Asked("", "", one), reader.read(clip)) for clip, one in zip(clips, said)]


def shares(rows):
    return {row["question"]: (row["right"]["value"], row["right"]["low"], row["chance"]) for row in rows}


def test_unseen_combinations_are_read_far_above_chance(answered):
    for question, (value, low, chance) in shares(make_rows("real", answered)).items():
        assert value >= 0.85, question
        assert low > chance + 0.3, question


def test_shuffled_prompts_are_met_as_often_as_chance_says(answered):
    rng = np.random.default_rng(0)
    chance = {name: one[2] for name, one in shares(make_rows("real", answered)).items()}
    tries = {name: [] for name in chance}
    for _ in range(30):
        order = rng.permutation(len(answered))
        moved = [Answered(answered[i].asked, one.found) for i, one in zip(order, answered)]
        for name, (value, _, _) in shares(make_rows("shuffled", moved)).items():
            tries[name].append(value)
    for name, values in tries.items():
        assert abs(np.mean(values) - chance[name]) < 0.06, name
        assert chance[name] < 0.45


def test_blurred_noisy_mirrored_clips_are_still_read(reader):
    rng = np.random.default_rng(5)
    clips, said = make(24, "test", seed=2)
    found = [reader.read(strikes.degrade(strikes.mirror(clip), rng)) for clip in clips]
    for name, fact in strikes.FACT_OF.items():
        assert np.mean([one[name] == told[fact] for one, told in zip(found, said)]) > 0.75, name


def test_a_mute_clip_tells_no_material_and_no_blow(reader):
    clip = make(1, "test")[0][0]
    found = reader.read(type(clip)(clip.frames, 0 * clip.waveform, clip.fps, clip.sample_rate))
    assert found["material, heard"] is None
    assert found["count, heard"] == 0 and found["count, seen"] > 0


def test_training_is_the_same_twice_and_names_what_it_never_saw(reader):
    clips, said = make(110, "train")
    again = strikes.train_reader(clips, said)
    assert all(np.array_equal(again.models[name].weights, reader.models[name].weights) for name in strikes.QUESTIONS)
    with pytest.raises(ValueError, match="no training clip has"):
        strikes.train_reader(clips[:3], said[:3])


def test_the_share_interval_is_wilsons():
    assert share_interval(0, 0).value is None
    ten = share_interval(10, 10)
    assert (ten.value, ten.high) == (1.0, 1.0) and ten.low == pytest.approx(0.7225, abs=1e-3)
    half = share_interval(50, 100)
    assert (half.low, half.high) == pytest.approx((0.4038, 0.5962), abs=1e-3)


def test_a_prompt_is_asked_only_for_what_it_names():
    found = {"colour": "red", "kind": "ball", "material, heard": "wood", "material, seen": None, "count, heard": 2,
             "count, seen": 3}  # fmt: skip
    rows = make_rows("made", [Answered(Asked("", "", {"colour": colour}), found) for colour in ("red", "blue")])
    told = {row["question"]: (row["num_clips"], row["num_right"], row["chance"]) for row in rows}
    assert told["colour"] == (2, 1, 0.5)
    assert told["kind"] == told[TOGETHER] == (0, 0, None)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A set whose test split has twelve clips, and a folder of generations: those clips with their prompts."""
    root = tmp_path_factory.mktemp("prompts")
    settings = {"count": 104, "fps": 10, "height": 32, "width": 32, "fractions": (0.87, 0.01, 0.12)}
    synthesize_strikes(root / "set", **settings)
    (root / "made").mkdir()
    for number, entry in enumerate(entry for entry in read_manifest(root / "set") if entry.split == "test"):
        (root / "made" / f"{number}.mp4").write_bytes(entry_path(root / "set", entry).read_bytes())
        (root / "made" / f"{number}.json").write_text(json.dumps({"prompt": entry.caption}))
    for name in ("unsaid", "vague", "broken"):
        (root / "made" / f"{name}.mp4").write_bytes((root / "made" / "0.mp4").read_bytes()[:-2000])
    (root / "made" / "vague.json").write_text('{"prompt": "something"}')
    (root / "made" / "broken.json").write_text('{"prompt": "a red ball bounces"}')
    return root


def test_the_command_measures_real_clips_and_generations_alike(folders, tmp_path, capsys):
    words = ["evaluate", "prompts", str(folders / "set"), str(folders / "made"), "-o", str(tmp_path), "--json"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((tmp_path / "prompts.json").read_text())
    rows = {name: shares(row for row in result["rows"] if row["name"] == name) for name in (REAL, "made")}
    assert rows[REAL] == rows["made"]
    assert min(value for value, _, _ in rows["made"].values()) > 0.6
    assert sorted(item["file"].rsplit("/", 1)[-1] for item in result["rejected"]) == [
        "broken.mp4", "unsaid.mp4", "vague.mp4",
    ]  # fmt: skip
    text = format_table(result)
    assert "all four" in text and "left out" in text and "vague.mp4: 'something' names no colour" in text
    held_out = {tuple(vars(facts).values()) for facts in facts_of_split("test")}
    assert all(tuple(clip["said"].values()) in held_out for clip in result["clips"])


def test_the_whole_evaluation_reads_prompts_and_tells_seconds_too(folders, tmp_path, capsys):
    for number in range(4):
        (tmp_path / f"{number}.mp4").write_bytes((folders / "made" / f"{number}.mp4").read_bytes())
        record = json.loads((folders / "made" / f"{number}.json").read_text())
        record["elapsed_seconds"] = {"video": 1.0, "audio": 0.5 + number, "load_video": 9.0}
        (tmp_path / f"{number}.json").write_text(json.dumps(record))
    words = [str(folders / "set"), str(tmp_path), "--cache", str(tmp_path / "cache"), "--preset", "music"]
    assert main(["evaluate", *words, "--num-training", "0", "--json"]) == 0
    rows = {(row["metric"], row["of"]): row for row in json.loads(capsys.readouterr().out)["rows"]}
    own, other = (rows[f"prompt: {TOGETHER}", of] for of in (tmp_path.name, f"{tmp_path.name}, shuffled"))
    assert own["value"] >= 0.5 > other["value"] and other["kind"] == "shuffled"
    assert rows["prompt: colour", "real pairs"]["value"] > 0.6
    assert rows["seconds a clip", tmp_path.name]["value"] == 3.0
    (tmp_path / "0.json").write_text('{"prompt": "a red ball", "elapsed_seconds": {"video": "soon", "audio": 1}}')
    assert main(["evaluate", *words, "--num-training", "0", "--json"]) == 0
    assert not any(row["side"] == "cost" for row in json.loads(capsys.readouterr().out)["rows"])


def test_wrong_folders_are_refused_before_anything_is_read(folders, tmp_path, capsys):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "a.mp4").write_bytes((folders / "made" / "0.mp4").read_bytes())
    with pytest.raises(ValueError, match="no file has a prompt"):
        evaluate_prompts(folders / "set", [bare])
    with pytest.raises(ValueError, match="no files in split 'exam'"):
        evaluate_prompts(folders / "set", [folders / "made"], split="exam")
    synthesize_impacts(tmp_path / "impacts", count=3, seconds=1, fps=10, height=16, width=16)
    assert main(["evaluate", "prompts", str(tmp_path / "impacts"), str(folders / "made")]) == 2
    assert "not of the strikes benchmark" in capsys.readouterr().err
