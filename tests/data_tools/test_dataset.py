"""Any set of clips can be opened, and ours reads back as it was written, by us and by others."""

import json
from fractions import Fraction

import pytest

from data_tools.dataset import open_set, read_rejects, summarize, write_rejects, write_set
from mmdiff.data.manifest import read_manifest

pq = pytest.importorskip("pyarrow.parquet")


def row(key: str, split: str = "train", **more) -> dict:
    return {
        "path": f"files/{split}/{key}.mp4", "key": key, "source": key[:1], "split": split, "fps": Fraction(30000, 1001),
        "num_frames": 1019, "height": 64, "width": 64, "sample_rate": 16_000, "channels": 1, "num_samples": 544_000,
        "events": [], "shots": [], **more,
    }  # fmt: skip


def test_a_set_reads_back_by_every_door(tmp_path):
    rows = [row("a0"), row("a1", events=[{"time": 1.5, "kind": "shot", "detail": "a gun"}], shots=[3.0]),
            row("b0", "test", licence="CC0")]  # fmt: skip
    write_set(tmp_path, rows)
    assert [entry.key for entry in read_manifest(tmp_path)] == ["a0", "a1", "b0"]
    assert read_manifest(tmp_path)[1].events[0].kind == "shot"
    table = pq.read_table(tmp_path / "manifest.parquet").to_pylist()
    assert table[1]["shots"] == [3.0] and table[1]["events"][0]["time"] == 1.5 and table[0]["fps"] == "30000/1001"
    told = [json.loads(line) for line in (tmp_path / "files/train/metadata.jsonl").read_text().splitlines()]
    assert [line["file_name"] for line in told] == ["a0.mp4", "a1.mp4"]
    opened = open_set(tmp_path)
    assert opened.kind == "manifest" and [r.source for r in opened.rows] == ["a", "a", "b"]
    (tmp_path / "manifest.jsonl").unlink()
    opened = open_set(tmp_path)
    assert opened.kind == "videofolder" and {r.split for r in opened.rows} == {"train", "test"}
    assert sorted(r.path for r in opened.rows) == sorted(r["path"] for r in rows)


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        write_set(tmp_path / name, [row("a0"), row("b0", "test")])
        write_rejects(tmp_path / name, [])
    for path in sorted((tmp_path / "a").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    assert not list(tmp_path.rglob("*.partial"))


def test_a_plain_folder_lists_its_files_even_broken_ones(tmp_path):
    for name in ("val/x.MP4", "train/y.mkv", "train/.hidden.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"?")
    opened = open_set(tmp_path)
    assert [(r.path, r.split) for r in opened.rows] == [("train/y.mkv", "train"), ("val/x.MP4", "validation")]
    assert opened.file(opened.rows[0]).is_file()


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("manifest.jsonl", '{"path": "../x.mp4"}', "leads out"),
        ("manifest.jsonl", '{"key": "x"}', "no 'path'"),
        ("metadata.jsonl", '{"text": "x"}', "file_name"),
        ("metadata.jsonl", "[1]", "not a JSON object"),
        ("manifest.jsonl", "x", "not JSON"),
        ("notes.txt", "x", "name a data set"),
    ],
)
def test_what_is_no_set_is_refused(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=reason):
        open_set(tmp_path)


def test_rejects_and_statistics(tmp_path):
    rejects = [{"source": "c.mp4", "stage": "cut", "rule": "damaged", "reason": "truncated"}]
    write_rejects(tmp_path, rejects)
    assert read_rejects(tmp_path) == [{**rejects[0], "key": ""}]
    stats = summarize([row("a0"), row("a1"), row("b0", "test", licence="CC0")], rejects)
    assert stats["splits"]["train"] == {"clips": 2, "sources": 1, "hours": round(2 * 1019 * 1001 / 30000 / 3600, 6)}
    assert stats["licences"] == {"CC0": 1, "unknown": 2} and stats["rejects"] == {"damaged": 1}
