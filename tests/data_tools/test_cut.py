"""The whole command: layout, splits, interruptions, damaged recordings, shots, URLs, and the trainer at the end."""

import json
import random
import re
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from data_tools.cli import main
from data_tools.cut import cut, plan
from data_tools.cut_config import with_preset
from data_tools.dataset import open_set, read_rejects
from mmdiff.data.manifest import Entry, write_manifest
from mmdiff.data.windows import WindowReader, fixed_windows, select_entries
from mmdiff.media import Clip, ClipSpec, probe, read_video, write_mp4

pq = pytest.importorskip("pyarrow.parquet")
ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"seconds": "1", "skip": "0.5", "size": "32x32", "fps": "10"}
SPLIT_ALL = {"split_fractions": (1.0, 0.0, 0.0)}
LISTS = ("manifest.jsonl", "manifest.parquet", "rejects.parquet", "stats.json", "README.md", "config.yaml")


def write_recording(path: Path, seed: int, seconds: float = 4) -> Path:
    """Noise for sound, blocks of random brightness for a picture."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 255, (int(seconds * 25), 2, 2, 3), np.uint8).repeat(16, 1).repeat(16, 2)
    wave = rng.uniform(-0.3, 0.3, (1, int(seconds * 16_000))).astype(np.float32)
    return write_mp4(path, Clip(frames, wave, Fraction(25), 16_000))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Eight recordings, one of them cut short."""
    folder = tmp_path_factory.mktemp("recordings")
    paths = [write_recording(folder / f"night.{n}/take-{n}.mp4", n) for n in range(8)]
    paths[5].write_bytes(paths[5].read_bytes()[:-3000])
    return folder


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def finished(recordings, tmp_path_factory):
    """A set cut without interruption."""
    out = tmp_path_factory.mktemp("cut") / "out"
    cut(str(recordings), out, with_preset(None, SETTINGS), workers=1)
    return out


def test_the_layout_is_the_one_described(finished):
    rows = open_set(finished).rows
    assert len(rows) == 21 and {row.path for row in rows} == {f"files/{row.split}/{row.key}.mp4" for row in rows}
    assert all("." not in row.key and (finished / row.path).is_file() for row in rows)
    by_source = {}
    for row in rows:
        assert by_source.setdefault(row.source, row.split) == row.split
    assert sorted(by_source.values()) == ["test"] + ["train"] * 5 + ["validation"]
    table = pq.read_table(finished / "manifest.parquet").to_pylist()
    assert [line["key"] for line in table] == [row.key for row in rows]
    told = [json.loads(line) for line in (finished / "files/train/metadata.jsonl").read_text().splitlines()]
    assert {line["file_name"] for line in told} == {path.name for path in (finished / "files/train").glob("*.mp4")}
    assert [(line["source"], line["rule"]) for line in read_rejects(finished)] == [("night.5/take-5.mp4", "truncated")]
    stats = json.loads((finished / "stats.json").read_text())
    assert stats["clips"] == 21 and stats["sources"] == 8 and stats["rejects"] == {"truncated": 1}
    assert "| train | 15 | 5 |" in (finished / "README.md").read_text()
    assert len(list((finished / "state").glob("*.json"))) == 8 and not (finished / "files/.cutting").exists()


def test_the_trainer_reads_it(finished):
    spec = ClipSpec(num_frames=4, fps=10, height=32, width=32, sample_rate=16_000)
    entries = select_entries(finished, "train", spec)
    windows = fixed_windows(entries, spec)
    assert len(entries) == 15 and len(windows) == 30
    assert WindowReader(finished, spec, entries, 0).read(windows[1]).num_samples == spec.num_samples


def test_killed_again_and_again_it_ends_with_the_same_bytes(recordings, finished, tmp_path):
    words = ["cut", str(recordings), str(tmp_path / "out"), "--workers", "2"]
    words += [word for name, value in SETTINGS.items() for word in (f"--{name}", value)]
    for count in (1, 6, 14):
        run = subprocess.Popen([sys.executable, "-m", "data_tools.cli", *words], cwd=ROOT, stderr=subprocess.PIPE)
        seen = b""
        while max(map(int, re.findall(rb"[:|] (\d+)(?:clip|/)", seen)), default=0) < count:
            seen += run.stderr.read(1) or b": 99clip"
        run.send_signal(signal.SIGKILL)
        run.wait()
        run.stderr.close()
        assert not (tmp_path / "out/manifest.jsonl").exists()
    assert main(words) == 0
    whole, resumed = contents(finished), contents(tmp_path / "out")
    assert whole.keys() == resumed.keys()
    assert not [name for name in whole if whole[name] != resumed[name]]
    before = contents(tmp_path / "out")
    assert main([*words, "--json"]) == 0
    assert contents(tmp_path / "out") == before


