"""`mmdiff generate`: files and records, stopping and going on, and what every mistake is answered with."""

import hashlib
import json
from fractions import Fraction

import numpy as np
import pytest

from mmdiff.cli import build_parser, main
from mmdiff.media import Clip, read_clip, write_mp4
from mmdiff.pipelines.two_stage import LoadOptions, load_text_to_video, load_video_to_audio

OWN = ("--video-model", "painter:", "--audio-model", "drummer:")


def generate(*words):
    return main(["generate", *map(str, words)])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_one_prompt_becomes_a_clip_and_its_record(plugin, tmp_path, capsys):
    out = tmp_path / "out" / "ball.mp4"
    words = ("a red ball", "-o", out, *OWN, "--seed", 5, "--seconds", "1.3", "--fps", "29.97", "--size", "48x32",
             "--sample-rate", 44_100, "--negative-prompt", "dark")  # fmt: skip
    assert generate(*words, "--json") == 0
    row = json.loads(capsys.readouterr().out)[0]
    clip = read_clip(out)
    assert clip.num_frames == 39 and str(clip.fps) == "30000/1001" and clip.frames.shape[1:3] == (32, 48)
    assert clip.sample_rate == 44_100 and clip.num_samples == round(39 * 1001 / 30000 * 44_100)
    told = json.loads(out.with_suffix(".json").read_text())
    assert told["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest() and told["file"] == "ball.mp4"
    assert told["prompt"] == told["request"]["prompt"] == "a red ball" and told["seed"] == told["request"]["seed"] == 5
    assert told["models"]["video"] == {"backend": "painter", "name": "painter", "source": "", "revision": "r1",
                                       "licence": "CC0-1.0", "needs_text": True}  # fmt: skip
    assert told["models"]["audio"]["sample_rate"] == 16_000 and set(told["software"]) >= {"torch", "diffusers", "av"}
    assert set(told["elapsed_seconds"]) == {"video", "audio", "load_video", "load_audio"}
    assert told["device"] and told["clip"]["num_samples"] == row["clip"]["num_samples"] == clip.num_samples
    assert plugin.asked == [{"prompt": "a red ball", "seed": 5, "negative_prompt": "dark"}]
    assert names(out.parent) == ["ball.json", "ball.mp4"], "nothing half-written is left"
    assert generate(*words) == 2 and "nothing is ever replaced" in capsys.readouterr().err


def test_a_batch_loads_once_counts_seeds_and_shows_both_stages(plugin, tmp_path, capsys):
    lines = ({"prompt": "a"}, {"prompt": "b", "seed": 70, "negative_prompt": "n"}, {"prompt": "c"})
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    assert generate("--prompts", tmp_path / "p.jsonl", "-o", tmp_path / "out", *OWN, "--seed", 10) == 0
    assert [(one["prompt"], one["seed"]) for one in plugin.asked] == [("a", 10), ("b", 70), ("c", 12)]
    assert plugin.asked[1]["negative_prompt"] == "n" and sorted(plugin.loaded) == ["drummer", "painter"]
    assert names(tmp_path / "out") == [f"{i:05d}.{kind}" for i in range(3) for kind in ("json", "mp4")]
    shown = capsys.readouterr()
    assert "3/3 video" in shown.err and "3/3 audio" in shown.err and "made" in shown.out
    clip = read_clip(tmp_path / "out" / "00002.mp4")
    assert abs(int(clip.frames[0, 4, 4, 0]) - 12) <= 2, "the seed reached the video"
    assert abs(np.abs(clip.waveform[:, :100]).max() - (0.1 + 12 % 7 / 10)) < 0.1, "and the sound"


def test_a_stopped_batch_goes_on_where_it_was(plugin, tmp_path, capsys):
    (tmp_path / "p.txt").write_text("a\nb\nc\n")
    out = tmp_path / "out"
    words = ("--prompts", tmp_path / "p.txt", "-o", out, "--audio-model", "drummer:")
    assert generate(*words, "--video-model", "painter:stop") == 130
    assert names(out) == ["00000.json", "00000.mp4"]
    plugin.asked.clear()
    before = (out / "00000.mp4").stat().st_mtime_ns
    (out / ".00001.abc.partial.mp4").write_bytes(b"half")
    assert generate(*words, "--video-model", "painter:stop") == 130
    assert [one["prompt"] for one in plugin.asked] == ["b", "c"], "the finished one is passed over"
    (out / "00001.mp4").unlink()
    plugin.asked.clear()
    plugin.asked.extend([None] * 2)
    assert generate(*words, "--video-model", "painter:stop", "--json") == 0
    assert [row["state"] for row in json.loads(capsys.readouterr().out)] == ["passed over", "made", "made"]
    assert (out / "00000.mp4").stat().st_mtime_ns == before
    plugin.loaded.clear()
    assert generate(*words, "--video-model", "painter:stop") == 0 and not plugin.loaded, "nothing left, nothing loaded"


def test_what_was_made_otherwise_or_by_others_is_never_replaced(plugin, tmp_path, capsys):
    (tmp_path / "p.txt").write_text("a\nb\n")
    words = ("--prompts", tmp_path / "p.txt", "-o", tmp_path / "out", *OWN)
    assert generate(*words) == 0
    assert generate(*words, "--seed", 3) == 2
    assert "was made with seed 0, not 3" in capsys.readouterr().err
    for name, text in (("00000.mp4", "film"), ("00001.json", "{}")):
        other = tmp_path / name[:5]
        other.mkdir()
        (other / name).write_text(text)
        assert generate("--prompts", tmp_path / "p.txt", "-o", other, *OWN) == 2
        assert f"{name}: is there already" in capsys.readouterr().err
        assert names(other) == [name] and (other / name).read_text() == text


def test_a_dry_run_says_what_is_left_and_makes_nothing(plugin, tmp_path, capsys):
    (tmp_path / "p.txt").write_text("a\nb\n")
    words = ("--prompts", tmp_path / "p.txt", "-o", tmp_path / "out", *OWN, "--dry-run")
    assert generate(*words) == 0
    assert capsys.readouterr().out.count("to be made") == 2
    assert not (tmp_path / "out").exists() and not plugin.loaded


@pytest.mark.parametrize("mode, level", [("native", 0.25), ("mix", 0.25 * 0.5**0.5)])
def test_a_joint_models_own_sound_is_kept_or_mixed(plugin, tmp_path, mode, level):
    words = ("a", "-o", tmp_path / "a.mp4", "--video-model", "painter:", "--audio", mode)
    assert generate(*words, *(("--audio-model", "drummer:") if mode == "mix" else ())) == 0
    clip = read_clip(tmp_path / "a.mp4")
    assert clip.sample_rate == (16_000 if mode == "mix" else 8_000) and clip.num_samples == clip.sample_rate
    assert abs(np.median(clip.waveform) - level) < 0.02


@pytest.mark.parametrize("words, message", [
    (("", *OWN), "the prompt is empty"),
    ((" \n", *OWN), "the prompt is empty"),
    (("a",), "--video-model: none is given"),
    (("a", "--video-model", "painter:"), "--audio-model: none is given, and none is there by default; give a hub id"),
    (("a", "--video-model", "panter:x", "--audio-model", "silence"), "did you mean painter:x?"),
    (("a", "--video-model", "mochi:x", "--audio-model", "silence"), "the backend 'mochi' is not installed"),
    (("a", "--video-model", "broken:", "--audio-model", "silence"), "run `pip install a_package_that_nobody_has`"),
    (("a", "--video-model", "no folder", "--audio-model", "silence"), "no such folder here, and not a hub id"),
    (("a", "--video-model", "painter:", "--audio-model", "silence:now"), "silence takes nothing"),
    (("a", "--video-model", "painter:", "--audio-model", "command:no.yaml"), "no.yaml: no such recipe"),
    (("a", "--video-model", "painter:empty", "--audio-model", "silence"), "returned a video without frames"),
    (("a", "--video-model", "painter:float", "--audio-model", "silence"), "returned frames float64"),
    (("a", "--video-model", "painter:flat", "--audio-model", "silence"), "they must be uint8 frames, height, width, 3"),
    (("a", "--video-model", "painter:array", "--audio-model", "silence"), "returned ndarray; it must return a Video"),
    (("a", "--video-model", "painter:still", "--audio-model", "silence"), "returned a wrong frame rate"),
    (("a", "--video-model", "painter:mute", "--audio", "native"), "makes no sound of its own"),
    (("a", *OWN, "--audio", "native"), "leave --audio-model out"),
    (("a", "--video-model", "painter:", "--audio-model", "drummer:rate"), "returned sound at 44100 Hz"),
    (("a", "--video-model", "painter:", "--audio-model", "drummer:nan"), "NaN or infinity"),
    (("a", "--video-model", "painter:", "--audio-model", "drummer:double"), "waveform float64"),
    (("a", "--video-model", "painter:", "--audio-model", "drummer:flat"), "must be float32 channels, samples"),
    (("a", "--video-model", "painter:", "--audio-model", "drummer:stereo"), "returned 2 channels of sound"),
    (("a", "--video-model", "painter:", "--audio-model", "drummer:brief"), "0.062 s of sound for a picture of 1.000 s"),
    (("a", "--video-model", "painter:", "--audio-model", "drummer:none"), "returned a waveform of type NoneType"),
    (("a", "--video-model", "painter:", "--audio-model", "drummer:array"), "must return a Sound"),
    (("a", *OWN, "--seconds", "soon"), "--seconds is 'soon'"),
    (("a", *OWN, "--seconds", "0"), "--seconds is 0"),
    (("a", *OWN, "--size", "big"), "--size is 'big'"),
    (("a", *OWN, "--fps", "-3"), "fps: '-3' is not positive"),
    (("a", *OWN, "--steps", "0"), "--steps, --guidance-scale: steps are 0"),
    (("a", *OWN, "--audio-guidance-scale", "nan"), "--audio-steps, --audio-guidance-scale: guidance scale is nan"),
    (("a", *OWN, "--seed", "-1"), "--seed is -1"),
    (("a", *OWN, "--sample-rate", "7"), "--sample-rate is 7"),
    (("a", *OWN, "--overlap", "0"), "--overlap is 0"),
])  # fmt: skip
def test_mistakes_are_explained(plugin, tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.setattr("mmdiff.pipelines.released.FOLDER", tmp_path)  # no model of ours is there
    assert generate(*words, "-o", tmp_path / "out.mp4") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists() and not (tmp_path / "out.json").exists()


def test_a_prompt_and_a_file_of_them_are_one_too_many(plugin, tmp_path, capsys):
    (tmp_path / "p.txt").write_text("a\n")
    assert generate("a", "--prompts", tmp_path / "p.txt", "-o", tmp_path / "out", *OWN) == 2
    assert "give one PROMPT, or a file" in capsys.readouterr().err
    assert generate("--prompts", tmp_path / "p.txt", "-o", tmp_path / "out.mp4", *OWN) == 2
    assert "name a folder" in capsys.readouterr().err


def test_odd_sizes_and_windows_make_a_whole_clip(plugin, tmp_path):
    words = ("a", "-o", tmp_path / "a.mp4", "--video-model", "painter:odd", "--audio-model", "drummer:short")
    assert generate(*words, "--seconds", "5", "--overlap", "0.25") == 0
    clip = read_clip(tmp_path / "a.mp4")
    assert clip.frames.shape[:3] == (50, 14, 30) and clip.num_samples == 80_000


def test_backends_of_diffusers_and_of_our_own_make_a_clip_together(tiny_folder, model_folder, tmp_path):
    models = ("--video-model", tiny_folder("text_to_video_sd"), "--audio-model", model_folder, "--device", "cpu")
    words = ("a ball", "-o", tmp_path / "a.mp4", *models, "--steps", 1, "--audio-steps", 1, "--size", "32x32")
    assert generate(*words, "--seconds", 1) == 0
    clip = read_clip(tmp_path / "a.mp4")
    assert clip.num_frames == 8 and clip.fps == 8 and clip.num_samples == 16_000 and clip.waveform.std() > 0.01
    told = json.loads((tmp_path / "a.json").read_text())["models"]
    assert [told[kind]["backend"] for kind in ("video", "audio")] == ["diffusers", "own"]
    assert all(len(told[kind]["sha256"]) == 64 for kind in told)


def test_backends_of_other_packages_are_used_from_python_too(plugin):
    assert load_text_to_video("painter:x", LoadOptions()).info.source == "x"
    assert load_video_to_audio("silence").info.name == "silence"


def test_the_help_has_an_example(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["generate", "--help"])
    assert "example:\n  mmdiff generate" in capsys.readouterr().out


def test_a_file_of_ones_own_gets_a_sound(plugin, tmp_path, capsys):
    frames = np.random.default_rng(0).integers(0, 255, (25, 32, 48, 3), np.uint8)
    wave = np.full((1, 16_000), 0.25, np.float32)
    write_mp4(tmp_path / "my.mp4", Clip(frames, wave, Fraction(25), 16_000))
    source = f"file:{tmp_path}/my.mp4"
    words = ("--video-model", source, "--audio-model", "drummer:")  # a picture needs no prompt
    assert generate(*words, "-o", tmp_path / "a.mp4") == 0
    assert generate(*words, "-o", tmp_path / "b.mp4", "--seconds", "0.6", "--fps", "5", "--size", "24x16") == 0
    assert generate("knocks", "--video-model", source, "--audio", "native", "-o", tmp_path / "c.mp4") == 0
    made = [read_clip(tmp_path / f"{name}.mp4") for name in "abc"]
    assert [clip.frames.shape for clip in made] == [(25, 32, 48, 3), (3, 16, 24, 3), (25, 32, 48, 3)]
    assert [clip.num_samples for clip in made] == [16_000, 9_600, 16_000]
    assert made[0].waveform[0, 8000:].max() < 0.01 and abs(np.median(made[2].waveform) - 0.25) < 0.02
    (tmp_path / "sound.mp4").write_bytes((tmp_path / "my.mp4").read_bytes()[:500])
    capsys.readouterr()
    for asked, said in (
        ((source, "--seconds", "9"), "lasts 1.000 s, less than the 9 s asked for"),
        ((f"file:{tmp_path}/none.mp4",), "no such file"),
        ((f"file:{tmp_path}/sound.mp4",), "sound.mp4"),
        ((source, "--lora", "x"), "--lora is for models"),
    ):
        assert generate("knocks", "--audio-model", "drummer:", "-o", tmp_path / "d.mp4", "--video-model", *asked) == 2
        assert said in capsys.readouterr().err
