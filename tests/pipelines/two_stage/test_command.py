"""A program as stage 2: words, never a shell; its clip, its request, its sound and its faults."""

import json
import shlex
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mmdiff.config import build_recipe, read_settings
from mmdiff.pipelines.backends.command import CommandRecipe, _filled
from mmdiff.pipelines.two_stage import LoadOptions, Video, load_video_to_audio
from mmdiff.pipelines.two_stage.protocols import check_sound
from mmdiff.pipelines.two_stage.windows import sound_of

ROOT = Path(__file__).resolve().parents[3]
VIDEO = Video(np.full((12, 16, 16, 3), 90, np.uint8), Fraction(12))
WRITES = """
import json, struct, sys, wave
request = json.load(open(sys.argv[1]))
print(json.dumps({"words": sys.argv[2:], "request": request, "size": len(open(request["video"], "rb").read())}),
      file=open("told.json", "w"))
with wave.open(request["output"], "wb") as file:
    file.setnchannels(1); file.setsampwidth(2); file.setframerate(16000)
    file.writeframes(struct.pack("<h", 8000) * round(16000 * request["seconds"]))
"""


def recipe_file(tmp_path, script, words=("{request}",), **facts):
    """Write a program of Python and a recipe that runs it; return the recipe's path."""
    (tmp_path / "program.py").write_text(script)
    recipe = {"command": [sys.executable, "program.py", *words], "working_folder": str(tmp_path), **facts}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    return tmp_path / "recipe.json"


def load(path):
    return load_video_to_audio(f"command:{path}", LoadOptions())


def test_clip_and_request_go_in_and_sound_comes_out(tmp_path):
    words = ["{request}", "--prompt={prompt}", "{negative_prompt}", "{seed}"]
    words += ["{num_inference_steps}", "{guidance_scale}"]
    backend = load(recipe_file(tmp_path, WRITES, words, name="writer", sample_rate=16_000, licence="MIT", revision="2"))
    assert backend.info.name == "writer" and backend.info.licence == "MIT" and len(backend.info.sha256) == 64
    nasty = "$(touch bad); {seed} `touch bad` \"'\n--help"
    sound = backend(VIDEO, nasty, seed=7, num_inference_steps=9)
    assert check_sound(sound, backend.info, VIDEO).waveform.shape == (1, 16_000)
    assert abs(sound.waveform - 8000 / 32768).max() < 1e-4
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["words"] == [f"--prompt={nasty}", "", "7", "9", "4.5"] and told["size"] > 500
    assert told["request"]["prompt"] == nasty and told["request"]["seconds"] == 1.0
    assert told["request"]["num_frames"] == 12 and told["request"]["fps"] == "12"
    assert not (tmp_path / "bad").exists()
    assert not Path(told["request"]["video"]).exists(), "what was written for the program is gone"


def test_long_clips_run_in_windows(tmp_path):
    backend = load(recipe_file(tmp_path, WRITES, max_seconds=0.75))
    sound = sound_of(backend, VIDEO, "rain", overlap_seconds=Fraction(1, 4), seed=3)
    assert sound.waveform.shape == (1, 16_000)
    assert json.loads((tmp_path / "told.json").read_text())["request"]["seconds"] == 0.75


@pytest.mark.parametrize("script, facts, message", [
    ("import sys; print('first'); print('no weights\\nhere', file=sys.stderr); sys.exit(3)", {},
     "ended with status 3; it said:\n  no weights\n  here"),
    ("pass", {}, "ended well, but wrote no sound.wav; it said nothing"),
    ("import signal; signal.pause()", {"timeout_seconds": 0.5}, "not done after 0.5 s"),
    (WRITES, {"sample_rate": 44_100}, "returned sound at 16000 Hz; it must be at 44100 Hz"),
    (WRITES, {"channels": 2}, "returned 1 channels of sound; it must return 2"),
    ("import sys; open(sys.argv[1][:-12] + 'sound.wav', 'w').write('no sound')", {}, "damaged or not a media file"),
])  # fmt: skip
def test_faults_are_told(tmp_path, script, facts, message):
    backend = load(recipe_file(tmp_path, script, **facts))
    with pytest.raises(ValueError) as caught:
        check_sound(backend(VIDEO, "rain"), backend.info, VIDEO)
    assert message in str(caught.value)


@pytest.mark.parametrize("settings, message", [
    ({"comand": ["a"]}, "unknown setting 'comand'; did you mean 'command'"),
    ({"command": []}, "command is empty"),
    ({"command": ["a", "{vidoe}"]}, "unknown placeholder {vidoe}"),
    ({"command": ["a"], "timeout_seconds": 0}, "timeout_seconds is 0"),
    ({"command": ["no-such-program"], "install": "run `pip install x`"}, "no program no-such-program; run `pip"),
    ({"command": ["a"], "working_folder": "/nowhere/at/all"}, "no folder /nowhere/at/all"),
])  # fmt: skip
def test_a_recipe_with_a_mistake_is_refused(tmp_path, settings, message):
    (tmp_path / "recipe.yaml").write_text(json.dumps(settings))
    with pytest.raises(ValueError) as caught:
        load(tmp_path / "recipe.yaml")
    assert message in str(caught.value)


def test_the_recipe_of_mmaudio_calls_its_demo(monkeypatch, tmp_path):
    monkeypatch.setenv("MMAUDIO", str(tmp_path))
    path = ROOT / "configs" / "backends" / "mmaudio.yaml"
    recipe = build_recipe(CommandRecipe, read_settings(path))
    assert recipe.working_folder == str(tmp_path) and recipe.max_seconds == 8
    known = {"--variant", "--video", "--prompt", "--negative_prompt", "--duration", "--cfg_strength", "--num_steps",
             "--mask_away_clip", "--output", "--seed", "--skip_video_composite", "--full_precision"}  # fmt: skip
    assert {word.partition("=")[0] for word in recipe.command[2:]} <= known, "the arguments of MMAudio's demo.py"
    values = dict.fromkeys(("prompt", "negative_prompt", "seconds", "num_inference_steps", "guidance_scale", "seed"), 1)
    values |= {"video": "/w/clip.mp4", "folder": "/w/made"}
    words = shlex.join(_filled(word, values) for word in recipe.command)
    assert "--video=/w/clip.mp4" in words and "--output=/w/made" in words
    assert _filled(recipe.result, values) == "/w/made/clip.flac", "demo.py names its sound after the video"
    with pytest.raises(ValueError, match=r"no program .venv/bin/python; clone the repository"):
        load(path)