@pytest.mark.slow
def test_ray_gives_the_same_bytes(recordings, finished, tmp_path):
    pytest.importorskip("ray")
    cut(str(recordings), tmp_path / "out", with_preset(None, SETTINGS), workers=2, engine="ray")
    assert contents(tmp_path / "out") == contents(finished)


def test_other_settings_and_other_folders_are_not_mixed(recordings, finished, tmp_path, capsys):
    before = contents(finished)
    assert main(["cut", str(recordings), str(finished), "--skip", "0"]) == 2
    assert "other settings" in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["cut", str(recordings), str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert contents(finished) == before


@pytest.mark.parametrize(
    ("words", "hint"),
    [(["--fps", "fast"], "frame rate"), (["--size", "63x64"], "even"), (["--seconds", "0"], "--seconds"),
     (["--mode", "best"], "scene-aware"), (["--preset", "opera"], "concert"), (["--channels", "6"], "source, 1 or 2"),
     (["--max-shots", "2"], "scene-aware"), (["--split-fractions", "1,1,1"], "add up to 1"), (["--skip", "x"], "17/10"),
     (["--audio-codec", "aac", "--sample-rate", "22000"], "AAC")],
)  # fmt: skip
def test_a_persons_mistake_is_named_and_nothing_is_written(recordings, tmp_path, capsys, words, hint):
    assert main(["cut", str(recordings), str(tmp_path / "out"), *words]) == 2
    assert hint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_dry_run_tells_what_will_be_cut_and_writes_nothing(recordings, finished, tmp_path, capsys):
    config = with_preset(None, SETTINGS)
    told = plan(str(recordings), tmp_path / "out", config, workers=2)
    stats = json.loads((finished / "stats.json").read_text())
    assert told["clips"] == 21 and told["usable_sources"] == 7
    assert told["splits"] == {name: split["clips"] for name, split in stats["splits"].items()}
    assert main(["cut", str(recordings), str(tmp_path / "out"), "--preset", "game", "--dry-run"]) == 0
    assert "would cut 0 clips (none) from 0 of 8 recordings" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_damaged_recording_costs_one_line(tmp_path):
    folder, chance = tmp_path / "in", random.Random(2)
    whole = write_recording(folder / "whole.mp4", 1).read_bytes()
    for number in range(40):
        data = bytearray(whole)
        at = chance.randrange(len(data))
        if number % 4 == 0:
            del data[at:]
        elif number % 4 == 1:
            del data[at : at + 2000]
        elif number % 4 == 2:
            data[at : at + 3000] = chance.randbytes(3000)
        else:
            for _ in range(20):
                data[chance.randrange(3000)] = chance.randrange(256)
        (folder / f"damaged-{number:02d}.mp4").write_bytes(data)
    (folder / "empty.mp4").touch()
    (folder / "letter.mkv").write_text("dear sir")
    report = cut(str(folder), tmp_path / "out", with_preset(None, SETTINGS | SPLIT_ALL), workers=2)
    lines = [line["source"] for line in report.rejects]
    assert len(set(lines)) == len(lines) > 20 and report.num_sources == 43
    assert not [line for line in report.rejects if line["rule"] == "crash"] and "whole.mp4" not in lines
    rows = open_set(tmp_path / "out").rows
    assert sum(row.source == "whole.mp4" for row in rows) == 3
    for row in rows:
        info = probe(tmp_path / "out" / row.path)
        assert info.num_frames == 10 and info.duration_seconds == 1


def test_a_fault_in_the_middle_spares_the_clips_before_and_after(tmp_path):
    path = write_recording(tmp_path / "in/long.mp4", 3, seconds=12)
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    data[middle : middle + 600] = bytes(600)
    path.write_bytes(data)
    report = cut(str(tmp_path / "in"), tmp_path / "out", with_preset(None, SETTINGS | SPLIT_ALL), workers=1)
    starts = [row.values["start_seconds"] for row in open_set(tmp_path / "out").rows]
    assert min(starts) == 0.52 and max(starts) == 10.52 and 6 <= len(starts) < 11
    assert [line["rule"] for line in report.rejects] == ["damaged"]


def shots_at(path: Path, moments: list[float], seconds: float) -> None:
    """Write a recording of plain colours with hard cuts at the moments."""
    rng = np.random.default_rng(5)
    frames = np.zeros((round(seconds * 25), 32, 32, 3), np.uint8)
    for begin in [0, *moments]:
        frames[round(begin * 25) :] = rng.integers(0, 255, (4, 4, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    wave = rng.uniform(-0.3, 0.3, (1, round(seconds * 16_000))).astype(np.float32)
    write_mp4(path, Clip(frames, wave, Fraction(25), 16_000))


def test_shots_bound_clips_or_are_noted(tmp_path):
    pytest.importorskip("scenedetect")
    moments = [2.4, 3.2, 5.6, 8.0]
    shots_at(tmp_path / "in/film.mp4", moments, 10)
    settings = SETTINGS | SPLIT_ALL | {"skip": "0"}
    cut(str(tmp_path / "in"), tmp_path / "scene", with_preset(None, settings | {"mode": "scene"}), workers=1)
    rows = [row.values for row in open_set(tmp_path / "scene").rows]
    assert [row["start_seconds"] for row in rows] == [0, 1, 3.2, 4.2, 5.6, 6.6, 8, 9]
    for row in rows:
        frames = read_video(tmp_path / "scene" / row["path"]).frames.astype(int)
        assert np.abs(frames - frames[:1]).max() < 40 and row["shots"] == []
    aware = settings | {"mode": "scene-aware", "seconds": "2"}
    cut(str(tmp_path / "in"), tmp_path / "aware", with_preset(None, aware), workers=1)
    rows = [row.values for row in open_set(tmp_path / "aware").rows]
    assert [(row["start_seconds"], row["shots"]) for row in rows] == [
        (0, []), (2, [0.4, 1.2]), (4, [1.6]), (6, []), (8, [])]  # fmt: skip
    report = cut(str(tmp_path / "in"), tmp_path / "few", with_preset(None, aware | {"max_shots": 2}), workers=1)
    assert [row.values["start_seconds"] for row in open_set(tmp_path / "few").rows] == [0, 4, 6, 8]
    assert [(line["rule"], line["key"] != "") for line in report.rejects] == [("shots", True)]


def test_strides_tails_and_twins(tmp_path):
    write_recording(tmp_path / "in/a.mp4", 1, seconds=5)
    (tmp_path / "in/b.mp4").write_bytes((tmp_path / "in/a.mp4").read_bytes())
    settings = SETTINGS | SPLIT_ALL | {"seconds": "2", "every": "1", "skip": "0", "keep_tail": True}
    report = cut(str(tmp_path / "in"), tmp_path / "out", with_preset(None, settings), workers=2)
    rows = [row.values for row in open_set(tmp_path / "out").rows]
    assert [(row["start_seconds"], row["num_frames"], row["num_samples"]) for row in rows] == [
        (0, 20, 32_000), (1, 20, 32_000), (2, 20, 32_000), (3, 20, 32_000), (4, 10, 16_000)]  # fmt: skip
    assert {row["source"] for row in rows} == {"a.mp4"}
    assert [(line["source"], line["rule"]) for line in report.rejects] == [("b.mp4", "duplicate")]


def test_what_is_known_of_a_recording_goes_with_its_clips(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    data = write_recording(tmp_path / "x.mp4", 1).read_bytes()
    memory.pipe({"/bucket/a/x.mp4": data, "/bucket/a/x.txt": b"a quiet night\n", "/bucket/broken.mkv": b"?" * 99,
                 "/bucket/a/x.info.json": b'{"license": "CC-BY", "webpage_url": "https://example.org/x"}'})  # fmt: skip
    report = cut("memory://bucket", tmp_path / "out", with_preset(None, SETTINGS | SPLIT_ALL), workers=2)
    rows = [row.values for row in open_set(tmp_path / "out").rows]
    assert len(rows) == 3 and {row["source_path"] for row in rows} == {"a/x.mp4"}
    assert all((row["caption"], row["licence"]) == ("a quiet night", "CC-BY") for row in rows)
    assert rows[0]["origin"] == "https://example.org/x" and len(rows[0]["source_sha256"]) == 64
    assert [line["source"] for line in report.rejects] == ["broken.mkv"]
    assert not list((tmp_path / "out").rglob("copies"))


def test_a_sets_events_and_groups_are_kept(tmp_path):
    entries = []
    for number in range(4):
        write_recording(tmp_path / f"in/{number}.mp4", number)
        events = ({"time": 0.25, "kind": "shot"}, {"time": 1.75, "kind": "hit", "detail": "a wall"})
        entries.append(Entry(path=f"{number}.mp4", key=str(number), source=f"match {number // 2}", split="train",
                             fps=25, num_frames=100, height=32, width=32, sample_rate=16_000, channels=1,
                             num_samples=64_000, events=events, licence="CC0"))  # fmt: skip
    write_manifest(tmp_path / "in", entries)
    cut(str(tmp_path / "in"), tmp_path / "out", with_preset(None, SETTINGS | {"skip": "0"}), workers=2)
    rows = [row.values for row in open_set(tmp_path / "out").rows]
    assert {row["source"] for row in rows} == {"match 0", "match 1"} and {row["licence"] for row in rows} == {"CC0"}
    times = [[(event["time"], event["kind"]) for event in row["events"]] for row in rows[:4]]
    assert times == [[(0.25, "shot")], [(0.75, "hit")], [], []]


def test_help_imports_nothing_heavy():
    program = "import sys\nfrom data_tools.cli import main\ntry:\n    main(['cut', '--help'])\nexcept SystemExit:\n" \
        "    print([name for name in ('numpy', 'av', 'mmdiff', 'pyarrow') if name in sys.modules])"  # fmt: skip
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "examples" in told.stdout and told.stdout.splitlines()[-1] == "[]"
