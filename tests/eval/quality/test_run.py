"""`mmdiff evaluate` from files to table: controls do what they must, faults are counted, nothing is made twice."""

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mmdiff.cli import main
from mmdiff.data.manifest import Entry, write_manifest
from mmdiff.eval.quality.collect import Item, collect
from mmdiff.eval.quality.columns import floor_sets, shuffled_items
from mmdiff.eval.quality.measures import Events
from mmdiff.eval.quality.pairs import _reference_files, find_partner
from mmdiff.eval.quality.store import FeatureStore
from mmdiff.eval.windows import Window
from mmdiff.media import Clip, ClipSpec, read_clip, write_mp4

RATE, FPS = 16_000, Fraction(10)
SPEC = ClipSpec(16, FPS, 32, 32, RATE, 1)
ROOT = Path(__file__).resolve().parents[3]


def make_clip(rng: np.random.Generator, seconds: float = 1.6, colour: int = 0, is_silent: bool = False) -> Clip:
    """Flashes of a colour with rings at the same irregular times."""
    times = np.cumsum(rng.uniform(0.3, 0.8, 60))
    clock = np.arange(round(seconds * RATE)) / RATE
    wave = 1e-3 * rng.standard_normal(len(clock))
    frames = np.full((round(seconds * FPS), 32, 32, 3), 30.0)
    now = np.arange(len(frames)) / float(FPS)
    for time in times[times < seconds - 0.02]:
        age = np.maximum(clock - time, 0)
        wave += 0.4 * (clock >= time) * np.exp(-age / 0.05) * np.sin(2 * np.pi * rng.uniform(500, 1200) * age + 1)
        light = np.where(now >= time, np.exp(-np.maximum(now - time, 0) / 0.15), 0)
        frames[:, 10:24, 8:24, colour] += rng.uniform(120, 200) * light[:, None, None]
    frames += np.repeat(rng.uniform(-25, 25, (-(-len(frames) // 16), 1, 1, 3)), 16, 0)[
        : len(frames)
    ]  # each window's own
    frames += 10 * rng.standard_normal((1, 32, 32, 3))
    wave = np.zeros_like(wave) if is_silent else wave
    return Clip(frames.clip(0, 255).astype(np.uint8), wave[None].clip(-1, 1).astype(np.float32), FPS, RATE)


def make_set(folder: Path, rng: np.random.Generator, num_test: int = 4, num_train: int = 2) -> Path:
    entries = []
    for number in range(num_test + num_train):
        clip = make_clip(rng, 6.4)
        path = write_mp4(folder / "files" / f"{number}.mp4", clip)
        entries.append(
            Entry(
                path=str(path.relative_to(folder)), key=str(number), source=str(number),
                split="test" if number < num_test else "train", fps=FPS, num_frames=clip.num_frames, height=32,
                width=32, sample_rate=RATE, channels=1, num_samples=clip.num_samples,
            )
        )  # fmt: skip
    write_manifest(folder, entries)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("quality"), np.random.default_rng(0)
    made = {name: root / name for name in ("good", "blue", "cache")}
    for number in range(6):
        write_mp4(made["good"] / f"{number:05d}.mp4", make_clip(rng))
        write_mp4(made["blue"] / f"{number:05d}.mp4", make_clip(rng, colour=2, is_silent=number == 0))
    (made["good"] / "00007.mp4").write_bytes(b"not a video")
    write_mp4(made["good"] / "00008.mp4", make_clip(rng, 0.8))
    return {"clips": make_set(root / "clips", rng), **made}


def evaluate(folders, *arguments: str) -> list[str]:
    return ["evaluate", str(folders["clips"]), str(folders["good"]), str(folders["blue"]), "--json",
            "--cache", str(folders["cache"]), "--device", "cpu", *arguments]  # fmt: skip


@pytest.fixture(scope="module")
def result(folders, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluation")
    assert main([*evaluate(folders), "-o", str(output)]) == 0
    assert (output / "evaluation.html").stat().st_size > 10_000
    return json.loads((output / "evaluation.json").read_text())


def number(result, metric: str, of: str, extractor: str = "") -> dict:
    return next(
        r for r in result["rows"] if r["metric"] == metric and r["of"] == of and r["extractor"].startswith(extractor)
    )


def test_every_number_has_its_clips_its_interval_and_how_it_was_made(result):
    for row in result["rows"]:
        assert row["num_clips"] > 0 and row["how"] and row["extractor"]
        assert row["value"] is None or row["low"] <= row["high"]
    assert result["protocol"]["num_clips"] == 6  # of both systems and of the real clips
    facts = result["protocol"]["extractors"]["efficientnet-lite0"]
    assert len(facts["sha256"]) == 64 and result["protocol"]["clip"]["resampler"] == "soxr HQ"


def test_controls_stand_where_they_must(result):
    far, near, floor = (
        number(result, "FD", of, "efficientnet")["value"] for of in ("blue", "good", "real against real")
    )
    assert far > near > 0 and far > floor
    real, shuffled = (number(result, "sync F1", of) for of in ("real pairs", "real pairs, shuffled"))
    late = number(result, "sync F1", "sound 200 ms late")
    assert real["value"] > 0.9 and real["low"] > shuffled["high"] and real["low"] > late["high"]
    assert number(result, "AV-Align", "real pairs")["value"] >= number(result, "AV-Align", "sound 200 ms late")["value"]


def test_a_comparison_of_two_systems_gives_the_interval_of_the_difference(result):
    found = next(d for d in result["differences"] if d["metric"] == "FD" and d["extractor"].startswith("efficientnet"))
    assert found["of"] == "blue" and found["less"] == "good" and found["value"] > 0
    assert (found["verdict"] == "worse") == (found["low"] > 0)


def test_broken_short_and_silent_files_are_listed_and_counted(result):
    lost = {Path(item["file"]).name: item for item in result["rejected"] if item["by"] == "reader"}
    assert set(lost) == {"00007.mp4", "00008.mp4"}
    assert all(item["reason"] and item["row"] == "good" for item in lost.values())
    blue = next(column for column in result["columns"] if column["name"] == "blue")
    assert blue["num_silent"] == 1 and blue["silent"][0].endswith("00000.mp4")


def test_a_plain_folder_of_real_clips_may_hold_a_broken_file(folders, tmp_path, capsys):
    for path in sorted(folders["blue"].iterdir())[:3]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    assert main(["evaluate", str(tmp_path), str(folders["blue"]), "--cache", str(folders["cache"])]) == 0
    assert "real pairs: 1 files left out" in capsys.readouterr().out


def test_copied_training_clips_are_found(folders, tmp_path, capsys):
    for name, start in (("4", 0), ("4", 2), ("5", 0), ("5", 2)):
        copy = read_clip(folders["clips"] / "files" / f"{name}.mp4", SPEC, start=start * SPEC.duration_seconds)
        write_mp4(tmp_path / f"{name}{start}.mp4", copy, crf=1)
    assert main(["evaluate", str(folders["clips"]), str(tmp_path), "--json", "--cache", str(folders["cache"])]) == 0
    copied = json.loads(capsys.readouterr().out)
    assert number(copied, "memorised", tmp_path.name, "efficientnet")["value"] > 0.7
    pairs = [pair for pair in copied["nearest"] if pair["side"] == "picture"]
    for pair in pairs:
        made, known = Path(pair["generation"]["file"]).stem, pair["training"]
        assert (Path(known["file"]).stem, round(known["start"] / 1.6)) == (made[0], int(made[1]))
        assert pair["distance"] < 0.5 * pair["distance_between_training_clips"]


def test_features_are_stored_once_and_a_damaged_store_is_made_anew(folders, tmp_path):
    store = FeatureStore(tmp_path)
    items = [Item(Window(path, str(path), Fraction(0))) for path in sorted(folders["blue"].iterdir())[:3]]
    first = collect(items, [Events()], store, SPEC, "once")
    files = sorted(tmp_path.rglob("*.npz"))
    assert len(files) == 3
    stamps = [file.stat().st_mtime_ns for file in files]
    files[0].write_bytes(b"PK damaged")
    again = collect(items, [Events()], store, SPEC, "again")
    for one, other in zip(first, again):
        np.testing.assert_array_equal(one.arrays[Events.name]["audio"], other.arrays[Events.name]["audio"])
    assert [file.stat().st_mtime_ns for file in files][1:] == stamps[1:]


def test_halves_of_real_clips_share_no_file():
    readings = collect_nothing([(name, k) for name in "abcde" for k in range(4)])
    left, right = floor_sets(readings, 100, seed=0)
    names = [{reading.item.picture.shown for reading in side} for side in (left, right)]
    assert not names[0] & names[1] and len(left) == len(right) == 8
    alone = floor_sets(collect_nothing([("a", k) for k in range(6)]), 100, seed=0)
    assert [len(side) for side in alone] == [3, 3]


def collect_nothing(places):
    from mmdiff.eval.quality.collect import Reading

    return [Reading(Item(Window(Path(name), name, Fraction(start)))) for name, start in places]


def test_no_shuffled_picture_keeps_its_own_sound():
    windows = [Window(Path(str(k)), str(k), Fraction(0)) for k in range(9)]
    assert all(item.sound != item.picture for item in shuffled_items(windows, seed=1))


def test_a_partner_is_found_by_the_record_else_by_name_and_never_outside_the_reference(tmp_path):
    known = {"7": tmp_path / "files" / "7.mp4", "7.mp4": tmp_path / "files" / "7.mp4"}
    made = tmp_path / "00000.mp4"
    record = {"conditions": [{"file": "anywhere/7.mp4", "start": "8/5", "modality": "video"}]}
    made.with_suffix(".json").write_text(json.dumps(record))
    assert find_partner(made, known) == Window(known["7"], str(known["7"]), Fraction(8, 5))
    record["conditions"][0]["file"] = "/etc/passwd"
    made.with_suffix(".json").write_text(json.dumps(record))
    assert find_partner(made, known) is None
    made.with_suffix(".json").write_text("[]")
    assert find_partner(made, known) is None and find_partner(tmp_path / "7.mp4", known).path == known["7"]


def test_a_name_that_two_real_files_share_makes_no_pair(tmp_path, folders):
    for name in ("a/0.mp4", "b/0.mp4", "b/1.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert set(_reference_files(tmp_path)) == {"1", "1.mp4"}
    assert _reference_files(folders["clips"])["3"].name == "3.mp4"


def test_a_side_that_was_given_is_not_judged(folders, tmp_path, capsys):
    for path in sorted(folders["good"].iterdir())[:4]:
        made = tmp_path / path.name
        made.write_bytes(path.read_bytes())
        given = [{"file": "files/0.mp4", "start": "0", "modality": "video"}]
        made.with_suffix(".json").write_text(json.dumps({"conditions": given, "keep": None, "regenerate": []}))
    assert main(["evaluate", str(folders["clips"]), str(tmp_path), "--json", "--cache", str(folders["cache"])]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["columns"][0]["given"] == ["picture"]
    sides = {row["side"] for row in result["rows"] if row["of"] == tmp_path.name}
    assert "picture" not in sides and {"sound", "agreement", "pairs"} <= sides


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "nowhere"], "there are: mmdiff"),
        (["--weights", "i3d"], "NAME=PATH"),
        (["--weights", "nothing=here"], "no extractor is called 'nothing'"),
        (["--weights", "i3d=missing.pt"], "missing.pt"),
        (["--split", "validation"], "validation"),
        (["-n", "1"], "at least 2"),
        (["--prompts", "missing.jsonl"], "missing.jsonl"),
    ],
)
def test_mistakes_are_told(folders, capsys, arguments, words):
    assert main(evaluate(folders, *arguments)) == 2
    assert words in capsys.readouterr().err


def test_a_protocol_whose_weights_are_absent_says_what_is_missing(folders, capsys):
    assert main([*evaluate(folders), "--preset", "mm-diffusion-landscape", "--dry-run"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert set(card["missing"]) == {"i3d", "audioclip"} and "--weights i3d=" in card["missing"]["i3d"]
    assert card["differences_from_published"] and card["reference"]["split"] == "train"


@pytest.mark.slow
def test_two_ranks_give_the_same_table_as_one(folders, result, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "mmdiff.cli"]
    output = tmp_path / "ranks"
    arguments = [*evaluate(folders | {"cache": tmp_path / "cache"}), "-o", str(output)]
    subprocess.run([*command, *arguments], check=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=500)
    rows = json.loads((output / "evaluation.json").read_text())["rows"]
    for row, alone in zip(rows, result["rows"], strict=True):  # batches differ between ranks: float32 sums do too
        assert row == {name: pytest.approx(v, 1e-4, 1e-5) if isinstance(v, float) else v for name, v in alone.items()}
