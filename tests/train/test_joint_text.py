"""Joint training with captions, and of pictures alone: exact resume, what text is left out, what is refused."""

import re
import shutil
from dataclasses import replace
from fractions import Fraction
from unittest import mock

import pytest
import torch
from launch import read_metrics
from safetensors.torch import load_file

from data_tools.encode import encode_set, load_codecs
from mmdiff.checkpoint import load_components, save_parts
from mmdiff.data.clips import ClipConfig, DataConfig
from mmdiff.data.manifest import write_manifest
from mmdiff.diffusion.schedule import DiffusionConfig
from mmdiff.models import CoupledUNetConfig, JointTransformerConfig, MelCodec, PatchCodec
from mmdiff.pipelines import JointPipeline
from mmdiff.train.joint import CodecsConfig, JointRecipe, JointTask
from mmdiff.train.optim import TrainConfig
from mmdiff.train.text import TextConfig
from mmdiff.train.trainer import run_training
from tests.models.tiny_text import write_bert

CLIP = ClipConfig(num_frames=6, fps="10", height=16, width=16)
BOTH, PICTURES = ("video", "audio"), ("video",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three clips, two of which have captions, the codecs, the latents and a text encoder."""
    from tests.data.conftest import add_file, make_clip

    folder = tmp_path_factory.mktemp("joint-text")
    torch.manual_seed(0)
    video = PatchCodec(patch_size=4, latent_channels=6).fit([torch.rand(1, 3, 4, 16, 16) * 2 - 1])
    parts = {"video_codec": video, "audio_codec": MelCodec(n_mels=16, hop_length=256, griffin_lim_iterations=1)}
    save_parts(folder / "codecs", parts, {"_class_name": "JointPipeline", "clip": {**vars(CLIP), "fps": "10"}})
    clips = [add_file(folder / "clips", f"clip-{n}", make_clip(n, seconds=1, fps=10), "train") for n in range(3)]
    write_manifest(folder / "clips", clips)
    assert encode_set(folder / "clips", folder / "latents", load_codecs(folder / "codecs"))["encoded"] == 3
    write_bert(folder / "bert")
    return folder


def recipe_of(folder, output, modalities=BOTH, is_encoded=True, drop=0.5) -> JointRecipe:
    network = JointTransformerConfig(
        video_channels=6, audio_channels=16, audio_patch=4, width=32, depth=2, num_heads=2, modalities=modalities,
        timestep_per_modality=modalities == BOTH, given_channel=True,
    )  # fmt: skip
    return JointRecipe(
        output_dir=str(output), clip=CLIP, codecs=CodecsConfig(str(folder / "codecs")), transformer=network,
        data=DataConfig(path=str(folder / "clips"), latents=str(folder / "latents") if is_encoded else None),
        text=TextConfig(str(folder / "bert"), drop),
        diffusion=DiffusionConfig(prediction_type="flow",
                                  timestep_mode="per_modality" if modalities == BOTH else "shared"),
        train=TrainConfig(max_steps=4, batch_size=2, checkpoint_every=2, learning_rate=1e-2),
    )  # fmt: skip


class Stopped(Exception):
    pass


@pytest.mark.parametrize("modalities", [BOTH, PICTURES])
def test_a_killed_run_goes_on_bit_for_bit_and_its_model_takes_prompts(folder, tmp_path, modalities):
    assert run_training(recipe_of(folder, tmp_path / "whole", modalities), JointTask) == 0
    killed = recipe_of(folder, tmp_path / "killed", modalities)
    calls, forward = iter(range(4)), JointTask.forward

    def dies(self, *arguments):
        if next(calls) == 3:
            raise Stopped
        return forward(self, *arguments)

    with mock.patch.object(JointTask, "forward", dies), pytest.raises(Stopped):
        run_training(killed, JointTask)
    assert run_training(killed, JointTask) == 0
    lines = read_metrics(tmp_path / "whole")
    assert lines == read_metrics(tmp_path / "killed")
    assert lines[-1]["grad_norm/text"] > 0
    assert all(("loss/audio" in line) == (modalities == BOTH) for line in lines)
    ours, theirs = (load_file(tmp_path / name / "export/denoiser/diffusion_pytorch_model.safetensors")
                    for name in ("whole", "killed"))  # fmt: skip
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    parts = load_components(tmp_path / "whole" / "export")
    assert parts.denoiser.settings.text_channels == 32 and parts.text.encoder == str(folder / "bert")
    pipe = JointPipeline.from_pretrained(tmp_path / "whole" / "export")
    pipe.set_progress_bar_config(disable=True)
    made = pipe(prompt=["ball", "two bell"], num_inference_steps=2, num_frames=10, overlap=2)
    assert made.frames.shape == (2, 10, 16, 16, 3) and (made.audio is None) == (modalities == PICTURES)


@pytest.mark.parametrize("modalities", [BOTH, PICTURES])
def test_clips_train_as_their_latents_do_and_are_shown(folder, tmp_path, modalities):
    task = JointTask(recipe_of(folder, tmp_path, modalities, is_encoded=False))
    encoded = JointTask(recipe_of(folder, tmp_path, modalities))
    encoded.network.load_state_dict(task.network.state_dict())
    clips = next(iter(task.loader(rank=0, world_size=1)))
    latents = {"caption": clips["caption"], **task.encode(clips)}
    losses = [each(x, torch.Generator().manual_seed(0)) for each, x in ((task, clips), (encoded, latents))]
    assert losses[0]["loss"] == losses[1]["loss"] > 0
    shown = task.preview(task.network.eval(), clips, torch.Generator().manual_seed(0))
    assert len(shown) == 2 and shown[0].num_samples == 9600
    assert shown[0].waveform.any() == (modalities == BOTH)


def opened(task: JointTask) -> JointTask:
    torch.manual_seed(1)
    for parameter in task.network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return task


def test_captions_are_learned_from_unless_they_are_left_out_or_empty(folder, tmp_path):
    for drop, counts in ((0.0, True), (1.0, False)):
        task = opened(JointTask(recipe_of(folder, tmp_path, drop=drop)))
        batch = next(iter(task.loader(rank=0, world_size=1)))
        one, other, none = (
            task({**batch, "caption": captions}, torch.Generator().manual_seed(0))["loss"]
            for captions in (["ball", "bell"], ["two wood", "glass"], ["", " "])
        )
        assert (one != other) == counts and (one != none) == counts
    text = task.captions.states(["ball", "", "bell"], torch.device("cpu"))
    assert text.mask.any(1).tolist() == [True, False, True]
    task.captions.config = TextConfig("bert", 0.3)
    kept = task.captions.drawn(["ball"] * 2000, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert abs(kept.mask.any(1).float().mean() - 0.7) < 0.04


def test_text_changes_nothing_of_what_else_is_drawn(folder, tmp_path):
    """Noise, times and what is given are the same with text as without, so that runs can be compared."""
    seen = []
    for text in (TextConfig(str(folder / "bert")), None):
        task = JointTask(replace(recipe_of(folder, tmp_path), text=text))
        task.network.register_forward_pre_hook(lambda _, inputs, options: seen.append((inputs[0], options["given"])),
                                               with_kwargs=True)  # fmt: skip
        task(next(iter(task.loader(rank=0, world_size=1))), torch.Generator().manual_seed(0))
    for one, other in zip(*seen):
        assert all(torch.equal(x, other[name]) for name, x in one.items())


def test_the_table_counts_captions_and_a_set_without_any_is_refused(folder, tmp_path):
    task = JointTask(recipe_of(folder, tmp_path))
    assert "captions: 2 of 3 windows have one, 2 are different" in task.preflight()
    index = (folder / "latents" / "index.jsonl").read_text(encoding="utf-8")
    shutil.copytree(folder / "latents", tmp_path / "mute")
    mute = re.sub('"caption": "[^"]*"', '"caption": ""', index)
    (tmp_path / "mute" / "index.jsonl").write_text(mute, encoding="utf-8")
    recipe = recipe_of(folder, tmp_path)
    with pytest.raises(ValueError, match=r"mute: none of 3 windows has a caption"):
        JointTask(replace(recipe, data=replace(recipe.data, latents=str(tmp_path / "mute")))).preflight()


def unet_recipe(folder, output) -> JointRecipe:
    model = CoupledUNetConfig(
        video_channels=6, audio_channels=16, model_channels=8, channel_multipliers=(1, 2), num_res_blocks=1,
        num_heads=2, norm_groups=4, cross_attention_head_channels=4, cross_attention_resolutions=(2,),
        cross_attention_windows=(1,), video_attention_resolutions=(2,),
    )  # fmt: skip
    return replace(recipe_of(folder, output), model=model, transformer=None, diffusion=DiffusionConfig())


def test_the_coupled_unet_is_trained_with_text_too(folder, tmp_path):
    task = opened(JointTask(unet_recipe(folder, tmp_path)))
    task(next(iter(task.loader(rank=0, world_size=1))), torch.Generator().manual_seed(0))["loss"].backward()
    assert task.network.settings.grid.audio_step == Fraction(2, 125)
    assert all(parameter.grad.any() for parameter in task.parameter_groups()["text"])


def test_settings_that_cannot_go_together_are_refused(folder, tmp_path):
    recipe = recipe_of(folder, tmp_path)
    alone = replace(recipe.transformer, modalities=PICTURES, timestep_per_modality=False)
    for message, changes in (
        ("per_modality is for two", {"transformer": alone}),
        ("no section `text`", {"transformer": replace(recipe.transformer, text_channels=32), "text": None}),
    ):
        with pytest.raises(ValueError, match=message):
            replace(recipe, **changes)
    with pytest.raises(ValueError, match="drop_probability is 2"):
        TextConfig(drop_probability=2)


def test_a_model_without_text_learns_it_from_its_weights_on(folder, tmp_path):
    for name, told in (("unet", unet_recipe(folder, tmp_path)), ("transformer", recipe_of(folder, tmp_path))):
        silent = replace(told, text=None, output_dir=str(tmp_path / name))
        assert run_training(silent, JointTask) == 0
        before, task = load_components(tmp_path / name / "export").denoiser.state_dict(), JointTask(told)
        task.load_weights(str(tmp_path / name / "export"))
        now = task.network.state_dict()
        assert all(torch.equal(value, now[key]) for key, value in before.items())
        assert any(key not in before for key in now)
