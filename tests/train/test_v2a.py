"""Training video-to-audio: what is learned, what is left out, and a run that goes on bit for bit."""

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from data_tools.impacts import synthesize_impacts
from mmdiff.checkpoint import V2A_PARTS, load_part, load_video_to_audio
from mmdiff.data.manifest import read_manifest, write_manifest
from mmdiff.recipes import build_task, load_recipe
from mmdiff.train.monitor import gradient_norms
from mmdiff.train.trainer import run_training
from mmdiff.train.v2a import draw_beginnings
from tests.models.tiny_text import write_bert, write_clip

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("clip.height=16", "clip.width=16", "model.width=32", "model.picture_channels=[8,16]", "train.log_every=1")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    synthesize_impacts(folder, count=3, seconds=3, fps=Fraction(10), height=16, width=16, sample_rate=4000, seed=5)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert"))


def tiny_recipe(clips: Path, encoder: Path, output: Path, *words: str):
    paths = (f"data.path={clips}", f"text.encoder={encoder}", f"output_dir={output}")
    return load_recipe(ROOT / "configs/tiny/v2a.yaml", [*paths, *SMALL, *words])


def test_one_batch_is_learned_and_every_part_hears_of_it(clips, encoder, tmp_path):
    torch.manual_seed(0)
    task = build_task(tiny_recipe(clips, encoder, tmp_path))
    batch = next(iter(task.loader(rank=0, world_size=1)))
    optimizer = torch.optim.Adam(task.network.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        result = task(batch, torch.Generator().manual_seed(1))
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
        losses.append(result["loss/audio"].item())
    assert losses[-1] < 0.8 * losses[0]
    norms = gradient_norms(task.parameter_groups())
    assert all(norms[f"grad_norm/{name}"] > 0 for name in ("video", "text", "audio"))
    assert task.captions.encoder.channels == task.network.settings.text_channels == 32


def test_the_loss_depends_on_video_and_on_text_unless_they_are_dropped(clips, encoder, tmp_path):
    def losses(*words):
        torch.manual_seed(0)
        task = build_task(tiny_recipe(clips, encoder, tmp_path, *words))
        for parameter in task.network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
        batch = next(iter(task.loader(rank=0, world_size=1)))
        changed = [batch, {**batch, "video": -batch["video"]}, {**batch, "caption": ["one", "two", "ball", "bell"]}]
        return [task(each, torch.Generator().manual_seed(1))["loss"].item() for each in changed]

    whole, other_video, other_text = losses("frames.drop_probability=0", "text.drop_probability=0")
    assert abs(whole - other_video) > 1e-4 and abs(whole - other_text) > 1e-4
    whole, other_video, other_text = losses("frames.drop_probability=1", "text.drop_probability=1")
    assert whole == pytest.approx(other_video, abs=1e-6) and whole == pytest.approx(other_text, abs=1e-6)


def test_beginnings_are_given_now_and_then_and_never_all():
    given = draw_beginnings(2000, 10, torch.Generator().manual_seed(0))
    assert 0.25 < given.any(1).float().mean() < 0.35 and not given[:, -1].any()
    assert (given.int().diff(dim=1) <= 0).all(), "a beginning has no gap"
    assert set(given.sum(1).tolist()) == set(range(10))
    assert not draw_beginnings(20, 1, torch.Generator().manual_seed(0)).any()


def test_a_run_that_is_stopped_goes_on_bit_for_bit_and_is_exported(clips, encoder, tmp_path):
    words = ("train.checkpoint_every=2", "train.preview_every=4")
    for name, stops in (("whole", (4,)), ("parts", (2, 4))):
        for stop in stops:
            recipe = tiny_recipe(clips, encoder, tmp_path / name, *words, f"train.max_steps={stop}")
            assert run_training(recipe, build_task) == 0
    for file in ("checkpoints/step-0000004/network.safetensors", "checkpoints/step-0000004/optimizer.safetensors",
                 "export/denoiser/diffusion_pytorch_model.safetensors"):  # fmt: skip
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes()
    parts = load_video_to_audio(tmp_path / "whole/export")
    assert parts.text.encoder == str(encoder) and parts.frames is None and parts.clip.num_frames == 8
    begun = build_task(recipe)
    begun.load_weights(str(tmp_path / "whole/export"))
    loaded = load_part(tmp_path / "whole/export", "denoiser", V2A_PARTS).state_dict()
    assert all(torch.equal(x, loaded[name]) for name, x in begun.network.state_dict().items())


def test_a_frozen_vision_model_may_look_at_the_frames(clips, tmp_path):
    folder = write_clip(tmp_path / "clip")
    words = (f"data.path={clips}", f"output_dir={tmp_path / 'run'}", "text=null", f"frames.encoder={folder}")
    recipe = load_recipe(ROOT / "configs/tiny/v2a.yaml", [*SMALL, *words])
    task = build_task(recipe)
    assert task.network.settings.frame_channels == 32 and task.network.settings.text_channels == 0
    assert "without" not in task.preflight() and "captions" not in task.preflight()
    batch = next(iter(task.loader(rank=0, world_size=1)))
    task(batch, torch.Generator().manual_seed(0))["loss"].backward()
    assert not any(name.startswith("frames") for name, _ in task.named_parameters()), "it is not trained"
    task.export(tmp_path / "export", task.network)
    assert load_video_to_audio(tmp_path / "export").frames.encoder == str(folder)


def test_bad_recipes_and_clips_without_captions_are_refused(clips, encoder, tmp_path):
    for word, message in (
        ("frames.drop_probability=2", "between 0 and 1"),
        ("diffusion.timestep_mode=per_modality", "use shared"),
        ("model.width=31", "even number"),
        ("frames.encoder=nothing", "not a hub id"),
        (f"codecs.folder={ROOT}/checkpoints/codec-impacts", "audio_codec is for sound at 16000 Hz"),
    ):
        with pytest.raises(ValueError, match=message):
            build_task(tiny_recipe(clips, encoder, tmp_path, word))
    mute = tmp_path / "mute"
    shutil.copytree(clips, mute)
    write_manifest(mute, [replace(entry, caption="") for entry in read_manifest(clips)])
    with pytest.raises(ValueError, match="has a caption"):
        build_task(tiny_recipe(mute, encoder, tmp_path)).preflight()
