"""The task as a whole: caches by picture, exact resume, validation, and what is refused before any training."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmdiff.personalize.image import PersonalizeImageTask
from mmdiff.personalize.recipe import ImageRecipe
from mmdiff.recipes import build_task, load_recipe
from mmdiff.train.optim import TrainConfig
from mmdiff.train.trainer import run_training
from tests.personalize.tiny import SIZE, write_noise, write_pictures

CAPTIONS = [f"photo of {letter}" for letter in "abcdefghij"]


def write_numbered(folder: Path, first: int, count: int) -> Path:
    """Write pictures whose brightness is their number, and captions that name it by a letter."""
    folder.mkdir()
    for number in range(first, first + count):
        Image.new("RGB", (SIZE, SIZE), (20 * number,) * 3).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(CAPTIONS[number])
    return folder


@pytest.mark.parametrize("has_prior", [False, True])
def test_the_latents_of_a_batch_are_those_of_its_captions(has_prior, task_of, tmp_path):
    pictures, of_class = write_numbered(tmp_path / "own", 0, 5), write_numbered(tmp_path / "class", 5, 5)
    prior = {"with_prior_preservation": True, "class_prompt": "photo", "class_data_dir": str(of_class),
             "num_class_images": 5} if has_prior else {}  # fmt: skip
    task = task_of("sd1", pictures, **prior)
    task.settle()
    grey = [torch.full((1, 3, SIZE, SIZE), 20 * number / 127.5 - 1) for number in range(10)]
    latents = torch.cat([task.backbone.posterior(media).mean for media in grey])
    texts = torch.cat([task.backbone.encode_text([caption])["encoder_hidden_states"] for caption in CAPTIONS])
    assert min(torch.pdist(latents.flatten(1)).min(), torch.pdist(texts.flatten(1)).min()) > 0.1, "all are different"
    seen = set()
    for _, batch in zip(range(3 * 5), task.loader(rank=0, world_size=1)):
        assert len(batch["caption"]) == (8 if has_prior else 4)
        numbers = [CAPTIONS.index(caption) for caption in batch["caption"]]
        assert torch.allclose(task.encode(batch).mean, latents[numbers], atol=1e-4)
        assert torch.equal(task.conditions(batch["caption"])["encoder_hidden_states"], texts[numbers])
        assert batch["is_class"].tolist() == [number >= 5 for number in numbers]
        seen |= set(numbers)
    assert seen == set(range(10 if has_prior else 5))


def test_caches_change_nothing_but_the_speed(task_of, tmp_path):
    pictures = write_pictures(tmp_path / "pictures", ("dog", "car"), has_captions=True)
    results = []
    for settings in ({}, {"cache_latents": False, "pre_compute_text_embeddings": False}):
        torch.manual_seed(0)
        task = task_of("sd3", pictures, rank=2, **settings)
        batch = next(iter(task.loader(rank=0, world_size=1)))
        assert ("pixels" in batch) == bool(settings)
        results.append(task(batch, torch.Generator().manual_seed(1))["loss"].item())
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_captions_are_left_out_as_often_as_asked(task_of, tmp_path):
    task = task_of("sd1", write_pictures(tmp_path / "pictures"), instance_prompt="dog", caption_dropout=0.25)
    dropped = task._dropped(["dog"] * 2000, torch.Generator().manual_seed(0))
    assert set(dropped) == {"dog", ""} and 0.22 < dropped.count("") / 2000 < 0.28


@pytest.mark.parametrize(("model", "settings"), [
    ("sd3", {"method": "lora", "rank": 2, "train_text_encoder": True, "text_encoder_lr": 1e-5, "lora_dropout": 0.1}),
    ("sd2", {"method": "textual_inversion", "placeholder_token": "<x>", "initializer_token": "toy"}),
])  # fmt: skip
def test_a_run_that_is_stopped_goes_on_bit_for_bit(model, settings, recipe_of, tmp_path):
    pictures = write_noise(tmp_path / "pictures", [(24, 16), (16, 24), (16, 16)])
    for name, stops in (("whole", (4,)), ("parts", (3, 4))):
        for stop in stops:
            train = {"max_steps": stop, "checkpoint_every": 3, "preview_every": 2, "ema_decay": 0.5, "batch_size": 2,
                     "checkpoints_total_limit": 5}  # fmt: skip
            recipe = recipe_of(model, pictures, use_aspect_ratio_buckets=True, train=train, caption_dropout=0.2,
                               instance_prompt="photo of <x>", output_dir=str(tmp_path / name),
                               validation_prompt="photo of <x>", random_flip=True, **settings)  # fmt: skip
            assert run_training(recipe, build_task) == 0
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    files = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.suffix in (".safetensors", ".png")]
    assert {path.parts[0] for path in files} == {"checkpoints", "export", "validation"}
    for file in files:
        assert (whole / file).read_bytes() == (parts / file).read_bytes(), file
    steps = [path.name for path in sorted((whole / "validation").iterdir())]
    assert steps == ["step-0000000", "step-0000002", "step-0000004"]
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation/loss" in line] == [0, 1, 3]


def test_recipes_of_the_house_are_known_and_mistakes_are_refused(task_of, recipe_of, models, tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    good = {"pretrained_model_name_or_path": "x", "instance_data_dir": "y"}
    for change, message in (
        ({"method": "lorra"}, "method: 'lorra'"), ({"rank": 0}, "rank is 0"), ({"lora_alpha": 0.0}, "lora_alpha"),
        ({"instance_data_dir": ""}, "instance_data_dir: missing"), ({"caption_dropout": 1.0}, "caption_dropout"),
        ({"with_prior_preservation": True}, "class_prompt"), ({"center_crop": False}, "cache_latents to false"),
        ({"method": "dreambooth", "lora_layers": ["to_k"]}, "has no LoRA"), ({"snr_gamma": -1.0}, "snr_gamma"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            ImageRecipe(**{**good, **change})
    with pytest.raises(ValueError, match=r"instance_prompt: missing, and dog\.png"):
        task_of("sd1", pictures)
    with pytest.raises(ValueError, match="weighs timesteps by how often"):
        task_of("sd3", pictures, instance_prompt="dog", snr_gamma=5.0)
    with pytest.raises(ValueError, match="resolution is 30"):
        task_of("sd1", pictures, instance_prompt="dog", resolution=30)
    with pytest.raises(ValueError, match="no readable model_index"):
        task_of("sd1", pictures, instance_prompt="dog", pretrained_model_name_or_path=str(models["sd1"] / "unet"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/model_index.json").write_text('{"_class_name": "AudioLDMPipeline"}')
    with pytest.raises(ValueError, match="this is a AudioLDMPipeline; images are personalized on"):
        task_of("sd1", pictures, instance_prompt="dog", pretrained_model_name_or_path=str(tmp_path / "other"))
    (tmp_path / "recipe.yaml").write_text("task: personalize_image\ninstance_data_dri: x\n")
    with pytest.raises(ValueError, match="did you mean 'instance_data_dir'"):
        load_recipe(tmp_path / "recipe.yaml")


def test_settings_of_training_may_have_the_names_of_scripts(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("task: personalize_image\npretrained_model_name_or_path: x\ninstance_data_dir: y\n"
                    "lr_scheduler: constant\ntrain: {schedule: constant_with_warmup, batch_size: 2}\n")  # fmt: skip
    words = ["learning_rate=1", "optimizer=Prodigy", "max_train_steps=7", "validation_steps=3", "train_batch_size=2"]
    recipe = load_recipe(path, words)
    train = recipe.train
    assert (train.learning_rate, train.optimizer, train.max_steps, train.preview_every) == (1.0, "prodigy", 7, 3)
    assert recipe.max_train_steps is None, "said once: a run may go on with more steps"
    assert load_recipe(path, ["use_8bit_adam=true"]).train.optimizer == "adamw8bit"
    scaled = load_recipe(path, ["learning_rate=1e-4", "scale_lr=true", "gradient_accumulation_steps=2"])
    assert scaled.train.learning_rate == pytest.approx(4e-4) and scaled.scale_lr is None
    with pytest.raises(ValueError, match=r"train_batch_size says train\.batch_size=3, and the recipe says 2"):
        load_recipe(path, ["train_batch_size=3"])
    with pytest.raises(ValueError, match="use_8bit_adam says"):
        load_recipe(path, ["optimizer=prodigy", "use_8bit_adam=true"])


def test_the_text_encoder_may_learn_at_a_rate_of_its_own(recipe_of, tmp_path):
    pictures, moved = write_pictures(tmp_path / "pictures"), {}
    for rate in (None, 1e-5):
        recipe = recipe_of("sd1", pictures, method="dreambooth", instance_prompt="photo of dog",
                           train_text_encoder=True, text_encoder_lr=rate, output_dir=str(tmp_path / f"run-{rate}"),
                           train={"max_steps": 1, "learning_rate": 1e-3})  # fmt: skip
        task = build_task(recipe)
        before = {name: value.clone() for name, value in task.network.named_parameters()}
        assert run_training(recipe, lambda _, task=task: task) == 0
        changes = {name: (value - before[name]).abs().max().item() for name, value in task.network.named_parameters()}
        moved[rate] = [max(change for name, change in changes.items() if name.startswith(part))
                       for part in ("unet", "text_encoder")]  # fmt: skip
    assert moved[None] == pytest.approx([1e-3, 1e-3], rel=0.01), "AdamW's first step is as long as its rate"
    assert moved[1e-5] == pytest.approx([1e-3, 1e-5], rel=0.01)
    with pytest.raises(ValueError, match="where train_text_encoder is true"):
        recipe_of("sd1", pictures, instance_prompt="dog", text_encoder_lr=1e-5)


def test_shipped_recipes_are_whole():
    folder = Path(__file__).resolve().parents[2] / "configs/personalize"
    found = sorted(folder.glob("image_*.yaml"))
    assert len(found) >= 6
    for path in found:
        recipe = load_recipe(path)
        assert recipe.task == "personalize_image" and recipe.train.max_steps >= 400


def test_min_snr_weighs_what_the_schedule_says(task_of, tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    for name, divisor in (("sd1", 0), ("sd2", 1)):
        backbone = task_of(name, pictures, instance_prompt="dog", snr_gamma=5.0).backbone
        timesteps = torch.tensor([0, 500, 999])
        alphas = backbone.pipe.scheduler.alphas_cumprod[timesteps]
        ratio = alphas / (1 - alphas)
        expected = ratio.clamp(max=5) / (ratio + divisor)
        assert torch.allclose(backbone.weight(timesteps), expected, rtol=1e-3)
        assert backbone.objective.config.prediction_type == ("epsilon", "v_prediction")[divisor]


def test_flow_matching_draws_where_it_is_told(task_of, tmp_path):
    pictures = write_pictures(tmp_path / "pictures")

    def drawn(**settings):
        backbone = task_of("sd3", pictures, instance_prompt="dog", **settings).backbone
        return backbone.draw_timesteps(4000, torch.Generator().manual_seed(0)) / 1000

    middle = drawn().median().item()
    assert middle == pytest.approx(0.75, abs=0.02), "the tiny model's own shift is 3: 3 / (1 + 3)"
    assert drawn(shift=1.0).median().item() == pytest.approx(0.5, abs=0.02)
    assert drawn(shift=1.0, logit_mean=1.0).median().item() > 0.7, "more noise"
    even = drawn(shift=1.0, weighting_scheme="uniform").numpy()
    assert np.abs(np.quantile(even, [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]).max() < 0.02


def test_bfloat16_leaves_what_is_trained_in_float32(recipe_of, tmp_path):
    recipe = recipe_of("sd3", write_pictures(tmp_path / "pictures"), instance_prompt="dog", rank=2)
    task = PersonalizeImageTask(replace(recipe, train=TrainConfig(mixed_precision="bf16", gradient_checkpointing=True)))
    assert {parameter.dtype for parameter in task.network.parameters()} == {torch.float32}
    assert task.backbone.pipe.vae.dtype == torch.float32 and task.backbone.denoiser.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        result = task(next(iter(task.loader(rank=0, world_size=1))), torch.Generator().manual_seed(0))
    result["loss"].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in task.network.parameters())
    assert np.isfinite(task.validate(task.network, 0)["validation/loss"])


def test_what_is_cached_does_not_depend_on_who_asks_first(task_of, tmp_path):
    pictures, found = write_pictures(tmp_path / "pictures"), []
    for is_mixed in (False, True):
        task = task_of("sd1", pictures, method="dreambooth", instance_prompt="dog")
        with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
            task.settle()
            posterior = task.encode(next(iter(task.loader(rank=0, world_size=1))))
            found.append((posterior.mean, task.conditions(["dog"])["encoder_hidden_states"]))
    assert all(torch.equal(first, second) for first, second in zip(*found))
