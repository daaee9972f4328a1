"""`mmdiff personalize sweep`: recipes that differ side by side; what is done is not done again, what fails is said."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from mmdiff.cli import main
from mmdiff.log import get_logger
from mmdiff.personalize.sweep_commands import Ended, alone_in
from mmdiff.personalize.sweep_plan import read_sweep
from mmdiff.personalize.sweep_report import make_table, write_report
from tests.personalize.tiny import SIZE, clip, write_noise

ROOT = Path(__file__).resolve().parents[2]


def write_clip(folder: Path) -> Path:
    """Write a random CLIP that sees and reads."""
    from transformers import CLIPConfig, CLIPModel

    encoder, tokenizer = clip(16, is_projected=True)
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 8}  # fmt: skip
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=encoder.config.to_dict(), vision_config=vision, projection_dim=8))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # as they come, all pictures look alike to a network this small
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def sweep(models, tmp_path) -> Path:
    """A sweep of two tiny rows: a word of one vector, and of two."""
    recipe = {
        "task": "personalize_image", "method": "textual_inversion", "placeholder_token": "<toy>",
        "initializer_token": "toy", "pretrained_model_name_or_path": str(models["sd1"]), "resolution": SIZE,
        "instance_data_dir": str(write_noise(tmp_path / "photos", [(16, 16)] * 3)),
        "train": {"max_steps": 2, "batch_size": 2, "learning_rate": 0.01, "ema_decay": 0.0, "preview_every": 0},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "lines.txt").write_text("a red {}\n{} and my cat\n")
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({
        "base": "recipe.yaml", "rows": {"one": None, "two": {"num_vectors": 2}}, "prompts": "lines.txt",
        "generations_per_prompt": 2, "sample": {"steps": 1, "seed": 7},
        "weights": {"clip": str(write_clip(tmp_path / "clip"))},
    }))  # fmt: skip
    return tmp_path / "sweep.yaml"


def run(sweep: Path, *more: str) -> int:
    """Run the command."""
    return main(["personalize", "sweep", str(sweep), "-o", str(sweep.parent / "out"), "--device", "cpu", *more])


@pytest.mark.slow
def test_a_sweep_that_was_stopped_goes_on_and_compares_its_rows(sweep, capsys, caplog, monkeypatch):
    out = sweep.parent / "out"
    words = [sys.executable, "-m", "mmdiff.cli", "personalize", "sweep", str(sweep), "-o", str(out), "--device", "cpu"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        for line in process.stderr:
            if "row two: training" in line:
                process.send_signal(signal.SIGTERM)
        assert process.wait() == 75
    assert not (out / "sweep.json").exists()
    done = {path: path.stat().st_mtime_ns for path in (out / "rows/one").rglob("*") if path.is_file()}
    assert sum(path.suffix == ".png" for path in done) == 4
    with alone_in(out):
        assert run(sweep) == 2
    assert "another sweep is at work here" in capsys.readouterr().err
    monkeypatch.setattr(get_logger(), "propagate", True)
    with caplog.at_level("INFO"):
        assert run(sweep) == 0
    said = capsys.readouterr()
    assert "row one: training" not in caplog.text and "row two: making generations" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in done} == done
    result = json.loads((out / "sweep.json").read_text())
    for row, vectors in zip(result["rows"], ({}, {"num_vectors": 2}), strict=True):
        assert row["changes"] == vectors and row["seconds_trained"] is not None and row["fault"] is None
        numbers = {number["metric"]: number["value"] for number in row["rows"]}
        assert {"CLIP-I", "CLIP-T"} <= numbers.keys() and any("FD" in name for name in numbers)
        assert all(isinstance(value, float) for value in numbers.values())
    assert said.out.splitlines()[0].split()[:2] == ["row", "changes"] and "num_vectors=2" in said.out
    assert Image.open(out / "grid.png").size == (160 + 2 * 164, 40 + 3 * 164)
    assert "grid.png" in (out / "sweep.html").read_text()


def test_a_row_that_fails_is_said_and_the_others_go_on(sweep, monkeypatch, capsys):
    run_here = []

    def run_command(words, stop, lock):  # the same commands, in this process
        run_here.append(words[0])
        status = main(words)
        return Ended(status, capsys.readouterr().err.strip().split("\n")[-1])

    monkeypatch.setattr("mmdiff.personalize.sweep.run_command", run_command)
    settings = yaml.safe_load(sweep.read_text())
    settings["rows"] = {"bad": {"initializer_token": "<toy>"}, "one": None, "two": {"num_vectors": 2}}
    sweep.write_text(yaml.safe_dump(settings))
    assert run(sweep, "--only", "bad", "one", "--json") == 1
    result = json.loads(capsys.readouterr().out)
    bad, one = result["rows"]
    assert "training ended with status 2" in bad["fault"] and result["faults"].keys() == {"bad"}
    assert one["rows"] and result["left_out"] == ["two"]
    assert "bad: failed" in (sweep.parent / "out/sweep.html").read_text()
    assert run_here == ["train", "train", "personalize"]
    run_here.clear()
    settings["rows"]["bad"] = {"num_vectors": 3}  # what was wrong is mended
    sweep.write_text(yaml.safe_dump(settings))
    assert run(sweep, "--json") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert run_here == ["train", "personalize"] * 2, "what is done is not done again"
    assert [row["name"] for row in result["rows"]] == ["bad", "one", "two"]
    assert result["rows"][1] == one
    run_here.clear()
    assert run(sweep, "train.max_steps=3", "--only", "one") == 0
    assert run_here == ["train", "personalize"], "with other settings it goes on, and is asked anew"
    assert len(list((sweep.parent / "out/rows/one").glob("generations-*"))) == 2


def test_what_cannot_be_compared_is_said_before_training(sweep, capsys):
    for more, message in (
        (("rows.three.rank=2",), "where NAME is one, two"), (("rank=0",), "rank is 0"),
        (("--only", "three"), "no such row"), (("output_dir=x",), "output_dir is the sweep's"),
        (("rnk=2",), "unknown setting 'rnk'"), (("weights.clip=no/where/at/all",), "no/where/at/all"),
        (("instance_data_dir=nowhere",), "no such folder"), (("sample.stepps=3",), "sample.stepps: not known"),
        (("weights.inception=null",), "say where they lie"),
    ):  # fmt: skip
        assert run(sweep, *more) == 2
        assert message in capsys.readouterr().err
    assert not (sweep.parent / "out").exists()


def test_words_change_one_row_or_all(sweep, capsys):
    assert run(sweep, "--dry-run", "train.max_steps=9", "rows.two.num_vectors=3", "sample.steps=4") == 0
    said = capsys.readouterr().out
    assert said.count("train.max_steps=9") == 2 and said.count("--steps=4") == 2
    words = ["num_vectors=5", "rows.one.num_vectors=4"]
    one, two = read_sweep(sweep, words, sweep.parent / "out").rows
    assert [row.settings["num_vectors"] for row in (one, two)] == [4, 5]
    assert one.changes == {"num_vectors": "4"} and two.changes == {"num_vectors": "5"}, "as it was really trained"
    assert not (sweep.parent / "out").exists()


def test_the_best_of_a_column_is_marked():
    def row(name, fid, score):
        numbers = (("FID", fid, "lower"), ("CLIP-T", score, "higher"))
        return {"name": name, "changes": {}, "seconds_trained": 1.0, "fault": None, "rows": [
            {"metric": metric, "value": value, "low": None, "high": None, "better": better}
            for metric, value, better in numbers]}  # fmt: skip

    heads, first, second = make_table({"rows": [row("a", 30.0, 0.3), row("b", 20.0, 0.2)], "controls": []})
    assert heads == ["row", "changes", "FID ↓", "CLIP-T ↑", "s trained"]
    assert first == ["a", "-", "30.00", "0.300 *", "1.0"] and second == ["b", "-", "20.00 *", "0.200", "1.0"]


def test_music_is_heard_side_by_side(tmp_path):
    rows = []
    for name in ("MW", "TE"):
        folder = tmp_path / "rows" / name
        folder.mkdir(parents=True)
        for number, line in enumerate(("jazz with {}", "jazz with {}", "rock with {}", "rock with {}")):
            (folder / f"0000{number}.wav").write_bytes(b"")
            record = {"prompt": line.format("oud"), "template": line}
            (folder / f"0000{number}.json").write_text(json.dumps(record))
        rows.append({"name": name, "changes": {}, "seconds_trained": 1.0, "fault": None, "generations": str(folder),
                     "rows": []})  # fmt: skip
    result = {"rows": rows, "controls": [], "faults": {}, "notes": ["few"], "left_out": []}
    assert "few" in write_report(tmp_path, result, 2)
    page = (tmp_path / "sweep.html").read_text()
    players = re.findall(r'src="(.*?)"', page)
    assert players == ["rows/MW/00000.wav", "rows/TE/00000.wav", "rows/MW/00002.wav", "rows/TE/00002.wav"]
    assert page.count("<td>jazz with {}</td>") == 1 and "grid.png" not in page


@pytest.mark.parametrize(("name", "rows"), [("celebration", 10), ("music_setups", 5)])
def test_shipped_sweeps_are_of_recipes_that_can_be_built(name, rows, tmp_path):
    path = ROOT / f"configs/personalize/sweeps/{name}.yaml"
    sweep = read_sweep(path, (), tmp_path)
    assert len({json.dumps(row.settings) for row in sweep.rows}) == len(sweep.rows) == rows
    if name == "celebration":
        shared = {word for row in sweep.rows for word in row.words if word.startswith("class_data_dir=")}
        assert len(shared) == 2, "images of the class are made once for each base"
        assert {row.settings["train"]["learning_rate"] for row in sweep.rows} == {1e-6}
        assert {row.settings["train"]["max_steps"] for row in sweep.rows} == {800, 1000, 1200}
