"""The mmdiff-data command: quick help, clear faults, honest dry runs."""

import json
import subprocess
import sys

import pytest

from data_tools.cli import main
from mmdiff.data.manifest import read_manifest

LOOKING = ("audit", "filter", "verify", "preview", "stats", "card")
HEAVY = ("numpy", "torch", "av", "soxr", "vizdoom", "tqdm", "mmdiff")


@pytest.mark.parametrize(
    "words", [["--help"], ["synthesize", "--help"], ["record", "--help"], *([name, "--help"] for name in LOOKING)]
)
def test_help_shows_an_example_and_imports_nothing_heavy(words):
    program = (
        "import sys\nfrom data_tools.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print('loaded:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "example" in result.stdout
    assert "loaded: []" in result.stdout


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--size", "64"], "320x240"),
        (["--size", "63x64"], "even"),
        (["--count", "0"], "--count is 0"),
        (["--seconds", "nan"], "--seconds"),
        (["--sample-rate", "10"], "--sample-rate"),
        (["--seed", "-1"], "--seed"),
        (["--fps", "fast"], "frame rate"),
        (["--split-fractions", "a,b"], "0.9,0.05,0.05"),
        (["--split-fractions", "1,1,1"], "add up to 1"),
    ],
)
def test_a_persons_mistake_is_named_and_nothing_is_written(tmp_path, capsys, words, hint):
    assert main(["synthesize", "concert", str(tmp_path / "out"), *words, "--dry-run"]) == 2
    assert hint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unknown_scenario_lists_the_known_ones(tmp_path, capsys):
    assert main(["record", str(tmp_path), "--scenarios", "nowhere"]) == 2
    assert "defend_the_center" in capsys.readouterr().err


def test_dry_run_says_what_would_be_written_and_writes_nothing(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["record", str(out), "-n", "20", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["splits"] == {"train": 18, "validation": 1, "test": 1}
    assert plan["fps"] == "35"
    assert main(["synthesize", "impacts", str(out), "-n", "4", "--dry-run"]) == 0
    assert "would write 4 files of 34 s (2 train, 1 validation, 1 test)" in capsys.readouterr().out
    assert not out.exists()


@pytest.mark.parametrize("name", ["impacts", "concert"])
def test_synthesize_writes_what_it_reports(tmp_path, capsys, name):
    words = ["synthesize", name, str(tmp_path), "-n", "3", "--seconds", "1", "--size", "32x16", "--fps", "29.97"]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    entries = read_manifest(tmp_path)
    assert [row["files"] for row in report["splits"]] == [1, 1, 1]
    assert sum(row["events"] for row in report["splits"]) == sum(len(entry.events) for entry in entries)
    assert {(entry.height, entry.width, str(entry.fps)) for entry in entries} == {(16, 32, "30000/1001")}
    assert all((tmp_path / entry.path).is_file() for entry in entries)
