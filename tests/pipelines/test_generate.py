"""`mmdiff sample`: complete records, nothing replaced, the same set on any number of ranks."""

import hashlib
import json
import shlex
import wave
from fractions import Fraction

import av
import numpy as np
import pytest

from mmdiff.checkpoint import JointComponents, save_components
from mmdiff.cli import build_parser, main
from mmdiff.data.manifest import Entry, write_manifest
from mmdiff.diffusion.guidance import CONDITIONINGS
from mmdiff.diffusion.schedule import FLOW_SAMPLERS, SAMPLERS, DiffusionConfig, make_scheduler
from mmdiff.media import Clip, ClipSpec, read_clip, read_video, write_mp4
from mmdiff.models import JointTransformer, PixelCodec, WaveformCodec
from mmdiff.pipelines.generate import Place, plan_conditions, read_condition

SPEC = ClipSpec(num_frames=4, height=16, width=16)


def sample(model, output, *words):
    return main(["sample", str(model), "-o", str(output), "--steps", "2", "--device", "cpu", *map(str, words)])


def record(folder, index):
    return json.loads((folder / f"{index:05d}.json").read_text())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def moving_clip(num_frames, seed=0):
    """A clip whose frames differ, with noise for sound."""
    frames = np.stack([np.full((16, 16, 3), 20 + 200 * i // num_frames, np.uint8) for i in range(num_frames)])
    sound = np.random.default_rng(seed).uniform(-0.5, 0.5, (1, num_frames * 1600)).astype(np.float32)
    return Clip(frames, sound, Fraction(10), 16_000)


@pytest.fixture
def data_set(tmp_path):
    """Two test files, of two and three windows, and one for training."""
    entries = []
    for key, split, num_frames in (("a", "test", 8), ("b", "train", 40), ("c", "test", 13)):
        write_mp4(tmp_path / "data" / "files" / f"{key}.mp4", moving_clip(num_frames))
        entries.append(
            Entry(f"files/{key}.mp4", key, key, split, Fraction(10), num_frames, 16, 16, 16_000, 1, num_frames * 1600)
        )
    write_manifest(tmp_path / "data", entries)
    return tmp_path / "data"


def test_files_and_records(model_folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert sample(model_folder, out, "-n", 3, "--seed", 7, "--batch-size", 2, "--json") == 0
    assert names(out) == [f"{i:05d}.{kind}" for i in range(3) for kind in ("json", "mp4")]
    rows = json.loads(capsys.readouterr().out)
    assert [row["seed"] for row in rows] == [7, 8, 9]
    told = record(out, 2)
    assert told["seed"] == 9 and told["sampler"] == "ddim" and told["num_inference_steps"] == 2
    assert told["sha256"] == hashlib.sha256((out / "00002.mp4").read_bytes()).hexdigest()
    assert told["model"]["path"] == str(model_folder) and told["conditions"] == []
    weights = "denoiser/diffusion_pytorch_model.safetensors"
    assert told["model"]["sha256"][weights] == hashlib.sha256((model_folder / weights).read_bytes()).hexdigest()
    assert set(told["software"]) >= {"mmdiff", "torch", "diffusers", "av", "python"}
    clip = read_clip(out / "00002.mp4")
    assert clip.num_frames == 4 and clip.fps == 10 and clip.num_samples == 6400


def test_the_recorded_command_makes_the_same_bytes(model_folder, tmp_path):
    sample(model_folder, tmp_path / "first", "-n", 2, "--sampler", "ddpm")
    words = shlex.split(record(tmp_path / "first", 0)["command"])
    assert words[:2] == ["mmdiff", "sample"]
    words[words.index("-o") + 1] = str(tmp_path / "second")
    assert main(words[1:]) == 0
    for name in ("00000.mp4", "00001.mp4"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_nothing_is_replaced(model_folder, tmp_path, capsys):
    (tmp_path / "00002.json").write_text("mine")
    assert sample(model_folder, tmp_path, "-n", 4) == 2
    assert "00002.json: is there already" in capsys.readouterr().err
    assert names(tmp_path) == ["00002.json"] and (tmp_path / "00002.json").read_text() == "mine"


def test_two_ranks_write_what_one_writes(model_folder, tmp_path, monkeypatch):
    sample(model_folder, tmp_path / "one", "-n", 3, "--batch-size", 1)
    written = []
    for rank in ("0", "1"):
        for name, value in {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank}.items():
            monkeypatch.setenv(name, value)
        before = set(names(tmp_path / "two")) if (tmp_path / "two").is_dir() else set()
        assert sample(model_folder, tmp_path / "two", "-n", 3, "--batch-size", 1) == 0
        written.append(set(names(tmp_path / "two")) - before)
    assert not written[0] & written[1] and len(written[0]) == 4 and len(written[1]) == 2
    assert names(tmp_path / "one") == names(tmp_path / "two")
    for movie in (tmp_path / "one").glob("*.mp4"):
        assert movie.read_bytes() == (tmp_path / "two" / movie.name).read_bytes()


def test_a_place_outside_the_world_is_refused():
    with pytest.raises(ValueError, match="rank 2 of 2"):
        Place.from_environment({"RANK": "2", "WORLD_SIZE": "2"})


def test_sound_for_a_silent_file_keeps_its_picture(model_folder, tmp_path):
    with av.open(str(tmp_path / "real.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for image in moving_clip(12).frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    out = tmp_path / "out"
    assert sample(model_folder, out, "-n", 2, "--video", tmp_path / "real.mp4", "--start", "0.4") == 0
    given = read_video(tmp_path / "real.mp4", SPEC, start=Fraction("0.4")).frames
    for index in range(2):
        assert np.abs(read_clip(out / f"{index:05d}.mp4").frames.astype(int) - given).max() <= 6
        told = record(out, index)["conditions"][0]
        assert told["modality"] == "video" and told["start"] == "2/5"
        assert told["sha256"] == hashlib.sha256((tmp_path / "real.mp4").read_bytes()).hexdigest()
    assert (out / "00000.mp4").read_bytes() != (out / "00001.mp4").read_bytes()


def test_a_picture_for_a_wave_file_keeps_its_sound(model_folder, tmp_path):
    time = np.arange(16_000) / 16_000
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((tone * 32767).astype("<i2").tobytes())
    assert sample(model_folder, tmp_path / "out", "-n", 1, "--audio", tmp_path / "tone.wav") == 0
    heard = read_clip(tmp_path / "out" / "00000.mp4").waveform[0]
    assert np.corrcoef(heard, tone[:6400])[0, 1] > 0.99


def test_a_data_set_gives_each_generation_its_own_window(model_folder, data_set, tmp_path):
    out = tmp_path / "out"
    assert sample(model_folder, out, "-n", 5, "--video", data_set, "--batch-size", 3) == 0
    told = [record(out, index)["conditions"][0] for index in range(5)]
    expected = [("a", 0), ("a", 0.4), ("c", 0), ("c", 0.4), ("c", 0.8)]
    assert [(c["file"], c["start_seconds"]) for c in told] == [
        (str(data_set / "files" / f"{key}.mp4"), start) for key, start in expected
    ]
    real = read_video(data_set / "files" / "c.mp4", SPEC, start=Fraction("0.8")).frames
    assert np.abs(read_clip(out / "00004.mp4").frames.astype(int) - real).max() <= 6


def test_a_beginning_is_continued_and_a_span_made_again(model_folder, data_set, tmp_path):
    given = ("--video", data_set, "--audio", data_set)
    kept = ("--keep", "0.2", "--num-frames", 6, "--guidance-scale", 0.5, "--sampler", "dpm")
    assert sample(model_folder, tmp_path / "on", "-n", 2, *given, *kept) == 0
    real = read_clip(data_set / "files" / "a.mp4")
    made = read_clip(tmp_path / "on" / "00000.mp4")
    assert made.num_frames == 6 and np.abs(made.frames[:2].astype(int) - real.frames[:2]).max() <= 6
    assert np.corrcoef(made.waveform[0, 400:2800], real.waveform[0, 400:2800])[0, 1] > 0.9
    told = record(tmp_path / "on", 1)
    assert [one["modality"] for one in told["conditions"]] == ["video", "audio"]
    assert [one["start"] for one in told["conditions"]] == ["1/5", "1/5"], "windows are as long as what is kept"
    assert told["clip"]["num_frames"] == 6 and told["keep"] == "0.2" and told["guidance_scale"] == 0.5
    words = shlex.split(told["command"])
    words[words.index("-o") + 1] = str(tmp_path / "again")
    assert main(words[1:]) == 0
    assert (tmp_path / "again" / "00001.mp4").read_bytes() == (tmp_path / "on" / "00001.mp4").read_bytes()
    again = ("--regenerate", "audio=0.1:0.2", "--regenerate", "video=0.3:0.4")
    assert sample(model_folder, tmp_path / "span", "-n", 1, *given, *again) == 0
    made = read_clip(tmp_path / "span" / "00000.mp4")
    assert np.abs(made.frames[:3].astype(int) - real.frames[:3]).max() <= 6
    assert np.abs(made.frames[3].astype(int) - real.frames[3]).max() > 20
    assert record(tmp_path / "span", 0)["regenerate"] == ["audio=0.1:0.2", "video=0.3:0.4"]


def test_the_command_knows_every_sampler_and_conditioning():
    parser = next(iter(build_parser()._subparsers._group_actions)).choices["sample"]
    choices = {action.dest: action.choices for action in parser._actions}
    assert choices["sampler"] == SAMPLERS + FLOW_SAMPLERS and choices["conditioning"] == CONDITIONINGS


def test_a_model_of_flow_matching_is_sampled_with_its_own_sampler(tmp_path):
    network = JointTransformer(video_channels=3, audio_channels=1, video_patch=4, audio_patch=160, width=32, depth=1,
                               num_heads=2)  # fmt: skip
    parts = JointComponents(
        network, PixelCodec(), WaveformCodec(), make_scheduler(DiffusionConfig(prediction_type="flow")), SPEC
    )
    folder = save_components(tmp_path / "flow", parts)
    assert sample(folder, tmp_path / "own", "-n", 1) == 0
    assert record(tmp_path / "own", 0)["sampler"] == "euler"


def test_more_generations_than_windows_is_an_error(data_set, tmp_path):
    options = build_parser().parse_args(["sample", "m", "-o", "o", "-n", "6", "--audio", str(data_set)])
    with pytest.raises(ValueError, match=r"split 'test' has 5 windows of 0.4 s for 6"):
        plan_conditions(options, SPEC)
    options.num_generations = 5
    assert read_condition(plan_conditions(options, SPEC)[4][0], SPEC).shape == (1, 6400)


@pytest.mark.parametrize(
    "words, message",
    [
        (("-n", 0), "-n is 0"),
        (("--steps", 0), "--steps is 0"),
        (("--batch-size", 0), "--batch-size is 0"),
        (("--seed", -1), "--seed is -1"),
        (("--video", "no.mp4"), "no.mp4: no such file"),
        (("--video", "no.mp4", "--start", "soon"), "write seconds"),
        (("--device", "abacus"), "--device is 'abacus'"),
        (("--video", "a.mp4", "--audio", "a.mp4"), "say what is to be made with --keep or --regenerate"),
        (("--keep", "0.2"), "there is nothing to keep"),
        (("--overlap", "0.2"), "given without --num-frames"),
        (("--video", "a.mp4", "--keep", "0.25"), "whole frames at 10 fps"),
        (("--video", "a.mp4", "--keep", "0.4"), "less than the clip's 0.4 s"),
        (("--video", "a.mp4", "--regenerate", "video=0.4"), "such as audio=0.4:0.8"),
        (("--video", "a.mp4", "--regenerate", "video=a:b"), "--regenerate is 'a'; write seconds"),
        (("--num-frames", 0), "num_frames is 0"),
        (("--label", 1), "this model has 0 classes"),
        (("--guidance-scale", 1), "with nothing given"),
    ],
)
def test_mistakes_are_explained(model_folder, tmp_path, capsys, words, message):
    assert sample(model_folder, tmp_path / "out", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
