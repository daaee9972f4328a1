"""Enlarged frames: one noise for a clip, the same in any batch, of the kind that was given."""

import json
import shlex
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from mmdiff.checkpoint import (
    PictureSizes,
    SuperResolutionComponents,
    load_components,
    load_super_resolution,
    save_super_resolution,
)
from mmdiff.cli import main
from mmdiff.diffusion.schedule import DiffusionConfig, make_sampler, make_scheduler
from mmdiff.media import read_clip
from mmdiff.models import SuperResUNet, SuperResUNetConfig
from mmdiff.pipelines import JointPipeline
from mmdiff.pipelines.super_resolution import SuperResolutionPipeline

TINY = SuperResUNetConfig(
    model_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(2,), num_heads=2,
    norm_groups=4,
)  # fmt: skip
SIZES = PictureSizes(height=16, width=16, low_height=4, low_width=4)


def make_pipe(config=TINY) -> SuperResolutionPipeline:
    torch.manual_seed(0)
    network = SuperResUNet(**asdict(config)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    pipe = SuperResolutionPipeline(network, make_scheduler(DiffusionConfig()), SIZES)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe() -> SuperResolutionPipeline:
    return make_pipe()


def a_generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_frames(clips: int = 2, frames: int = 3) -> torch.Tensor:
    return torch.rand(clips, frames, 3, 4, 4, generator=a_generator(0))


def test_the_result_does_not_depend_on_how_many_frames_run_at_a_time(pipe):
    results = [
        pipe(small_frames(), num_inference_steps=4, generator=a_generator(), batch_size=size) for size in (1, 2, 5, 8)
    ]
    assert results[0].shape == (2, 3, 3, 16, 16)
    assert all((result - results[0]).abs().max() < 1e-4 for result in results)


@pytest.mark.parametrize("sampler", ["ddim", "mm-ddim", "dpm++"])
def test_all_frames_of_a_clip_begin_from_one_noise_and_clips_from_their_own(pipe, sampler):
    still = small_frames(1, 1).expand(2, 3, 3, 4, 4)
    made = pipe(still, num_inference_steps=4, generator=a_generator(), sampler=sampler)
    assert torch.allclose(made[:, :1].expand_as(made), made, atol=1e-5), "a still clip stays still"
    assert (made[0] - made[1]).abs().max() > 0.05


def test_it_takes_the_published_steps(pipe):
    """The loop, written out for one frame: noise, network, DDIM with eta 0."""
    small, scheduler = small_frames(1, 1), make_sampler("mm-ddim", pipe.scheduler)
    state = torch.randn(1, 3, 16, 16, generator=a_generator())
    scheduler.set_timesteps(5)
    for timestep in scheduler.timesteps:
        with torch.no_grad():
            output = pipe.denoiser(state, timestep[None], small[:, 0] * 2 - 1)[:, :3]
        state = scheduler.step(output, timestep, state).prev_sample
    made = pipe(small, num_inference_steps=5, generator=a_generator(), sampler="mm-ddim")
    assert torch.allclose(made[:, 0], (state.clamp(-1, 1) + 1) / 2, atol=1e-5)


def test_a_generator_for_each_clip_keeps_it_the_same_in_other_company(pipe):
    small = small_frames()
    both = pipe(small, num_inference_steps=3, generator=[a_generator(5), a_generator(6)])
    alone = pipe(small[1:], num_inference_steps=3, generator=[a_generator(6)])
    assert torch.allclose(both[1:], alone, atol=1e-5)


def test_it_returns_the_kind_that_is_given_and_sees_what_uint8_would_lose(pipe):
    small = small_frames()
    whole = (small * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).numpy()
    of_whole = pipe(whole, num_inference_steps=3, generator=a_generator())
    of_float = pipe(
        torch.from_numpy(whole).permute(0, 1, 4, 2, 3) / 255, num_inference_steps=3, generator=a_generator()
    )
    assert of_whole.dtype == np.uint8 and of_whole.shape == (2, 3, 16, 16, 3)
    expected = (of_float * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).numpy()
    assert np.abs(of_whole.astype(int) - expected).max() <= 1
    outside = pipe(small * 1.5 - 0.25, num_inference_steps=3, generator=a_generator())
    clamped = pipe((small * 1.5 - 0.25).clamp(0, 1), num_inference_steps=3, generator=a_generator())
    assert not torch.equal(outside, clamped)


def test_classes_are_told_to_a_network_that_knows_them(pipe):
    knowing = make_pipe(replace(TINY, num_classes=4))
    made = [
        knowing(small_frames(), num_inference_steps=2, generator=a_generator(), labels=torch.tensor(labels))
        for labels in ([0, 1], [0, 2])
    ]
    assert torch.equal(made[0][0], made[1][0]) and not torch.equal(made[0][1], made[1][1])
    for labels in (None, torch.tensor([0, 4]), torch.tensor([0])):
        with pytest.raises(ValueError, match=r"labels: .* 4 classes"):
            knowing(small_frames(), num_inference_steps=2, labels=labels)


@pytest.mark.parametrize("given", [
    np.zeros((1, 2, 4, 4, 3), np.float32), np.zeros((2, 4, 4, 3), np.uint8), torch.zeros(1, 2, 4, 4, 3), [1],
    torch.zeros(0, 2, 3, 4, 4), torch.full((1, 1, 3, 4, 4), torch.nan),
], ids=str)  # fmt: skip
def test_frames_of_another_kind_are_refused(pipe, given):
    with pytest.raises(ValueError, match="frames: "):
        pipe(given)


def test_other_faults_are_named(pipe):
    with pytest.raises(ValueError, match="sampler is 'ddpm'"):
        pipe(small_frames(), sampler="ddpm")
    with pytest.raises(ValueError, match="1 generators for 2 clips"):
        pipe(small_frames(), generator=[a_generator()])
    odd = SuperResolutionPipeline(pipe.denoiser, pipe.scheduler, PictureSizes(12, 12, 4, 4))
    with pytest.raises(ValueError, match="15 x 12, which are no multiples of 2"):
        odd(torch.rand(1, 1, 3, 5, 4))


def test_a_folder_gives_back_the_pipeline(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "sr")
    again = SuperResolutionPipeline.from_pretrained(tmp_path / "sr")
    again.set_progress_bar_config(disable=True)
    assert again.sizes == SIZES and again.denoiser.settings == TINY
    made = [p(small_frames(), num_inference_steps=2, generator=a_generator()) for p in (pipe, again)]
    assert torch.equal(*made)
    half = SuperResolutionPipeline.from_pretrained(tmp_path / "sr", torch_dtype=torch.bfloat16)
    half.set_progress_bar_config(disable=True)
    rough = half(small_frames(), num_inference_steps=2, generator=a_generator())
    assert rough.dtype == torch.float32 and (rough - made[0]).abs().mean() < 0.05


def test_a_folder_of_the_other_kind_is_refused_by_its_name(pipe, tmp_path, model_folder):
    parts = SuperResolutionComponents(pipe.denoiser, pipe.scheduler, SIZES)
    folder = save_super_resolution(tmp_path / "sr", parts)
    with pytest.raises(ValueError, match=r"this is a super-resolution model .*; give the folder of a joint model"):
        load_components(folder)
    with pytest.raises(ValueError, match="this is a joint model; give the folder of a super-resolution model"):
        load_super_resolution(model_folder)
    index = (folder / "model_index.json").read_text()
    (folder / "model_index.json").write_text(index.replace('"low_height": 4', '"low_height": 5'))
    with pytest.raises(ValueError, match="no usable 'sizes' entry"):
        load_super_resolution(folder)


def test_mmdiff_sample_enlarges_what_it_makes_and_records_it(pipe, tmp_path, model_folder):
    pipe.save_pretrained(tmp_path / "sr")

    def sample(name, *words):
        main(["sample", str(model_folder), "-o", str(tmp_path / name), "-n", "2", "--steps", "2", "--device", "cpu",
              "--upsampler", str(tmp_path / "sr"), "--upsampler-steps", "3", *words])  # fmt: skip
        return [read_clip(tmp_path / name / f"0000{index}.mp4") for index in range(2)]

    clips = sample("one")
    assert [clip.frames.shape for clip in clips] == [(4, 64, 64, 3)] * 2 and clips[0].num_samples == 6400
    told = json.loads((tmp_path / "one" / "00001.json").read_text())
    assert told["clip"]["height"] == told["clip"]["width"] == 64 and told["upsampler_steps"] == 3
    assert set(told["upsampler"]["sha256"]) >= {"denoiser/config.json", "model_index.json"}
    words = shlex.split(told["command"])
    words[words.index("-o") + 1] = str(tmp_path / "again")
    assert main(words[1:]) == 0
    assert (tmp_path / "one/00001.mp4").read_bytes() == (tmp_path / "again/00001.mp4").read_bytes()
    for clip, other in zip(clips, sample("single", "--batch-size", "1")):
        assert np.abs(clip.frames.astype(int) - other.frames).max() <= 3


def test_an_upsampler_that_wants_classes_is_refused_before_anything_is_made(tmp_path, model_folder, capsys):
    make_pipe(replace(TINY, num_classes=4)).save_pretrained(tmp_path / "sr")
    words = ["sample", str(model_folder), "-o", str(tmp_path / "out"), "--upsampler", str(tmp_path / "sr")]
    assert main([*words, "--device", "cpu"]) == 2
    assert "train it on clips first" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_raw_sample_is_neither_rounded_nor_clamped(model_folder):
    joint = JointPipeline.from_pretrained(model_folder)
    joint.set_progress_bar_config(disable=True)
    made = {
        kind: joint(num_inference_steps=2, generator=a_generator(), sampler="dpm++", output_type=kind).frames
        for kind in ("np", "pt", "raw")
    }
    assert made["raw"].min() < 0 or made["raw"].max() > 1
    assert torch.equal(made["raw"].clamp(0, 1), made["pt"])
    assert np.array_equal((made["pt"] * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).numpy(), made["np"])
