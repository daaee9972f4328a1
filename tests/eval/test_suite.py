"""`mmdiff evaluate sync` from files to table: controls do what they must, and broken files do not stop it."""

import argparse
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mmdiff.cli import main
from mmdiff.data.manifest import Entry, Event, write_manifest
from mmdiff.eval.suite import Protocol, evaluate_sync, format_table, name_folders, run_sync
from mmdiff.eval.windows import protocol_spec, read_events, real_windows, shift_sound
from mmdiff.media import Clip, ClipSpec, write_mp4

RATE, FPS = 16_000, Fraction(10)
SPEC = ClipSpec(16, FPS, 32, 32, RATE, 1)


def make_clip(rng: np.random.Generator, seconds: float = 1.6, lag: float = 0.0) -> tuple[Clip, list[float]]:
    """Flashes and rings at irregular times, the rings `lag` seconds late."""
    times = np.cumsum(rng.uniform(0.3, 0.8, 60))
    times = times[times < seconds - 0.02]
    clock = np.arange(round(seconds * RATE)) / RATE
    wave = 1e-3 * rng.standard_normal(len(clock))
    frames = np.full((round(seconds * FPS), 32, 32, 3), 30.0)
    now = np.arange(len(frames)) / float(FPS)
    for time in times:
        age = np.maximum(clock - time - lag, 0)
        wave += 0.4 * (clock >= time + lag) * np.exp(-age / 0.05) * np.sin(2 * np.pi * 900 * age + 1)
        light = np.where(now >= time, np.exp(-np.maximum(now - time, 0) / 0.15), 0)
        frames[:, 10:24, 8:24] += 180 * light[:, None, None, None]
    picture = frames.clip(0, 255).astype(np.uint8)
    return Clip(picture, wave[None].clip(-1, 1).astype(np.float32), FPS, RATE), times.tolist()


def make_folder(folder: Path, rng: np.random.Generator, count: int, lag: float = 0.0) -> Path:
    for number in range(count):
        write_mp4(folder / f"{number:05d}.mp4", make_clip(rng, lag=lag)[0])
    return folder


def make_data_set(folder: Path, rng: np.random.Generator, count: int = 2, seconds: float = 8.0) -> Path:
    entries = []
    for number in range(count):
        clip, times = make_clip(rng, seconds)
        path = write_mp4(folder / "files" / f"{number}.mp4", clip)
        entries.append(
            Entry(
                path=str(path.relative_to(folder)), key=str(number), source=str(number), split="test", fps=FPS,
                num_frames=clip.num_frames, height=32, width=32, sample_rate=RATE, channels=1,
                num_samples=clip.num_samples, events=tuple(Event(time, "impact") for time in times),
            )
        )  # fmt: skip
    write_manifest(folder, entries)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("suite"), np.random.default_rng(0)
    made = {
        "clips": make_data_set(root / "clips", rng),
        "joint": make_folder(root / "joint", rng, 8),
        "late": make_folder(root / "late", rng, 8, lag=0.2),
    }
    (made["joint"] / "00099.mp4").write_bytes(b"not a video")
    (made["joint"] / "00001.json").write_text("{}")
    return made


@pytest.fixture(scope="module")
def result(folders):
    return evaluate_sync(folders["clips"], [folders["joint"], folders["late"]])


def row(result, name):
    return next(item for item in result["rows"] if item["name"] == name)


def test_real_pairs_beat_every_control(result):
    names = [item["name"] for item in result["rows"]]
    assert names == ["real pairs", "shuffled pairs", "sound 200 ms early", "sound 200 ms late", "joint",
                     "joint, shuffled", "late", "late, shuffled"]  # fmt: skip
    real = row(result, "real pairs")
    assert real["num_clips"] == 10 and real["f1"]["value"] > 0.95 and real["median_offset_ms"]["value"] < 50
    for item in result["rows"]:
        if item["kind"] == "shuffled" or item["kind"] == "shifted":
            assert item["f1"]["high"] < real["f1"]["low"]
    assert row(result, "joint")["f1"]["value"] > 0.95
    assert row(result, "late")["f1"]["value"] < 0.4
    assert row(result, "late")["median_offset_ms"]["value"] == pytest.approx(200, abs=40)
    assert np.median(result["offsets_ms"]["late"]) == pytest.approx(200, abs=40)


def test_the_estimator_is_validated_and_calibrated(result):
    assert result["validation"]["audio"]["f1"] > 0.95 and result["validation"]["audio"]["median_error_ms"] < 5
    assert result["validation"]["video"]["f1"] > 0.93 and 10 < result["validation"]["video"]["median_error_ms"] < 40
    points = result["calibration"]
    assert [p["injected_ms"] for p in points] == [-300, -200, -130, -60, -25, 0, 25, 60, 130, 200, 300]
    for point in points:
        assert point["measured_ms"] == pytest.approx(point["injected_ms"], abs=25)
        assert point["low"] <= point["high"]


