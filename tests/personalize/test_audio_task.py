"""A concept is learned from clips by every method; runs go on bit for bit; exports load in plain diffusers."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from mmdiff.personalize.adapters import WEIGHTS
from mmdiff.personalize.audio_recipe import AudioRecipe
from mmdiff.personalize.textual_inversion import LEARNED
from mmdiff.recipes import build_task, load_recipe
from mmdiff.train.trainer import run_training
from tests.personalize.teaching import train
from tests.personalize.tiny_audio import write_clips, write_sound

WORD = "<oud>"
TI = {"method": "textual_inversion", "placeholder_token": WORD, "initializer_token": "drum"}


def test_a_word_that_begins_as_drum_comes_to_mean_guitar(audio_taught, audio_task_of, tmp_path):
    folder = write_clips(tmp_path / "clips", "guitar")
    task = audio_task_of("audioldm", folder, pretrained_model_name_or_path=str(audio_taught), instance_prompt=WORD,
                         train={"batch_size": 2}, **TI)  # fmt: skip
    assert {name: tuple(value.shape) for name, value in task.network.named_parameters()} == {
        "rows.text_encoder": (1, 16)}  # fmt: skip
    table = task.backbone.towers[0].encoder.get_input_embeddings().table.weight.clone()
    task.settle()
    told = [task.conditions([text])["class_labels"].detach() for text in (" guitar", " drum")]
    assert torch.cosine_similarity(*told).item() < 0.9, "its CLAP tells words apart"
    with task._measuring():
        right, wrong, before = (task.validation_loss(each) for each in (" guitar", " drum", WORD))
    assert right < 0.5 * wrong, "the model understands its words"
    assert before == pytest.approx(wrong, rel=1e-4), "the new word begins as drum"
    train(task, 80, 0.1)
    with task._measuring():
        after, other = (task.validation_loss(each) for each in (WORD, " drum"))
    assert after < right + 0.2 * (wrong - right), "as good as the right word, or nearly"
    assert other == pytest.approx(wrong, rel=1e-6), "other words mean what they meant"
    assert torch.equal(task.backbone.towers[0].encoder.get_input_embeddings().table.weight, table)
    task.export(tmp_path / "export", task.network)
    assert torch.equal(load_file(tmp_path / "export" / LEARNED)[WORD], task.network.state_dict()["rows.text_encoder"])
    assert json.loads((tmp_path / "export/personalize.json").read_text())["family"] == "audio"


def test_a_table_that_is_trained_whole_loses_other_words_and_two_runs_are_the_same(audio_task_of, tmp_path):
    folder, made = write_clips(tmp_path / "clips", "guitar"), []
    for _ in range(2):
        task = audio_task_of("audioldm", folder, instance_prompt=WORD, train={"batch_size": 2}, **TI)
        train(task, 5, 0.1)
        made.append(task.network.state_dict()["rows.text_encoder"].clone())
    assert torch.equal(*made)
    encoder = task.backbone.towers[0].encoder
    ours = encoder.get_input_embeddings()
    assert ours.ids.tolist() == [len(ours.weight)]
    whole = torch.nn.Embedding.from_pretrained(torch.cat([ours.weight, ours.rows]).detach().clone(), freeze=False)
    encoder.set_input_embeddings(whole)
    known, optimizer = whole.weight.detach()[:-1].clone(), torch.optim.AdamW([whole.weight], lr=0.1, weight_decay=0.0)
    for step, batch in zip(range(5), task.loader(rank=0, world_size=1)):
        optimizer.zero_grad()
        task(batch, torch.Generator().manual_seed(step))["loss"].backward()
        optimizer.step()
    assert (whole.weight[:-1] - known).abs().max() > 0.2, "without a row of its own others move"


def test_a_word_begins_as_the_mean_of_its_class_or_of_all_words(audio_task_of, tmp_path):
    folder = write_clips(tmp_path / "clips", "guitar", class_name="drum beat\noud")
    given = {"method": "textual_inversion", "placeholder_token": WORD}
    task = audio_task_of("audioldm", folder, num_vectors=2, **given)
    table = task.backbone.towers[0].encoder.get_input_embeddings().table.weight
    ids = task.backbone.pipe.tokenizer.convert_tokens_to_ids(["Ġdrum", "Ġbeat"])
    rows = task.network.state_dict()["rows.text_encoder"]
    assert torch.allclose(rows, table[ids].mean(0).expand(2, -1))
    assert all(caption.count(WORD) == 1 for caption in task.examples.captions()) and len(task.examples.captions()) > 10
    mean = audio_task_of("audioldm2", folder, initializer="mean", **given).network.state_dict()
    assert set(mean) == {"rows.text_encoder", "rows.text_encoder_2"}
    assert not torch.allclose(mean["rows.text_encoder"][0], rows[0], atol=1e-2)


@pytest.mark.parametrize("name", ["musicldm", pytest.param("audioldm2", marks=pytest.mark.slow)])
def test_lora_files_hold_what_was_trained(name, audio_models, audio_task_of, tmp_path):
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    folder = write_clips(tmp_path / "clips", "guitar", class_name="guitar")
    task = audio_task_of(name, folder, method="lora", rank=2, lora_alpha=8.0)
    train(task, 3, 5e-2)
    task.export(tmp_path / "export", task.network)
    state = load_file(tmp_path / "export" / WEIGHTS)
    assert len(state) == len(list(task.network.parameters())) and all(key.startswith("unet.") for key in state)
    again = audio_task_of(name, folder, method="lora", rank=2, lora_alpha=8.0)
    again.load_weights(str(tmp_path / "export"))
    with task._measuring(), again._measuring():
        trained = task.validation_loss()
        assert again.validation_loss() == pytest.approx(trained, rel=1e-6)
    if name == "audioldm2":
        return  # its U-Net has no loader of LoRA in diffusers
    plain = UNet2DConditionModel.from_pretrained(audio_models[name] / "unet")
    plain.load_lora_adapter(tmp_path / "export", prefix="unet", weight_name=WEIGHTS, use_safetensors=True)
    task._set_modes(is_training=False)
    noise, label = torch.randn(1, 4, 13, 8), torch.randn(1, 16)
    ours, theirs = (each(noise, 500, None, class_labels=label).sample for each in (task.backbone.denoiser, plain))
    assert torch.equal(ours, theirs), "with an alpha that is not the rank"


def test_dreambooth_with_the_text_encoder_is_a_whole_pipeline(audio_models, audio_task_of, tmp_path):
    folder = write_clips(tmp_path / "clips", "guitar", class_name="guitar")
    task = audio_task_of("audioldm", folder, method="dreambooth", train_text_encoder=True)
    parts = {name.partition(".")[0] for name, _ in task.network.named_parameters()}
    assert parts == {"unet", "text_encoder"}
    train(task, 2, 1e-3)
    task.export(tmp_path / "export", task.network)
    plain, base = (DiffusionPipeline.from_pretrained(each) for each in (tmp_path / "export", audio_models["audioldm"]))
    for name in ("unet", "text_encoder"):
        ours, theirs, first = (getattr(each, name).state_dict() for each in (task.backbone.pipe, plain, base))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert any(not torch.equal(ours[key], first[key]) for key in ours)


@pytest.mark.parametrize(("name", "settings"), [
    ("audioldm", {**TI, "validation_prompt": WORD}),
    pytest.param("audioldm2", {"method": "lora", "rank": 2, "lora_dropout": 0.1, "caption_dropout": 0.2},
                 marks=pytest.mark.slow),
])  # fmt: skip
def test_a_run_that_is_stopped_goes_on_bit_for_bit(name, settings, audio_recipe_of, tmp_path):
    folder = write_clips(tmp_path / "clips", "guitar", "drum", class_name="guitar", seconds=1.5)
    backgrounds = write_clips(tmp_path / "backgrounds", "drum")
    for run, stops in (("whole", (4,)), ("parts", (3, 4))):
        for stop in stops:
            recipe = audio_recipe_of(
                name, folder, background_dir=str(backgrounds), output_dir=str(tmp_path / run), **settings,
                train={"max_steps": stop, "checkpoint_every": 3, "preview_every": 2, "ema_decay": 0.5, "batch_size": 2,
                       "checkpoints_total_limit": 5},
            )  # fmt: skip
            assert run_training(recipe, build_task) == 0
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    files = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.suffix in (".safetensors", ".wav")]
    expected = {"checkpoints", "export", "validation"} if "validation_prompt" in settings else {"checkpoints", "export"}
    assert {path.parts[0] for path in files} == expected
    for file in files:
        assert (whole / file).read_bytes() == (parts / file).read_bytes(), file


def test_mistakes_are_refused_before_any_training(audio_task_of, models, tmp_path):
    good = {"pretrained_model_name_or_path": "x", "instance_data_dir": "y", "method": "lora"}
    for change, message in (
        ({"method": "custom_diffusion"}, "method: 'custom_diffusion'"), ({"instance_data_dir": ""}, "missing"),
        ({"method": "textual_inversion"}, "learns a word"), ({"placeholder_token": WORD}, "learns no new word"),
        ({**TI, "train_text_encoder": True}, "use lora or dreambooth"), ({"seconds": 0.1}, "seconds is 0.1"),
        ({"crop": "middle"}, "random, chunks"), ({"num_clips": 0}, "num_clips is 0"),
        ({"method": "dreambooth", "lora_layers": ["to_q"]}, "has no LoRA"),
        ({**TI, "initializer": "mean"}, "leave it out, or use mean_word"),
        ({**TI, "instance_prompt": "music"}, "lacks the word"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            AudioRecipe(**{**good, **change})
    folder = write_clips(tmp_path / "clips", "guitar", class_name="guitar")
    with pytest.raises(ValueError, match="this is a StableDiffusionPipeline"):
        audio_task_of("audioldm", folder, method="lora", pretrained_model_name_or_path=str(models["sd1"]))
    with pytest.raises(ValueError, match="'Ġguitar' is already a token"):
        audio_task_of("audioldm", folder, **{**TI, "placeholder_token": "Ġguitar"})
    write_sound(folder / "silent.wav", torch.zeros(20_000).numpy())
    with pytest.raises(ValueError, match=r"silent\.wav: silent"):
        audio_task_of("audioldm", folder, method="lora")


def test_shipped_recipes_are_those_of_the_paper():
    folder = Path(__file__).resolve().parents[2] / "configs/personalize"
    found = {path.stem.removeprefix("audio_"): load_recipe(path) for path in sorted(folder.glob("audio_*.yaml"))}
    others = {"lora_stable_audio": 32, "dreambooth_audioldm2": 4}
    for name, batch_size in others.items():
        recipe = found.pop(name)
        assert recipe.train.batch_size * recipe.train.gradient_accumulation_steps == batch_size
        assert recipe.with_prior_preservation == (recipe.method == "dreambooth")
    assert set(found) == {"1ac", "3ac", "te", "mix", "mw"}
    assert all(recipe.task == "personalize_audio" and recipe.train.batch_size == 4 for recipe in found.values())
    assert (found["1ac"].num_clips, found["3ac"].num_clips, found["mw"].num_clips) == (1, 3, None)
    assert found["te"].train_text_encoder and found["mix"].snr_decibels == 20 and found["mix"].background_dir
    assert (found["mw"].initializer, found["1ac"].initializer) == ("mean_word", "mean")
