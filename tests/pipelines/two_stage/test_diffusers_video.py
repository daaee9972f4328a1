"""Tiny pipelines of five families, and a joint one, behind one protocol."""

import json
import shutil
import sys
from fractions import Fraction

import huggingface_hub.constants
import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from mmdiff.log import get_logger
from mmdiff.pipelines.backends.diffusers_video import DiffusersTextToVideo
from mmdiff.pipelines.two_stage import LoadOptions, load_text_to_video
from mmdiff.pipelines.two_stage.protocols import check_video

FAMILIES = {"cogvideox": 8, "wan": 16, "ltx": 25, "text_to_video_sd": 8, "animatediff": 8, "ltx2": 24}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_makes_the_video_that_was_asked_for(tiny, name, capfd):
    backend, steps = DiffusersTextToVideo(tiny(name)), []
    settings = {"seconds": Fraction(3, 5), "size": (33, 30), "num_inference_steps": 2, "negative_prompt": "dark"}
    video = check_video(backend("a ball", seed=1, callback=lambda *x: steps.append(x), **settings), backend.info)
    assert video.fps == FAMILIES[name] and video.frames.shape == (round(Fraction(3, 5) * video.fps), 32, 32, 3)
    assert video.frames.std() > 3 and steps == [(1, 2), (2, 2)]
    again, other = (backend("a ball", seed=seed, **settings).frames for seed in (1, 2))
    assert (video.frames == again).all() and (video.frames != other).any()
    assert (video.sound is not None) == (name == "ltx2")


def test_a_joint_model_keeps_its_sound_and_a_told_frame_rate(tiny):
    backend = DiffusersTextToVideo(tiny("ltx2"))
    video = backend("rain", seconds=Fraction(1, 2), fps=Fraction(12), size=(32, 32), seed=3, num_inference_steps=1)
    assert video.fps == 12 and video.num_frames == 6
    assert video.sound.sample_rate == 16_000 and video.sound.waveform.shape == (2, 8_000)
    assert video.sound.waveform.std() > 0


class Recorder:
    """A pipeline that notes what it is asked for; `Wan...` by name, so of 16 frames a second."""

    vae_scale_factor_temporal, vae_scale_factor_spatial = 4, 8

    def __call__(self, prompt, num_frames=81, height=480, width=832, num_inference_steps=50, generator=None):
        self.asked = {"num_frames": num_frames, "height": height, "width": width, "steps": num_inference_steps}
        frames = np.zeros((1, num_frames, height, width, 3), np.uint8)
        return type("Output", (), {"frames": frames})


def test_only_what_a_pipeline_takes_is_passed_and_what_it_cannot_make_is_brought_near(monkeypatch):
    warnings = []
    monkeypatch.setattr(get_logger(), "warning", lambda text, *values: warnings.append(text % values))
    pipe = type("WanRecorder", (Recorder,), {})()
    backend = DiffusersTextToVideo(pipe)
    wanted = {"fps": Fraction(24), "size": (50, 42), "guidance_scale": 3.0, "num_inference_steps": 4}
    video = backend("x", seconds=Fraction(2), **wanted)
    assert pipe.asked == {"num_frames": 33, "height": 48, "width": 48, "steps": 4}, "4 k + 1 frames, multiples of 16"
    assert video.num_frames == 32 and video.fps == 16, "two seconds at the model's own rate"
    told = "\n".join(warnings)
    assert "16 frames a second, not 24" in told and "48x48, not 50x42" in told and "takes no guidance_scale" in told
    backend("x")
    assert pipe.asked == {"num_frames": 81, "height": 480, "width": 832, "steps": 50}, "the model's own"
    unknown = DiffusersTextToVideo(type("Unheard", (Recorder,), {})())
    assert unknown("x", seconds=Fraction(1), fps=Fraction(30), size=(8, 8)).fps == 30
    assert unknown("x", seconds=Fraction(1), size=(8, 8)).fps == 8 and "say it with --fps" in warnings[-1]


def test_animatediff_makes_no_more_frames_than_its_motion_knows(tiny):
    backend = DiffusersTextToVideo(tiny("animatediff"))
    assert backend._possible_frames(33) == 32 and backend._possible_frames(7) == 7


