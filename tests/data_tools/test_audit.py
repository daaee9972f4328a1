"""An audit of a whole set: its files, its journal, and that no file can stop it."""

import json
import os
import re
import shutil

import numpy as np
import pytest

from data_tools.audit import audit_set
from data_tools.audit_columns import COLUMNS
from data_tools.cli import main
from tests.data_tools.audit_media import copy_packets, write_source

parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A plain folder with splits: a good clip, a stream copy of another, a copy of the first in test, a broken one."""
    folder, outside = tmp_path_factory.mktemp("set"), tmp_path_factory.mktemp("outside")
    for split in ("train", "test"):
        (folder / split).mkdir()
    write_source(folder / "train" / "good one.mp4", seconds=6)
    other = write_source(outside / "long.mp4", seconds=12, seed=7)
    copy_packets(other, folder / "train" / "copied.mp4", 1, 6)
    shutil.copy(folder / "train" / "good one.mp4", folder / "test" / "again.mp4")
    (folder / "train" / "broken.mp4").write_bytes(b"no film at all")
    return folder


def test_audit_writes_table_json_parquet_and_page(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["audit", str(folder), "-o", str(out), "--workers", "2"]) == 0
    table = capsys.readouterr().out
    assert re.search(r"start gap +1  the picture begins (399\d|400\d) ms after the sound \(train/copied.mp4\)", table)
    written = json.loads((out / "audit.json").read_text())
    rows = {row["key"]: row for row in written["rows"]}
    assert list(rows) == ["test/again.mp4", "train/broken.mp4", "train/copied.mp4", "train/good one.mp4"]
    assert rows["train/broken.mp4"]["faults"] == ["damaged"] and rows["train/broken.mp4"]["told"][0]
    assert rows["train/copied.mp4"]["faults"] == ["start gap", "duration gap"]
    assert rows["train/good one.mp4"]["faults"] == ["leak", "duplicate"]
    assert rows["train/good one.mp4"]["duplicate_of"] == "test/again.mp4"
    assert rows["test/again.mp4"]["leaks_with"] == ["train/good one.mp4"]
    assert written["faults"]["start gap"]["worst_key"] == "train/copied.mp4"
    columns = parquet.read_table(out / "audit.parquet")
    assert columns.column_names == list(COLUMNS) and columns.num_rows == 4
    assert columns.to_pylist()[1]["lufs"] is None and columns.schema.field("lufs").type == "double"
    page = (out / "audit.html").read_text()
    shown = re.findall(r'<figure class="clip" data-key="([^"]+)"', page)
    assert len(shown) == 4 and shown[:2] == ["train/broken.mp4", "train/copied.mp4"]
    link = os.path.relpath(folder, out) + "/train/good%20one.mp4"
    assert f'data-link="{link}"' in page and "://" not in page


def test_an_audit_goes_on_where_it_stopped(folder, tmp_path):
    whole = audit_set(folder, tmp_path)
    journal = tmp_path / ".measures.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:2]) + lines[2][:500])  # killed while it wrote the third
    again = audit_set(folder, tmp_path)
    assert (whole.num_measured, again.num_measured) == (4, 2)
    assert again.rows == whole.rows
    assert audit_set(folder, tmp_path).num_measured == 0


@pytest.mark.slow
def test_ray_measures_the_same(folder, tmp_path):
    pytest.importorskip("ray")
    rows = [audit_set(folder, tmp_path / engine, workers=2, engine=engine).rows for engine in ("pool", "ray")]
    assert rows[0] == rows[1]


def test_json_on_the_command_line_and_faults_of_the_caller(folder, tmp_path, capsys):
    assert main(["audit", str(folder), "-o", str(tmp_path), "--json", "--page-clips", "1", "--workers", "1"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["clips"] == 4 and summary["splits"]["train"]["with_faults"] == 3
    assert (tmp_path / "audit.html").read_text().count("<figure") == 1
    assert main(["audit", str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert main(["audit", str(folder), "--workers", "0"]) == 2


def test_many_damaged_files_are_many_rows(folder, tmp_path):
    """Every kind of damage in turn; not one of them stops the audit."""
    data, rng = (folder / "train" / "good one.mp4").read_bytes(), np.random.default_rng(3)
    hurt = tmp_path / "hurt"
    hurt.mkdir()
    for number in range(24):
        piece = bytearray(data[: rng.integers(1, len(data))] if number % 3 == 0 else data)
        for _ in range(20 * (number % 3)):
            piece[rng.integers(0, len(piece))] = rng.integers(0, 256)
        (hurt / f"{number:03d}.mp4").write_bytes(piece)
    audit = audit_set(hurt, tmp_path / "out", workers=2)
    assert len(audit.rows) == 24
    assert all(row["faults"] for row in audit.rows[::3])
