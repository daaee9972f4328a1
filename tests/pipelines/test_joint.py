"""One pipeline, every direction: what is given stays, what is generated depends on its own seed."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

from mmdiff.checkpoint import JointComponents, save_components
from mmdiff.diffusion.dpm_solver import DPMSolver
from mmdiff.diffusion.schedule import SAMPLERS, DiffusionConfig, exact_alphas_cumprod, make_scheduler
from mmdiff.media import ClipSpec
from mmdiff.models import CoupledUNet, MelCodec, PatchCodec, PixelCodec, WaveformCodec
from mmdiff.models.codecs.video import VIDEO_CODECS
from mmdiff.pipelines import JointPipeline
from tests.models.codecs.tiny_video import tiny

ROUNDING = 1e-4


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def stir(network):
    """Layers that start at zero would make a network deaf and blind."""
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)


@pytest.fixture
def pipe(model_folder):
    pipe = JointPipeline.from_pretrained(model_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)


def test_a_call_gives_frames_sound_and_clips(pipe):
    output = pipe(num_generations=2, num_inference_steps=2, generator=seeded(0))
    assert output.frames.shape == (2, 4, 16, 16, 3) and output.frames.dtype == np.uint8
    assert output.audio.shape == (2, 1, 6400) and output.audio.dtype == np.float32
    clips = output.clips()
    assert len(clips) == 2 and clips[0].fps == 10 and clips[0].sample_rate == 16_000
    assert output.frames.std() > 10 and output.audio.std() > 0.01


def test_tensors_hold_the_same_as_arrays(pipe):
    arrays = pipe(num_inference_steps=2, generator=seeded(0))
    tensors = pipe(num_inference_steps=2, generator=seeded(0), output_type="pt")
    assert tensors.frames.shape == (1, 4, 3, 16, 16) and 0 <= tensors.frames.min() <= tensors.frames.max() <= 1
    assert (tensors.clips()[0].frames == arrays.clips()[0].frames).all()
    assert (tensors.clips()[0].waveform == arrays.clips()[0].waveform).all()


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "mm-dpm++"])
def test_a_generation_does_not_depend_on_its_batch(pipe, sampler):
    # Where noise is integrated, the answers of a random network grow a hundredfold, and rounding with them.
    limit = ROUNDING * (10 if sampler in ("dpm", "mm-dpm") else 1)
    together = pipe(3, 4, generator=[seeded(i) for i in range(3)], sampler=sampler)
    for i in range(3):
        alone = pipe(1, 4, generator=seeded(i), sampler=sampler)
        assert np.abs(together.audio[i] - alone.audio[0]).max() < limit
        assert np.abs(together.frames[i].astype(int) - alone.frames[0]).max() <= 1
    assert np.abs(together.audio[0] - together.audio[1]).max() > 0.1


def test_the_same_seed_gives_the_same_bits(pipe):
    first, second = (pipe(2, 3, generator=seeded(5), sampler="ddpm") for _ in range(2))
    assert (first.frames == second.frames).all() and (first.audio == second.audio).all()
    assert (first.frames[0] != first.frames[1]).any()


def test_given_picture_comes_back_and_is_listened_to(pipe, picture):
    quiet = pipe(2, 3, generator=[seeded(0), seeded(1)], video=picture)
    assert (quiet.frames == picture).all()
    other = pipe(2, 3, generator=[seeded(0), seeded(1)], video=255 - picture)
    assert np.abs(quiet.audio - other.audio).max() > 1e-3, "the sound must depend on the picture given"


def test_given_sound_comes_back_and_is_watched_for(pipe):
    sounds = np.random.default_rng(0).uniform(-1, 1, (2, 1, 6400)).astype(np.float32)
    output = pipe(num_inference_steps=3, generator=[seeded(0), seeded(0)], audio=torch.from_numpy(sounds))
    assert (output.audio == sounds).all() and output.frames.shape[0] == 2
    assert (output.frames[0] != output.frames[1]).any(), "the picture must depend on the sound given"


@pytest.fixture
def latent_pipe(tmp_path):
    """A model of patches and mel columns, not trained to see one modality clean."""
    torch.manual_seed(0)
    network = CoupledUNet(
        video_channels=4, audio_channels=16, model_channels=8, channel_multipliers=(1, 2), num_res_blocks=1,
        num_heads=2, norm_groups=4, cross_attention_head_channels=4, cross_attention_resolutions=(2,),
        cross_attention_windows=(1,), video_attention_resolutions=(2,), audio_downsampling=2,
    )  # fmt: skip
    stir(network)
    video = PatchCodec(patch_size=2, latent_channels=4)
    audio = MelCodec(n_fft=512, n_mels=16, griffin_lim_iterations=2)
    parts = JointComponents(
        network, video, audio, make_scheduler(DiffusionConfig(clip_sample=False)), ClipSpec(4, 10, 16, 16)
    )
    pipe = JointPipeline.from_pretrained(save_components(tmp_path / "latent", parts))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_latent_codecs_go_the_same_way(latent_pipe, picture):
    output = latent_pipe(2, 2, generator=seeded(0))
    assert output.frames.shape == (2, 4, 16, 16, 3) and output.audio.shape == (2, 1, 6400)
    assert (latent_pipe(1, 2, generator=seeded(0), video=picture).frames == picture).all()


def test_another_noise_schedule_is_refused(pipe):
    config = pipe.scheduler.config
    wrong = {
        "beta_end": DDIMScheduler.from_config(config, beta_end=0.03),
        "beta_schedule": DDIMScheduler.from_config(config, beta_schedule="squaredcos_cap_v2"),
        "prediction_type": DDIMScheduler.from_config(config, prediction_type="epsilon"),
    }
    for name, scheduler in wrong.items():
        with pytest.raises(ValueError, match=f"{name} is .* trained with"):
            pipe(scheduler=scheduler)
        pipe.scheduler = scheduler
        with pytest.raises(ValueError, match=f"{name} is .* trained with"):
            pipe()
    with pytest.raises(ValueError, match="is of flow matching and the other is not"):
        pipe(scheduler=FlowMatchEulerDiscreteScheduler())


def test_another_solver_of_the_same_schedule_is_welcome(pipe):
    named = pipe(1, 4, generator=seeded(0), sampler="dpm++")
    solver = DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config, algorithm_type="dpmsolver++", final_sigmas_type="zero"
    )
    assert (pipe(1, 4, generator=seeded(0), scheduler=solver).audio == named.audio).all()
    pipe.scheduler = solver
    assert (pipe(1, 4, generator=seeded(0)).audio == named.audio).all()
    with pytest.raises(ValueError, match="not both"):
        pipe(sampler="ddim", scheduler=solver)


def test_a_saved_pipeline_generates_the_same(pipe, tmp_path):
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.save_pretrained(tmp_path / "copy")
    again = JointPipeline.from_pretrained(str(tmp_path / "copy"), device="cpu")
    again.set_progress_bar_config(disable=True)
    assert (again(1, 2, generator=seeded(0)).audio == pipe(1, 2, generator=seeded(0)).audio).all()


def test_half_precision_runs(model_folder):
    pipe = JointPipeline.from_pretrained(model_folder, torch_dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.denoiser.dtype == torch.bfloat16
    assert np.isfinite(pipe(1, 2, generator=seeded(0)).audio).all()
    sound = np.zeros((1, 6400), np.float32)
    plain = pipe(1, 2, seeded(0), audio=sound, guidance_scale=1.0)
    pipe.denoiser.enable_gradient_checkpointing()
    saving = pipe(1, 2, seeded(0), audio=sound, guidance_scale=1.0)
    assert np.abs(plain.frames.astype(int) - saving.frames).max() <= 1


def test_every_step_is_told(pipe):
    heard = []
    pipe(num_inference_steps=3, on_step=heard.append)
    assert heard == [0, 1, 2]


def test_mistakes_are_explained(pipe, picture):
    sound = np.zeros((1, 6400), np.float32)
    mistakes = {
        "nothing to generate": {"video": picture, "audio": sound},
        "takes uint8": {"video": picture.astype(np.float32)},
        r"\(4, 16, 16, 3\)": {"video": np.concatenate([picture, picture])},
        r"\(1, 6400\)": {"audio": np.zeros((2, 6400), np.float32)},
        "empty batch": {"audio": sound[:, :0]},
        "no span of a clip": {"audio": sound, "regenerate": {"audio": (0.2, 0.5)}},
        "not a time": {"audio": sound, "regenerate": {"audio": ("soon", 0.2)}},
        "no video is given": {"audio": sound, "regenerate": {"video": (0.1, 0.2)}},
        "only a part of audio": {"audio": sound[:, :800], "conditioning": "native"},
        "use native, replacement, gradient": {"audio": sound, "conditioning": "magic"},
        "native conditioning has none": {"audio": sound, "conditioning": "native", "guidance_scale": 1.0},
        "with nothing given": {"guidance_scale": 1.0},
        "guidance_scale is -1": {"audio": sound, "guidance_scale": -1.0},
        "this model has 0 classes": {"labels": 1},
        "use gradient with this sampler": {"audio": sound, "conditioning": "mm-diffusion", "sampler": "dpm"},
        "not numbers": {"audio": sound + np.nan},
        "2 clips are given for 3": {"video": np.stack([picture] * 2), "num_generations": 3},
        "1 generators for 2": {"num_generations": 2, "generator": [seeded(0)]},
        "at least 1": {"num_generations": 0},
        "num_inference_steps 0": {"num_inference_steps": 0},
        "output_type": {"output_type": "pil"},
        "'euler' is not known": {"sampler": "euler"},
    }
    for message, arguments in mistakes.items():
        with pytest.raises(ValueError, match=message):
            pipe(**arguments)


@pytest.mark.parametrize("name", ["./nowhere", "nowhere", "/nowhere/at/all"])
def test_a_folder_that_is_not_there_is_named(name):
    with pytest.raises(ValueError, match=f"{name}: no such model folder"):
        JointPipeline.from_pretrained(name)


def test_a_hostile_index_is_refused(model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "hostile")
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    for entry in (["os", "system"], ["subprocess", "Popen"], ["diffusers", "AutoencoderKL"], "os.system", {}, None):
        path.write_text(json.dumps({**index, "denoiser": entry, "_class_name": "os.system"}))
        with pytest.raises(ValueError, match=r"denoiser is .* must be one of CoupledUNet"):
            JointPipeline.from_pretrained(folder)


@pytest.fixture
def sound():
    return np.random.default_rng(1).uniform(-0.5, 0.5, (1, 6400)).astype(np.float32)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("conditioning", ["replacement", "gradient"])
def test_zero_shot_conditioning_hears_and_sees_with_every_sampler(latent_pipe, sampler, conditioning, sound, picture):
    """A model never trained for it, both ways; another sound gives another picture."""
    if sampler == "mm-dpm++" and conditioning == "gradient":
        pytest.skip("adaptive steps of a random network, with gradients, take a minute")
    options = {"num_inference_steps": 4, "sampler": sampler, "conditioning": conditioning}
    if sampler == "mm-dpm++":
        options["scheduler"] = DPMSolver(
            exact_alphas_cumprod(latent_pipe.scheduler), integrates="clean", method="multistep", order=2,
            dynamic_thresholding=True,
        )  # fmt: skip
        del options["sampler"]
    first, second = (latent_pipe(generator=seeded(0), audio=x, **options) for x in (sound, sound[:, ::-1].copy()))
    assert (first.audio == sound).all() and (first.frames != second.frames).any()
    first, second = (latent_pipe(generator=seeded(0), video=x, **options) for x in (picture, 255 - picture))
    assert (first.frames == picture).all() and np.abs(first.audio - second.audio).max() > 1e-5


@pytest.mark.parametrize("name", ["pipe", "latent_pipe"])
@pytest.mark.parametrize("conditioning", [None, "gradient", "mm-diffusion"])
def test_a_beginning_is_continued(request, name, conditioning, picture, sound):
    pipe = request.getfixturevalue(name)
    output = pipe(2, 3, generator=seeded(0), video=picture[:2], audio=sound[:, :3000], conditioning=conditioning)
    assert output.frames.shape == (2, 4, 16, 16, 3) and output.audio.shape == (2, 1, 6400)
    assert (output.frames[:, :2] == picture[:2]).all() and (output.audio[..., :3000] == sound[:, :3000]).all()
    assert (output.frames[0, 2:] != output.frames[1, 2:]).any() and output.audio[..., 3000:].std() > 1e-4
    other = pipe(2, 3, generator=seeded(0), video=255 - picture[:2], audio=sound[:, :3000], conditioning=conditioning)
    assert (output.frames[:, 2:] != other.frames[:, 2:]).any(), "what follows must depend on what is given"


@pytest.mark.parametrize("name", ["pipe", "latent_pipe"])
def test_a_span_is_made_again_in_one_modality_or_both(request, name, picture, sound):
    pipe = request.getfixturevalue(name)
    output = pipe(1, 3, seeded(0), video=picture, audio=sound, regenerate={"audio": (0.1, 0.25)})
    assert (output.frames[0] == picture).all()
    assert (output.audio[0, :, :1600] == sound[:, :1600]).all() and (output.audio[0, :, 4000:] == sound[:, 4000:]).all()
    assert (output.audio[0, :, 1600:4000] != sound[:, 1600:4000]).mean() > 0.9
    spans = {"audio": (0.2, 0.3), "video": (0.2, 0.3)}
    output = pipe(1, 3, seeded(0), video=picture, audio=sound, regenerate=spans, sampler="dpm")
    assert [bool((output.frames[0, i] == picture[i]).all()) for i in range(4)] == [True, True, False, True]


def test_other_lengths_than_the_trained_one(pipe, latent_pipe, picture, sound):
    for each in (pipe, latent_pipe):
        output = each(1, 2, seeded(0), num_frames=6)
        assert output.frames.shape == (1, 6, 16, 16, 3) and output.audio.shape == (1, 1, 9600)
        longer = each(1, 2, seeded(0), num_frames=6, video=picture, audio=sound)
        assert (longer.frames[0, :4] == picture).all() and (longer.audio[0, :, :6400] == sound).all()
    assert pipe.clip.num_frames == 4


def test_lengths_that_do_not_divide_name_the_nearest(model_folder):
    parts = JointPipeline.from_pretrained(model_folder)
    spec = ClipSpec(num_frames=6, fps=30, height=16, width=16)
    pipe = JointPipeline(parts.denoiser, PixelCodec(), WaveformCodec(), parts.scheduler, spec)
    with pytest.raises(ValueError, match="the nearest possible: 6 or 9"):
        pipe(num_frames=7)
    with pytest.raises(ValueError, match="the nearest possible: 3"):
        pipe(num_frames=-5)


def test_classes_are_asked_for_and_heeded():
    torch.manual_seed(0)
    network = CoupledUNet(
        model_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, num_heads=2, norm_groups=4,
        cross_attention_head_channels=4, cross_attention_resolutions=(2,), cross_attention_windows=(2,),
        video_attention_resolutions=(2,), num_classes=3, learn_sigma=True,
    )  # fmt: skip
    stir(network)
    spec = ClipSpec(num_frames=4, height=16, width=16)
    pipe = JointPipeline(network, PixelCodec(), WaveformCodec(), make_scheduler(DiffusionConfig()), spec)
    pipe.set_progress_bar_config(disable=True)
    generators = [0, 0, 1]
    for sampler in ("ddim", "mm-ddpm", "dpm"):
        output = pipe(3, 2, [seeded(i) for i in generators], labels=[0, 2, 2], sampler=sampler)
        assert np.abs(output.audio[0] - output.audio[1]).max() > 1e-3
        again = pipe(1, 2, seeded(0), labels=2, sampler=sampler)
        assert np.abs(output.audio[1] - again.audio[0]).max() < ROUNDING
    for labels in (None, [0, 1], 3, -1, 0.5):
        with pytest.raises(ValueError, match="labels"):
            pipe(1, 2, labels=labels)


def test_guidance_leaves_the_network_as_it_was(latent_pipe, sound):
    pipe = latent_pipe
    pipe.denoiser.requires_grad_(True)
    pipe(1, 2, seeded(0), audio=sound, guidance_scale=1.0)
    assert all(p.requires_grad and p.grad is None for p in pipe.denoiser.parameters())


def test_a_solver_of_another_schedule_is_refused(pipe):
    with pytest.raises(ValueError, match="another noise schedule"):
        pipe(scheduler=DPMSolver(exact_alphas_cumprod(pipe.scheduler)))  # it predicts epsilon, the model velocity
    solver = DPMSolver(exact_alphas_cumprod(pipe.scheduler), prediction_type="v_prediction", final_denoise=True)
    named = pipe(1, 4, generator=seeded(0), sampler="dpm")
    assert (pipe(1, 4, generator=seeded(0), scheduler=solver).audio == named.audio).all()


def test_a_codec_that_pads_gives_clips_of_the_models_own_size():
    """6 frames of 26x30 are 3 latent steps of 4x4, which hold 9 frames of 32x32."""
    torch.manual_seed(0)
    network = CoupledUNet(
        video_channels=4, model_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, num_heads=2, norm_groups=4,
        cross_attention_head_channels=4, cross_attention_resolutions=(2,), cross_attention_windows=(1,),
        video_attention_resolutions=(2,), timestep_per_modality=True,
    )  # fmt: skip
    codec = VIDEO_CODECS["AutoencoderKLWan"].from_network(tiny("AutoencoderKLWan"))
    spec = ClipSpec(num_frames=6, height=26, width=30)
    pipe = JointPipeline(network, codec, WaveformCodec(), make_scheduler(DiffusionConfig()), spec)
    pipe.set_progress_bar_config(disable=True)
    output = pipe(num_inference_steps=2, generator=seeded(0))
    assert output.frames.shape == (1, 6, 26, 30, 3) and output.audio.shape == (1, 1, 9600)
    given = pipe(video=np.zeros((6, 26, 30, 3), dtype=np.uint8), num_inference_steps=2, generator=seeded(0))
    assert not given.frames.any() and given.audio.shape == (1, 1, 9600)