def test_what_makes_no_video_from_text_is_refused():
    def image(self, prompt, height=8):
        return None

    def animate(self, image, prompt=None, num_frames=8):
        return None

    for call, message in ((image, "makes no video from a text alone"), (animate, "but needs image")):
        with pytest.raises(ValueError, match=message):
            DiffusersTextToVideo(type("Pipe", (), {"__call__": call})())


def test_a_folder_makes_what_the_pipeline_made_and_is_known_by_its_hash(tiny, tiny_folder):
    settings = {"seconds": Fraction(1, 2), "size": (32, 32), "seed": 4, "num_inference_steps": 2}
    backend = load_text_to_video(str(tiny_folder("wan")), LoadOptions(device="cpu"))
    made = backend("a ball", **settings).frames.astype(int)
    assert np.abs(made - DiffusersTextToVideo(tiny("wan"))("a ball", **settings).frames).max() <= 1
    assert backend.info.name == "WanPipeline" and len(backend.info.sha256) == 64 and backend.info.revision is None


@pytest.fixture
def copied(tiny_folder, tmp_path):
    """A folder of the tiny Wan that a test may change."""
    return shutil.copytree(tiny_folder("wan"), tmp_path / "wan")


def rewrite_index(folder, **changes):
    index = json.loads((folder / "model_index.json").read_text()) | changes
    (folder / "model_index.json").write_text(json.dumps(index))


def test_a_model_card_tells_the_licence(copied):
    (copied / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Wan\n")
    assert load_text_to_video(str(copied)).info.licence == "apache-2.0"


@pytest.mark.parametrize("changes, message", [
    ({"_class_name": ["pipeline", "Mine"]}, "names no pipeline class"),
    ({"_class_name": "MyPipeline"}, "its class MyPipeline is none of diffusers"),
    ({"transformer": ["my_code", "Mine"]}, "its part transformer comes from 'my_code'"),
])  # fmt: skip
def test_code_that_comes_with_a_model_is_never_run(copied, changes, message):
    for name in ("pipeline", "my_code"):
        (copied / f"{name}.py").write_text("raise SystemExit('it ran')")
    rewrite_index(copied, **changes)
    with pytest.raises(ValueError, match=message):
        load_text_to_video(str(copied))


def test_pickled_weights_are_refused(copied):
    import torch

    weights = copied / "transformer" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ValueError, match="only safetensors are read"):
        load_text_to_video(str(copied))


def test_a_missing_package_comes_with_the_line_that_installs_it(tiny_folder, tmp_path, monkeypatch):
    folder = str(tiny_folder("wan"))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"--lora owner/name needs the package peft.*`pip install 'peft>=0.17'`"):
        load_text_to_video(folder, LoadOptions(loras=("owner/name",)))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"needs the package transformers.*`pip install 'transformers>=5.23,<5.24'`"):
        load_text_to_video(folder)


def test_a_lora_changes_the_video(tiny, tiny_folder, tmp_path):
    pytest.importorskip("peft")
    import torch

    weights = {}
    for name, shape in {"attn1.to_q": 24, "attn1.to_v": 24}.items():
        weights[f"transformer.blocks.0.{name}.lora_A.weight"] = torch.ones(2, shape)
        weights[f"transformer.blocks.0.{name}.lora_B.weight"] = torch.ones(shape, 2)
    save_file(weights, tmp_path / "lora.safetensors")
    settings = {"seconds": Fraction(1, 4), "size": (32, 32), "num_inference_steps": 1}
    adapted = load_text_to_video(str(tiny_folder("wan")), LoadOptions(loras=(str(tmp_path / "lora.safetensors"),)))
    plain = DiffusersTextToVideo(tiny("wan"))("a", **settings).frames
    assert np.abs(adapted("a", **settings).frames.astype(int) - plain).max() > 1


def test_offload_needs_a_gpu(tiny_folder):
    with pytest.raises(ValueError, match="--offload model moves parts of a model to a GPU"):
        load_text_to_video(str(tiny_folder("wan")), LoadOptions(device="cpu", offload="model"))


def test_a_hub_id_that_cannot_be_reached_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="nobody/nothing@v1: no such folder here, and the hub gives none"):
        load_text_to_video("nobody/nothing@v1")


def test_a_part_of_a_pipeline_is_not_one(tiny_folder):
    with pytest.raises(ValueError, match="no readable model_index"):
        load_text_to_video(str(tiny_folder("wan") / "vae"))
