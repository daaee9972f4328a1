"""The bench: its operations are the published ones, its rows say what was measured."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import bench
import bench_network


@pytest.mark.parametrize(
    ("case", "published"),
    [
        ("small-32px", 112),
        pytest.param("small", 382, marks=pytest.mark.slow),
        pytest.param("base", 1329, marks=pytest.mark.slow),
    ],
)
def test_it_counts_the_published_number_of_operations(case, published):
    assert round(bench_network.gflop(case)) == published


def parsed(monkeypatch, *words: str):
    monkeypatch.setattr(sys, "argv", ["bench.py", *words])
    return bench.parse()


def test_a_choice_of_rows_is_taken_at_its_word(monkeypatch):
    options = parsed(monkeypatch, "--cases", "base", "--work", "train", "--batch-size", "2", "8", "--precision", "bf16")
    plans = bench.make_plans(options)
    assert [(plan.case, plan.work, plan.batch_size, plan.precision) for plan in plans] == [
        ("base", "train", 2, "bf16"), ("base", "train", 8, "bf16"),
    ]  # fmt: skip


def test_unasked_every_row_is_planned_but_for_a_quick_run(monkeypatch):
    every = bench.make_plans(parsed(monkeypatch, "--no-quick"))
    networks, joint, codecs = 3 * 3 * 2 * 2, 4 * 2 * 2 * 2, 2 * 2  # cases, kinds of work, precisions, batch sizes
    assert len(every) == networks + joint + codecs
    quick = bench.make_plans(parsed(monkeypatch, "--quick"))
    assert {(plan.case, plan.work) for plan in quick} == set(bench.QUICK)
    assert set(quick) <= set(every)


def test_processor_time_is_that_of_one_thread(monkeypatch, capsys):
    words = ("--processor-time", "--cases", "small", "--reference", "checkout", "--threads")
    assert all(plan.processor_time for plan in bench.make_plans(parsed(monkeypatch, *words, "1")))
    with pytest.raises(SystemExit):
        parsed(monkeypatch, *words, "2")
    assert "give --threads 1 too" in capsys.readouterr().err


def test_work_that_no_case_does_is_refused(monkeypatch):
    with pytest.raises(SystemExit, match="codecs encode and decode"):
        bench.make_plans(parsed(monkeypatch, "--cases", "base", "--work", "decode"))


def test_the_reference_follows_each_row_but_sampling(monkeypatch):
    options = parsed(
        monkeypatch, "--cases", "small", "--precision", "fp32", "--batch-size", "1", "--reference", "checkout"
    )
    plans = bench.make_plans(options)
    assert [(plan.work, plan.reference) for plan in plans] == [
        ("forward", None), ("forward", "checkout"), ("train", None), ("train", "checkout"), ("sample", None),
    ]  # fmt: skip


def test_a_row_that_cannot_be_measured_says_why(monkeypatch, tmp_path):
    options = parsed(
        monkeypatch, "--cases", "small", "--work", "forward", "--reference", str(tmp_path), "--threads", "1"
    )
    plan = bench.make_plans(options)[1]
    row = bench.describe(bench.measure(vars(plan)), 382.0, 100.0)
    assert row["value"] is None
    assert "give the folder of a checkout of MM-Diffusion" in bench.table([row])


@pytest.mark.slow
def test_it_prints_a_table_and_writes_the_same_as_json(monkeypatch, tmp_path, capsys):
    words = ["--cases", "small-32px", "--work", "forward", "train", "--batch-size", "1", "--precision", "bf16",
             "--repeats", "1", "--threads", "1", "--no-data", "-o", str(tmp_path)]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["bench.py", *words])
    assert bench.main() == 0
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["machine"]["threads"] == 1
    rows = [row for row in written["rows"] if "case" in row]
    assert [row["work"] for row in rows] == ["forward", "train"]
    assert all(row["seconds"] > 0 and row["peak_bytes"] > 2e8 and 0 < row["share"] < 1.2 for row in rows)
    printed = capsys.readouterr().out
    assert all(row["name"] in printed for row in rows)
