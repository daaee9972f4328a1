"""The demo types the product's own commands, stops at the first that fails, and removes only what it made."""

import json
from pathlib import Path

import pytest

from mmdiff import demo
from mmdiff.cli import parse

EMPTY = {
    "protocol": {"fps": "10", "sample_rate": 16000, "duration_seconds": 1.6, "tolerance_ms": 100},
    "rows": [], "validation": None, "calibration": [], "offsets_ms": {}, "clips": [], "rejected": [],
}  # fmt: skip


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "configs").mkdir()
    (tmp_path / demo.RECIPE).write_text("task: joint\n")
    return parse(["demo", "-o", "out/demo", "--model", "model", "-n", "30", "--steps", "5"])


class Recorder:
    """Stands for the commands: notes them and writes what the report reads."""

    def __init__(self, output: Path, failing: str = ""):
        self.output, self.failing, self.ran = output, failing, []

    def __call__(self, command):
        self.ran.append(list(command))
        if self.failing and self.failing in command:
            return 3
        for folder in demo.FOLDERS:
            (self.output / folder).mkdir(parents=True, exist_ok=True)
        losses = [{"step": s, "loss/video": 1 / s, "loss/audio": 2 / s} for s in (1, 2, 3)]
        (self.output / "training" / "metrics.jsonl").write_text("\n".join(map(json.dumps, losses)))
        (self.output / "sync" / "sync.json").write_text(json.dumps(EMPTY))
        return 0


def test_every_command_is_one_that_the_command_line_knows(options):
    recorder = Recorder(options.output)
    assert demo.run_demo(options, recorder) == 0
    assert [c[1] for c in recorder.ran] == ["synthesize", "train", "train", *["sample"] * 3, "evaluate"]
    parsed = [parse(c[1:]) for c in recorder.ran if c[0] == "mmdiff"]
    assert [str(p.video or p.audio) for p in parsed[2:5]] == ["None", "out/demo/clips", "out/demo/clips"]
    assert [str(g) for g in parsed[5].generations] == [f"out/demo/{way}" for way in demo.WAYS]
    assert parsed[0].overrides[-1] < parsed[1].overrides[-1] and parsed[0].overrides[:-1] == parsed[1].overrides[:-1]


def test_the_tools_know_their_command_too(options):
    from data_tools.cli import build_parser as build_tools_parser

    parsed = build_tools_parser().parse_args(list(demo.plan(options)[0].command[1:]))
    assert parsed.count >= 5 and parsed.seed == demo.HELD_OUT_SEED


def test_there_are_enough_held_out_windows(options):
    options.num_generations = 200
    command = demo.plan(options)[0].command
    files, share = int(command[command.index("-n") + 1]), float(command[-1].split(",")[2])
    assert round(files * share) * demo.WINDOWS_IN_FILE >= 200


def test_the_report_tells_what_was_typed(options, capsys):
    demo.run_demo(options, Recorder(options.output))
    page = (options.output / "report.html").read_text()
    assert "mmdiff sample model -n 30 --steps 5" in page and "Training during this demo" in page
    printed = capsys.readouterr().out
    assert "$ mmdiff-data synthesize impacts" in printed and "in all" in printed
    assert len(json.loads((options.output / "demo.json").read_text())) == 7


def test_a_failing_command_is_named_and_ends_the_demo(options, capsys):
    recorder = Recorder(options.output, failing="--audio")
    assert demo.run_demo(options, recorder) == 1
    assert "exit status 3" in capsys.readouterr().err and len(recorder.ran) == 6
    assert not (options.output / "report.html").exists()


def test_a_second_demo_starts_afresh_and_leaves_others_files(options):
    demo.run_demo(options, Recorder(options.output))
    old, mine = options.output / "joint" / "old.mp4", options.output / "notes.txt"
    old.touch()
    mine.write_text("mine")
    assert demo.run_demo(options, Recorder(options.output)) == 0
    assert not old.exists() and mine.read_text() == "mine"


def test_a_folder_that_no_demo_made_is_left_alone(options):
    precious = options.output / "clips" / "holiday.mp4"
    precious.parent.mkdir(parents=True)
    precious.touch()
    with pytest.raises(FileExistsError, match="clips"):
        demo.run_demo(options, Recorder(options.output))
    assert precious.exists()


def test_a_linked_folder_is_unlinked_and_not_emptied(options, tmp_path):
    demo.prepare_folder(options.output)
    (tmp_path / "elsewhere").mkdir()
    kept = tmp_path / "elsewhere" / "kept.mp4"
    kept.touch()
    (options.output / "joint").symlink_to(tmp_path / "elsewhere")
    demo.prepare_folder(options.output)
    assert kept.exists() and not (options.output / "joint").exists()


def test_missing_model_and_recipe_are_said_before_anything_runs(options):
    options.model = "nowhere"
    with pytest.raises(ValueError, match="nowhere: no such model"):
        demo.run_demo(options, Recorder(options.output))
    assert not options.output.exists()


def test_commands_run_in_a_process_of_their_own(capfd):
    assert demo.run_command(("mmdiff", "sample")) == 2
    assert "usage" in capfd.readouterr().err
