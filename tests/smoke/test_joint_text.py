"""The recipes with text: the tiny ones are trained, exported and sampled with prompts; the others build networks."""

import json
from fractions import Fraction
from pathlib import Path

import pytest

from data_tools.impacts import synthesize_impacts
from mmdiff.cli import main
from mmdiff.media import read_clip
from mmdiff.recipes import load_recipe
from mmdiff.train.joint import JointTask
from tests.models.tiny_text import write_bert

ROOT = Path(__file__).resolve().parents[2]
STRIKES = {"joint_latent": ("video", "audio"), "t2v": ("video",)}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    synthesize_impacts(folder, count=3, seconds=3, fps=Fraction(10), height=16, width=16, sample_rate=4000, seed=5)
    return folder


@pytest.mark.parametrize("name, makes_sound", [("joint_text", True), ("t2v", False)])
def test_a_tiny_recipe_is_trained_and_makes_clips_of_prompts(clips, tmp_path, name, makes_sound):
    encoder, run = write_bert(tmp_path / "bert"), tmp_path / "run"
    words = [f"data.path={clips}", f"text.encoder={encoder}", f"output_dir={run}", "train.max_steps=2"]
    assert main(["train", str(ROOT / f"configs/tiny/{name}.yaml"), *words, "train.batch_size=2"]) == 0
    assert (run / "export" / "audio_codec").is_dir() == makes_sound
    (tmp_path / "prompts.txt").write_text("a ball on wood\ntwo bells\n")
    command = ["sample", str(run / "export"), "-o", str(tmp_path / "out"), "--prompts", str(tmp_path / "prompts.txt")]
    assert main([*command, "--steps", "2", "--device", "cpu"]) == 0
    told = json.loads((tmp_path / "out" / "00001.json").read_text())
    assert told["prompt"] == "two bells" and told["negative_prompt"] is None
    assert list(told["text_guidance"]) == (["video", "audio"] if makes_sound else ["video"])
    clip = read_clip(tmp_path / "out" / "00001.mp4")
    assert clip.num_frames == 8 and clip.num_samples == 6400 * clip.sample_rate // 8000


@pytest.mark.parametrize("name", STRIKES)
def test_the_recipe_of_strikes_builds_a_small_network(tmp_path, name):
    words = [f"codecs.folder={ROOT}/checkpoints/codec-impacts", f"text.encoder={write_bert(tmp_path / 'bert')}"]
    task = JointTask(load_recipe(ROOT / f"configs/{name}/strikes.yaml", words))
    assert tuple(task.codecs) == task.network.settings.modalities == STRIKES[name]
    assert 4e6 < sum(parameter.numel() for parameter in task.network.parameters()) < 7e6
    assert task.grid.video_step.denominator == 10
