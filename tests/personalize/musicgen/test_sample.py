"""Music from an export: exactly as long as asked for, the same for the same seed, with a record beside each file."""

import argparse
import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdiff.cli import main, parse
from mmdiff.media import read_audio
from mmdiff.personalize.musicgen.sample import write_wav
from mmdiff.personalize.sample import run_personalized_sampling
from mmdiff.recipes import build_task, load_recipe
from tests.personalize.musicgen.test_task import LORA, SMALL
from tests.personalize.musicgen.tiny_musicgen import RATE, chord, save_wav, write_musicgen


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> dict[str, Path]:
    """Return folders by method, each with weights that a step or two of training could have left, and the bases."""
    folders = {}
    songs = tmp_path_factory.mktemp("songs")
    save_wav(songs / "song.wav", chord(1.0))
    for side, methods in (("mono", ("lora", "full")), ("stereo", ("lora",)), ("melody", ("dora",))):
        how = {"channels": 2 if side == "stereo" else 1, "melody": side == "melody"}
        folders[side] = write_musicgen(tmp_path_factory.mktemp(side), **how)
        for method in methods:
            output = tmp_path_factory.mktemp(f"{side}-{method}")
            words = (f"model_version={folders[side]}", f"dataset_path={songs}", f"output_dir={output}")
            task = build_task(load_recipe(LORA, [*words, *SMALL, f"method={method}"]))
            with torch.no_grad():
                for parameter in task.network.parameters():
                    parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
            task.export(output / "export", task.network)
            folders[f"{side}-{method}"] = output / "export"
    return folders


def options(model: Path, output: Path, **more) -> argparse.Namespace:
    common = {"num_generations": 2, "seed": 3, "seconds": 0.73}
    words = ["--prompt", "slow guitar", "--device", "cpu"]
    given = parse(["personalize", "sample", str(model), "-o", str(output), *words])
    return argparse.Namespace(**{**vars(given), **common, **more})


@pytest.mark.parametrize("kind", ["mono-lora", "mono-full", "stereo-lora", "melody-dora"])
def test_music_is_written_with_how_it_was_made(kind, exports, tmp_path, capsys):
    assert run_personalized_sampling(options(exports[kind], tmp_path / "out")) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "00000.json", "00000.wav", "00001.json", "00001.wav"
    ]  # fmt: skip
    sounds = [read_audio(tmp_path / f"out/0000{i}.wav") for i in range(2)]
    assert all(sound.waveform.shape == (2 if "stereo" in kind else 1, round(0.73 * RATE)) for sound in sounds)
    assert sounds[0].sample_rate == RATE and not np.array_equal(sounds[0].waveform, sounds[1].waveform)
    facts = json.loads((tmp_path / "out/00001.json").read_text())
    assert (facts["prompt"], facts["seed"], facts["guidance_scale"], facts["top_k"]) == ("slow guitar", 4, 3.0, 250)
    assert facts["record"]["family"] == "musicgen" and facts["base_model"] == str(exports[kind.split("-")[0]])
    run_personalized_sampling(options(exports[kind], tmp_path / "again", seed=4, num_generations=1))
    assert (tmp_path / "again/00000.wav").read_bytes() == (tmp_path / "out/00001.wav").read_bytes()


def test_what_was_trained_is_heard(exports, tmp_path):
    run_personalized_sampling(options(exports["mono-lora"], tmp_path / "trained", num_generations=1))
    other = tmp_path / "untrained"
    shutil.copytree(exports["mono"], other)
    record = json.loads((exports["mono-full"] / "personalize.json").read_text())
    (other / "personalize.json").write_text(json.dumps(record))
    run_personalized_sampling(options(other, tmp_path / "plain", num_generations=1))
    assert (tmp_path / "trained/00000.wav").read_bytes() != (tmp_path / "plain/00000.wav").read_bytes()


def test_the_base_may_lie_elsewhere_and_the_command_line_reaches_it(exports, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(exports["mono-lora"], moved)
    record = json.loads((moved / "personalize.json").read_text())
    (moved / "personalize.json").write_text(json.dumps({**record, "base_model": str(tmp_path / "gone/for/good")}))
    words = ["personalize", "sample", str(moved), "--prompt", "slow", "-n", "1", "--seconds", "0.4", "--json"]
    assert main([*words, "-o", str(tmp_path / "a")]) == 2
    assert "not a hub id" in capsys.readouterr().err
    assert main([*words, "-o", str(tmp_path / "b"), "--base-model", str(exports["mono"])]) == 0
    assert json.loads(capsys.readouterr().out)[0]["file"] == str(tmp_path / "b/00000.wav")
    assert main([*words, "-o", str(tmp_path / "b"), "--base-model", str(exports["mono"])]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([*words, "-o", str(tmp_path / "c"), "--base-model", str(exports["stereo"])]) == 2
    assert "does not fit" in capsys.readouterr().err


@pytest.mark.parametrize(("more", "message"), [
    ({"seconds": 0.0}, "--seconds"), ({"steps": 20}, "makes music"), ({"guidance_scale": 0.5}, "guidance scale 0.5"),
    ({"temperature": 0.0}, "temperature"), ({"device": "cud"}, "--device"),
])  # fmt: skip
def test_impossible_options_are_refused(more, message, exports, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_personalized_sampling(options(exports["mono-lora"], tmp_path / "out", **more))
    assert not (tmp_path / "out").exists()


def test_a_file_holds_both_channels_in_16_bits(tmp_path):
    sound = np.stack([np.linspace(-1.5, 1.5, 7), np.zeros(7)]).astype(np.float32)
    write_wav(tmp_path / "a.wav", sound, 8000)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 8000, 7)
    assert np.abs(read_audio(tmp_path / "a.wav").waveform - sound.clip(-1, 1)).max() < 1e-4
