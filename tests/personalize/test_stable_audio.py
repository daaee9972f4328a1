"""Stable Audio is taught and asked as diffusers asks it: in stereo, with its own objective, and told of seconds."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("torchsde", reason="diffusers' scheduler of Stable Audio needs it: pip install torchsde")

from diffusers import DiffusionPipeline, StableAudioDiTModel
from diffusers.loaders import PeftAdapterMixin
from safetensors.torch import load_file

from mmdiff.cli import main
from mmdiff.eval.metrics.loudness import integrated_loudness
from mmdiff.personalize.adapters import WEIGHTS
from mmdiff.personalize.audio import PersonalizeAudioTask
from mmdiff.personalize.audio_music import MusicRequest, draw_latents, encode_source, make_sounds
from mmdiff.personalize.audio_recipe import DEFAULTS, AudioRecipe
from mmdiff.personalize.backbones.audio import load_audio_backbone
from mmdiff.personalize.dreambooth import image_seed
from mmdiff.recipes import build_task
from mmdiff.train.optim import TrainConfig
from mmdiff.train.trainer import run_training
from tests.personalize.teaching import train
from tests.personalize.tiny_audio import read_sound, sound, write_sound
from tests.personalize.tiny_stable_audio import CHANNELS, HOP, LENGTH, RATE, stable_audio

PROMPT = "guitar"


class Loads(PeftAdapterMixin, StableAudioDiTModel):
    """The transformer with the loader of LoRA that diffusers left out of it."""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stable_audio")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stable_audio().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def backbone(model):
    return load_audio_backbone(str(model))


@pytest.fixture
def recipe_of(model, tmp_path):
    """Return a function that makes a recipe on two clips, one of stereo and one of mono."""
    both = np.stack([sound(name, 1.5, rate=RATE) for name in ("guitar", "drum")])
    write_sound(tmp_path / "clips/a.wav", both, RATE)
    write_sound(tmp_path / "clips/b.wav", 0.1 * sound("guitar", 1.5, rate=RATE), RATE)

    def make(**settings) -> AudioRecipe:
        given = {"pretrained_model_name_or_path": str(model), "instance_data_dir": str(tmp_path / "clips"),
                 "instance_prompt": "sks guitar", "seconds": 1.0, "output_dir": str(tmp_path / "run"),
                 "num_inference_steps": 2, "num_validation_clips": 1}  # fmt: skip
        return AudioRecipe(**{**given, **settings}, train=TrainConfig(**DEFAULTS, batch_size=2, log_every=1))

    return make


@pytest.fixture
def task_of(recipe_of):
    """Return a function that builds the task of such a recipe."""

    def make(**settings) -> PersonalizeAudioTask:
        torch.manual_seed(0)
        return PersonalizeAudioTask(recipe_of(**settings))

    return make


@pytest.mark.parametrize("negative", ["", "drum"])
def test_music_is_that_of_the_pipeline(backbone, negative):
    ours = make_sounds(backbone, MusicRequest(PROMPT, 1.3, 3, 4.0, negative), [5, 6])
    assert [wave.shape for wave in ours] == [(2, round(1.3 * RATE))] * 2 and not np.array_equal(*ours[0])
    for seed, wave in zip((5, 6), ours):
        theirs = backbone.pipe(PROMPT, audio_end_in_s=1.3, num_inference_steps=3, guidance_scale=4.0,
                               negative_prompt=negative or None,
                               generator=torch.Generator().manual_seed(seed)).audios[0].numpy()  # fmt: skip
        assert np.abs(wave - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_what_is_learned_is_what_the_scheduler_makes_data_of(backbone):
    scheduler = backbone.pipe.scheduler
    scheduler.set_timesteps(7)
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn((2, 1, 4, 9), generator=generator)
    for number, (timestep, sigma) in enumerate(zip(scheduler.timesteps, scheduler.sigmas)):
        scheduler.set_begin_index(number)
        scheduler._step_index = None
        mixed = scheduler.add_noise(clean, noise, timestep[None])
        given = scheduler.scale_model_input(mixed, timestep)
        assert torch.allclose(backbone.add_noise(clean, noise, timestep[None]), given, atol=1e-5)
        target = backbone.target(clean, noise, timestep[None])
        assert torch.allclose(scheduler.precondition_outputs(mixed, target, sigma), clean, atol=1e-3)
    drawn = backbone.draw_timesteps(4000, generator)
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert torch.allclose(drawn.quantile(torch.tensor([0.25, 0.5, 0.75])), torch.tensor([0.25, 0.5, 0.75]), atol=0.03)
    assert backbone.weight(drawn).unique().tolist() == [1.0]


@torch.no_grad()
def test_prompts_are_told_with_their_seconds_and_nothing_is_zeros(backbone):
    told = backbone.encode_text([PROMPT, "", "drum"], 1.0)
    states, both = told["encoder_hidden_states"], told["global_hidden_states"]
    assert states.shape == (3, 24 + 2, 16) and both.shape == (3, 1, 32)
    assert not states[1].any() and states[0].any() and torch.allclose(both[0], both[1], atol=1e-5)
    alone = backbone.encode_text(["drum"], 1.0)["encoder_hidden_states"]
    assert torch.allclose(alone, states[2:], atol=1e-5), "a prompt means the same beside any other"
    assert torch.cosine_similarity(states[:1].flatten(1), alone.flatten(1)).item() < 0.99
    longer = backbone.encode_text([PROMPT], 2.0)
    assert not torch.equal(longer["global_hidden_states"], both[:1])
    assert torch.allclose(longer["encoder_hidden_states"][:, :-1], states[:1, :-1], atol=1e-5)


def test_style_transfer_begins_at_the_sound_and_moves_away_with_strength(backbone):
    wave = np.stack([sound("guitar", 1.2, rate=RATE), sound("drum", 1.2, rate=RATE)])
    source = encode_source(backbone, wave)
    assert source.shape == (1, CHANNELS, LENGTH), "always as long as the model makes it"
    made = {strength: draw_latents(backbone, MusicRequest("drum", 1.2, 30, 1.0, strength=strength), [0], source)
            for strength in (0.0, 0.1, 0.5, 0.8, 1.0)}  # fmt: skip
    assert torch.equal(made[0.0], source)
    distances = [(latents - source).square().mean().item() for latents in made.values()]
    assert distances == sorted(distances) and distances[1] > 0 and distances[-1] > 2 * distances[1]


def test_a_lora_is_learned_in_stereo_and_plain_diffusers_loads_it(task_of, model, tmp_path):
    task = task_of(method="lora", rank=4, lora_alpha=16.0)
    batch = next(iter(task.loader(rank=0, world_size=1)))
    assert batch["waveform"].shape == (2, 2, RATE) and task.backbone.peak is None
    peaks = sorted(batch["waveform"].abs().amax((1, 2)).tolist())
    assert peaks[0] < 0.06 < 0.3 < peaks[1], "as loud as the clips are"
    assert task.encode(batch).mean.shape == (2, CHANNELS, RATE // HOP)
    task.settle()
    with task._measuring():
        before = task.validation_loss()
    train(task, 15, 1e-2)
    with task._measuring():
        assert task.validation_loss() < 0.95 * before
    task.export(tmp_path / "export", task.network)
    state = load_file(tmp_path / "export" / WEIGHTS)
    assert len(state) == 2 * 2 * 2 * 4 and all(key.startswith("transformer.") for key in state)
    transformer = Loads.from_pretrained(model, subfolder="transformer")
    transformer.load_lora_adapter(tmp_path / "export", prefix="transformer", weight_name=WEIGHTS, use_safetensors=True)
    plain = DiffusionPipeline.from_pretrained(model, transformer=transformer)
    request = MusicRequest(PROMPT, 1.0, 2, 3.0)
    with task._measuring():
        (ours,) = make_sounds(task.backbone, request, [0])
    theirs = plain(PROMPT, audio_end_in_s=1.0, num_inference_steps=2, guidance_scale=3.0,
                   generator=torch.Generator().manual_seed(0)).audios[0].numpy()  # fmt: skip
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max(), "with an alpha that is not the rank"


METHODS = {
    "textual_inversion": {"placeholder_token": "<oud>", "initializer": "mean", "num_vectors": 2,
                          "instance_prompt": "<oud>"},
    "dreambooth": {"train_text_encoder": True},
    "lora": {"rank": 2, "train_text_encoder": True},
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_what_was_taught_is_sampled(method, task_of, tmp_path, capsys):
    task = task_of(method=method, validation_prompt="<oud> x", **METHODS[method])
    before = {name: value.clone() for name, value in task.network.state_dict().items()}
    if method == "textual_inversion":
        table = task.backbone.towers[0].encoder.get_input_embeddings().table.weight.clone()
        assert {name: tuple(value.shape) for name, value in before.items()} == {"rows.text_encoder": (2, 16)}
    train(task, 2, 5e-2 if method == "textual_inversion" else 1e-3)
    parts = {name.partition(".")[0] for name, value in task.network.state_dict().items()
             if not torch.equal(value, before[name])}  # fmt: skip
    assert parts == ({"rows"} if method == "textual_inversion" else {"transformer", "text_encoder"})
    task.export(tmp_path / "export", task.network)
    task.validate(task.network, 7)
    seed = str(image_seed(0, 0))
    words = ["personalize", "sample", str(tmp_path / "export"), "--prompt", "<oud> x", "--steps", "2", "-n", "1",
             "--device", "cpu"]  # fmt: skip
    assert main([*words, "-o", str(tmp_path / "out"), "--seed", seed]) == 0
    made, shown = read_sound(tmp_path / "out/00000.wav"), read_sound(tmp_path / "run/validation/step-0000007/00.wav")
    assert made.shape == (2, RATE) and np.abs(made - shown).max() < 1e-3, "as in memory"
    facts = json.loads((tmp_path / "out/00000.json").read_text())
    assert facts["guidance_scale"] == 7.0 and facts["sample_rate"] == RATE
    assert integrated_loudness(made, RATE) == pytest.approx(facts["loudness_lufs"], abs=0.3)
    if method == "textual_inversion":
        assert torch.equal(task.backbone.towers[0].encoder.get_input_embeddings().table.weight, table)
        heard = write_sound(tmp_path / "heard.wav", sound("drum", 1.2, 0.2, rate=RATE), RATE)
        assert main([*words, "-o", str(tmp_path / "new"), "--audio", str(heard), "--strength", "0.5"]) == 0
        assert read_sound(tmp_path / "new/00000.wav").shape == (2, round(1.2 * RATE))
    if method == "dreambooth":
        theirs = DiffusionPipeline.from_pretrained(tmp_path / "export")(
            "<oud> x", audio_end_in_s=1.0, num_inference_steps=2, generator=torch.Generator().manual_seed(int(seed))
        ).audios[0].numpy()  # fmt: skip
        gain = 10 ** (facts["gain_decibels"] / 20)
        assert np.abs(made - gain * theirs).max() < 1e-3, "but for its loudness what plain diffusers makes"
    capsys.readouterr()


def test_a_run_in_bf16_that_is_stopped_goes_on_bit_for_bit(recipe_of, tmp_path):
    settings = {"method": "lora", "rank": 2, "caption_dropout": 0.2, "with_prior_preservation": True,
                "object_class": "guitar", "num_class_clips": 3, "validation_prompt": "sks"}  # fmt: skip
    for run, stops in (("whole", (4,)), ("parts", (3, 4))):
        for stop in stops:
            recipe = recipe_of(**settings, output_dir=str(tmp_path / run), max_train_steps=stop, checkpointing_steps=3,
                               validation_steps=2, mixed_precision="bf16", gradient_checkpointing=True)  # fmt: skip
            assert run_training(recipe, build_task) == 0
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    files = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.suffix in (".safetensors", ".wav")]
    assert {path.parts[0] for path in files} == {"checkpoints", "class_clips", "export", "validation"}
    for file in files:
        assert (whole / file).read_bytes() == (parts / file).read_bytes(), file
    assert len(list((whole / "class_clips").iterdir())) == 3


def test_what_cannot_be_done_is_refused_before_any_training(task_of, model, tmp_path):
    with pytest.raises(ValueError, match=r"seconds is 3; this model makes sound of 2 s at most"):
        task_of(method="lora", seconds=3.0)
    with pytest.raises(ValueError, match="snr_gamma: Stable Audio was trained"):
        task_of(method="lora", snr_gamma=5.0)
    with pytest.raises(ValueError, match="has no layers conv_99"):
        task_of(method="lora", lora_layers=["conv_99"])
    other = shutil.copytree(model, tmp_path / "other")
    settings = other / "scheduler/scheduler_config.json"
    settings.write_text(settings.read_text().replace('"v_prediction"', '"epsilon"'))
    with pytest.raises(ValueError, match="its scheduler is not that of Stable Audio Open"):
        task_of(method="lora", pretrained_model_name_or_path=str(other))