def test_broken_files_are_listed_and_left_out(folders, result):
    assert [Path(item["file"]).name for item in result["rejected"]] == ["00099.mp4"]
    assert row(result, "joint")["num_clips"] == 8
    assert "left out" in format_table(result)


def test_the_same_seed_gives_the_same_result(folders, result):
    again = evaluate_sync(folders["clips"], [folders["joint"], folders["late"]])
    assert json.dumps(again) == json.dumps(result)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_folder_of_files_is_a_reference_too(folders):
    result = evaluate_sync(folders["joint"], [folders["late"]])
    assert result["validation"] is None
    assert row(result, "real pairs")["num_clips"] == 8
    assert len(result["rejected"]) == 1


def test_long_files_are_cut_into_windows_of_the_generations_shape(folders):
    rejected = []
    windows = real_windows(folders["clips"], protocol_spec([folders["joint"] / "00000.mp4"]), "test", rejected)
    assert [float(w.start) for w in windows] == [0, 1.6, 3.2, 4.8, 6.4] * 2
    assert not rejected
    as_files = real_windows(folders["clips"] / "files", SPEC, "test", rejected)
    assert [w.start for w in as_files] == [w.start for w in windows]
    assert all(0 <= time < 1.6 for w in windows for time in w.truth)


@pytest.mark.parametrize("ms", [-300, -130, 0, 60, 200])
def test_a_shift_moves_the_sound_and_invents_nothing(ms):
    clip, _ = make_clip(np.random.default_rng(1))
    moved = shift_sound(clip, ms)
    assert moved.num_frames < clip.num_frames or ms == 0
    assert moved.num_samples == moved.duration_seconds * RATE
    first = next(i for i in range(clip.num_frames) if np.array_equal(moved.frames[0], clip.frames[i])) if ms <= 0 else (
        clip.num_frames - moved.num_frames)  # fmt: skip
    start = round((first / 10 - ms / 1000) * RATE)
    assert np.array_equal(moved.waveform, clip.waveform[:, start : start + moved.num_samples])


def test_the_command_writes_result_and_report(folders, tmp_path, capsys):
    out = tmp_path / "sync"
    assert main(["evaluate", "sync", str(folders["clips"]), str(folders["joint"]), "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "real pairs" in printed and "calibration" in printed and "joint: F1 is" in printed
    assert json.loads((out / "sync.json").read_text())["protocol"]["tolerance_ms"] == 100
    assert (out / "report.html").read_text().count("real pairs")
    assert main(["evaluate", "sync", str(folders["clips"]), str(folders["joint"]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["name"] == "real pairs"


def test_mistakes_are_named(folders, tmp_path):
    def run(reference, *generations, split="test"):
        return run_sync(argparse.Namespace(
            reference=Path(reference), generations=[Path(g) for g in generations], output=None, split=split, seed=0,
            json=False))  # fmt: skip

    with pytest.raises(ValueError, match="no such folder"):
        run(folders["clips"], tmp_path / "none")
    with pytest.raises(ValueError, match="no media files"):
        run(folders["clips"], tmp_path)
    with pytest.raises(ValueError, match="there are: test"):
        run(folders["clips"], folders["joint"], split="train")
    (tmp_path / "junk.mp4").write_bytes(b"junk")
    with pytest.raises(ValueError, match="no generation can be read"):
        run(folders["clips"], tmp_path)
    result = evaluate_sync(folders["clips"], [folders["joint"], tmp_path])
    assert row(result, tmp_path.name)["num_clips"] == 0 and row(result, tmp_path.name)["f1"]["value"] is None
    assert format_table(result)


def test_one_clip_has_no_shuffled_control_and_silent_clips_score_nothing(tmp_path):
    clip, _ = make_clip(np.random.default_rng(2))
    dead = Clip(np.zeros_like(clip.frames), np.zeros_like(clip.waveform), FPS, RATE)
    write_mp4(tmp_path / "one" / "0.mp4", clip)
    write_mp4(tmp_path / "dead" / "0.mp4", dead)
    result = evaluate_sync(tmp_path / "one", [tmp_path / "dead"])
    assert [item["kind"] for item in result["rows"]] == ["real", "shifted", "shifted", "generated"]
    assert row(result, "dead")["f1"] == {"value": None, "low": None, "high": None}
    assert format_table(result)


def test_folders_of_the_same_name_are_told_apart():
    assert list(name_folders([Path("a/x"), Path("b/x"), Path("y")])) == ["a/x", "b/x", "y"]


def test_events_are_found_on_one_clock():
    clip, times = make_clip(np.random.default_rng(3))
    found = read_events(None, clip, [])
    agreement = Protocol(SPEC, 0).compare(found.audio, found.video)
    assert agreement.f1 == 1 and found.audio == pytest.approx(times, abs=0.005)
