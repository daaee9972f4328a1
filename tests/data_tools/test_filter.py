"""Filtering by an audit: what passes becomes a set that the trainer reads, what does not has a reason."""

import json

import pytest

from data_tools.cli import main
from data_tools.dataset import open_set, read_rejects
from data_tools.verify import verify_set
from mmdiff.data.manifest import read_manifest
from mmdiff.media import ClipSpec, read_clip
from tests.data_tools.audit_media import copy_packets, write_source

parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A VideoFolder: two good clips, a stream copy, a silent one, and a broken one."""
    folder, outside = tmp_path_factory.mktemp("set"), tmp_path_factory.mktemp("outside")
    (folder / "train").mkdir()
    write_source(folder / "train" / "one.v2.mp4", seconds=4, seed=1)
    write_source(folder / "train" / "two.mp4", seconds=4, seed=2, fps="30000/1001")
    copy_packets(write_source(outside / "x.mp4", seconds=12, seed=3), folder / "train" / "copied.mp4", 1, 6)
    write_source(folder / "train" / "silent.mp4", seconds=3, seed=4, sound=lambda t: 0 * t)
    (folder / "train" / "broken.mp4").write_bytes(b"no film")
    names = ("one.v2", "two", "copied", "silent", "broken")
    lines = [{"file_name": f"{name}.mp4", "text": f"clip {name}", "licence": "CC0"} for name in names]
    (folder / "train" / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def run(folder, tmp_path, capsys, *words) -> dict:
    assert main(["filter", str(folder), "-o", str(tmp_path / "out"), "--audit", str(folder / "audit"), *words]) == 0
    out = capsys.readouterr().out
    return json.loads(out) if "--json" in words else {"text": out}


def test_what_passes_is_a_set_of_its_own(folder, tmp_path, capsys):
    before = sorted(path for path in folder.rglob("*.mp4"))
    told = run(folder, tmp_path, capsys, "--rules", "paired", "--workers", "2", "--json")
    out = tmp_path / "out"
    assert (told["clips"], told["kept"]) == (5, 2) and told["by_rule"]["silence"] == 1
    entries = read_manifest(out)
    assert [(entry.path, entry.caption, entry.licence) for entry in entries] == [
        ("files/train/train_one_v2.mp4", "clip one.v2", "CC0"), ("files/train/train_two.mp4", "clip two", "CC0"),
    ]  # fmt: skip
    assert str(entries[1].fps) == "30000/1001" and entries[0].num_frames == 100
    assert 0 <= entries[0].num_samples - 4 * 48_000 <= 2048  # AAC fills its last frame
    assert (out / entries[0].path).stat().st_ino == (folder / "train" / "one.v2.mp4").stat().st_ino
    assert verify_set(out).is_sound
    clip = read_clip(out / entries[0].path, ClipSpec(16, 10, 32, 32, 16_000, 1))
    assert clip.num_samples == 25_600
    rejects = {reject["key"]: reject for reject in read_rejects(out)}
    assert {key: reject["rule"] for key, reject in rejects.items()} == {
        "train/copied.mp4": "start gap", "train/silent.mp4": "silence", "train/broken.mp4": "readable",
    }  # fmt: skip
    assert "silence_ratio is 1; wanted: silence_ratio < 0.8" in rejects["train/silent.mp4"]["reason"]
    assert "duration_gap_ms is -40" in rejects["train/copied.mp4"]["reason"]
    lines = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert lines == read_rejects(out)
    table = parquet.read_table(out / "manifest.parquet").to_pylist()
    assert table[0]["lufs"] < 0 and table[0]["start_gap_ms"] == 0
    assert "2 clips of 2 sources" in (out / "README.md").read_text()
    assert json.loads((out / "stats.json").read_text())["rejects"] == {"readable": 1, "silence": 1, "start gap": 1}
    assert sorted(path for path in folder.rglob("*.mp4")) == before


def test_filtering_again_gives_the_same_bytes_and_chains(folder, tmp_path, capsys):
    run(folder, tmp_path, capsys, "--rules", "paired")
    out = tmp_path / "out"
    kept = {path.name: path.read_bytes() for path in out.glob("*.*")}
    run(folder, tmp_path, capsys, "--rules", "paired")
    assert {path.name: path.read_bytes() for path in out.glob("*.*")} == kept
    assert main(["filter", str(folder), "-o", str(out), "--audit", str(folder / "audit"), "--rule", "has_audio"]) == 2
    assert "not of this filter" in capsys.readouterr().err
    third = tmp_path / "third"
    assert main(["filter", str(out), "-o", str(third), "--rule", "frames_per_second < 26"]) == 0
    assert [row.key for row in open_set(third).rows] == ["train_one_v2"]
    assert [reject["rule"] for reject in read_rejects(third)] == [
        "start gap", "silence", "readable", "frames_per_second < 26"
    ]  # fmt: skip


def test_scores_leave_the_clips_alone(folder, tmp_path, capsys):
    (tmp_path / "rules.yaml").write_text("preset: unique\nlong: video_seconds > 3.5\ncc: licence == 'CC0'\n")
    run(folder, tmp_path, capsys, "--rules", str(tmp_path / "rules.yaml"), "--score-only")
    out = tmp_path / "out"
    rows = {row["key"]: row for row in parquet.read_table(out / "scores.parquet").to_pylist()}
    assert [rows[f"train/{name}.mp4"]["passes"] for name in ("one.v2", "two", "silent", "broken")] == [
        True, True, False, False
    ]  # fmt: skip
    assert "video_seconds is 3; wanted" in rows["train/silent.mp4"]["reason"]
    assert not list(out.rglob("*.mp4")) and (out / "rejects.parquet").is_file()


def test_a_dry_run_writes_nothing_and_mistakes_are_named(folder, tmp_path, capsys):
    told = run(folder, tmp_path, capsys, "--rule", "silence_ratio < 0.8", "--dry-run")["text"]
    assert "would keep 3 of 5 clips" in told and not (tmp_path / "out").exists()
    for words, hint in (
        (["--rule", "silnce_ratio < 1"], "did you mean 'silence_ratio'"), ([], "--rules with a file or paired"),
        (["--rules", "nothing.yaml"], "no such file of rules"), (["--rule", "lufs"], "no condition"),
    ):  # fmt: skip
        assert main(["filter", str(folder), "-o", str(tmp_path / "out"), "--audit", str(folder / "audit"), *words]) == 2
        assert hint in capsys.readouterr().err
    words = ["filter", str(folder), "-o", str(folder), "--audit", str(folder / "audit"), "--rule", "has_audio"]
    assert main(words) == 2 and "is the set itself" in capsys.readouterr().err
