"""Joint training in latent space: encoded once or every time, on one time grid, with noise in latent space alone."""

from dataclasses import replace
from fractions import Fraction
from unittest import mock

import numpy as np
import pytest
import torch
from launch import read_metrics
from safetensors.torch import load_file

import mmdiff.diffusion.objective
import mmdiff.train.joint
from data_tools.encode import encode_set, load_codecs
from mmdiff.checkpoint import save_parts
from mmdiff.data.clips import ClipConfig, DataConfig
from mmdiff.media import ClipSpec
from mmdiff.models import CoupledUNetConfig, MelCodec, PatchCodec
from mmdiff.models.time_grid import TimeGrid
from mmdiff.pipelines.joint import JointPipeline
from mmdiff.train.joint import CodecsConfig, JointRecipe, JointTask
from mmdiff.train.optim import TrainConfig
from mmdiff.train.trainer import run_training

CLIP = ClipConfig(num_frames=6, fps="10", height=16, width=16)
MODEL = CoupledUNetConfig(
    video_channels=6, audio_channels=16, model_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, num_heads=2,
    norm_groups=4, cross_attention_head_channels=4, cross_attention_resolutions=(1, 2), cross_attention_windows=(1, 2),
    video_attention_resolutions=(2,),
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Codecs, of which the sound's gives 62 steps and a half a second: 6 1/4 a frame; and the latents of two clips."""
    from tests.data.conftest import add_file, make_clip, write_manifest

    folder = tmp_path_factory.mktemp("joint-latents")
    torch.manual_seed(0)
    video = PatchCodec(patch_size=4, latent_channels=6).fit([torch.rand(1, 3, 4, 16, 16) * 2 - 1])
    parts = {"video_codec": video, "audio_codec": MelCodec(n_mels=16, hop_length=256, griffin_lim_iterations=1)}
    clip = {**vars(CLIP), "fps": "10"}
    save_parts(folder / "codecs", parts, {"_class_name": "JointPipeline", "clip": clip})
    write_manifest(folder / "clips", [add_file(folder / "clips", f"clip-{n}", make_clip(n), "train") for n in range(2)])
    assert encode_set(folder / "clips", folder / "latents", load_codecs(folder / "codecs"))["encoded"] == 2
    return folder


def recipe_of(folder, output, is_encoded=True, **train) -> JointRecipe:
    data = DataConfig(path=str(folder / "clips"), latents=str(folder / "latents") if is_encoded else None)
    train = TrainConfig(**{"max_steps": 4, "batch_size": 2, "checkpoint_every": 2, "learning_rate": 1e-2} | train)
    return JointRecipe(
        output_dir=str(output), clip=CLIP, data=data, codecs=CodecsConfig(str(folder / "codecs")), model=MODEL,
        train=train,
    )  # fmt: skip


class Stopped(Exception):
    pass


def test_cached_latents_train_and_a_killed_run_goes_on_bit_for_bit(folder, tmp_path):
    """No clip is read, no codec encodes; and the model that comes out generates clips of its own size."""
    recipe = recipe_of(folder, tmp_path / "whole")
    with mock.patch.object(PatchCodec, "encode", side_effect=AssertionError), \
         mock.patch.object(MelCodec, "encode", side_effect=AssertionError):  # fmt: skip
        assert run_training(replace(recipe, data=replace(recipe.data, path="nowhere")), JointTask) == 0
    killed = replace(recipe, output_dir=str(tmp_path / "killed"), data=replace(recipe.data, path="nowhere"))
    calls, forward = iter(range(4)), JointTask.forward

    def dies(self, *arguments):
        if next(calls) == 3:
            raise Stopped
        return forward(self, *arguments)

    with mock.patch.object(JointTask, "forward", dies), pytest.raises(Stopped):
        run_training(killed, JointTask)
    assert run_training(killed, JointTask) == 0
    assert read_metrics(tmp_path / "whole") == read_metrics(tmp_path / "killed")
    ours, theirs = (load_file(tmp_path / name / "export/denoiser/diffusion_pytorch_model.safetensors")
                    for name in ("whole", "killed"))  # fmt: skip
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    pipe = JointPipeline.from_pretrained(tmp_path / "whole" / "export")
    pipe.set_progress_bar_config(disable=True)
    assert pipe.denoiser.settings.grid == TimeGrid("1/10", "1/10", "2/125", "2/125")
    picture = np.zeros((6, 16, 16, 3), dtype=np.uint8)
    for output in (pipe(num_inference_steps=2), pipe(num_inference_steps=2, num_frames=7),
                   pipe(num_inference_steps=2, video=picture, conditioning="gradient")):  # fmt: skip
        assert output.audio.shape[-1] == output.frames.shape[1] * 1600


def test_the_loss_is_that_of_the_clips_encoded_on_the_way(folder, tmp_path):
    tasks = [JointTask(recipe_of(folder, tmp_path, is_encoded)) for is_encoded in (True, False)]
    tasks[1].network.load_state_dict(tasks[0].network.state_dict())
    clips = next(iter(tasks[1].loader(rank=0, world_size=1)))
    latents = {"key": clips["key"], **tasks[1].encode(clips)}
    losses = [task(batch, torch.Generator().manual_seed(0)) for task, batch in zip(tasks, (latents, clips))]
    assert losses[0].keys() == losses[1].keys() and losses[0]["loss"] == losses[1]["loss"] > 0


def test_noise_is_added_to_latents_and_the_loss_is_theirs(folder, tmp_path):
    """The published attempt added noise to pixels and encoded the mixture: what a codec makes of noise is no noise."""
    task = JointTask(recipe_of(folder, tmp_path, is_encoded=False))
    batch = next(iter(task.loader(rank=0, world_size=1)))
    encoded, mixed, compared = {}, {}, {}
    spies = {name: codec.encode for name, codec in task.codecs.items()}
    for name, codec in task.codecs.items():
        codec.encode = lambda x, name=name: encoded.setdefault(name, (x, spies[name](x)))[1]
    add_noise, mse = mmdiff.diffusion.objective.add_noise, mmdiff.train.joint.per_example_mse

    def mix(clean, noise, *rest):
        return mixed.setdefault(clean.ndim, (clean, noise, add_noise(clean, noise, *rest)))[2]

    def compare(prediction, expected, where):
        compared[prediction.ndim] = prediction.shape
        return mse(prediction, expected, where)

    seen = []
    task.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with mock.patch.object(mmdiff.diffusion.objective, "add_noise", mix), \
         mock.patch.object(mmdiff.train.joint, "per_example_mse", compare):  # fmt: skip
        task(batch, torch.Generator().manual_seed(0))
    for name, axes in (("video", 5), ("audio", 3)):
        given, latent = encoded[name]
        clean, noise, noisy = mixed[axes]
        assert given is batch[name], "the codec is given the clip itself, before any noise"
        assert clean is latent and noise.shape == latent.shape == compared[axes]
        assert torch.equal(seen[0][name][..., : noisy.shape[-1]], noisy)
    assert mixed[3][2].shape[-1] == 38 and seen[0]["audio"].shape[-1] == 40  # what the levels need, with zeros
    assert not seen[0]["audio"][..., 38:].any()


def test_whole_multiples_keep_the_published_network_and_the_table_tells_what_is_filled_up(folder, tmp_path):
    task = JointTask(recipe_of(folder, tmp_path))
    assert "need 2 more steps of sound than 38" in task.preflight()
    assert task.network.settings.grid.video_step == Fraction(1, 10)
    plain = JointTask(JointRecipe(clip=CLIP, model=replace(MODEL, video_channels=3, audio_channels=1)))
    assert plain.network.settings == plain.recipe.model and plain.spec == ClipSpec(6, 10, 16, 16)


def test_a_recipe_without_the_codecs_of_its_latents_is_refused(folder, tmp_path):
    recipe = recipe_of(folder, tmp_path)
    pixels = replace(recipe, codecs=CodecsConfig(), model=replace(MODEL, video_channels=3, audio_channels=1))
    with pytest.raises(ValueError, match=r"codecs\.folder is not set"):
        JointTask(pixels).preflight()
    config = folder / "codecs" / "audio_codec" / "config.json"
    before = config.read_text(encoding="utf-8")
    try:
        config.write_text(before.replace('"mean": -4.0', '"mean": -3.0'), encoding="utf-8")
        with pytest.raises(ValueError, match="encode the set again"):
            JointTask(recipe).preflight()
    finally:
        config.write_text(before, encoding="utf-8")
